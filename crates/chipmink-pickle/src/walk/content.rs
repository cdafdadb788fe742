//! The native containers: what is written for a list, tuple, dict, set or bytearray.

use super::exports::span_of;
use super::frames::{At, Frame, FrameKind};
use super::kinds::Kind;
use super::place::Sort;
use super::regions::{Content, span_words};
use super::session::NONE;
use super::shadow::{child, kind as word};
use super::walker::{Step, Stop, Walker};
use crate::dict_table::Items;
use crate::py::{Obj, prefetch};
use chipmink_format::tag;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// How many children ahead memory is asked for: the child itself, its table if it is a dict, and what stands in it; measured.
const ITEMS_AHEAD: usize = 8;
const TABLES_AHEAD: usize = 4;
const CONTENT_AHEAD: usize = 2;

impl Walker<'_, '_> {
    /// Writes the beginning of an object that was just placed in the current pod.
    pub(crate) fn start(&mut self, object: Obj, sort: Sort) -> Step {
        match sort {
            Sort::List => {
                let len = object.list_len();
                let number = self.open_container(object, tag::LIST, len);
                let words =
                    self.record(word::LIST, number, &[len as u64], object.list_items().iter().copied());
                if len > 0 {
                    self.push(FrameKind::List { list: object, next: 0, len }, words);
                }
                Ok(())
            }
            Sort::Tuple => self.start_tuple(object),
            Sort::Dict => self.start_dict(object),
            Sort::Set | Sort::FrozenSet => self.start_set(object, sort == Sort::FrozenSet),
            Sort::ByteArray => self.start_bytearray(object),
            Sort::Atom => {
                // As a variable of its own: the pod has no record to be compared with.
                self.no_shadow();
                self.value(object, At::NOWHERE)
            }
            Sort::Other(Kind::Plain) => self.instance(object, At::NOWHERE),
            Sort::Other(Kind::NdArray) => self.start_array(object),
            Sort::Other(Kind::Dtype) => self.start_dtype(object),
            Sort::Other(Kind::NumpyScalar) => self.numpy_scalar(object),
            Sort::Other(Kind::Value) => self.start_value(object),
            Sort::Other(Kind::Identified) => self.start_identified(object),
            Sort::Other(kind) => self.start_reduce(object, kind),
        }
    }

    /// Writes tag and count of a container that exists before its content.
    #[inline(always)]
    pub(super) fn open_container(&mut self, object: Obj, tag: u8, len: usize) -> u32 {
        let builder = self.builder();
        builder.tag_varint(tag, len as u64);
        let number = builder.take_number();
        self.memoize(object, number);
        number
    }

    /// Writes a record into the shadow under construction. Returns the position of the first child's word.
    #[inline(always)]
    pub(crate) fn record(
        &mut self,
        kind: u8,
        number: u32,
        fields: &[u64],
        items: impl ExactSizeIterator<Item = Obj>,
    ) -> u32 {
        match &mut self.builder().shadow {
            Some(shadow) if shadow.fits(items.len()) => shadow.record(kind, number, fields, items),
            // Beyond the budget the pod is compared by its bytes.
            shadow => {
                *shadow = None;
                NONE
            }
        }
    }

    fn start_tuple(&mut self, tuple: Obj) -> Step {
        let len = tuple.tuple_len();
        if self.held {
            tuple.incref();
            self.kept.push(tuple);
        }
        let builder = self.builder();
        let at = builder.buf.len();
        builder.tag_varint(tag::TUPLE, len as u64);
        let header = builder.shadow.as_ref().map_or(NONE, |shadow| shadow.len() as u32);
        let words = self.record(word::TUPLE, 0, &[len as u64], tuple.tuple_items().iter().copied());
        self.push(FrameKind::Tuple { tuple, next: 0, at, header }, words);
        Ok(())
    }

    fn start_dict(&mut self, dict: Obj) -> Step {
        let len = dict.dict_len();
        let number = self.open_container(dict, tag::DICT, len);
        let words = if self.builder().shadow.is_some() {
            let items = Pairs::new(dict, len);
            self.record(word::DICT, number, &[len as u64, dict.dict_version()], items)
        } else {
            NONE
        };
        if len > 0 {
            let kind = FrameKind::Dict { dict, position: 0, left: len, len, value: None, done: 0 };
            self.push(kind, words);
        }
        Ok(())
    }

    /// Asks for the memory of what the walk will come to after the item at `place`: objects lie all over the heap.
    #[inline(always)]
    fn look_into(&self, dict: Obj, place: usize) {
        let Some(items) = Items::of(dict) else { return };
        if place == 0 {
            for first in 0..ITEMS_AHEAD.min(items.len()) {
                self.item_ahead(items, first);
            }
        }
        self.item_ahead(items, place + ITEMS_AHEAD);
        if let Some(inner) = items.dict_at(place + TABLES_AHEAD) {
            inner.prefetch_table();
        }
        if let Some(inner) = items.dict_at(place + CONTENT_AHEAD)
            && let Some(inner) = Items::of(inner)
        {
            for first in 0..ITEMS_AHEAD.min(inner.len()) {
                self.item_ahead(inner, first);
            }
        }
    }

    #[inline(always)]
    fn item_ahead(&self, items: Items, place: usize) {
        if let Some(value) = items.prefetch(place) {
            self.session.memo.prefetch(value);
        }
    }

    fn start_set(&mut self, set: Obj, frozen: bool) -> Step {
        let len = set.set_len();
        let mut members = Vec::with_capacity(len);
        let mut position = 0;
        while let Some(member) = set.set_next(&mut position) {
            members.push(member);
        }
        if self.held {
            set.incref();
            self.kept.push(set);
            for member in &members {
                member.incref();
                self.kept.push(*member);
            }
        }
        let builder = self.builder();
        let at = builder.buf.len();
        let (tag, kind) = if frozen { (tag::FROZENSET, word::FROZENSET) } else { (tag::SET, word::SET) };
        builder.tag_varint(tag, len as u64);
        let number = if frozen { 0 } else { builder.take_number() };
        if !frozen {
            self.memoize(set, number);
        }
        let header = self.builder().shadow.as_ref().map_or(NONE, |shadow| shadow.len() as u32);
        let words = self.record(kind, number, &[len as u64], members.iter().copied());
        self.stats.objects += len as u64;
        if members.iter().all(|member| super::shadow::may_hold(*member) && member.is_atom()) {
            self.sorted_members(&members);
            return match frozen {
                true => self.finish_frozen(set, at, header),
                false => Ok(()),
            };
        }
        self.sequences.push(members);
        self.push(FrameKind::Members { set, next: 0, at, header }, words);
        Ok(())
    }

    /// Writes atoms ordered by their encoded bytes: a set's own order depends on the hash seed.
    fn sorted_members(&mut self, members: &[Obj]) {
        let builder = self.builder();
        let start = builder.buf.len();
        let mut ends = Vec::with_capacity(members.len());
        for member in members {
            builder.atom_in_full(*member);
            ends.push(builder.buf.len());
        }
        let written = builder.buf.split_off(start);
        let mut parts: Vec<(&[u8], bool)> = Vec::with_capacity(members.len());
        let mut from = 0;
        for (member, end) in members.iter().zip(&ends) {
            parts.push((&written[from..end - start], member.is_str() || member.is_bytes()));
            from = end - start;
        }
        parts.sort_unstable();
        for (part, takes_number) in parts {
            builder.bytes(part);
            builder.next += u32::from(takes_number);
        }
    }

    fn start_bytearray(&mut self, object: Obj) -> Step {
        let content = object.bytearray_slice();
        let span = span_of(content);
        // Whatever shows its memory holds a reference to it.
        let may_be_shown = object.refcount() > 1;
        if may_be_shown {
            self.rigid_place(object, span);
        }
        let (number, region) = if content.len() >= tag::REGION_THRESHOLD {
            // A signal handler may run meanwhile; with an export it can neither free nor resize the bytes.
            let _export = pyo3::buffer::PyBuffer::<u8>::get(&object.bound(self.py))?;
            let region = self.region(Content::run(span))?;
            (self.write_region(tag::REGION_BYTEARRAY, region), Some(region))
        } else {
            let builder = self.builder();
            builder.tag_varint(tag::BYTEARRAY, content.len() as u64);
            builder.bytes(content);
            (builder.take_number(), None)
        };
        self.memoize(object, number);
        if let Some(shadow) = &mut self.builder().shadow {
            match region {
                Some(region) => {
                    shadow.record(word::BYTEARRAY_REGION, number, &[u64::from(region)], std::iter::empty());
                }
                None => {
                    let [high, low] = span_words(span);
                    let fields = [content.len() as u64, high, low];
                    shadow.record(word::BYTEARRAY, number, &fields, std::iter::empty());
                }
            }
        }
        if may_be_shown {
            self.own_rigid(object, span, region);
        }
        Ok(())
    }

    pub(crate) fn side_marker(&mut self, marker: Obj) -> Step {
        self.no_shadow();
        let value = marker.bound(self.py).getattr("value")?;
        let value = self.own(value);
        self.builder().side_value(value);
        Ok(())
    }

    /// In the shadow, an atom too large to be held is known by its digest.
    #[inline(always)]
    pub(crate) fn large_atom_word(&mut self, object: Obj, at: At) -> Step {
        if at.word != NONE && !super::shadow::may_hold(object) {
            let words = super::regions::atom_digest(object);
            if let Some(shadow) = &mut self.builder().shadow {
                shadow.decide(at.word, child::LARGE);
                shadow.push(u64::from(word::ATOM_DIGEST));
                words.iter().for_each(|word| shadow.push(*word));
            }
        }
        Ok(())
    }

    pub(crate) fn step_sequence(&mut self, top: usize, frame: Frame) -> Step {
        match frame.kind {
            FrameKind::List { list, mut next, len } => {
                loop {
                    if next == len {
                        return if list.list_len() == len { self.pop() } else { Err(changed("list")) };
                    }
                    if list.list_len() != len {
                        return Err(changed("list"));
                    }
                    // Without Python code in between nothing can change: atoms are written in one go.
                    let items = list.list_items();
                    let builder = self.builder();
                    let start = next;
                    while next < len && plain_atom(items[next]) {
                        if !builder.atom(items[next]) {
                            break;
                        }
                        next += 1;
                    }
                    self.stats.objects += (next - start) as u64;
                    if next == len {
                        continue;
                    }
                    self.stack[top].kind = FrameKind::List { list, next: next + 1, len };
                    if let Some(later) = items.get(next + ITEMS_AHEAD) {
                        prefetch(later.ptr().cast());
                        self.session.memo.prefetch(later.addr());
                    }
                    let item = list.list_item(next);
                    return self.value(item, self.at(top, frame.words, next, true));
                }
            }
            FrameKind::Tuple { tuple, mut next, at, header } => {
                let items = tuple.tuple_items();
                let builder = self.builder();
                let start = next;
                while next < items.len() && plain_atom(items[next]) && builder.atom(items[next]) {
                    next += 1;
                }
                self.stats.objects += (next - start) as u64;
                if next == items.len() {
                    self.pop()?;
                    self.is_temporary = frame.is_temporary;
                    return self.finish_tuple(tuple, at, header);
                }
                self.stack[top].kind = FrameKind::Tuple { tuple, next: next + 1, at, header };
                self.value(items[next], self.at(top, frame.words, next, true))
            }
            FrameKind::Items { items, array, next, len } => {
                if next == len {
                    return self.pop();
                }
                // SAFETY: `array` is kept; its buffer is not resized while it is borrowed, and holds `len` references.
                let items_slice = unsafe { std::slice::from_raw_parts(items.cast::<Obj>(), len) };
                let mut at = next;
                let builder = self.builder();
                while at < len && plain_atom(items_slice[at]) && builder.atom(items_slice[at]) {
                    at += 1;
                }
                self.stats.objects += (at - next) as u64;
                if at == len {
                    self.stack[top].kind = FrameKind::Items { items, array, next: at, len };
                    return Ok(());
                }
                self.stack[top].kind = FrameKind::Items { items, array, next: at + 1, len };
                self.value(items_slice[at], self.at(top, frame.words, at, false))
            }
            FrameKind::Members { set, next, at, header } => {
                let members = self.sequences.len() - 1;
                let Some(member) = self.sequences[members].get(next).copied() else {
                    self.pop()?;
                    self.sequences.pop();
                    self.is_temporary = frame.is_temporary;
                    return match set.is_frozenset() {
                        true => self.finish_frozen(set, at, header),
                        false if set.set_len() == next => Ok(()),
                        false => Err(changed("set")),
                    };
                };
                self.stack[top].kind = FrameKind::Members { set, next: next + 1, at, header };
                self.value(member, self.at(top, frame.words, next, true))
            }
            FrameKind::Values { mut next, shape } => {
                let values = self.sequences.len() - 1;
                let start = next;
                while let Some(value) = self.sequences[values].get(next).copied()
                    && plain_atom(value)
                    && self.builder().atom(value)
                {
                    next += 1;
                }
                self.stats.objects += (next - start) as u64;
                let Some(value) = self.sequences[values].get(next).copied() else {
                    self.pop()?;
                    self.sequences.pop();
                    return Ok(());
                };
                self.stack[top].kind = FrameKind::Values { next: next + 1, shape };
                self.value(value, self.at(top, frame.words, next, false))
            }
            _ => unreachable!("only sequences are stepped here"),
        }
    }

    #[inline(always)]
    fn at(&self, top: usize, words: u32, index: usize, runs: bool) -> At {
        At {
            run_depth: runs.then_some(top),
            word: if words == NONE || self.shadow_is_gone() { NONE } else { words + index as u32 },
        }
    }

    /// The shadow under construction was given up after the frame began.
    #[inline(always)]
    fn shadow_is_gone(&self) -> bool {
        !matches!(&self.visits[self.current as usize].mode, super::frames::Mode::Bytes(b) if b.shadow.is_some())
    }

    pub(crate) fn step_dict(&mut self, top: usize, frame: Frame) -> Step {
        let FrameKind::Dict { dict, mut position, mut left, len, value, mut done } = frame.kind else {
            unreachable!("only dicts are stepped here")
        };
        if dict.dict_len() != len {
            return Err(changed("dict"));
        }
        if let Some(value) = value {
            self.stack[top].kind = FrameKind::Dict { dict, position, left, len, value: None, done: done + 1 };
            return self.value(value, self.at(top, frame.words, done as usize, false));
        }
        let mut seen = 0;
        self.look_into(dict, position as usize);
        let builder = self.builder();
        while left > 0 {
            let Some((key, value)) = dict.dict_next(&mut position) else { return Err(changed("dict")) };
            left -= 1;
            if plain_atom(key) && builder.atom(key) {
                seen += 1;
                if plain_atom(value) && builder.atom(value) {
                    seen += 1;
                    done += 2;
                    continue;
                }
                self.stats.objects += seen;
                self.stack[top].kind =
                    FrameKind::Dict { dict, position, left, len, value: None, done: done + 2 };
                return self.value(value, self.at(top, frame.words, done as usize + 1, false));
            }
            self.stats.objects += seen;
            self.keep(value);
            self.stack[top].kind =
                FrameKind::Dict { dict, position, left, len, value: Some(value), done: done + 1 };
            return self.value(key, self.at(top, frame.words, done as usize, false));
        }
        self.stats.objects += seen;
        self.stack[top].kind = FrameKind::Dict { dict, position, left, len, value: None, done };
        self.pop()
    }

    pub(crate) fn step_attributes(&mut self, top: usize, frame: Frame) -> Step {
        let FrameKind::Attributes { dict, mut position, mut left, len, mut done } = frame.kind else {
            unreachable!("only instances are stepped here")
        };
        if dict.dict_len() != len {
            return Err(changed("instance's dict"));
        }
        let mut seen = 0;
        let builder = self.builder();
        while left > 0 {
            let Some((_, value)) = dict.dict_next(&mut position) else {
                return Err(changed("instance's dict"));
            };
            left -= 1;
            if plain_atom(value) && builder.atom(value) {
                seen += 1;
                done += 1;
                continue;
            }
            self.stats.objects += seen;
            self.stack[top].kind = FrameKind::Attributes { dict, position, left, len, done: done + 1 };
            return self.value(value, self.at(top, frame.words, done as usize, false));
        }
        self.stats.objects += seen;
        self.stack[top].kind = FrameKind::Attributes { dict, position, left, len, done };
        self.pop()
    }

    /// After a tuple's items: it exists now, unless it came to exist while they were visited.
    fn finish_tuple(&mut self, tuple: Obj, at: usize, header_at: u32) -> Step {
        if let Some(entry) = self.session.memo.get(tuple.addr()) {
            self.made_inside();
            self.builder().buf[at] = tag::TUPLE_AGAIN;
            return self.reference(tuple, entry, At::NOWHERE);
        }
        self.finish_immutable(tuple, header_at)
    }

    fn finish_frozen(&mut self, set: Obj, at: usize, header_at: u32) -> Step {
        if let Some(entry) = self.session.memo.get(set.addr()) {
            self.made_inside();
            self.builder().buf[at] = tag::FROZENSET_AGAIN;
            return self.reference(set, entry, At::NOWHERE);
        }
        self.finish_immutable(set, header_at)
    }

    /// The object whose frame was just removed came to exist further inside.
    pub(crate) fn made_inside(&mut self) {
        self.no_shadow();
        if let Some(Frame { kind: FrameKind::Root { visit, .. }, .. }) = self.stack.last() {
            let visit = &mut self.visits[*visit as usize];
            visit.made_inside.push(visit.roots.len() as u32 - 1);
        }
    }

    pub(crate) fn finish_immutable(&mut self, object: Obj, header_at: u32) -> Step {
        let builder = self.builder();
        let number = builder.take_number();
        if header_at != NONE
            && let Some(shadow) = &mut builder.shadow
        {
            shadow.set_number(header_at as usize, number);
        }
        self.memoize(object, number);
        Ok(())
    }
}

/// An atom that needs no word of its own in a shadow: small enough to be held.
#[inline(always)]
fn plain_atom(object: Obj) -> bool {
    if object.is_str() {
        object.str_len() <= super::shadow::HELD_LIMIT / 4
    } else if object.is_bytes() {
        object.bytes_slice().len() <= super::shadow::HELD_LIMIT
    } else if object.is_int() {
        object.small_int().is_some()
    } else {
        object.is_atom()
    }
}

fn changed(what: &str) -> Stop {
    Stop::Variable(PyRuntimeError::new_err(format!(
        "a {what} changed size during iteration: it was changed while it was saved"
    )))
}

/// Keys and values of a dict, in turn.
pub(super) struct Pairs {
    dict: Obj,
    position: isize,
    value: Option<Obj>,
    pub(super) left: usize,
}

impl Pairs {
    pub(super) fn new(dict: Obj, len: usize) -> Self {
        Pairs { dict, position: 0, value: None, left: 2 * len }
    }
}

impl Iterator for Pairs {
    type Item = Obj;

    #[inline(always)]
    fn next(&mut self) -> Option<Obj> {
        if let Some(value) = self.value.take() {
            self.left -= 1;
            return Some(value);
        }
        let (key, value) = self.dict.dict_next(&mut self.position)?;
        self.left -= 1;
        self.value = Some(value);
        Some(key)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Pairs {}
