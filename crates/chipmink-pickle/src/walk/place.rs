//! Where an object goes: into the current pod, into a pod of its own, or into an open sibling pod; and going back.

use super::builder::{Builder, BuilderMark};
use super::frames::{At, Finished, Frame, FrameKind, Mark, Mode, Visit};
use super::kinds::Kind;
use super::session::{NONE, RootKey, address_key};
use super::shadow::{ShadowWriter, child, kind as word};
use super::walker::{Step, Stop, Walker};
use crate::py::Obj;
use chipmink_podding::{Candidate, Decision, History, ObjectKind, OpenPod};
use chipmink_types::Digest;

/// Past this many objects compared in vain, beyond twice the objects walked, a walk gives up its shadows.
const WASTE_ALLOWANCE: u64 = 1 << 16;

/// Bytes of a container's tag and count, and of a child, in the stream; measured on mixed data.
const HEAD_BYTES: usize = 3;
const CHILD_BYTES: usize = 6;

/// What an object is, as far as the walk treats it differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sort {
    List,
    Tuple,
    Dict,
    Set,
    FrozenSet,
    ByteArray,
    /// An exact immutable atom.
    Atom,
    Other(Kind),
}

/// How a split was decided.
#[derive(Clone, Copy)]
struct Split {
    /// The pod if it is known from an earlier save, else [`NONE`].
    pod: u32,
    key: RootKey,
    is_sibling: bool,
    is_final: bool,
    is_definition: bool,
    /// Volatility of the root, where it is known.
    rate: f32,
}

impl Walker<'_, '_> {
    #[inline(always)]
    pub(crate) fn sort(&mut self, object: Obj) -> Sort {
        if object.is_list() {
            Sort::List
        } else if object.is_dict() {
            Sort::Dict
        } else if object.is_tuple() {
            Sort::Tuple
        } else if object.is_set() {
            Sort::Set
        } else if object.is_frozenset() {
            Sort::FrozenSet
        } else if object.is_bytearray() {
            Sort::ByteArray
        } else if object.is_atom() {
            Sort::Atom
        } else {
            Sort::Other(self.session.kinds.of(self.py, object))
        }
    }

    /// Writes a value: an atom, a reference, or the beginning of a container.
    #[inline]
    pub(crate) fn value(&mut self, object: Obj, at: At) -> Step {
        self.stats.objects += 1;
        if object.is_atom() {
            if self.builder().atom(object) {
                return self.large_atom_word(object, at);
            }
            return self.large_atom(object, at);
        }
        self.begin(object, at)
    }

    /// Writes a value that is no atom.
    pub(crate) fn begin(&mut self, object: Obj, at: At) -> Step {
        if super::shadow::is_singleton(object) {
            self.singleton(object);
            return Ok(());
        }
        if let Some(entry) = self.session.memo.get(object.addr()) {
            return self.reference(object, entry.pod, entry.number, entry.seq, at);
        }
        let is_temporary =
            object.refcount() == 1 && self.stack.last().is_some_and(|frame| frame.is_temporary);
        self.begin_new(object, at, is_temporary, false)
    }

    /// As [`Walker::begin`], of an object that the walk has not met.
    fn begin_new(&mut self, object: Obj, at: At, is_temporary: bool, new_sibling: bool) -> Step {
        let sort = self.sort(object);
        if let Sort::Other(kind) = sort {
            match kind {
                Kind::Class | Kind::Function => {
                    if let Some(id) = self.global_of(object)? {
                        self.write_global(id, at);
                        return Ok(());
                    }
                    if !self.single {
                        let split = self.definition_split(object);
                        return self.split(object, sort, at, is_temporary, split, true);
                    }
                }
                Kind::NamespaceMarker => {
                    self.no_shadow();
                    self.builder().byte(chipmink_format::tag::NAMESPACE);
                    return Ok(());
                }
                Kind::SideMarker => return self.side_marker(object),
                Kind::Dtype => {
                    self.place_here(at);
                    return self.start_dtype(object);
                }
                _ => {}
            }
        }
        match self.decide(object, sort, is_temporary, new_sibling)? {
            Some(split) => self.split(object, sort, at, is_temporary, split, true),
            None => {
                self.place_here(at);
                self.is_temporary = is_temporary;
                self.start(object, sort)
            }
        }
    }

    /// In the shadow under construction: the value's record follows, in this pod.
    #[inline(always)]
    fn place_here(&mut self, at: At) {
        if at.word != NONE
            && let Some(shadow) = &mut self.builder().shadow
        {
            shadow.decide(at.word, child::FIRST);
        }
    }

    fn singleton(&mut self, object: Obj) {
        use chipmink_format::tag;
        let tag = if object.is_ellipsis() {
            tag::ELLIPSIS
        } else if object.is_not_implemented() {
            tag::NOT_IMPLEMENTED
        } else {
            tag::EMPTY_TUPLE
        };
        self.builder().byte(tag);
    }

    /// Writes a reference to an object created before.
    pub(crate) fn reference(&mut self, object: Obj, pod: u32, number: u32, seq: u32, at: At) -> Step {
        self.guard_siblings(seq)?;
        let here = pod == self.current_pod();
        let place = if here { number } else { self.export_slot(object, pod) };
        let builder = self.builder();
        if here {
            builder.reference(number);
        } else {
            builder.export(pod, place, at.run_depth);
        }
        if at.word != NONE
            && let Some(shadow) = &mut builder.shadow
        {
            shadow.decide(at.word, child::REFERENCE);
            shadow.push(super::shadow::header(word::REFERENCE, pod));
            shadow.push(u64::from(place));
        }
        Ok(())
    }

    /// A later root of a sibling may refer only to what existed before its first root, or to what its own roots made:
    /// the loader runs the sibling as a whole at its first root.
    #[inline(always)]
    pub(crate) fn guard_siblings(&self, seq: u32) -> Step {
        for visit in &self.open_siblings {
            let sibling = &self.visits[*visit as usize];
            let inside = |(start, end): &(u32, u32)| *start <= seq && seq < *end;
            if let Some((first, _)) = sibling.intervals.first()
                && *first <= seq
                && seq < sibling.root_seq
                && !sibling.intervals.iter().rev().any(inside)
            {
                return Err(Stop::Break(*visit));
            }
        }
        Ok(())
    }

    /// The slot under which `pod` offers `object`, given out if it has none.
    pub(crate) fn export_slot(&mut self, object: Obj, pod: u32) -> u32 {
        let addr = object.addr();
        if let Some((known, slot)) = self.session.exports.get(&addr)
            && *known == pod
        {
            return *slot;
        }
        let list = self.session.export_lists.entry(pod).or_default();
        // Slot 0 is the first root's.
        let slot = match list.slots.iter().skip(1).position(|taken| *taken == 0) {
            Some(free) => free + 1,
            None => {
                list.slots.resize(list.slots.len().max(1), 0);
                list.slots.push(0);
                list.slots.len() - 1
            }
        };
        list.slots[slot] = addr;
        list.has_new = true;
        self.session.exports.insert(addr, (pod, slot as u32));
        slot as u32
    }

    fn definition_split(&mut self, object: Obj) -> Split {
        let key = address_key(object);
        let pod = self.free_known_pod(key);
        Split { pod, key, is_sibling: false, is_final: true, is_definition: true, rate: 0.0 }
    }

    /// The pod that had this root in the last save, unless it was visited already.
    fn free_known_pod(&self, key: RootKey) -> u32 {
        match self.session.roots.get(&key) {
            Some(pod) if self.session.pod(*pod).is_some_and(|state| state.visit == NONE) => *pod,
            _ => NONE,
        }
    }

    /// Whether the object leaves the current pod.
    fn decide(
        &mut self,
        object: Obj,
        sort: Sort,
        is_temporary: bool,
        new_sibling: bool,
    ) -> Step<Option<Split>> {
        let visit = &mut self.visits[self.current as usize];
        if self.single || visit.is_final {
            return Ok(None);
        }
        let key = if is_temporary {
            RootKey::Path(path_key(visit.pod, visit.children))
        } else {
            address_key(object)
        };
        // A pod of the last save stays a pod, as long as its root lives.
        if let Some(pod) = self.session.roots.get(&key).copied()
            && let Some(state) = self.session.pod(pod)
        {
            let joins = state.is_sibling && self.sibling_pod() == pod;
            if (state.visit == NONE || joins) && !new_sibling {
                let (is_sibling, is_final) = (state.is_sibling, state.is_final);
                return Ok(Some(Split { pod, key, is_sibling, is_final, is_definition: false, rate: 0.0 }));
            }
        }
        let candidate = self.candidate(object, sort);
        self.decisions += 1;
        let visit = &self.visits[self.current as usize];
        let (byte_len, rate) = match &visit.mode {
            Mode::Bytes(builder) => (builder.buf.len() as u64, builder.rate),
            _ => (0, 0.0),
        };
        let open = OpenPod { byte_len, rate, depth: visit.depth };
        let sibling = self.open_sibling();
        let decision = self.session.policy.decide(&candidate, &open, sibling.as_ref());
        let split = |is_sibling: bool, is_final: bool, pod: u32| {
            Some(Split { pod, key, is_sibling, is_final, is_definition: false, rate: candidate.volatility })
        };
        Ok(match decision {
            Decision::SplitContinue => split(false, false, NONE),
            Decision::SplitFinal => split(false, true, NONE),
            // What a reducer makes anew each time has no lasting place among siblings.
            Decision::JoinSibling | Decision::NewSibling if is_temporary => {
                if candidate.byte_len > chipmink_podding::POD_COST as u64 {
                    split(false, false, NONE)
                } else {
                    self.builder().rate += candidate.volatility;
                    None
                }
            }
            Decision::JoinSibling if !new_sibling && sibling.is_some() => {
                split(true, false, self.sibling_pod())
            }
            Decision::JoinSibling | Decision::NewSibling => split(true, false, NONE),
            Decision::Bundle if new_sibling => split(true, false, NONE),
            Decision::Bundle => {
                self.builder().rate += candidate.volatility;
                None
            }
        })
    }

    /// The pod of the sibling that is open in the topmost frame, or [`NONE`].
    fn sibling_pod(&self) -> u32 {
        match self.stack.last() {
            Some(frame) if frame.sibling != NONE => self.visits[frame.sibling as usize].pod,
            _ => NONE,
        }
    }

    fn open_sibling(&self) -> Option<OpenPod> {
        let frame = self.stack.last()?;
        if frame.sibling == NONE {
            return None;
        }
        let visit = &self.visits[frame.sibling as usize];
        match &visit.mode {
            Mode::Bytes(builder) => {
                Some(OpenPod { byte_len: builder.buf.len() as u64, rate: builder.rate, depth: visit.depth })
            }
            // A sibling that is being proved unchanged takes in nothing new.
            _ => None,
        }
    }

    fn candidate(&mut self, object: Obj, sort: Sort) -> Candidate {
        // Bytes that the object itself takes in the stream: a head, and a few for each child.
        let sequence = |len: usize| (HEAD_BYTES + CHILD_BYTES * len, len);
        let (kind, (byte_len, len)) = match sort {
            Sort::List => (ObjectKind::List, sequence(object.list_len())),
            Sort::Tuple => (ObjectKind::Tuple, sequence(object.tuple_len())),
            Sort::Dict => (ObjectKind::Dict, (sequence(2 * object.dict_len()).0, object.dict_len())),
            Sort::Set => (ObjectKind::Set, sequence(object.set_len())),
            Sort::FrozenSet => (ObjectKind::FrozenSet, sequence(object.set_len())),
            Sort::ByteArray => {
                let len = object.bytearray_slice().len();
                (ObjectKind::ByteArray, (HEAD_BYTES + len, len))
            }
            Sort::Atom => (ObjectKind::Other, (HEAD_BYTES, 0)),
            Sort::Other(Kind::NdArray) => {
                let (bytes, items) = super::arrays::extent(object);
                (ObjectKind::Array, (40 + bytes, items))
            }
            Sort::Other(Kind::Plain) => (ObjectKind::Instance, (HEAD_BYTES, 0)),
            Sort::Other(_) => (ObjectKind::Reduced, (64, 0)),
        };
        let dict_len = match sort {
            Sort::Other(Kind::Plain) => object.instance_dict().map_or(0, Obj::dict_len) as u64,
            _ => 0,
        };
        let mut candidate = Candidate {
            ordinal: self.decisions,
            kind,
            byte_len: byte_len as u64 + CHILD_BYTES as u64 * dict_len,
            len: len as u64,
            dict_len,
            peers: self.stack.last().map_or(1, |frame| frame.peers()),
            volatility: 0.0,
        };
        let history = self.session.roots.get(&address_key(object)).and_then(|pod| self.session.pod(*pod));
        let history = history.map(|state| History { saves: state.saves, changes: state.changes });
        candidate.volatility = self.session.volatility.rate(&candidate, history);
        candidate
    }

    /// Lets a new pod, or the next root of a sibling, begin with `object`.
    fn split(
        &mut self,
        object: Obj,
        sort: Sort,
        at: At,
        is_temporary: bool,
        split: Split,
        emit: bool,
    ) -> Step {
        self.is_temporary = is_temporary;
        let top = self.stack.len().wrapping_sub(1);
        let open = self.stack.last().map_or(NONE, |frame| frame.sibling);
        if split.is_sibling && open != NONE && self.visits[open as usize].pod == split.pod {
            // A pod that is compared with its shadow goes back to its beginning, if it must.
            let is_written = matches!(self.visits[open as usize].mode, Mode::Bytes(_));
            let mark = is_written.then(|| self.mark(object, at, is_temporary, open));
            let visit = &mut self.visits[open as usize];
            visit.present = mark;
            visit.root_seq = self.session.memo.next_seq();
            self.open_siblings.push(open);
            if let Mode::Bytes(builder) = &mut visit.mode {
                builder.rate += split.rate;
            }
            return self.enter_root(object, sort, at, open, split.key, emit);
        }
        if split.is_sibling && open != NONE {
            self.close(open)?;
            self.stack[top].sibling = NONE;
        }
        let mark = self.mark(object, at, is_temporary, NONE);
        if self.current != NONE {
            self.visits[self.current as usize].children += 1;
        }
        let visit = self.open(split, Some(mark));
        if split.is_sibling {
            self.stack[top].sibling = visit;
        }
        self.enter_root(object, sort, at, visit, split.key, emit)
    }

    /// Visits a by-value class whose shape is about to be used; nothing is written for it in the current pod.
    pub(crate) fn visit_class(&mut self, class: Obj) -> Step {
        let split = self.definition_split(class);
        self.split(class, Sort::Other(Kind::Class), At::NOWHERE, false, split, false)
    }

    /// Begins a variable's object, which the walk has not met, as a pod's root.
    pub(crate) fn begin_variable(&mut self, object: Obj) -> Step<u32> {
        let sort = self.sort(object);
        let is_definition = matches!(sort, Sort::Other(Kind::Class | Kind::Function));
        let key = address_key(object);
        let pod = match self.free_known_pod(key) {
            // A sibling's root that became a variable leaves the sibling.
            pod if pod != NONE && self.session.pod(pod).is_some_and(|state| state.is_sibling) => NONE,
            pod => pod,
        };
        let split = Split {
            pod,
            key,
            is_sibling: false,
            is_final: self.single || is_definition,
            is_definition,
            rate: 0.0,
        };
        let pod = split.pod;
        let visit = self.visits.len();
        match self.split(object, sort, At::NOWHERE, false, split, false) {
            Ok(()) => {}
            Err(Stop::Miss(miss)) => self.produce_instead(miss)?,
            Err(stop) => return Err(stop),
        }
        self.run()?;
        debug_assert!(pod == NONE || self.visits[visit].pod == pod);
        Ok(self.visits[visit].pod)
    }

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

    fn open(&mut self, split: Split, mark: Option<Mark>) -> u32 {
        let pod = if split.pod != NONE {
            split.pod
        } else {
            self.session.pods.push(None);
            self.session.pods.len() as u32 - 1
        };
        let visit = self.visits.len() as u32;
        let depth = if self.current == NONE { 0 } else { self.visits[self.current as usize].depth + 1 };
        let give_up = self.wasted > 2 * self.stats.objects + WASTE_ALLOWANCE;
        let budget_left = self.shadow_bytes < self.session.shadow_bytes;
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
            if let Some(shadow) = &state.shadow
                && !state.skip_shadow
                && !give_up
            {
                mode = Some(Mode::Shadow { shadow: shadow.clone(), position: 0 });
            }
            // Worth it from the second save on, unless the pod changes most of the time.
            wants_shadow = !state.is_definition && (state.changes == 0 || 2 * state.changes <= state.saves);
        }
        let mode = mode.unwrap_or_else(|| {
            let mut builder = self.spare.pop().unwrap_or_default();
            builder.reset();
            builder.rate = split.rate;
            builder.shadow = (wants_shadow && budget_left && !self.single).then(ShadowWriter::default);
            Mode::Bytes(builder)
        });
        self.visits.push(Visit {
            pod,
            mode,
            is_sibling: split.is_sibling,
            is_definition: split.is_definition,
            is_opaque: false,
            depth,
            is_final: split.is_final,
            met: 0,
            roots: Vec::new(),
            root_addrs: Vec::new(),
            root_slots: Vec::new(),
            made_inside: Vec::new(),
            intervals: Vec::new(),
            root_seq: self.session.memo.next_seq(),
            children: 0,
            first: mark.map(Box::new),
            present: None,
        });
        visit
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
        let slot = self.root_slot(object, visit);
        let entered = &mut self.visits[visit as usize];
        entered.roots.push(key);
        entered.root_addrs.push(object.addr());
        entered.root_slots.push(slot);
        if let Mode::Bytes(builder) = &mut entered.mode {
            builder.roots += 1;
        }
        self.start(object, sort)
    }

    /// The export slot of a root: 0 for the first, lasting for the others.
    fn root_slot(&mut self, object: Obj, visit: u32) -> u32 {
        let entered = &self.visits[visit as usize];
        let pod = entered.pod;
        let known = self.session.exports.get(&object.addr()).filter(|(owner, _)| *owner == pod);
        match known {
            Some((_, slot)) if entered.is_sibling || *slot == 0 => *slot,
            _ if entered.roots.is_empty() && self.slot_is_free(pod, visit) => {
                let list = self.session.export_lists.entry(pod).or_default();
                list.slots.resize(list.slots.len().max(1), 0);
                let before = std::mem::replace(&mut list.slots[0], object.addr());
                list.has_new = true;
                if self.session.exports.get(&before) == Some(&(pod, 0)) {
                    self.session.exports.remove(&before);
                }
                self.session.exports.insert(object.addr(), (pod, 0));
                0
            }
            _ => self.export_slot(object, pod),
        }
    }

    /// Whether the first root may have slot 0: always, unless another live root of the sibling has it.
    fn slot_is_free(&self, pod: u32, visit: u32) -> bool {
        if !self.visits[visit as usize].is_sibling {
            return true;
        }
        self.session
            .export_lists
            .get(&pod)
            .is_none_or(|list| list.slots.first().is_none_or(|addr| *addr == 0))
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
            _ => ended.root_slots.last().copied(),
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
                self.shadow_bytes += shadow.byte_len() as u64;
                closed.mode = Mode::Proved;
                closed.first = None;
                closed.present = None;
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
        if let Some(shadow) = &builder.shadow {
            self.shadow_bytes += 8 * shadow.len() as u64;
        }
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
        let bytes = if is_clean || self.single { None } else { Some(std::mem::take(&mut builder.buf)) };
        closed.mode = Mode::Written(Box::new(Finished { digest, byte_len, tables: builder }));
        closed.first = None;
        closed.present = None;
        match bytes {
            None => {
                self.stats.pods_clean += 1;
                Ok(())
            }
            Some(bytes) => {
                self.stats.pods_dirty += 1;
                self.enqueue(visit as usize, digest, bytes)
            }
        }
    }

    /// The walk as it is now, before `object` begins a pod or the next root of the open sibling `own`.
    fn mark(&self, object: Obj, at: At, is_temporary: bool, own: u32) -> Mark {
        let state_of = |visit: u32| match self.visits.get(visit as usize) {
            None => (BuilderMark::default(), 0, 0, 0),
            Some(visit) => {
                let (mark, position) = match &visit.mode {
                    Mode::Bytes(builder) => (builder.mark(), 0),
                    Mode::Shadow { position, .. } => (BuilderMark::default(), *position),
                    _ => (BuilderMark::default(), 0),
                };
                (mark, position, visit.met, visit.children)
            }
        };
        let (current_builder, current_position, _, current_children) = state_of(self.current);
        let (own_builder, own_position, own_roots, own_children) = state_of(own);
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
            current_children,
            reductions: self.reductions.len(),
            sequences: self.sequences.len(),
            open_siblings: self.open_siblings.len(),
            own_builder,
            own_position,
            own_roots,
            own_children,
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
        self.session.memo.roll_back(mark.seq);
        for gone in self.visits.drain(mark.visits..) {
            if let Some(state) = self.session.pods.get_mut(gone.pod as usize).and_then(Option::as_deref_mut) {
                state.visit = NONE;
            }
            if let Mode::Bytes(builder) = gone.mode {
                self.spare.push(builder);
            }
        }
        self.queue.retain(|queued| queued.visit < mark.visits);
        self.queued_bytes = self.queue.iter().map(|queued| queued.bytes.len()).sum();
        self.current = mark.current;
        if mark.current != NONE {
            self.restore(mark.current, &mark.current_builder, mark.current_position, mark.current_children);
        }
    }

    fn restore(&mut self, visit: u32, builder_mark: &BuilderMark, to: usize, children: u64) {
        let visit = &mut self.visits[visit as usize];
        visit.children = children;
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
        self.restore(visit, &mark.own_builder, mark.own_position, mark.own_children);
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
            let key = address_key(mark.object);
            let is_definition = matches!(sort, Sort::Other(Kind::Class | Kind::Function));
            let pod = self.free_known_pod(key);
            let split =
                Split { pod, key, is_sibling: false, is_final: is_definition, is_definition, rate: 0.0 };
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

    /// The current pod holds something that a shadow cannot see into.
    #[inline(always)]
    pub(crate) fn no_shadow(&mut self) {
        let builder: &mut Builder = self.builder();
        if builder.shadow.is_some() {
            builder.shadow = None;
        }
    }
}

/// Names a child that a reducer makes anew at each save, by its place among the children of its parent.
fn path_key(parent: u32, ordinal: u64) -> u64 {
    (u64::from(parent) << 32 ^ ordinal).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
