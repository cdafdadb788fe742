//! The memo: which pod, and which place in it, an object of the graph belongs to.
//!
//! One table lives as long as the session. Each walk takes the sequence numbers after the last walk's, so an entry is
//! *of this walk* exactly if its number is not below the walk's first; older entries only hint at which pod held an
//! object, and under which export slot that pod offers it. A journal of insertions, with what each replaced, lets a walk go
//! back to an earlier state: what it takes back becomes stale.

use super::session::NONE;

/// Where an object stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Address of the object; 0 in a free place.
    addr: u64,
    /// The pod in which it was created.
    pub pod: u32,
    /// Its memo number in that pod.
    pub number: u32,
    /// Position in the order of creation, over all walks of the session; 0: taken back.
    pub seq: u32,
    /// The export slot under which the pod offers it, or [`NONE`].
    pub slot: u32,
}

/// An entry that was made in this walk, and what stood there before.
#[derive(Clone, Copy)]
struct Made {
    addr: usize,
    /// Pod and slot of the stale entry; [`NONE`] if there was none.
    pod: u32,
    slot: u32,
}

const FREE: Entry = Entry { addr: 0, pod: 0, number: 0, seq: 0, slot: NONE };
const FIRST_CAPACITY: usize = 1 << 10;

/// Open addressing with linear probing; at most seven tenths full.
pub(crate) struct Memo {
    places: Vec<Entry>,
    mask: usize,
    used: usize,
    /// First sequence number of the present walk; at least 1.
    walk_start: u32,
    /// What was entered in this walk, in order; entry `i` has sequence number `walk_start + i`.
    journal: Vec<Made>,
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
        home(addr, self.mask)
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
        self.find(addr).ok().map(|i| self.places[i].pod).filter(|pod| *pod != NONE)
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
        match self.find(addr) {
            Ok(i) => {
                let stale = self.places[i];
                let slot = if stale.pod == pod { stale.slot } else { NONE };
                self.journal.push(Made { addr, pod: stale.pod, slot: stale.slot });
                self.places[i] = Entry { addr: addr as u64, pod, number, seq, slot };
                (stale.pod != NONE).then_some(stale.pod)
            }
            Err(i) => {
                self.journal.push(Made { addr, pod: NONE, slot: NONE });
                self.places[i] = Entry { addr: addr as u64, pod, number, seq, slot: NONE };
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
    pub(crate) fn created(&self) -> impl Iterator<Item = usize> {
        self.journal.iter().map(|made| made.addr)
    }

    /// The slot under which the pod offers the object, as far as the memo knows, from this walk or an earlier one.
    #[inline(always)]
    pub(crate) fn slot(&self, addr: usize, pod: u32) -> Option<u32> {
        let entry = self.places[self.find(addr).ok()?];
        (entry.pod == pod && entry.slot != NONE).then_some(entry.slot)
    }

    /// Notes the slot under which the pod offers the object, if that is where the memo knows it.
    #[inline(always)]
    pub(crate) fn offer(&mut self, addr: usize, pod: u32, slot: u32) {
        if let Ok(i) = self.find(addr) {
            let entry = &mut self.places[i];
            if entry.pod == pod {
                entry.slot = slot;
            }
        }
    }

    /// The pod does not offer the object under this slot any more.
    pub(crate) fn withdraw(&mut self, addr: usize, pod: u32, slot: u32) {
        if let Ok(i) = self.find(addr) {
            let entry = &mut self.places[i];
            if entry.pod == pod && entry.slot == slot {
                entry.slot = NONE;
            }
        }
    }

    /// Forgets an object that is gone: what lies at its address from now on is another one. Returns the pod and the slot
    /// under which it was offered.
    pub(crate) fn forget(&mut self, addr: usize) -> Option<(u32, u32)> {
        let i = self.find(addr).ok()?;
        let entry = &mut self.places[i];
        let offered = (entry.pod, entry.slot);
        (entry.pod, entry.seq, entry.slot) = (NONE, 0, NONE);
        (offered.1 != NONE).then_some(offered)
    }

    /// Forgets what was created in this walk at or after `seq`. `offers` tells whether a pod still offers an address under
    /// a slot; what it denies is not put back.
    pub(crate) fn roll_back(&mut self, seq: u32, offers: impl Fn(u32, u32, usize) -> bool) {
        let keep = (seq - self.walk_start) as usize;
        for made in self.journal.drain(keep..).rev() {
            let mut i = home(made.addr, self.mask);
            while self.places[i].addr != made.addr as u64 {
                i = (i + 1) & self.mask;
            }
            let entry = &mut self.places[i];
            entry.seq = 0;
            if made.pod != NONE {
                (entry.pod, entry.slot) = (made.pod, made.slot);
            }
            if entry.slot != NONE && !offers(entry.pod, entry.slot, made.addr) {
                entry.slot = NONE;
            }
        }
    }

    /// As [`Memo::roll_back`], of the whole walk.
    pub(crate) fn roll_back_all(&mut self, offers: impl Fn(u32, u32, usize) -> bool) {
        self.roll_back(self.walk_start, offers);
    }

    /// The walk is over: its journal is not needed any more.
    pub(crate) fn end_walk(&mut self) {
        self.walk_start = self.next_seq();
        self.journal = Vec::new();
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
        self.places.capacity() * size_of::<Entry>() + self.journal.capacity() * size_of::<Made>()
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
}

/// Where the search for an address begins.
#[inline(always)]
fn home(addr: usize, mask: usize) -> usize {
    // Fibonacci hashing of what is left of an address aligned to 16 bytes. Only the product's highest bits are spread well:
    // bits from its middle made probes of nine entries where these make less than one.
    ((addr as u64 >> 4).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> mask.leading_zeros()) as usize
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
                    memo.roll_back(memo.walk_start + keep as u32, |_, _, _| true);
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
