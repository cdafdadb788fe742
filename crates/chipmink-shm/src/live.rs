//! [`LiveMemo`]: digests of live memory that hold as long as its pages stay unwritten.
//!
//! 1. A chunk's digest is forgotten in the same step in which one of its pages is reported as written, and comes back only
//!    by [`LiveDigests::learn`], of bytes that were read after that step. So a walk that fails in between leaves nothing
//!    that is believed wrongly. If only pages were written that it shares with its neighbours, whoever looked is told what
//!    it was, and finds out whether it still is: a chunk's edges and its digest are always of the same bytes.
//! 2. What was found is taken only with the ticket of the newest look at the region: if somebody else looked meanwhile,
//!    he alone knows what was written since.
//! 3. Regions do not overlap; a new one takes the place of all that lie across it.
//!
//! Tracking costs the program something: the first write to each protected page takes about as long as hashing three
//! pages. So a region is only tracked once it has been seen to change little, and let go when it changes much; each time
//! that happens it must stay calm for longer.

use crate::dirty::{self, DirtyPages, Verdict};
use chipmink_digest::Grid;
use chipmink_types::{Digest, Doubt, Edges, LiveDigests, LiveRegion, Look};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, TryLockError, Weak};

/// When regions are tracked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LivePolicy {
    /// Shorter regions are never tracked: each is one mapping more for the kernel, and its first and last chunk are
    /// hashed anyway. In bytes.
    pub least_len: usize,
    /// Walks that must find a region calm before it is tracked: at most one chunk in `calm_part` changed.
    pub calm_walks: u32,
    /// See `calm_walks`.
    pub calm_part: u64,
    /// A tracked region of which more than one page in `hot_part` was written between two looks is let go.
    pub hot_part: usize,
    /// Regions that are remembered at most; the kernel splits its mappings for them.
    pub most_regions: usize,
    /// Chunks that are remembered at most, some 50 bytes for each.
    pub most_digests: usize,
}

impl Default for LivePolicy {
    fn default() -> Self {
        LivePolicy {
            least_len: 1 << 20,
            calm_walks: 1,
            calm_part: 8,
            hot_part: 8,
            most_regions: 1024,
            most_digests: 4 << 20,
        }
    }
}

/// Walks for which a region that proved hot, or could not be tracked, must wait at most.
const LONGEST_WAIT: u32 = 64;

/// Walks after which a region that nobody looked at is let go.
const UNSEEN_WALKS: u64 = 64;

#[derive(Debug)]
struct Entry {
    region: LiveRegion,
    grid: Grid,
    /// Of each chunk; what is known if the region is tracked, else what it was when it was last hashed.
    digests: Vec<Option<Digest>>,
    /// Of each chunk, if the region is tracked and they are known: those of the bytes that have the digest.
    edges: Vec<Option<Edges>>,
    is_tracked: bool,
    /// Of the newest look.
    ticket: u64,
    /// The newest walk that looked.
    walk: u64,
    /// The newest walk that said how much had changed.
    learned_in: u64,
    /// Walks in a row that found it calm.
    calm: u32,
    /// Walks that must.
    calm_needed: u32,
}

/// Digests of live memory.
pub struct LiveMemo {
    pages: Box<dyn DirtyPages>,
    probe: fn() -> Box<dyn DirtyPages>,
    policy: LivePolicy,
    /// By address.
    entries: BTreeMap<usize, Entry>,
    walk: u64,
    tickets: u64,
}

impl std::fmt::Debug for LiveMemo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveMemo")
            .field("pages", &self.pages)
            .field("walk", &self.walk)
            .finish_non_exhaustive()
    }
}

impl LiveMemo {
    /// Knows nothing yet. `probe` finds out how pages are tracked, now and again in a forked child.
    pub fn new(probe: fn() -> Box<dyn DirtyPages>, policy: LivePolicy) -> Self {
        LiveMemo { pages: probe(), probe, policy, entries: BTreeMap::new(), walk: 0, tickets: 0 }
    }

    /// How many regions are tracked at present.
    pub fn tracked(&self) -> usize {
        self.entries.values().filter(|entry| entry.is_tracked).count()
    }

    fn drop_entry(&mut self, address: usize) {
        if let Some(entry) = self.entries.remove(&address)
            && entry.is_tracked
        {
            self.pages.untrack(entry.region.address, entry.region.byte_len);
        }
    }

    fn drop_where(&mut self, is_over: impl Fn(&Entry) -> bool) {
        let over: Vec<usize> =
            self.entries.iter().filter(|(_, entry)| is_over(entry)).map(|(at, _)| *at).collect();
        over.into_iter().for_each(|address| self.drop_entry(address));
    }

    /// Makes the region the only one in its place.
    fn make_room(&mut self, region: &LiveRegion) {
        let end = region.address + region.byte_len;
        let across: Vec<usize> = self
            .entries
            .range(..end)
            .rev()
            .take_while(|(_, entry)| entry.region.address + entry.region.byte_len > region.address)
            .filter(|(_, entry)| entry.region != *region)
            .map(|(at, _)| *at)
            .collect();
        across.into_iter().for_each(|address| self.drop_entry(address));
        let others =
            |memo: &Self| memo.entries.len() - usize::from(memo.entries.contains_key(&region.address));
        while others(self) >= self.policy.most_regions
            || self.entries.values().map(|entry| entry.digests.len()).sum::<usize>()
                > self.policy.most_digests
        {
            let oldest = self.entries.iter().filter(|(_, entry)| entry.region != *region);
            let Some(address) = oldest.min_by_key(|(_, entry)| entry.walk).map(|(at, _)| *at) else { break };
            self.drop_entry(address);
        }
    }
}

impl Entry {
    fn new(region: &LiveRegion, grid: Grid, policy: &LivePolicy) -> Self {
        Entry {
            region: *region,
            grid,
            digests: Vec::new(),
            edges: Vec::new(),
            is_tracked: false,
            ticket: 0,
            walk: 0,
            learned_in: 0,
            calm: 0,
            calm_needed: policy.calm_walks,
        }
    }

    /// Forgets the digests of chunks that have a byte in one of these ranges of addresses, ascending. Returns which of them
    /// have them at their edges only.
    fn forget(&mut self, written: &[Range<usize>], page_len: usize) -> Vec<Doubt> {
        let mut doubts: Vec<Doubt> = Vec::new();
        for range in written {
            let from = range.start.saturating_sub(self.region.address);
            let to = range.end.saturating_sub(self.region.address).min(self.region.byte_len);
            if from >= to || self.digests.is_empty() {
                continue;
            }
            for ordinal in self.chunk_at(from)..=self.chunk_at(to - 1) {
                let edges = self.edges.get_mut(ordinal).and_then(Option::take);
                let known = self.digests[ordinal].take().zip(edges);
                // Two ranges may touch the same chunk.
                let before = doubts.pop_if(|doubt| doubt.ordinal == ordinal as u64);
                let fresh = known.map(|(digest, edges)| Doubt {
                    ordinal: ordinal as u64,
                    digest,
                    edges,
                    is_head: false,
                    is_tail: false,
                });
                let Some(doubt) = before.or(fresh) else { continue };
                doubts.extend(self.narrowed(doubt, range, page_len));
            }
        }
        doubts
    }

    /// The doubt of a chunk when a range was written, too; `None` if that is more than its edges.
    fn narrowed(&self, doubt: Doubt, written: &Range<usize>, page_len: usize) -> Option<Doubt> {
        let (offset, len) = self.grid.chunk(doubt.ordinal)?;
        let start = self.region.address + offset as usize;
        let end = start + len as usize;
        let (head, tail) = Edges::lens(start, len as usize, page_len)?;
        let is_inside = written.start < end - tail && written.end > start + head;
        (!is_inside).then(|| Doubt {
            is_head: doubt.is_head || written.start < start + head,
            is_tail: doubt.is_tail || written.end > end - tail,
            ..doubt
        })
    }

    /// The chunk in which a byte of the region lies.
    fn chunk_at(&self, offset: usize) -> usize {
        let (mut low, mut high) = (0, self.digests.len() as u64);
        // Chunks are in order; the last that begins at or before the offset.
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.grid.chunk(middle) {
                Some((at, _)) if at <= offset as u64 => low = middle,
                _ => high = middle,
            }
        }
        low as usize
    }

    /// Takes over edges, before the digests.
    fn learn_edges(&mut self, digests: &[Digest], edges: &[(u64, Edges)]) {
        self.edges.resize(digests.len(), None);
        // Those of other bytes than the new digest's would vouch for what they know nothing of.
        for (ordinal, digest) in digests.iter().enumerate() {
            if self.digests.get(ordinal) != Some(&Some(*digest)) {
                self.edges[ordinal] = None;
            }
        }
        for (ordinal, edges) in edges {
            if let Some(place) = usize::try_from(*ordinal).ok().and_then(|at| self.edges.get_mut(at)) {
                *place = Some(*edges);
            }
        }
    }

    fn wait_longer(&mut self) {
        self.calm = 0;
        self.calm_needed = (self.calm_needed * 2).clamp(2, LONGEST_WAIT);
    }
}

fn grid_of(region: &LiveRegion) -> Option<Grid> {
    Grid::new(region.grid, region.row_len, region.first_chunk_len, region.byte_len as u64).ok()
}

impl LiveDigests for LiveMemo {
    fn unavailable(&self) -> Option<String> {
        self.pages.unavailable()
    }

    fn begin_walk(&mut self) {
        if self.pages.is_lost() {
            // What was opened speaks of the memory of another process.
            self.entries.clear();
            self.pages = (self.probe)();
        } else if !self.pages.is_trusted() {
            self.drop_where(|_| true);
        }
        self.walk += 1;
        let walk = self.walk;
        self.drop_where(|entry| entry.walk + UNSEEN_WALKS < walk);
    }

    fn look(&mut self, region: &LiveRegion) -> Look {
        let fits = region.byte_len >= self.policy.least_len
            && region.address.checked_add(region.byte_len).is_some()
            && !self.pages.is_lost();
        let Some(grid) = grid_of(region).filter(|_| fits) else { return Look::default() };
        if grid.chunk_count() > self.policy.most_digests as u64 {
            return Look::default();
        }
        self.make_room(region);
        self.tickets += 1;
        let policy = self.policy;
        let entry = self.entries.entry(region.address).or_insert_with(|| Entry::new(region, grid, &policy));
        entry.ticket = self.tickets;
        entry.walk = self.walk;
        let mut look = Look { ticket: self.tickets, ..Look::default() };
        if !entry.is_tracked {
            if entry.calm >= entry.calm_needed && entry.learned_in != self.walk {
                match self.pages.track(region.address, region.byte_len) {
                    Ok(()) => {
                        entry.is_tracked = true;
                        entry.digests.fill(None);
                        entry.edges.clear();
                        look.page_len = self.pages.page_len();
                    }
                    Err(_) => entry.wait_longer(),
                }
            }
            return look;
        }
        match self.pages.written(region.address, region.byte_len) {
            Verdict::Unknown => {
                entry.is_tracked = false;
                entry.digests.clear();
                entry.edges.clear();
                entry.calm = 0;
            }
            Verdict::Written(ranges) => {
                look.page_len = self.pages.page_len();
                look.doubts = entry.forget(&ranges, look.page_len);
                look.digests.clone_from(&entry.digests);
                let written: usize = ranges.iter().map(ExactSizeIterator::len).sum();
                if written > region.byte_len / policy.hot_part {
                    entry.is_tracked = false;
                    entry.edges.clear();
                    entry.wait_longer();
                    self.pages.untrack(region.address, region.byte_len);
                }
            }
        }
        look
    }

    fn learn(&mut self, region: &LiveRegion, ticket: u64, digests: &[Digest], edges: &[(u64, Edges)]) {
        let Some(entry) = self.entries.get_mut(&region.address) else { return };
        let is_newest = ticket != 0 && entry.ticket == ticket && entry.region == *region;
        if !is_newest || digests.len() as u64 != entry.grid.chunk_count() {
            return;
        }
        if !entry.is_tracked && entry.learned_in != self.walk {
            let changed = entry.digests.iter().zip(digests).filter(|(old, new)| old.as_ref() != Some(new));
            let is_calm = !entry.digests.is_empty()
                && changed.count() as u64 * self.policy.calm_part <= digests.len() as u64;
            entry.calm = if is_calm { entry.calm + 1 } else { 0 };
        }
        entry.learned_in = self.walk;
        if entry.is_tracked {
            entry.learn_edges(digests, edges);
        }
        entry.digests.clear();
        entry.digests.extend(digests.iter().copied().map(Some));
    }
}

/// The memo of this process, as one of those who share it has it.
#[derive(Debug)]
struct Shared(Arc<Mutex<LiveMemo>>);

impl Shared {
    /// Nobody waits: a lock that is held was perhaps held when this process was forked from another.
    fn with<T: Default>(&self, act: impl FnOnce(&mut LiveMemo) -> T) -> T {
        match self.0.try_lock() {
            Ok(mut memo) => act(&mut memo),
            Err(TryLockError::Poisoned(poisoned)) => {
                let mut memo = poisoned.into_inner();
                memo.drop_where(|_| true);
                act(&mut memo)
            }
            Err(TryLockError::WouldBlock) => T::default(),
        }
    }
}

impl LiveDigests for Shared {
    fn unavailable(&self) -> Option<String> {
        self.with(|memo| memo.unavailable())
    }

    fn begin_walk(&mut self) {
        self.with(LiveMemo::begin_walk);
    }

    fn look(&mut self, region: &LiveRegion) -> Look {
        self.with(|memo| memo.look(region))
    }

    fn learn(&mut self, region: &LiveRegion, ticket: u64, digests: &[Digest], edges: &[(u64, Edges)]) {
        self.with(|memo| memo.learn(region, ticket, digests, edges));
    }
}

/// The digests of this process' memory. All who ask share one memo, because a page has one mark; with the last of them
/// the tracking ends.
pub fn live_digests() -> Box<dyn LiveDigests> {
    static MEMO: Mutex<Weak<Mutex<LiveMemo>>> = Mutex::new(Weak::new());
    let mut known = MEMO.lock().unwrap_or_else(PoisonError::into_inner);
    let memo = known.upgrade().unwrap_or_else(|| {
        let memo = Arc::new(Mutex::new(LiveMemo::new(dirty::probe, LivePolicy::default())));
        *known = Arc::downgrade(&memo);
        memo
    });
    Box::new(Shared(memo))
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
