//! Comparing a pod with its identity shadow.
//!
//! The check visits the pod's objects in the order in which they were walked, enters each into the memo exactly as writing
//! it would, and produces no byte. Anything that is not as recorded ends it with a miss; then the pod's bytes decide.

use super::frames::{At, Frame, FrameKind, Mode};
use super::kinds::Kind;
use super::regions::Content;
use super::session::NONE;
use super::shadow::{ALL_ATOMS, child, is_singleton, kind};
use super::walker::{Step, Stop, Walker};
use crate::py::Obj;

/// How many words, and how many roots of pods, ahead memory is asked for; measured.
const AHEAD: usize = 48;
const CALLS_AHEAD: usize = 4;

/// The shadow's words at some place; they do not change while the visit lasts.
#[derive(Clone, Copy)]
pub(super) struct Words<'a>(pub(super) &'a [u64]);

impl Walker<'_, '_> {
    pub(super) fn miss<T>(&self) -> Step<T> {
        Err(Stop::Miss(self.current))
    }

    /// The words of the current pod's shadow, and how far the check is.
    #[inline(always)]
    pub(super) fn shadow_here<'a>(&self) -> (Words<'a>, usize) {
        match &self.visits[self.current as usize].mode {
            Mode::Shadow { shadow, position } => {
                let words: &[u64] = shadow.words();
                // SAFETY: the visit owns a reference to the shadow for as long as it is in this mode, and a shadow never
                // changes; the slice is not used past the step in which it was taken.
                (Words(unsafe { std::slice::from_raw_parts(words.as_ptr(), words.len()) }), *position)
            }
            _ => unreachable!("only a pod that is compared with its shadow has words"),
        }
    }

    #[inline(always)]
    pub(super) fn advance(&mut self, to: usize) {
        if let Mode::Shadow { position, .. } = &mut self.visits[self.current as usize].mode {
            *position = to;
        }
    }

    /// Compares an object, met for the first time, with the next record.
    pub(crate) fn check_record(&mut self, object: Obj) -> Step {
        let (Words(words), at) = self.shadow_here();
        let Some(header) = words.get(at).copied() else { return self.miss() };
        self.look_ahead(words, at);
        let number = (header >> 32) as u32;
        let all_atoms = header & ALL_ATOMS != 0;
        match header as u8 {
            kind::CLASS | kind::NAMED_CLASS => return self.check_class(object),
            kind::LIST => {
                let len = words[at + 1] as usize;
                if !object.is_list() || !same(object.list_items(), &words[at + 2..at + 2 + len], all_atoms) {
                    return self.miss();
                }
                self.enter(object, number)?;
                self.children(at + 2, len, all_atoms, None);
            }
            kind::TUPLE => {
                let len = words[at + 1] as usize;
                if !object.is_tuple() || !same(object.tuple_items(), &words[at + 2..at + 2 + len], all_atoms)
                {
                    return self.miss();
                }
                self.not_met(object)?;
                if all_atoms {
                    self.enter(object, number)?;
                }
                self.children(at + 2, len, all_atoms, Some((object, number)));
            }
            kind::DICT => {
                let len = words[at + 1] as usize;
                let version = words[at + 2];
                let children = &words[at + 3..at + 3 + 2 * len];
                if !object.is_dict() || !same_dict(object, version, children) {
                    return self.miss();
                }
                self.enter(object, number)?;
                self.children(at + 3, 2 * len, all_atoms, None);
            }
            kind::INSTANCE => return self.check_instance(object, at, number, all_atoms),
            kind::SET | kind::FROZENSET => return self.check_set(object, at, number, all_atoms),
            kind::OBJECT_ARRAY => {
                let len = words[at + 1] as usize;
                if self.session.kinds.of(self.py, object) != Kind::NdArray {
                    return self.miss();
                }
                self.check_object_array(object, Words(&words[at..at + 3 + len]))?;
                self.enter(object, number)?;
                self.children(at + 3, len, all_atoms, None);
            }
            kind::BYTEARRAY => {
                if !object.is_bytearray() {
                    return self.miss();
                }
                let span = super::exports::span_of(object.bytearray_slice());
                let may_be_shown = object.refcount() > 1;
                if may_be_shown {
                    self.rigid_place(object, span);
                }
                if span.len() as u64 != words[at + 1]
                    || super::regions::span_words(span) != words[at + 2..at + 4]
                {
                    return self.miss();
                }
                self.enter(object, number)?;
                if may_be_shown {
                    self.own_rigid(object, span, None);
                }
                self.advance(at + 4);
            }
            kind::BYTEARRAY_REGION => {
                if !object.is_bytearray() {
                    return self.miss();
                }
                let span = super::exports::span_of(object.bytearray_slice());
                let may_be_shown = object.refcount() > 1;
                if may_be_shown {
                    self.rigid_place(object, span);
                }
                let region = words[at + 1] as u32;
                // A signal handler may run meanwhile; with an export it can neither free nor resize the bytes.
                let _export = pyo3::buffer::PyBuffer::<u8>::get(&object.bound(self.py))?;
                self.check_region(region, &Content::run(span))?;
                self.enter(object, number)?;
                if may_be_shown {
                    self.own_rigid(object, span, Some(region));
                }
                self.advance(at + 2);
            }
            kind::NUMPY_SCALAR => {
                let record = [header, words[at + 1], words[at + 2], words[at + 3]];
                return self.check_scalar(object, record, at);
            }
            kind::ARRAY | kind::ARRAY_REGION | kind::ARRAY_VIEW => {
                if self.session.kinds.of(self.py, object) != Kind::NdArray {
                    return self.miss();
                }
                return self.check_array(object, at, number);
            }
            _ => return self.miss(),
        }
        Ok(())
    }

    fn check_instance(&mut self, object: Obj, at: usize, number: u32, all_atoms: bool) -> Step {
        let (Words(words), _) = self.shadow_here();
        let shape_id = words[at + 1] as u32;
        let len = (words[at + 1] >> 32) as usize;
        let version = words[at + 2];
        if self.session.kinds.of(self.py, object) != Kind::Plain {
            return self.miss();
        }
        let shape = self.session.shapes.get(shape_id);
        if shape.class != object.class() || !shape.slots_match(object) {
            return self.miss();
        }
        let (in_dict, in_slots) = words[at + 3..at + 3 + len].split_at(len - shape.slot_count());
        match object.instance_dict() {
            None if object.has_dict() || !in_dict.is_empty() => return self.miss(),
            None => {}
            Some(dict) if dict.refcount() != 1 => return self.miss(),
            Some(dict) if version != 0 && dict.dict_version() == version => {}
            Some(dict) => {
                if dict.dict_len() != in_dict.len() {
                    return self.miss();
                }
                let mut position = 0;
                for (name, word) in shape.names.iter().zip(in_dict) {
                    match dict.dict_next(&mut position) {
                        Some((key, value)) if key == *name && value.addr() as u64 == word & !child::MASK => {}
                        _ => return self.miss(),
                    }
                }
            }
        }
        for (slot, word) in shape.slots().zip(in_slots) {
            if slot.value(object).map_or(0, Obj::addr) as u64 != word & !child::MASK {
                return self.miss();
            }
        }
        self.enter(object, number)?;
        self.children(at + 3, len, all_atoms, None);
        Ok(())
    }

    fn check_set(&mut self, object: Obj, at: usize, number: u32, all_atoms: bool) -> Step {
        let (Words(words), _) = self.shadow_here();
        let len = words[at + 1] as usize;
        let frozen = words[at] as u8 == kind::FROZENSET;
        if (if frozen { !object.is_frozenset() } else { !object.is_set() }) || object.set_len() != len {
            return self.miss();
        }
        let mut position = 0;
        for word in &words[at + 2..at + 2 + len] {
            match object.set_next(&mut position) {
                Some(member) if member.addr() as u64 == word & !child::MASK => {}
                _ => return self.miss(),
            }
        }
        self.not_met(object)?;
        if !frozen || all_atoms {
            self.enter(object, number)?;
        }
        self.children(at + 2, len, all_atoms, frozen.then_some((object, number)));
        Ok(())
    }

    /// Before an instance: the class must be where it was.
    fn check_class(&mut self, object: Obj) -> Step {
        let (Words(words), at) = self.shadow_here();
        let class = object.class();
        if words[at + 1] != class.addr() as u64 {
            return self.miss();
        }
        if words[at] as u8 == kind::NAMED_CLASS {
            let id = (words[at] >> 32) as u32;
            if self.global_of(class)? != Some(id) {
                return self.miss();
            }
            self.advance(at + 2);
            return self.check_record(object);
        }
        if self.global_of(class)?.is_some() {
            return self.miss();
        }
        let (pod, slot) = (words[at + 2] as u32, (words[at + 2] >> 32) as u32);
        match self.session.memo.get(class.addr()) {
            Some(entry) => {
                self.guard_siblings(entry.seq)?;
                if entry.pod != pod || !self.offers(pod, slot, class) {
                    return self.miss();
                }
                self.advance(at + 3);
                self.check_record(object)
            }
            None => {
                self.stack.push(Frame::new(FrameKind::CheckInstance { object }, NONE));
                self.call(class, pod, false, At::NOWHERE)
            }
        }
    }

    /// An object that the record says is met for the first time.
    #[inline(always)]
    fn not_met(&self, object: Obj) -> Step {
        match self.session.memo.get(object.addr()) {
            Some(_) => Err(Stop::Miss(self.current)),
            None => Ok(()),
        }
    }

    #[inline(always)]
    pub(super) fn enter(&mut self, object: Obj, number: u32) -> Step {
        self.not_met(object)?;
        // Temporaries have no shadow.
        self.is_temporary = false;
        self.memoize(object, number);
        Ok(())
    }

    /// Goes on to the children of a record whose pointers are as recorded.
    #[inline(always)]
    pub(super) fn children(&mut self, first: usize, len: usize, all_atoms: bool, after: Option<(Obj, u32)>) {
        self.stats.objects += len as u64;
        self.advance(first + len);
        if !all_atoms {
            self.stack.push(Frame::new(FrameKind::Shadow { first, next: 0, len, after }, NONE));
        }
    }

    /// Asks for the memory that the checks of containers further on will look at: they lie all over the heap.
    ///
    /// Words are taken for children by their lowest bits alone; what is none costs a prefetch that nobody needs.
    #[inline(always)]
    fn look_ahead(&self, words: &[u64], at: usize) {
        let (_, len) = super::shadow::record_extent(words, at);
        let from = (at + AHEAD).min(words.len());
        let to = (from + len.min(AHEAD) + 3).min(words.len());
        for word in &words[from..to] {
            if word & child::MASK == child::FIRST {
                crate::py::prefetch((word & !child::MASK) as *const u8);
                self.session.memo.prefetch((word & !child::MASK) as usize);
            }
        }
    }

    /// Goes on with the children of a record.
    pub(crate) fn step_shadow(&mut self, top: usize, frame: Frame) -> Step {
        let FrameKind::Shadow { first, mut next, len, after } = frame.kind else {
            unreachable!("only records are stepped here")
        };
        let (Words(words), _) = self.shadow_here();
        while next < len {
            let word = words[first + next];
            if word & child::MASK == child::ATOM {
                next += 1;
                continue;
            }
            self.stack[top].kind = FrameKind::Shadow { first, next: next + 1, len, after };
            if word & child::MASK == child::CALL && next + CALLS_AHEAD < len {
                let root = words[first + next + CALLS_AHEAD] & !child::MASK;
                crate::py::prefetch(root as *const u8);
                self.session.memo.prefetch(root as usize);
            }
            // SAFETY: the live container was found to refer to this address, and nothing has changed since, or the walk
            // holds its objects.
            let object = unsafe { Obj::from_ptr((word & !child::MASK) as *mut pyo3::ffi::PyObject) };
            match word & child::MASK {
                child::FIRST => return self.check_record(object),
                child::CALL => return self.check_call(object, false),
                child::REFERENCE => self.check_reference(object)?,
                child::LARGE => self.check_large(object)?,
                child::NAMED => self.check_name(object)?,
                _ => return self.miss(),
            }
            next += 1;
        }
        self.pop()?;
        if let Some((object, number)) = after {
            self.enter(object, number)?;
        }
        Ok(())
    }

    /// The root of another pod, or a class that its pod holds, met for the first time.
    pub(crate) fn check_call(&mut self, object: Obj, new_sibling: bool) -> Step {
        let (Words(words), at) = self.shadow_here();
        let Some(word) = words.get(at).copied() else { return self.miss() };
        if word as u8 == kind::CLASS {
            return self.call(object, words[at + 2] as u32, false, At::NOWHERE);
        }
        if word as u8 != kind::CALL || is_singleton(object) {
            return self.miss();
        }
        self.not_met(object)?;
        let (pod, slot) = ((word >> 32) as u32, words[at + 1] as u32);
        if !new_sibling && let Some(visit) = self.proving_sibling(pod) {
            self.advance(at + 2);
            return self.prove_next_root(object, visit, slot);
        }
        if !self.offers(pod, slot, object) {
            return self.miss();
        }
        // The state before the call is kept with the words unread, so that it can be taken back as a whole; the words are
        // passed only then.
        self.call_then_advance(object, pod, new_sibling, at + 2)
    }

    fn call_then_advance(&mut self, object: Obj, pod: u32, new_sibling: bool, to: usize) -> Step {
        let caller = self.current;
        let entered = self.call(object, pod, new_sibling, At::NOWHERE);
        if let Mode::Shadow { position, .. } = &mut self.visits[caller as usize].mode
            && !matches!(entered, Err(Stop::Miss(visit)) if visit == caller)
        {
            *position = to;
        }
        entered
    }

    fn check_reference(&mut self, object: Obj) -> Step {
        let (Words(words), at) = self.shadow_here();
        if words[at] as u8 != kind::REFERENCE {
            return self.miss();
        }
        let (pod, place) = ((words[at] >> 32) as u32, words[at + 1] as u32);
        if self.proved_before(pod) {
            // Slots are given up only when a save ends, and only those whose object has left the pod.
            debug_assert!(self.offers(pod, place, object), "a proved pod offers what it offered before");
            self.advance(at + 2);
            return Ok(());
        }
        let Some(entry) = self.session.memo.get(object.addr()) else { return self.miss() };
        if entry.pod != pod {
            return self.miss();
        }
        self.guard_siblings(entry.seq)?;
        let is_same =
            if pod == self.current_pod() { entry.number == place } else { self.offers(pod, place, object) };
        if !is_same {
            return self.miss();
        }
        self.advance(at + 2);
        Ok(())
    }

    /// Whether a pod was proved unchanged in this walk, before every sibling that is open: then all that it offered is
    /// in the memo, and may be referred to here.
    #[inline(always)]
    fn proved_before(&self, pod: u32) -> bool {
        match self.proved.get(pod as usize) {
            None | Some(&NONE) => false,
            Some(visit) => self.open_siblings.first().is_none_or(|first| visit < first),
        }
    }

    /// Whether a pod offers the object under this slot.
    #[inline(always)]
    fn offers(&self, pod: u32, slot: u32, object: Obj) -> bool {
        self.session.export_lists.offers(pod, slot, object.addr())
    }

    fn check_large(&mut self, object: Obj) -> Step {
        let (Words(words), at) = self.shadow_here();
        if words[at] as u8 != kind::ATOM_DIGEST
            || !object.is_atom()
            || super::regions::atom_digest(object) != words[at + 1..at + 4]
        {
            return self.miss();
        }
        self.advance(at + 4);
        Ok(())
    }

    fn check_name(&mut self, object: Obj) -> Step {
        let (Words(words), at) = self.shadow_here();
        if words[at] as u8 != kind::NAME {
            return self.miss();
        }
        let name = match self.sort(object) {
            super::place::Sort::Other(Kind::Class | Kind::Function) => self.global_of(object)?,
            super::place::Sort::Dict => self.builtins_name(object),
            _ => None,
        };
        if name != Some((words[at] >> 32) as u32) {
            return self.miss();
        }
        self.advance(at + 1);
        Ok(())
    }
}

/// Whether the live pointers are the recorded ones.
#[inline(always)]
pub(super) fn same(live: &[Obj], words: &[u64], all_atoms: bool) -> bool {
    if live.len() != words.len() {
        return false;
    }
    if all_atoms {
        // SAFETY: `Obj` has the layout of a pointer, which on the supported platforms is that of u64.
        return unsafe { std::slice::from_raw_parts(live.as_ptr().cast::<u64>(), live.len()) } == words;
    }
    live.iter().zip(words).all(|(object, word)| object.addr() as u64 == word & !child::MASK)
}

/// Whether a dict holds the recorded keys and values, in their order.
#[inline(always)]
fn same_dict(dict: Obj, version: u64, words: &[u64]) -> bool {
    if version != 0 && dict.dict_version() == version {
        return true;
    }
    if 2 * dict.dict_len() != words.len() {
        return false;
    }
    let mut position = 0;
    for pair in words.chunks_exact(2) {
        match dict.dict_next(&mut position) {
            Some((key, value))
                if key.addr() as u64 == pair[0] & !child::MASK
                    && value.addr() as u64 == pair[1] & !child::MASK => {}
            _ => return false,
        }
    }
    true
}
