//! Row numbers of a table.

use crate::GraphError;
use chipmink_types::Slot;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Gives out the row numbers of one table: freed ones first, the lowest before the others, then new ones.
///
/// Free numbers are kept as ranges, so that a table whose header claims a high number costs no memory for it.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    /// Ranges of free slots, `next` not among them: first, and one behind the last.
    free: BinaryHeap<Reverse<(u64, u64)>>,
    next: u64,
}

impl Slots {
    /// A table in which every slot below `next` is held.
    pub fn dense(next: u32) -> Self {
        Slots { free: BinaryHeap::new(), next: u64::from(next) }
    }

    /// A table in which exactly `held` are held; every other slot below `next` is free.
    pub fn holding(held: impl IntoIterator<Item = Slot>, next: u32) -> Self {
        let mut held: Vec<u64> = held.into_iter().map(|slot| u64::from(slot.0)).collect();
        held.sort_unstable();
        let next = held.last().map_or(u64::from(next), |&last| u64::from(next).max(last + 1));
        let mut free = BinaryHeap::new();
        let mut expected = 0;
        for slot in held.into_iter().chain([next]) {
            if expected < slot {
                free.push(Reverse((expected, slot)));
            }
            expected = slot + 1;
        }
        Slots { free, next }
    }

    /// Takes a slot.
    ///
    /// # Errors
    /// [`GraphError::SlotsExhausted`] when all are held.
    pub fn take(&mut self) -> Result<Slot, GraphError> {
        let exhausted = GraphError::SlotsExhausted { held: self.next };
        if let Some(Reverse((first, end))) = self.free.pop() {
            if first + 1 < end {
                self.free.push(Reverse((first + 1, end)));
            }
            return u32::try_from(first).map(Slot).map_err(|_| exhausted);
        }
        // `next` itself must stay a u32 in the table's header, so the highest number is never given out.
        let slot = u32::try_from(self.next).ok().filter(|slot| *slot < u32::MAX).ok_or(exhausted)?;
        self.next += 1;
        Ok(Slot(slot))
    }

    /// Gives a slot back, which must have been held.
    pub fn free(&mut self, slot: Slot) {
        let slot = u64::from(slot.0);
        debug_assert!(slot < self.next, "a slot is freed that was never given out");
        self.free.push(Reverse((slot, slot + 1)));
    }

    /// Makes one more slot and leaves it free, which changes [`Slots::next`] and nothing else.
    ///
    /// # Errors
    /// [`GraphError::SlotsExhausted`] when there is no more.
    pub fn skip(&mut self) -> Result<(), GraphError> {
        if self.next >= u64::from(u32::MAX) {
            return Err(GraphError::SlotsExhausted { held: self.next });
        }
        self.free.push(Reverse((self.next, self.next + 1)));
        self.next += 1;
        Ok(())
    }

    /// One more than the highest slot ever given out.
    pub fn next(&self) -> u32 {
        u32::try_from(self.next).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn gaps_are_filled_from_below_before_new_slots_are_made() {
        let mut slots = Slots::holding([Slot(1), Slot(4)], 6);
        let taken: Vec<u32> = (0..6).map(|_| slots.take().unwrap().0).collect();
        assert_eq!(taken, [0, 2, 3, 5, 6, 7]);
        assert_eq!(slots.next(), 8);
    }

    #[test]
    fn a_full_table_is_an_error_until_a_slot_is_freed() {
        let mut slots = Slots::dense(u32::MAX - 1);
        assert_eq!(slots.take().unwrap(), Slot(u32::MAX - 1));
        assert!(matches!(slots.take(), Err(GraphError::SlotsExhausted { .. })));
        slots.free(Slot(7));
        assert_eq!(slots.take().unwrap(), Slot(7));
    }

    #[test]
    fn a_skipped_slot_is_given_out_later() {
        let mut slots = Slots::dense(2);
        slots.skip().unwrap();
        assert_eq!((slots.next(), slots.take().unwrap(), slots.next()), (3, Slot(2), 3));
    }

    #[test]
    fn a_header_that_claims_a_high_number_costs_no_memory() {
        let mut slots = Slots::holding([Slot(2)], u32::MAX);
        assert_eq!(slots.free.len(), 2);
        let taken: Vec<u32> = (0..3).map(|_| slots.take().unwrap().0).collect();
        assert_eq!(taken, [0, 1, 3]);
    }

    proptest! {
        #[test]
        fn no_slot_is_held_twice(steps in prop::collection::vec(any::<Option<prop::sample::Index>>(), 0..200)) {
            let (mut slots, mut held) = (Slots::default(), BTreeSet::new());
            for step in steps {
                match step {
                    Some(index) if !held.is_empty() => {
                        let slot = *index.get(&held.iter().copied().collect::<Vec<_>>());
                        held.remove(&slot);
                        slots.free(slot);
                    }
                    _ => {
                        let slot = slots.take().unwrap();
                        let lowest_free = (0..).map(Slot).find(|slot| !held.contains(slot)).unwrap();
                        prop_assert_eq!(slot, lowest_free);
                        held.insert(slot);
                    }
                }
            }
        }
    }
}
