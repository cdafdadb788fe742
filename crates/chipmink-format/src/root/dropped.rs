//! What sweeps have dropped: ranges of numbers whose versions are no longer there.
//!
//! ```text
//! entry, extension 4   varint count, (varint first - last of the range before, varint last - first)…
//! entry, extension 6   varint number
//! state, extension 2   varint count, (varint first - last of the range before, varint last - first, varint by)…
//! ```
//!
//! Invariants:
//! 1. Ranges ascend, do not meet, and leave out number 0. The number below a range is that of an entry of the log, so that
//!    who reads the log downwards steps over the range.
//! 2. What was dropped stays dropped.

use super::entry::RootEntry;
use super::state::RootState;
use crate::error::{FormatError, Result};
use crate::wire::{Input, put_varint};
use chipmink_types::TimeId;

/// Extension of an entry: the versions that it drops.
const ENTRY_DROPS: u64 = 4;
/// Extension of an entry: all packs that entries up to this number condemned are gone.
const ENTRY_DELETED_THROUGH: u64 = 6;
/// Extension of a state: the versions that were dropped.
const STATE_DROPPED: u64 = 2;
/// Ranges that touch each other are kept apart, by the entries that dropped them, as long as there are no more than these.
const RANGES_MAX: usize = 256;

/// Numbers whose versions were dropped, from the first to the last.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DroppedRange {
    /// The lowest; the number below it is that of an entry of the log.
    pub first: TimeId,
    /// The highest.
    pub last: TimeId,
    /// The entry that dropped them; of ranges that were joined, the last.
    pub by: TimeId,
}

/// The versions that sweeps have dropped.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DroppedVersions(Vec<DroppedRange>);

impl DroppedVersions {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> &[DroppedRange] {
        &self.0
    }

    /// The range that a number is in.
    pub fn range_of(&self, number: TimeId) -> Option<DroppedRange> {
        let after = self.0.partition_point(|range| range.first <= number);
        self.0[..after].last().copied().filter(|range| number <= range.last)
    }

    /// Adds a range.
    ///
    /// # Errors
    /// When it meets one that is there, or is none.
    pub fn insert(&mut self, range: DroppedRange) -> Result<()> {
        let at = self.0.partition_point(|other| other.first <= range.first);
        let meets = at > 0 && self.0[at - 1].last >= range.first
            || self.0.get(at).is_some_and(|next| next.first <= range.last);
        if meets || range.first > range.last || range.first == TimeId(0) {
            return Err(damaged(format!(
                "versions {} to {} cannot be dropped (again)",
                range.first, range.last
            )));
        }
        self.0.insert(at, range);
        self.join(|one, other| one.by == other.by);
        if self.0.len() > RANGES_MAX {
            self.join(|_, _| true);
        }
        Ok(())
    }

    /// Joins ranges that touch each other and are `alike`.
    fn join(&mut self, alike: impl Fn(&DroppedRange, &DroppedRange) -> bool) {
        self.0.dedup_by(|next, before| {
            let joins = before.last.0.checked_add(1) == Some(next.first.0) && alike(before, next);
            if joins {
                before.last = next.last;
                before.by = before.by.max(next.by);
            }
            joins
        });
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_ranges(&mut out, self.0.iter().map(|range| (range.first, range.last)), |out, at| {
            put_varint(out, self.0[at].by.0);
        });
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut ranges = Vec::new();
        ranges_of("dropped versions of a root state", bytes, |first, last, input| {
            ranges.push(DroppedRange { first, last, by: TimeId(input.varint()?) });
            Ok(())
        })?;
        Ok(DroppedVersions(ranges))
    }
}

impl RootEntry {
    /// Says that the entry drops these versions: first and last number of each range, ascending.
    pub fn set_dropped(&mut self, ranges: &[(TimeId, TimeId)]) {
        let mut out = Vec::new();
        put_ranges(&mut out, ranges.iter().copied(), |_, _| ());
        self.extensions.set(ENTRY_DROPS, out);
    }

    /// The versions that the entry drops.
    ///
    /// # Errors
    /// When the extension is damaged.
    pub fn dropped(&self) -> Result<Vec<DroppedRange>> {
        let mut ranges = Vec::new();
        if let Some(bytes) = self.extensions.get(ENTRY_DROPS) {
            ranges_of("dropped versions of a root entry", bytes, |first, last, _| {
                ranges.push(DroppedRange { first, last, by: self.number });
                Ok(())
            })?;
        }
        Ok(ranges)
    }

    /// Says that all packs which entries up to this number have condemned are gone.
    pub fn set_deleted_through(&mut self, number: TimeId) {
        let mut out = Vec::new();
        put_varint(&mut out, number.0);
        self.extensions.set(ENTRY_DELETED_THROUGH, out);
    }

    /// All packs that entries up to this number have condemned are gone.
    ///
    /// # Errors
    /// When the extension is damaged.
    pub fn deleted_through(&self) -> Result<Option<TimeId>> {
        let Some(bytes) = self.extensions.get(ENTRY_DELETED_THROUGH) else { return Ok(None) };
        let mut input = Input::new("deleted packs of a root entry", bytes);
        let number = TimeId(input.varint()?);
        input.end()?;
        Ok(Some(number))
    }
}

impl RootState {
    /// The versions that were dropped.
    ///
    /// # Errors
    /// When the extension is damaged.
    pub fn dropped(&self) -> Result<DroppedVersions> {
        self.extensions
            .get(STATE_DROPPED)
            .map_or_else(|| Ok(DroppedVersions::default()), DroppedVersions::decode)
    }

    /// Says which versions were dropped.
    pub fn set_dropped(&mut self, dropped: &DroppedVersions) {
        if !dropped.is_empty() {
            self.extensions.set(STATE_DROPPED, dropped.encode());
        }
    }
}

fn put_ranges(
    out: &mut Vec<u8>,
    ranges: impl ExactSizeIterator<Item = (TimeId, TimeId)>,
    also: impl Fn(&mut Vec<u8>, usize),
) {
    put_varint(out, ranges.len() as u64);
    let mut before = 0;
    for (at, (first, last)) in ranges.enumerate() {
        put_varint(out, first.0 - before);
        put_varint(out, last.0 - first.0);
        also(out, at);
        before = last.0;
    }
}

fn ranges_of(
    what: &'static str,
    bytes: &[u8],
    mut take: impl FnMut(TimeId, TimeId, &mut Input<'_>) -> Result<()>,
) -> Result<()> {
    let mut input = Input::new(what, bytes);
    let mut before = 0u64;
    for _ in 0..input.count(2)? {
        let (gap, len) = (input.varint()?, input.varint()?);
        let first = before.checked_add(gap).filter(|_| gap > 0);
        let ends = first.and_then(|first| Some((first, first.checked_add(len)?)));
        let Some((first, last)) = ends else {
            return Err(input.damaged("ranges do not ascend"));
        };
        take(TimeId(first), TimeId(last), &mut input)?;
        before = last;
    }
    input.end()
}

fn damaged(reason: String) -> FormatError {
    FormatError::Damaged { what: "dropped versions".into(), byte_offset: 0, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chipmink_types::{RepositoryId, WriteId};

    fn range(first: u64, last: u64, by: u64) -> DroppedRange {
        DroppedRange { first: TimeId(first), last: TimeId(last), by: TimeId(by) }
    }

    #[test]
    fn what_was_dropped_is_found_and_comes_back() {
        let mut dropped = DroppedVersions::default();
        for added in [range(5, 7, 20), range(1, 2, 20), range(3, 3, 20), range(4, 4, 21), range(12, 12, 30)] {
            dropped.insert(added).unwrap();
        }
        assert_eq!(dropped.ranges(), [range(1, 3, 20), range(4, 4, 21), range(5, 7, 20), range(12, 12, 30)]);
        let found: Vec<Option<u64>> =
            (0..14).map(|number| dropped.range_of(TimeId(number)).map(|range| range.by.0)).collect();
        let (a, b, c) = (Some(20), Some(21), Some(30));
        assert_eq!(found, [None, a, a, a, b, a, a, a, None, None, None, None, c, None]);
        let mut state = RootState::new(RepositoryId([1; 16]));
        state.set_dropped(&dropped);
        assert_eq!(RootState::decode(&state.encode()).unwrap().dropped().unwrap(), dropped);
        for wrong in [range(0, 0, 40), range(7, 8, 40), range(3, 9, 40), range(10, 12, 40), range(9, 8, 40)] {
            assert!(matches!(dropped.insert(wrong), Err(FormatError::Damaged { .. })), "{wrong:?}");
        }
    }

    #[test]
    fn many_ranges_that_touch_become_one() {
        let mut dropped = DroppedVersions::default();
        for number in 1..=2000 {
            dropped.insert(range(number, number, 5000 + number)).unwrap();
            assert!(dropped.ranges().len() <= RANGES_MAX);
        }
        assert_eq!(dropped.range_of(TimeId(1)).map(|range| range.first), Some(TimeId(1)));
        assert!((1..=2000).all(|number| dropped.range_of(TimeId(number)).is_some()));
    }

    #[test]
    fn an_entry_says_what_it_drops() {
        let mut entry = RootEntry::new(TimeId(9), RepositoryId([1; 16]), WriteId([2; 16]));
        assert_eq!((entry.dropped().unwrap(), entry.deleted_through().unwrap()), (vec![], None));
        entry.set_dropped(&[(TimeId(1), TimeId(3)), (TimeId(5), TimeId(5))]);
        entry.set_deleted_through(TimeId(8));
        let entry = RootEntry::decode(&entry.encode(), TimeId(9)).unwrap();
        assert_eq!(entry.dropped().unwrap(), [range(1, 3, 9), range(5, 5, 9)]);
        assert_eq!(entry.deleted_through().unwrap(), Some(TimeId(8)));
    }

    #[test]
    fn damaged_ranges_are_refused() {
        for bytes in [
            &[1, 0, 0, 1][..],
            &[1, 1],
            &[2, 1, 0, 1],
            &[1, 1, 0, 1, 9],
            &[9, 1],
            &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1, 1],
        ] {
            assert!(DroppedVersions::decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
