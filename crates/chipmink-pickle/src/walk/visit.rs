//! Visits: opening a pod, its roots, closing it; and taking a part of the walk back.

use super::builder::BuilderMark;
use super::frames::{At, Finished, Frame, FrameKind, Mark, Mode, Visit};
use super::place::{Sort, Split};
use super::session::{NONE, PodState, RootKey, address_key};
use super::shadow::{ShadowWriter, child, kind as word};
use super::walker::{Step, Stop, Walker};
use crate::py::Obj;
use chipmink_types::Digest;

/// Past this many objects compared in vain, beyond twice the objects walked, a walk gives up its shadows.
const WASTE_ALLOWANCE: u64 = 1 << 16;
/// Pods up to this many bytes are copied out of the buffer in which they grew: one exact allocation instead of a dozen.
const COPIED_LEN: usize = 64 << 10;

impl Walker<'_, '_> {
    /// Opens the one pod of a stream.
    pub(crate) fn open_single(&mut self) {
        let split = Split {
            pod: NONE,
            key: RootKey::Path(0),
            is_sibling: false,
            is_final: true,
            is_definition: false,
            rate: 0.0,
        };
        self.current = self.open(split, None);
    }

    pub(crate) fn open(&mut self, split: Split, mark: Option<Mark>) -> u32 {
        let pod = if split.pod != NONE {
            split.pod
        } else {
            self.session.pods.push(None);
            self.session.pods.len() as u32 - 1
        };
        let visit = self.visits.len() as u32;
        let depth = if self.current == NONE { 0 } else { self.visits[self.current as usize].depth + 1 };
        let give_up = self.wasted > 2 * self.stats.objects + WASTE_ALLOWANCE;
        let budget = (self.session.shadow_bytes + self.shadow_of(pod)).saturating_sub(self.shadow_bytes);
        let mut mode = None;
        let mut wants_shadow = false;
        if self.some_inactive
            && let Some(state) = self.session.pod(pod)
            && !state.is_definition
        {
            let component = state.component;
            if self.session.tracker.activate(component) {
                self.activated.push(component);
            }
        }
        if let Some(state) = self.session.pod_mut(pod) {
            state.visit = visit;
            // What a reducer makes anew lies elsewhere each time.
            let stays = matches!(split.key, RootKey::Address(..));
            if let Some(shadow) = &state.shadow
                && stays
                && !state.skip_shadow
                && !give_up
            {
                mode = Some(Mode::Shadow { shadow: shadow.clone(), position: 0 });
            }
            // Worth it from the second save on, unless the pod changes most of the time.
            wants_shadow =
                stays && !state.is_definition && (state.changes == 0 || 2 * state.changes <= state.saves);
        }
        let mode = mode.unwrap_or_else(|| {
            let mut builder = self.spare.pop().unwrap_or_default();
            if builder.buf.capacity() == 0 {
                builder.buf = self.buffers.pop().unwrap_or_default();
            }
            builder.reset();
            builder.rate = split.rate;
            builder.shadow = (wants_shadow && budget > 0 && !self.single).then(|| ShadowWriter::new(budget));
            Mode::Bytes(builder)
        });
        let parent = if self.current == NONE { NONE } else { self.current_pod() };
        self.visits.push(Visit {
            pod,
            mode,
            parent,
            below: self.current,
            is_sibling: split.is_sibling,
            is_definition: split.is_definition,
            is_opaque: false,
            is_shared: false,
            depth,
            is_final: split.is_final,
            met: 0,
            roots: Vec::new(),
            root_addrs: Vec::new(),
            root_slots: Vec::new(),
            made_inside: Vec::new(),
            intervals: Vec::new(),
            root_seq: self.session.memo.next_seq(),
            temporaries: 0,
            regions: Vec::new(),
            first: mark.map(Box::new),
            present: None,
        });
        visit
    }

    /// Bytes of the shadow that the pod has from earlier saves.
    fn shadow_of(&self, pod: u32) -> u64 {
        self.session.pod(pod).map_or(0, PodState::shadow_byte_len)
    }

    /// Begins a root of the pod of `visit` with `object`.
    pub(crate) fn enter_root(
        &mut self,
        object: Obj,
        sort: Sort,
        at: At,
        visit: u32,
        key: RootKey,
        emit: bool,
    ) -> Step {
        let previous = self.current;
        let entered = &mut self.visits[visit as usize];
        let ordinal = entered.met;
        entered.met += 1;
        let pod = entered.pod;
        self.stack.push(Frame::new(FrameKind::Root { visit, previous, emit, at }, NONE));
        self.current = visit;
        if let Mode::Shadow { .. } = &entered.mode {
            let expected = self.session.pod(pod).and_then(|state| state.roots.get(ordinal));
            if expected != Some(&key) {
                return Err(Stop::Miss(visit));
            }
            return self.check_record(object);
        }
        let slot = self.root_slot(object, visit, key);
        if let Some(caller) = self.visits.get(previous as usize)
            && let Mode::Shadow { shadow, position } = &caller.mode
            && let Some([call, expected]) = shadow.words().get(*position..*position + 2)
            && *call == super::shadow::header(word::CALL, pod)
            && *expected != u64::from(slot)
        {
            // The caller's bytes name another slot.
            return Err(Stop::Miss(previous));
        }
        let entered = &mut self.visits[visit as usize];
        entered.roots.push(key);
        entered.root_addrs.push(object.addr());
        entered.root_slots.push(slot);
        if let Mode::Bytes(builder) = &mut entered.mode {
            builder.roots += 1;
        }
        self.start(object, sort)?;
        // References from further inside must find the root's own slot.
        self.session.memo.offer(object.addr(), pod, slot);
        Ok(())
    }

    /// The export slot of a root: 0 for the first, lasting for the others.
    fn root_slot(&mut self, object: Obj, visit: u32, key: RootKey) -> u32 {
        let entered = &self.visits[visit as usize];
        let pod = entered.pod;
        // A root that comes to exist in another pod is in the memo there, so the memo cannot tell its slot.
        if let Some(state) = self.session.pod(pod)
            && state.roots.get(entered.roots.len()) == Some(&key)
            && let Some(slot) = state.root_slots.get(entered.roots.len())
            && self.session.export_lists.offers(pod, *slot, object.addr())
        {
            return *slot;
        }
        match self.session.memo.slot(object.addr(), pod) {
            Some(slot) if entered.is_sibling || slot == 0 => slot,
            _ if entered.roots.is_empty() && self.slot_is_free(pod, visit) => {
                let list = self.session.export_lists.of_mut(pod);
                list.slots.resize(list.slots.len().max(1), 0);
                let before = std::mem::replace(&mut list.slots[0], object.addr());
                list.has_new = true;
                if before != 0 && before != object.addr() {
                    self.session.memo.withdraw(before, pod, 0);
                }
                0
            }
            _ => self.new_export_slot(object, pod),
        }
    }

    /// Whether the first root may have slot 0: always, unless another live root of the sibling has it.
    fn slot_is_free(&self, pod: u32, visit: u32) -> bool {
        if !self.visits[visit as usize].is_sibling {
            return true;
        }
        let list = self.session.export_lists.of(pod);
        list.and_then(|list| list.slots.first()).is_none_or(|addr| *addr == 0)
    }

    /// A root of the pod of `visit` is complete.
    pub(crate) fn end_root(&mut self, visit: u32, previous: u32, emit: bool, at: At) -> Step {
        let next_seq = self.session.memo.next_seq();
        let ended = &mut self.visits[visit as usize];
        let pod = ended.pod;
        let slot = match &ended.mode {
            Mode::Shadow { .. } => self
                .session
                .pods
                .get(pod as usize)
                .and_then(Option::as_deref)
                .and_then(|state| state.root_slots.get(ended.met - 1))
                .copied(),
            _ => {
                // What exists only at its end (a tuple) could not be noted at its beginning.
                if let (Some(addr), Some(slot)) = (ended.root_addrs.last(), ended.root_slots.last()) {
                    self.session.memo.offer(*addr, pod, *slot);
                }
                ended.root_slots.last().copied()
            }
        };
        let slot = slot.unwrap_or(0);
        if ended.is_sibling {
            let start = ended.root_seq;
            match ended.intervals.last_mut() {
                Some(last) if last.1 == start => last.1 = next_seq,
                _ => ended.intervals.push((start, next_seq)),
            }
            if self.open_siblings.last() == Some(&visit) {
                self.open_siblings.pop();
            }
        } else {
            self.close(visit)?;
        }
        self.stack.pop();
        self.current = previous;
        if emit && previous != NONE {
            self.emit_root(pod, slot, at);
        }
        Ok(())
    }

    fn emit_root(&mut self, pod: u32, slot: u32, at: At) {
        if let Mode::Bytes(builder) = &mut self.visits[self.current as usize].mode {
            builder.export(pod, slot, at.run_depth);
            if at.word != NONE
                && let Some(shadow) = &mut builder.shadow
            {
                shadow.decide(at.word, child::CALL);
                shadow.push(super::shadow::header(word::CALL, pod));
                shadow.push(u64::from(slot));
            }
        }
    }

    /// Ends the pod of a visit.
    pub(crate) fn close(&mut self, visit: u32) -> Step {
        let closed = &mut self.visits[visit as usize];
        match &mut closed.mode {
            Mode::Shadow { shadow, position } => {
                let all_roots = self
                    .session
                    .pods
                    .get(closed.pod as usize)
                    .and_then(Option::as_deref)
                    .is_some_and(|state| state.roots.len() == closed.met);
                if *position != shadow.words().len() || !all_roots {
                    return Err(Stop::Miss(visit));
                }
                closed.mode = Mode::Proved;
                closed.first = None;
                closed.present = None;
                self.proved[closed.pod as usize] = visit;
                self.stats.pods_shadow += 1;
                self.stats.pods_clean += 1;
                Ok(())
            }
            Mode::Bytes(_) => self.close_written(visit),
            _ => Ok(()),
        }
    }

    fn close_written(&mut self, visit: u32) -> Step {
        let closed = &mut self.visits[visit as usize];
        let Mode::Bytes(mut builder) = std::mem::replace(&mut closed.mode, Mode::Proved) else {
            return Ok(());
        };
        builder.finish();
        let digest: Digest = chipmink_digest::digest(&builder.buf);
        let byte_len = builder.buf.len() as u64;
        let known = self.session.pods.get(closed.pod as usize).and_then(Option::as_deref);
        let is_clean = known.is_some_and(|state| state.record.digest == digest);
        // Pods that are open at the same time count on the same rest of the budget.
        let others = self.shadow_bytes - known.map_or(0, PodState::shadow_byte_len);
        if others + builder.shadow_byte_len() > self.session.shadow_bytes {
            builder.shadow = None;
        }
        self.shadow_bytes = others + builder.shadow_byte_len();
        let component = known.map(|state| state.component);
        if closed.is_definition
            && !is_clean
            && let Some(component) = component
            && self.some_inactive
            && self.session.tracker.activate(component)
        {
            // Everything that uses the definition must use the changed one.
            self.activated.push(component);
        }
        // The tables stay until the walk ends; bytes that are not needed must not.
        let buffer = if self.single { Vec::new() } else { std::mem::take(&mut builder.buf) };
        closed.mode = Mode::Written(Box::new(Finished { digest, byte_len, tables: builder }));
        closed.first = None;
        closed.present = None;
        if is_clean || self.single {
            self.stats.pods_clean += 1;
            self.recycle(buffer);
            return Ok(());
        }
        self.stats.pods_dirty += 1;
        if buffer.len() > COPIED_LEN {
            self.enqueue(visit as usize, digest, buffer);
            return Ok(());
        }
        let bytes = buffer.as_slice().to_vec();
        self.recycle(buffer);
        self.enqueue(visit as usize, digest, bytes);
        Ok(())
    }

    /// The walk as it is now, before `object` begins a pod or the next root of the open sibling `own`.
    pub(crate) fn mark(&self, object: Obj, at: At, is_temporary: bool, own: u32) -> Mark {
        let state_of = |visit: u32| match self.visits.get(visit as usize) {
            None => (BuilderMark::default(), 0, 0, 0),
            Some(visit) => {
                let (mark, position) = match &visit.mode {
                    Mode::Bytes(builder) => (builder.mark(), 0),
                    Mode::Shadow { position, .. } => (BuilderMark::default(), *position),
                    _ => (BuilderMark::default(), 0),
                };
                (mark, position, visit.met, visit.temporaries)
            }
        };
        let (current_builder, current_position, _, current_temporaries) = state_of(self.current);
        let (own_builder, own_position, own_roots, own_temporaries) = state_of(own);
        Mark {
            object,
            at,
            is_temporary,
            stack: self.stack.len(),
            top: self.stack.last().copied(),
            seq: self.session.memo.next_seq(),
            visits: self.visits.len(),
            current: self.current,
            current_builder,
            current_position,
            current_temporaries,
            reductions: self.reductions.len(),
            sequences: self.sequences.len(),
            open_siblings: self.open_siblings.len(),
            memory: self.memory.mark(),
            own_builder,
            own_position,
            own_roots,
            own_temporaries,
        }
    }

    /// A mark from which a variable's walk can be undone.
    pub(crate) fn variable_mark(&self, object: Obj) -> Mark {
        self.mark(object, At::NOWHERE, false, NONE)
    }

    /// Puts the walk back to where it was.
    pub(crate) fn roll_back(&mut self, mark: &Mark) {
        self.stack.truncate(mark.stack);
        if let (Some(top), Some(saved)) = (self.stack.last_mut(), mark.top) {
            *top = saved;
        }
        self.reductions.truncate(mark.reductions);
        self.sequences.truncate(mark.sequences);
        self.open_siblings.truncate(mark.open_siblings);
        self.wasted += u64::from(self.session.memo.next_seq() - mark.seq);
        self.memory.roll_back(&mark.memory);
        for gone in self.visits.drain(mark.visits..) {
            if let Mode::Written(finished) = &gone.mode {
                let before = self.session.pods.get(gone.pod as usize).and_then(Option::as_deref);
                self.shadow_bytes += before.map_or(0, PodState::shadow_byte_len);
                self.shadow_bytes -= finished.tables.shadow_byte_len();
            }
            match self.session.pods.get_mut(gone.pod as usize).and_then(Option::as_deref_mut) {
                Some(state) => {
                    state.visit = NONE;
                    if let Some(proved) = self.proved.get_mut(gone.pod as usize) {
                        *proved = NONE;
                    }
                }
                None => self.session.export_lists.remove(gone.pod),
            }
            if let Mode::Bytes(builder) = gone.mode {
                self.spare.push(builder);
            }
        }
        // After that, so that nothing keeps a slot of a pod that is no more.
        let lists = &self.session.export_lists;
        self.session.memo.roll_back(mark.seq, |pod, slot, addr| lists.offers(pod, slot, addr));
        self.queue.retain(|queued| queued.visit < mark.visits);
        self.queued_bytes = self.queue.iter().map(|queued| queued.bytes.len()).sum();
        self.current = mark.current;
        if mark.current != NONE {
            self.restore(
                mark.current,
                &mark.current_builder,
                mark.current_position,
                mark.current_temporaries,
            );
        }
    }

    fn restore(&mut self, visit: u32, builder_mark: &BuilderMark, to: usize, temporaries: u64) {
        let visit = &mut self.visits[visit as usize];
        visit.temporaries = temporaries;
        match &mut visit.mode {
            Mode::Bytes(builder) => builder.roll_back(builder_mark),
            Mode::Shadow { position, .. } => *position = to,
            _ => {}
        }
    }

    /// The pod of `visit` is not as its shadow says: goes back to before it and produces its bytes.
    pub(crate) fn produce_instead(&mut self, visit: u32) -> Step {
        let mut visit = visit;
        loop {
            let missed = &mut self.visits[visit as usize];
            let pod = missed.pod;
            let Some(mark) = missed.first.take() else {
                unreachable!("a pod that is compared with its shadow keeps the state before it");
            };
            if let Some(state) = self.session.pod_mut(pod) {
                state.skip_shadow = true;
            }
            self.roll_back(&mark);
            match self.redo(&mark, false) {
                Err(Stop::Miss(next)) => visit = next,
                Err(Stop::Break(sibling)) => return self.split_sibling(sibling),
                done => return done,
            }
        }
    }

    /// The present root of the open sibling cannot stay in it: goes back to before it and begins a new sibling.
    pub(crate) fn split_sibling(&mut self, visit: u32) -> Step {
        let broken = &mut self.visits[visit as usize];
        if matches!(broken.mode, Mode::Shadow { .. }) {
            return self.produce_instead(visit);
        }
        let Some(mark) = broken.present.take() else {
            unreachable!("a later root of a sibling keeps the state before it");
        };
        self.roll_back(&mark);
        let broken = &mut self.visits[visit as usize];
        broken.met = mark.own_roots;
        broken.roots.truncate(mark.own_roots);
        broken.root_addrs.truncate(mark.own_roots);
        broken.root_slots.truncate(mark.own_roots);
        broken.made_inside.retain(|root| (*root as usize) < mark.own_roots);
        self.restore(visit, &mark.own_builder, mark.own_position, mark.own_temporaries);
        self.close(visit)?;
        if let Some(top) = self.stack.last_mut() {
            top.sibling = NONE;
        }
        match self.redo(&mark, true) {
            Err(Stop::Miss(next)) => self.produce_instead(next),
            done => done,
        }
    }

    /// Begins again the value before which the mark was made.
    fn redo(&mut self, mark: &Mark, new_sibling: bool) -> Step {
        if self.current == NONE {
            let sort = self.sort(mark.object);
            let split = self.variable_split(mark.object, sort);
            return self.split(mark.object, sort, mark.at, mark.is_temporary, split, false);
        }
        match self.visits[self.current as usize].mode {
            Mode::Shadow { .. } => self.check_call(mark.object, new_sibling),
            _ => match self.stack.last().map(|frame| frame.kind) {
                // A class visited for its shape, not for its value.
                Some(FrameKind::Instance { .. }) => self.visit_class(mark.object),
                _ => self.begin_new(mark.object, mark.at, mark.is_temporary, new_sibling),
            },
        }
    }

    /// A pod called from a pod that is compared with its shadow.
    pub(crate) fn call(&mut self, object: Obj, pod: u32, new_sibling: bool, emit_nothing: At) -> Step {
        let sort = self.sort(object);
        let Some(state) = self.session.pod(pod) else { return Err(Stop::Miss(self.current)) };
        let key = address_key(object);
        let key = (self.session.roots.get(&key) == Some(&pod)).then_some(key);
        let (is_sibling, is_definition, is_final) = (state.is_sibling, state.is_definition, state.is_final);
        let joins = is_sibling && self.sibling_pod() == pod;
        let (Some(key), false, true) = (key, new_sibling, state.visit == NONE || joins) else {
            return Err(Stop::Miss(self.current));
        };
        let split = Split { pod, key, is_sibling, is_final, is_definition, rate: 0.0 };
        self.split(object, sort, emit_nothing, false, split, false)
    }

    /// The sibling that is open in the topmost frame, if it is the pod and is compared with its shadow.
    #[inline(always)]
    pub(crate) fn proving_sibling(&self, pod: u32) -> Option<u32> {
        let open = self.stack.last()?.sibling;
        let visit = self.visits.get(open as usize)?;
        (visit.pod == pod && matches!(visit.mode, Mode::Shadow { .. })).then_some(open)
    }

    /// The next root of a sibling that is being proved unchanged.
    #[inline]
    pub(crate) fn prove_next_root(&mut self, object: Obj, visit: u32, slot: u32) -> Step {
        let entered = &mut self.visits[visit as usize];
        let ordinal = entered.met;
        let state = self.session.pods.get(entered.pod as usize).and_then(Option::as_deref);
        let is_expected = state.is_some_and(|state| {
            state.roots.get(ordinal) == Some(&address_key(object))
                && state.root_slots.get(ordinal) == Some(&slot)
        });
        if !is_expected {
            return Err(Stop::Miss(visit));
        }
        entered.met += 1;
        entered.root_seq = self.session.memo.next_seq();
        self.open_siblings.push(visit);
        let previous = self.current;
        let kind = FrameKind::Root { visit, previous, emit: false, at: At::NOWHERE };
        self.stack.push(Frame::new(kind, NONE));
        self.current = visit;
        self.check_record(object)
    }
}
