//! Where an object goes: into the current pod, into a pod of its own, or into an open sibling pod; and going back.

use super::builder::Builder;
use super::frames::{At, Mode};
use super::kinds::Kind;
use super::memo::Entry;
use super::session::{NONE, RootKey, address_key};
use super::shadow::{child, kind as word};
use super::walker::{Step, Stop, Walker};
use crate::py::Obj;
use chipmink_podding::{Candidate, Decision, History, ObjectKind, OpenPod};

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
pub(crate) struct Split {
    /// The pod if it is known from an earlier save, else [`NONE`].
    pub pod: u32,
    pub key: RootKey,
    pub is_sibling: bool,
    pub is_final: bool,
    pub is_definition: bool,
    /// Volatility of the root, where it is known.
    pub rate: f32,
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
            return self.reference(object, entry, at);
        }
        let is_handed_out = self.stack.last().is_some_and(|frame| frame.is_temporary);
        let is_temporary = is_handed_out && object.refcount() == 1;
        if is_handed_out && !is_temporary && self.held {
            object.incref();
            self.doubtful.push(object);
        }
        self.begin_new(object, at, is_temporary, false)
    }

    /// As [`Walker::begin`], of an object that the walk has not met.
    pub(crate) fn begin_new(&mut self, object: Obj, at: At, is_temporary: bool, new_sibling: bool) -> Step {
        let sort = self.sort(object);
        if sort == Sort::Dict
            && let Some(id) = self.builtins_name(object)
        {
            self.write_global(id, at);
            return Ok(());
        }
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
                Kind::NumpyScalar => {
                    self.place_here(at);
                    self.is_temporary = is_temporary;
                    return self.numpy_scalar(object);
                }
                Kind::SharedBytes => return self.shared_bytes(object),
                Kind::DeviceBytes => return self.device_bytes(object),
                Kind::Dtype => {
                    self.place_here(at);
                    return self.start_dtype(object);
                }
                Kind::Value => {
                    self.place_here(at);
                    self.is_temporary = is_temporary;
                    return self.start_value(object);
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
    pub(crate) fn reference(&mut self, object: Obj, entry: Entry, at: At) -> Step {
        let Entry { pod, number, seq, slot, .. } = entry;
        self.guard_siblings(seq)?;
        let here = pod == self.current_pod();
        let place = match (here, slot) {
            (true, _) => number,
            (false, NONE) => self.new_export_slot(object, pod),
            (false, slot) => slot,
        };
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
        match self.session.memo.slot(addr, pod) {
            Some(slot) => slot,
            None => self.new_export_slot(object, pod),
        }
    }

    /// As [`Walker::export_slot`], of an object that has none in that pod.
    pub(crate) fn new_export_slot(&mut self, object: Obj, pod: u32) -> u32 {
        let slot = self.session.export_lists.of_mut(pod).take_vacant(object.addr()) as u32;
        self.session.memo.offer(object.addr(), pod, slot);
        slot
    }

    fn definition_split(&mut self, object: Obj) -> Split {
        let key = match self.begun(object) {
            0 => address_key(object),
            // It is begun once more before it exists, by what its constructor takes; the next save will do the same.
            again => RootKey::Path(path_key(again, object.addr() as u64)),
        };
        let pod = self.free_known_pod(key);
        Split { pod, key, is_sibling: false, is_final: true, is_definition: true, rate: 0.0 }
    }

    /// In how many visits that are not done an object is the present root.
    fn begun(&self, object: Obj) -> u32 {
        let mut count = 0;
        let mut at = self.current;
        while let Some(visit) = self.visits.get(at as usize) {
            count += u32::from(visit.root_addrs.last() == Some(&object.addr()));
            at = visit.below;
        }
        count
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
            visit.temporaries += 1;
            RootKey::Path(path_key(visit.pod, visit.temporaries))
        } else {
            address_key(object)
        };
        // Counted always, so that a policy that goes by it says the same of the same graph.
        self.decisions += 1;
        // A pod of the last save stays a pod, as long as its root lives.
        if let Some(pod) = self.session.roots.get(&key).copied()
            && let Some(state) = self.session.pod(pod)
        {
            let joins = state.is_sibling && self.sibling_pod() == pod;
            // A dead object's address means nothing, so the pod must hang where it hung.
            let is_same = state.parent == self.current_pod();
            if (state.visit == NONE || joins) && is_same && !new_sibling {
                let (is_sibling, is_final) = (state.is_sibling, state.is_final);
                return Ok(Some(Split { pod, key, is_sibling, is_final, is_definition: false, rate: 0.0 }));
            }
        }
        let candidate = self.candidate(object, sort, is_temporary);
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
    pub(crate) fn sibling_pod(&self) -> u32 {
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

    fn candidate(&mut self, object: Obj, sort: Sort, is_temporary: bool) -> Candidate {
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
                let (bytes, items) = self.array_extent(object, is_temporary);
                (ObjectKind::Array, (bytes.saturating_add(40), items))
            }
            Sort::Other(Kind::Plain) => {
                (ObjectKind::Instance, (HEAD_BYTES + CHILD_BYTES * object.slot_room(), 0))
            }
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
    pub(crate) fn split(
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

    /// A variable's object is always a pod's root.
    pub(crate) fn variable_split(&self, object: Obj, sort: Sort) -> Split {
        let is_definition = matches!(sort, Sort::Other(Kind::Class | Kind::Function));
        let key = address_key(object);
        let pod = match self.free_known_pod(key) {
            // An object of a container that became a variable begins a pod of its own.
            pod if self.session.pod(pod).is_some_and(|state| state.parent != NONE && !is_definition) => NONE,
            pod => pod,
        };
        Split { pod, key, is_sibling: false, is_final: is_definition, is_definition, rate: 0.0 }
    }

    /// Begins a variable's object, which the walk has not met, as a pod's root.
    pub(crate) fn begin_variable(&mut self, object: Obj) -> Step<u32> {
        let sort = self.sort(object);
        let split = self.variable_split(object, sort);
        let visit = self.visits.len();
        match self.split(object, sort, At::NOWHERE, false, split, false) {
            Ok(()) => {}
            Err(Stop::Miss(miss)) => self.produce_instead(miss)?,
            Err(stop) => return Err(stop),
        }
        self.run()?;
        Ok(self.visits[visit].pod)
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

/// Names an object that a reducer makes anew at each save, by its place among those that its parent meets.
fn path_key(parent: u32, ordinal: u64) -> u64 {
    (u64::from(parent) << 32 ^ ordinal).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
