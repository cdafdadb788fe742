//! Memo numbers: which of a pod's objects are kept, and whether an object's state is there yet.

use super::error::{Failure, Result};
use pyo3::prelude::*;
use smallvec::SmallVec;

/// Says that something is not settled until a frame of the stack is done.
///
/// Frames are told apart by a serial number, so that a mark is known to be past once its frame has gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mark {
    /// Position of the frame on the stack; `u32::MAX`: settled.
    pub(super) depth: u32,
    /// The frame's serial number.
    pub(super) serial: u32,
}

impl Mark {
    /// Nothing is waited for.
    pub(super) const SETTLED: Mark = Mark { depth: u32::MAX, serial: 0 };

    #[inline(always)]
    pub(super) fn is_settled(self) -> bool {
        self.depth == u32::MAX
    }

    /// The one whose frame lies further out. Frames nest, so it is done last.
    #[inline(always)]
    pub(super) fn outer(self, other: Mark) -> Mark {
        if other.depth < self.depth { other } else { self }
    }
}

/// An object that may be referred to again.
#[derive(Clone)]
pub(super) struct Entry<'py> {
    pub(super) object: Bound<'py, PyAny>,
    /// The outermost frame that must be done before the object's hash can be relied on.
    pub(super) mark: Mark,
}

/// From this many kept numbers on, a table of ranks replaces the search.
const RANK_THRESHOLD: usize = 16;

/// The memo numbers of a pod that are kept, and the order in which they come up.
///
/// Invariant: `numbers` ascend strictly; `ranks`, if not empty, covers all of them.
#[derive(Default)]
pub(super) struct Kept {
    numbers: SmallVec<[u32; 4]>,
    /// For each 64 numbers: one bit for each that is kept, and how many are kept below.
    ranks: Vec<(u64, u32)>,
}

/// Stands for "no further number is kept".
pub(super) const NO_NUMBER: usize = usize::MAX;

impl Kept {
    /// # Errors
    /// When a number could not belong to any value in `byte_len` bytes: every numbered value takes a byte.
    pub(super) fn new(mut numbers: SmallVec<[u32; 4]>, byte_len: usize) -> Result<Self> {
        if !numbers.is_sorted_by(|a, b| a < b) {
            numbers.sort_unstable();
            numbers.dedup();
        }
        let Some(&last) = numbers.last() else { return Ok(Kept::default()) };
        if last as usize >= byte_len {
            return Err(Failure::damaged(format!("memo number {last} is beyond what the pod can hold")));
        }
        let mut ranks: Vec<(u64, u32)> = Vec::new();
        if numbers.len() > RANK_THRESHOLD {
            ranks.resize(last as usize / 64 + 1, (0u64, 0u32));
            for &number in &numbers {
                ranks[number as usize / 64].0 |= 1 << (number % 64);
            }
            let mut below = 0u32;
            for (bits, rank) in &mut ranks {
                *rank = below;
                below += bits.count_ones();
            }
        }
        Ok(Kept { numbers, ranks })
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The number that is kept at this position; [`NO_NUMBER`] past the last.
    #[inline(always)]
    pub(super) fn number(&self, position: usize) -> usize {
        self.numbers.get(position).map_or(NO_NUMBER, |&number| number as usize)
    }

    /// Where this number stands among the kept ones.
    #[inline(always)]
    pub(super) fn position(&self, number: u64) -> Option<usize> {
        if self.ranks.is_empty() {
            return self.numbers.iter().position(|&kept| u64::from(kept) == number);
        }
        let &(bits, rank) = self.ranks.get(usize::try_from(number / 64).ok()?)?;
        let bit = 1u64 << (number % 64);
        (bits & bit != 0).then(|| rank as usize + (bits & (bit - 1)).count_ones() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_found_with_and_without_the_table() {
        for count in [1u32, 4, 16, 17, 300] {
            let numbers: Vec<u32> = (0..count).map(|i| i * 7 + i % 3).collect();
            let kept = Kept::new(numbers.iter().rev().copied().collect(), 10_000).ok().expect("in bounds");
            assert_eq!(kept.len(), count as usize);
            for number in 0..count * 8 + 200 {
                let expected = numbers.iter().position(|&n| n == number);
                assert_eq!(kept.position(u64::from(number)), expected, "{number} of {count}");
            }
            assert_eq!(kept.position(u64::MAX), None);
            assert_eq!(kept.number(count as usize), NO_NUMBER);
        }
    }

    #[test]
    fn a_number_beyond_the_pod_is_refused() {
        assert!(Kept::new(SmallVec::from_slice(&[3, 9]), 9).is_err());
        assert!(Kept::new(SmallVec::from_slice(&[3, 9]), 10).is_ok());
    }
}
