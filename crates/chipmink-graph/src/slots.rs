//! Row numbers of a table.

use crate::GraphError;
use chipmink_types::Slot;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Gives out the row numbers of one table: freed ones first, the lowest before the others, then new ones.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    free: BinaryHeap<Reverse<u32>>,
    next: u64,
}

impl Slots {
    /// A table in which every slot below `next` is held.
    pub fn dense(next: u32) -> Self {
        Slots { free: BinaryHeap::new(), next: u64::from(next) }
    }

    /// A table in which exactly `held` are held; every other slot below `next` is free.
    pub fn holding(held: impl IntoIterator<Item = Slot>, next: u32) -> Self {
        let mut held: Vec<u32> = held.into_iter().map(|slot| slot.0).collect();
        held.sort_unstable();
        let next = held.last().map_or(u64::from(next), |&last| u64::from(next).max(u64::from(last) + 1));
        let mut free = BinaryHeap::new();
        let mut expected = 0u64;
        for slot in held.into_iter().map(u64::from).chain([next]) {
            // The range is bounded by rows that exist or that a table's header claims; only gaps are stored.
            free.extend((expected..slot).filter_map(|gap| u32::try_from(gap).ok()).map(Reverse));
            expected = expected.max(slot + 1);
        }
        Slots { free, next }
    }

    /// Takes a slot.
    ///
    /// # Errors
    /// [`GraphError::SlotsExhausted`] when all 2^32 are held.
    pub fn take(&mut self) -> Result<Slot, GraphError> {
        if let Some(Reverse(slot)) = self.free.pop() {
            return Ok(Slot(slot));
        }
        let slot = u32::try_from(self.next).map_err(|_| GraphError::SlotsExhausted { held: self.next })?;
        self.next += 1;
        Ok(Slot(slot))
    }

    /// Gives a slot back, which must have been held.
    pub fn free(&mut self, slot: Slot) {
        debug_assert!(u64::from(slot.0) < self.next, "a slot is freed that was never given out");
        self.free.push(Reverse(slot.0));
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
    fn the_last_slot_is_usable_and_then_the_table_is_full() {
        let mut slots = Slots::dense(u32::MAX);
        assert_eq!(slots.take().unwrap(), Slot(u32::MAX));
        assert!(matches!(slots.take(), Err(GraphError::SlotsExhausted { .. })));
        slots.free(Slot(7));
        assert_eq!(slots.take().unwrap(), Slot(7));
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
