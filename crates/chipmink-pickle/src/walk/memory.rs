//! Which memory the objects of a walk occupy, so that objects over the same memory are so again after a load.
//!
//! The first object that reaches some memory *owns* it in the walk: it stores the bytes. A later one that stays inside
//! refers to the owner and says how far from it its own first byte lies. All memory is told apart by address alone, which
//! is exact as long as the objects live: a walk keeps them.
//!
//! 1. The spans of owners never overlap, touching ones stay apart, and an object is a view of at most one owner.
//! 2. What is stored is a function of the set of objects and of the order in which they are visited. If an object reaches
//!    beyond the owner that it overlaps, the walk ends in vain and is made again with hints that say, for each such piece
//!    of memory, what its first visitor has to store: the whole object that holds it, or the union of what was reached.
//!    A hint that turns out not to be what the walk found makes another walk, too. A view of a small object that owns all of
//!    its memory is such a hint itself.
//! 3. A hint is never trusted: it is used only if the memory's owner is known and the hint lies inside its memory.

use crate::py::Obj;
use std::collections::BTreeMap;

/// Up to so many bytes, the object that owns memory is stored with the first view of it.
const SMALL_WHOLE: usize = 4096;

/// Bytes in memory, half-open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub(crate) fn len(self) -> usize {
        self.end - self.start
    }

    pub(crate) fn is_empty(self) -> bool {
        self.start == self.end
    }

    pub(crate) fn holds(self, other: Span) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

/// What the first visitor of a piece of memory has to store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hint {
    pub span: Span,
    /// Address of the object that is visited first and has exactly this memory; 0: the span itself is stored.
    pub whole: usize,
}

/// The owner of a piece of memory.
#[derive(Clone, Copy)]
pub(crate) struct Owner {
    pub object: Obj,
    /// Where its first element lies.
    pub first: usize,
    /// Its memory as it is was stored, so that others can be views of it.
    pub is_raw: bool,
    pub pod: u32,
    /// Ordinal of its region in its pod, if it has one.
    pub region: Option<u32>,
    /// The object that owns the memory in the end.
    pub base: Obj,
}

/// An object that was met, and the memory that it reaches.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    pub span: Span,
    pub object: Obj,
    /// The object that owns the memory in the end.
    pub base: Obj,
    /// Memory that it keeps alive, if that is known.
    pub base_span: Option<Span>,
    /// It is that memory, and is a value that can be stored in place of it.
    pub is_whole: bool,
    /// Its items would be stored one after another, not as they lie.
    pub is_compact: bool,
    /// It cannot be made as a view of another object.
    pub is_rigid: bool,
}

/// What an object's memory is.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// To be stored with the object, as it suits.
    Own(Span),
    /// To be stored with the object as it lies: others that are met later show some of it.
    Union(Span),
    /// Part of the memory of another object, which may not have been visited yet; so many bytes after its first.
    Of(Obj, isize),
}

/// The memory of one walk.
#[derive(Default)]
pub(crate) struct SharedMemory {
    owners: BTreeMap<usize, (usize, Owner)>,
    order: Vec<usize>,
    seen: Vec<Seen>,
    used: Vec<Hint>,
    /// By ascending address.
    hints: Vec<Hint>,
    /// Some object reaches beyond an owner: the walk goes on only to see what else there is.
    pub is_survey: bool,
    /// The walk may be made again if objects share memory otherwise than the hints say.
    pub may_repeat: bool,
}

/// How far the bookkeeping was at some moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MemoryMark {
    order: usize,
    seen: usize,
    used: usize,
}

/// The hint that a view of a small whole gives of itself: where there is one view there often is another, or the whole,
/// and a walk that learns of them too late is made again.
fn small_whole(seen: &Seen) -> Option<Hint> {
    let whole = seen.base_span.filter(|whole| whole.len() <= SMALL_WHOLE && whole.holds(seen.span))?;
    let stands_for_itself = seen.is_rigid || !seen.is_whole || seen.base == seen.object;
    (!stands_for_itself).then_some(Hint { span: whole, whole: seen.base.addr() })
}

impl SharedMemory {
    pub(crate) fn new(hints: Vec<Hint>) -> Self {
        SharedMemory { hints, ..SharedMemory::default() }
    }

    pub(crate) fn mark(&self) -> MemoryMark {
        MemoryMark { order: self.order.len(), seen: self.seen.len(), used: self.used.len() }
    }

    pub(crate) fn roll_back(&mut self, mark: &MemoryMark) {
        for start in self.order.drain(mark.order..) {
            self.owners.remove(&start);
        }
        self.seen.truncate(mark.seen);
        self.used.truncate(mark.used);
    }

    /// The owner whose memory overlaps `span`.
    fn overlapping(&self, span: Span) -> Option<(Span, &Owner)> {
        let (start, (end, owner)) = self.owners.range(..span.end).next_back()?;
        (span.start < *end).then_some((Span { start: *start, end: *end }, owner))
    }

    /// Whether the memory belongs to an object met before, so that nothing of it need be stored again.
    pub(crate) fn is_known(&self, span: Span) -> bool {
        self.overlapping(span).is_some_and(|(owned, owner)| owner.is_raw && owned.holds(span))
    }

    /// Decides where the memory of an object that is met now belongs. `first`: the address of its first element.
    pub(crate) fn place(&mut self, seen: Seen, first: usize) -> Place {
        self.seen.push(seen);
        if let Some((owned, owner)) = self.overlapping(seen.span) {
            if owner.is_raw && owned.holds(seen.span) && !seen.is_rigid {
                return Place::Of(owner.object, (first as isize).wrapping_sub(owner.first as isize));
            }
            // Without a hint another walk would find the same.
            self.is_survey |= self.may_repeat && !seen.is_rigid && seen.base_span.is_some();
            return Place::Own(seen.span);
        }
        let Some(hint) = self.hint_for_first(&seen).or_else(|| small_whole(&seen)) else {
            return Place::Own(seen.span);
        };
        if hint.whole != 0 {
            if hint.whole != seen.base.addr() || hint.whole == seen.object.addr() {
                return Place::Own(seen.span);
            }
            self.used.push(hint);
            return Place::Of(seen.base, (first as isize).wrapping_sub(hint.span.start as isize));
        }
        match seen.base_span {
            Some(whole) if whole.holds(hint.span) && !seen.is_rigid => {
                self.used.push(hint);
                Place::Union(hint.span)
            }
            _ => Place::Own(seen.span),
        }
    }

    /// The hint for the first object that is met of a piece of memory. Who has that memory may be another object than in the
    /// walk that gave the hint: one that a reducer makes anew each time.
    fn hint_for_first(&self, seen: &Seen) -> Option<Hint> {
        let hint = self.hint(seen.span)?;
        if [0, seen.base.addr(), seen.object.addr()].contains(&hint.whole) {
            return Some(hint);
        }
        let has_it =
            seen.is_whole && !seen.is_rigid && seen.base != seen.object && seen.base_span == Some(hint.span);
        has_it.then_some(Hint { whole: seen.base.addr(), ..hint })
    }

    fn hint(&self, span: Span) -> Option<Hint> {
        let at = self.hints.partition_point(|hint| hint.span.start <= span.start);
        let hint = self.hints.get(at.checked_sub(1)?)?;
        hint.span.holds(span).then_some(*hint)
    }

    /// Makes an object the owner of memory that nobody owns yet.
    pub(crate) fn own(&mut self, span: Span, owner: Owner) {
        if !span.is_empty() && self.overlapping(span).is_none() {
            self.owners.insert(span.start, (span.end, owner));
            self.order.push(span.start);
        }
    }

    /// The owners and their memory, by ascending address.
    pub(crate) fn owners(&self) -> impl Iterator<Item = (Span, &Owner)> {
        self.owners.iter().map(|(start, (end, owner))| (Span { start: *start, end: *end }, owner))
    }

    /// What first visitors have to store, by all that was met; and whether this walk did otherwise.
    pub(crate) fn settle(&mut self) -> (Vec<Hint>, bool) {
        let mut hints = Vec::new();
        let mut unions: Vec<Span> = Vec::new();
        if !self.seen.is_empty() {
            let mut by_start: Vec<usize> = (0..self.seen.len()).collect();
            by_start.sort_unstable_by_key(|i| (self.seen[*i].span.start, *i));
            let mut group: Vec<usize> = Vec::new();
            let mut union = Span { start: 0, end: 0 };
            for i in by_start {
                let span = self.seen[i].span;
                if !group.is_empty() && span.start < union.end {
                    union.end = union.end.max(span.end);
                } else {
                    hints.extend(self.hint_for(&group, union));
                    unions.push(union);
                    group.clear();
                    union = span;
                }
                group.push(i);
            }
            hints.extend(self.hint_for(&group, union));
            unions.push(union);
        }
        let is_other = hints.iter().any(|hint| !self.used.contains(hint))
            || self.used.iter().any(|hint| !hints.contains(hint));
        // What was not met in this walk stays as it is.
        let mut all: Vec<Hint> = std::mem::take(&mut self.hints);
        all.retain(|old| {
            let at = unions.partition_point(|union| union.start < old.span.end);
            at == 0 || unions[at - 1].end <= old.span.start
        });
        all.extend(hints);
        all.sort_unstable_by_key(|hint| hint.span.start);
        (all, is_other)
    }

    /// For objects whose memory overlaps, directly or through others of them.
    fn hint_for(&self, group: &[usize], union: Span) -> Option<Hint> {
        let first = self.seen.get(*group.iter().min()?)?;
        let members = || group.iter().map(|i| &self.seen[*i]);
        let rigid = members().find(|seen| seen.is_rigid);
        let first_holds_all = first.span == union && !first.is_compact;
        if group.len() == 1 || (first_holds_all && rigid.is_none_or(|rigid| rigid.object == first.object)) {
            return None;
        }
        if let Some(rigid) = rigid {
            return (rigid.span == union).then_some(Hint { span: union, whole: rigid.object.addr() });
        }
        if first.base_span == Some(union) && first.base != first.object && first.is_whole {
            return Some(Hint { span: union, whole: first.base.addr() });
        }
        let is_possible = first.base_span.is_some_and(|whole| whole.holds(union));
        is_possible.then_some(Hint { span: union, whole: 0 })
    }
}
