//! The memo: which pod, and which place in it, an object of the graph belongs to.
//!
//! One table lives as long as the session. Each walk takes the sequence numbers after the last walk's, so an entry is
//! *of this walk* exactly if its number is not below the walk's first; older entries only hint at which pod held an
//! object. A journal of insertions lets a walk go back to an earlier state.

/// Where an object stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Address of the object; 0 in a free place.
    addr: u64,
    /// The pod in which it was created.
    pub pod: u32,
    /// Its memo number in that pod.
    pub number: u32,
    /// Position in the order of creation, over all walks of the session.
    pub seq: u32,
}

const FREE: Entry = Entry { addr: 0, pod: 0, number: 0, seq: 0 };
const FIRST_CAPACITY: usize = 1 << 10;

/// Open addressing with linear probing; at most seven tenths full.
pub(crate) struct Memo {
    places: Vec<Entry>,
    mask: usize,
    used: usize,
    /// First sequence number of the present walk; at least 1.
    walk_start: u32,
    /// Addresses inserted in this walk, in order; entry `i` has sequence number `walk_start + i`.
    journal: Vec<usize>,
}

impl Memo {
    pub(crate) fn new() -> Self {
        Memo {
            places: vec![FREE; FIRST_CAPACITY],
            mask: FIRST_CAPACITY - 1,
            used: 0,
            walk_start: 1,
            journal: Vec::new(),
        }
    }

    #[inline(always)]
    fn home(&self, addr: usize) -> usize {
        // Fibonacci hashing; objects are aligned to 16 bytes.
        ((addr as u64 >> 4).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize & self.mask
    }

    #[inline(always)]
    fn find(&self, addr: usize) -> Result<usize, usize> {
        let mut i = self.home(addr);
        loop {
            let entry = &self.places[i];
            if entry.addr == addr as u64 {
                return Ok(i);
            }
            if entry.addr == 0 {
                return Err(i);
            }
            i = (i + 1) & self.mask;
        }
    }

    /// The object's entry if it was created in this walk.
    #[inline(always)]
    pub(crate) fn get(&self, addr: usize) -> Option<Entry> {
        match self.find(addr) {
            Ok(i) if self.places[i].seq >= self.walk_start => Some(self.places[i]),
            _ => None,
        }
    }

    /// The pod in which the object was created, in this walk or in an earlier one: no more than a hint.
    pub(crate) fn last_pod(&self, addr: usize) -> Option<u32> {
        self.find(addr).ok().map(|i| self.places[i].pod)
    }

    /// Asks for the memory in which the object's entry is, or will be.
    #[inline(always)]
    pub(crate) fn prefetch(&self, addr: usize) {
        crate::py::prefetch((&raw const self.places[self.home(addr)]).cast());
    }

    /// Enters an object that is not in the memo of this walk. Returns the pod of a stale entry that it replaces.
    #[inline(always)]
    pub(crate) fn put(&mut self, addr: usize, pod: u32, number: u32) -> Option<u32> {
        let seq = self.next_seq();
        self.journal.push(addr);
        let entry = Entry { addr: addr as u64, pod, number, seq };
        match self.find(addr) {
            Ok(i) => {
                let stale = self.places[i].pod;
                self.places[i] = entry;
                Some(stale)
            }
            Err(i) => {
                self.places[i] = entry;
                self.used += 1;
                if self.used * 10 > self.places.len() * 7 {
                    self.grow();
                }
                None
            }
        }
    }

    /// The number that the next object will get.
    #[inline(always)]
    pub(crate) fn next_seq(&self) -> u32 {
        self.walk_start + self.journal.len() as u32
    }

    /// Addresses created in this walk, in order.
    pub(crate) fn journal(&self) -> &[usize] {
        &self.journal
    }

    /// Forgets what was created in this walk at or after `seq`.
    pub(crate) fn roll_back(&mut self, seq: u32) {
        let keep = (seq - self.walk_start) as usize;
        while self.journal.len() > keep {
            if let Some(addr) = self.journal.pop() {
                self.remove(addr);
            }
        }
    }

    /// Begins a walk: everything known so far is stale.
    ///
    /// Returns `false` if the sequence numbers may run out; then the memo has been emptied.
    pub(crate) fn begin_walk(&mut self) -> bool {
        let next = self.next_seq();
        self.journal.clear();
        if next > u32::MAX / 2 {
            self.clear();
            return false;
        }
        self.walk_start = next;
        true
    }

    /// Drops stale entries whose pod is not wanted any more, if they outnumber the others.
    pub(crate) fn prune(&mut self, mut wanted: impl FnMut(u32) -> bool) {
        if self.used < 4096 || self.used < 2 * self.journal.len() {
            return;
        }
        let start = self.walk_start;
        let old = std::mem::take(&mut self.places);
        let kept: Vec<Entry> =
            old.into_iter().filter(|e| e.addr != 0 && (e.seq >= start || wanted(e.pod))).collect();
        let capacity = (kept.len() * 2).next_power_of_two().max(FIRST_CAPACITY);
        self.rebuild(kept, capacity);
    }

    pub(crate) fn clear(&mut self) {
        *self = Memo::new();
    }

    /// Bytes held.
    pub(crate) fn byte_len(&self) -> usize {
        self.places.capacity() * size_of::<Entry>() + self.journal.capacity() * size_of::<usize>()
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        let capacity = self.places.len() * 2;
        let old = std::mem::take(&mut self.places);
        self.rebuild(old, capacity);
    }

    fn rebuild(&mut self, entries: Vec<Entry>, capacity: usize) {
        self.places = vec![FREE; capacity];
        self.mask = capacity - 1;
        self.used = 0;
        for entry in entries {
            if entry.addr != 0 {
                let mut i = self.home(entry.addr as usize);
                while self.places[i].addr != 0 {
                    i = (i + 1) & self.mask;
                }
                self.places[i] = entry;
                self.used += 1;
            }
        }
    }

    /// Removes an entry and closes the gap in its probe chain.
    fn remove(&mut self, addr: usize) {
        let Ok(mut gap) = self.find(addr) else { return };
        self.used -= 1;
        let mut i = gap;
        loop {
            i = (i + 1) & self.mask;
            let entry = self.places[i];
            if entry.addr == 0 {
                break;
            }
            let home = self.home(entry.addr as usize);
            // The entry may move into the gap unless its home lies behind the gap, up to where it stands.
            if (i.wrapping_sub(home) & self.mask) >= (i.wrapping_sub(gap) & self.mask) {
                self.places[gap] = entry;
                gap = i;
            }
        }
        self.places[gap] = FREE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn rolls_back_and_keeps_probe_chains_whole() {
        let mut memo = Memo::new();
        let mut state = 12345u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state >> 33
        };
        for _ in 0..20 {
            memo.begin_walk();
            let mut model: Vec<(usize, u32)> = Vec::new();
            for _ in 0..400 {
                if next() % 5 == 0 && !model.is_empty() {
                    let keep = next() as usize % model.len();
                    memo.roll_back(memo.walk_start + keep as u32);
                    model.truncate(keep);
                }
                let addr = 16 * (1 + next() as usize % 3000);
                if memo.get(addr).is_none() {
                    memo.put(addr, 7, model.len() as u32);
                    model.push((addr, model.len() as u32));
                }
                let known: HashMap<usize, u32> = model.iter().copied().collect();
                let probe = 16 * (1 + next() as usize % 3000);
                assert_eq!(memo.get(probe).map(|e| e.number), known.get(&probe).copied());
            }
            memo.prune(|_| false);
            for (addr, number) in model {
                assert_eq!(memo.get(addr).map(|e| e.number), Some(number));
            }
        }
    }
}
