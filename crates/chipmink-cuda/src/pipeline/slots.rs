//! Which slots of the digest tables belong to which region, and what is known of it.

use super::DeviceRegion;
use chipmink_kernels::layout::RawDigest;
use std::collections::{BTreeMap, HashMap};

/// A region that has slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// The first of as many slots as it has chunks.
    pub first: u32,
    /// Its digests when it was adopted last; `None`: never, and its slots hold no digest.
    pub digests: Option<Vec<RawDigest>>,
    /// The set of regions that used it last.
    pub used: u64,
}

/// The slots of one device's tables.
#[derive(Debug)]
pub(crate) struct Slots {
    known: HashMap<DeviceRegion, Known>,
    /// Free runs: first slot to length. They do not touch.
    free: BTreeMap<u32, u32>,
}

impl Slots {
    pub(crate) fn new(capacity: u32) -> Self {
        let free = (capacity > 0).then_some((0, capacity));
        Slots { known: HashMap::new(), free: free.into_iter().collect() }
    }

    pub(crate) fn get(&self, region: &DeviceRegion) -> Option<&Known> {
        self.known.get(region)
    }

    pub(crate) fn get_mut(&mut self, region: &DeviceRegion) -> Option<&mut Known> {
        self.known.get_mut(region)
    }

    /// Gives slots to a region that has none. `None`: there is no run of so many; nothing has changed.
    pub(crate) fn insert(&mut self, region: DeviceRegion, count: u32, used: u64) -> Option<u32> {
        let first = match count {
            0 => 0,
            _ => {
                let (first, len) =
                    self.free.iter().find(|(_, len)| **len >= count).map(|(at, len)| (*at, *len))?;
                self.free.remove(&first);
                if len > count {
                    self.free.insert(first + count, len - count);
                }
                first
            }
        };
        self.known.insert(region, Known { first, digests: None, used });
        Some(first)
    }

    /// Takes the slots from all regions that the present set does not use.
    pub(crate) fn evict_unused(&mut self, used: u64) {
        let gone: Vec<_> =
            self.known.iter().filter(|(_, known)| known.used != used).map(|(r, _)| *r).collect();
        for region in gone {
            self.remove(&region);
        }
    }

    pub(crate) fn remove(&mut self, region: &DeviceRegion) {
        if let Some(known) = self.known.remove(region) {
            self.give_back(known.first, region.chunk_count());
        }
    }

    /// Adds slots at the end, of tables that have grown from one number of slots to another.
    pub(crate) fn extend(&mut self, from: u32, to: u32) {
        self.give_back(from, to.saturating_sub(from));
    }

    fn give_back(&mut self, first: u32, count: u32) {
        if count == 0 {
            return;
        }
        let (mut first, mut count) = (first, count);
        if let Some((&before, &len)) = self.free.range(..first).next_back()
            && before + len == first
        {
            self.free.remove(&before);
            (first, count) = (before, len + count);
        }
        if let Some(len) = self.free.remove(&(first + count)) {
            count += len;
        }
        self.free.insert(first, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chipmink_digest::{CHUNK_LEN, Grid};

    fn region(address: u64, chunks: u64) -> DeviceRegion {
        DeviceRegion { address, grid: Grid::run(chunks * CHUNK_LEN) }
    }

    #[test]
    fn slots_are_disjoint_and_join_when_they_are_given_back() {
        let mut slots = Slots::new(10);
        assert_eq!(slots.insert(region(1, 4), 4, 1), Some(0));
        assert_eq!(slots.insert(region(2, 4), 4, 1), Some(4));
        assert_eq!(slots.insert(region(3, 4), 4, 1), None);
        assert_eq!(slots.insert(region(3, 2), 2, 1), Some(8));
        slots.remove(&region(1, 4));
        slots.remove(&region(3, 2));
        assert_eq!(slots.insert(region(5, 5), 5, 1), None);
        slots.remove(&region(2, 4));
        assert_eq!(slots.insert(region(5, 10), 10, 1), Some(0));
    }

    #[test]
    fn only_what_the_present_set_does_not_use_is_evicted() {
        let mut slots = Slots::new(4);
        slots.insert(region(1, 2), 2, 1);
        slots.insert(region(2, 2), 2, 2);
        slots.evict_unused(2);
        assert_eq!(slots.get(&region(1, 2)), None);
        assert!(slots.get(&region(2, 2)).is_some());
        assert_eq!(slots.insert(region(3, 2), 2, 2), Some(0));
    }

    #[test]
    fn a_region_of_no_bytes_takes_no_slot() {
        let mut slots = Slots::new(0);
        assert_eq!(slots.insert(region(1, 0), 0, 1), Some(0));
        slots.remove(&region(1, 0));
        assert_eq!(slots.insert(region(1, 1), 1, 1), None);
    }
}
