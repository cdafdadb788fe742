//! [`Inner`]: what a store and its transactions share.

use crate::backend::Backend;
use crate::compression::Chooser;
use crate::error::{Result, StoreError};
use crate::generations::ByDigest;
use crate::index::{Index, SegmentInForce};
use crate::log::{Log, ReadEntry, read_entry};
use crate::options::StoreOptions;
use crate::pack_check::check_pack;
use crate::read_ahead::ReadAhead;
use crate::region::RegionHistory;
use crate::turn::Held;
use bytes::Bytes;
use chipmink_format::{ConditionalWrites, FormatError, PackInfo, pack_path, parse_pack_path, root_path};
use chipmink_types::{Digest, TimeId};
use chrono::DateTime;
use smallvec::SmallVec;
use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

/// State shared by the handles of one open repository.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) backend: Backend,
    pub(crate) options: StoreOptions,
    log: RwLock<Log>,
    index: Mutex<Index>,
    blobs: Mutex<ByDigest<Bytes>>,
    /// What lies around that which was read of packs far away.
    pub(crate) read_ahead: ReadAhead,
    /// What saves have taught of regions, by the digest of the root.
    regions: Mutex<ByDigest<RegionHistory>>,
    /// The chooser that the last transaction left.
    chooser: Mutex<Option<Chooser>>,
}

/// A blob and the bases below it, each with the pack that it lies in.
pub(crate) type Chain = SmallVec<[(Digest, u32); 4]>;

/// Bytes that the histories of regions may take: those of some ten thousand.
const REGIONS_BYTES: u64 = 1 << 20;
/// Longest blob that is kept decoded, in bytes.
const CACHED_BLOB_MAX: usize = 16 << 10;

fn heap_bytes(bytes: &Bytes) -> u64 {
    bytes.len() as u64
}

impl Inner {
    pub(crate) fn new(backend: Backend, options: StoreOptions, log: Log) -> Self {
        let mut index = Index::new(backend.clone(), options.thesaurus_bytes, options.cache_bytes);
        index_all(&mut index, &log);
        Inner {
            blobs: Mutex::new(ByDigest::new(options.cache_bytes)),
            read_ahead: ReadAhead::default(),
            regions: Mutex::new(ByDigest::new(REGIONS_BYTES)),
            chooser: Mutex::default(),
            log: RwLock::new(log),
            index: Mutex::new(index),
            backend,
            options,
        }
    }

    // A panic while a lock is held leaves no half-made state behind: what is guarded is replaced as a whole or can be
    // read again.
    pub(crate) fn log(&self) -> RwLockReadGuard<'_, Log> {
        self.log.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn log_mut(&self) -> RwLockWriteGuard<'_, Log> {
        self.log.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The index, unless another thread is at it, which may be reading.
    fn idle_index(&self) -> Option<MutexGuard<'_, Index>> {
        match self.index.try_lock() {
            Ok(index) => Some(index),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Whether a blob is held, if that is known without asking a place far away.
    pub(crate) fn holds_unread(&self, digest: &Digest) -> Option<bool> {
        self.idle_index()?.holds_unread(digest)
    }

    fn blobs(&self) -> MutexGuard<'_, ByDigest<Bytes>> {
        self.blobs.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits until no other save of this process is being published here, and takes what the last ones have published.
    pub(crate) fn publishing(&self) -> Held<'_> {
        let held = self.backend.turn().wait();
        self.catch_up();
        held
    }

    /// Takes what other saves of this process have published here, as far as that can be done without asking.
    pub(crate) fn catch_up(&self) {
        for read in self.backend.turn().recent().iter() {
            let (head, repository) = {
                let log = self.log();
                (log.head, log.state.repository)
            };
            // What cannot be taken this way is read where it stands.
            if read.entry.previous == Some(head) && read.entry.repository == repository {
                let _ = self.take(read);
            }
        }
    }

    fn regions(&self) -> MutexGuard<'_, ByDigest<RegionHistory>> {
        self.regions.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn region_history(&self, root: &Digest) -> Option<RegionHistory> {
        self.regions().get(root, |_| 0)
    }

    pub(crate) fn note_region(&self, root: Digest, history: RegionHistory) {
        self.regions().insert(root, history, 0);
    }

    /// What chooses codecs for one transaction: as the last left it, so that its contexts and what it learned are kept.
    pub(crate) fn take_chooser(&self) -> Chooser {
        let kept = self.chooser.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        kept.unwrap_or_else(|| Chooser::new(self.backend.kind(), self.options.compression))
    }

    pub(crate) fn give_chooser_back(&self, mut chooser: Chooser) {
        chooser.trim();
        *self.chooser.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(chooser);
    }

    /// A blob and the bases below it, with the live packs that they lie in, if there are fewer than `max` deltas and all is
    /// found.
    pub(crate) fn chain(&self, digest: &Digest, max: usize) -> Option<Chain> {
        let mut index = self.index();
        let (mut links, mut next) = (SmallVec::new(), *digest);
        for _ in 0..max {
            let found = index.find(&next).ok()??;
            links.push((next, found.location.pack));
            match found.base {
                Some(base) => next = base,
                None => return Some(links),
            }
        }
        None
    }

    /// Whether a version was not dropped, as far as this process has looked.
    ///
    /// # Errors
    /// When it was: by which sweep.
    pub(crate) fn check_retained(&self, time: TimeId) -> Result<()> {
        let Some(range) = self.log().dropped.range_of(time) else { return Ok(()) };
        let swept = read_entry(&self.backend, range.by).ok();
        let swept_at = swept.and_then(|read| DateTime::from_timestamp_micros(read.entry.published_at));
        let when =
            swept_at.map_or_else(String::new, |at| format!(" on {}", at.format("%Y-%m-%d at %H:%M UTC")));
        Err(StoreError::Dropped { place: self.backend.label().to_owned(), time, when })
    }

    pub(crate) fn cached_blob(&self, digest: &Digest) -> Option<Bytes> {
        self.blobs().get(digest, heap_bytes)
    }

    /// Keeps a small decoded blob. It is copied, so that it holds no larger read in memory.
    pub(crate) fn cache_blob(&self, digest: Digest, bytes: &[u8]) {
        if bytes.len() <= CACHED_BLOB_MAX {
            self.blobs().insert(digest, Bytes::copy_from_slice(bytes), bytes.len() as u64);
        }
    }

    /// Whether a blob of this length may be kept decoded.
    pub(crate) const fn caches(&self, byte_len: usize) -> bool {
        byte_len <= CACHED_BLOB_MAX && byte_len as u64 <= self.options.cache_bytes / 8
    }

    /// Bytes that caches and thesaurus take, as an estimate.
    pub(crate) fn cache_bytes(&self) -> u64 {
        let blobs = self.blobs().byte_len();
        blobs + self.index().byte_len()
    }

    pub(crate) fn forget(&self) {
        self.blobs().clear();
        self.index().forget();
        self.regions().clear();
        self.read_ahead.clear();
        *self.chooser.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
    }

    /// Takes an entry that follows the head, of this process or another. Another thread may have read and taken it.
    pub(crate) fn take(&self, read: &ReadEntry) -> Result<()> {
        let mut log = self.log_mut();
        if read.entry.number <= log.head.number {
            return Ok(());
        }
        log.apply(read).map_err(|source| StoreError::Format {
            place: self.backend.label().to_owned(),
            object: root_path(read.entry.number),
            source,
        })?;
        let mut index = self.index();
        let entry = &read.entry;
        for pack in &entry.packs_added {
            index.add_pack(pack);
        }
        entry.packs_condemned.iter().for_each(|name| index.condemn(name));
        if entry.segments_added.is_empty() && entry.packs_condemned.is_empty() {
            entry.packs_added.iter().for_each(|pack| index.add_segment(&own_segment(pack)));
        } else {
            index.set_segments(segments(&log));
        }
        Ok(())
    }

    /// Whether this process may publish here, as far as is known without asking.
    pub(crate) fn check_writable(&self) -> Result<()> {
        let is_broken = self.log().state.conditional_writes == ConditionalWrites::Broken;
        if !is_broken || self.options.single_writer {
            return Ok(());
        }
        let reason = "it does not honour conditional writes, and two writers could damage it; pass \
                      single_writer=True if only one process at a time writes there"
            .to_owned();
        Err(StoreError::ReadOnly { place: self.backend.label().to_owned(), reason })
    }

    /// Notes what was found out of the store.
    pub(crate) fn note_verdict(&self, verdict: ConditionalWrites) {
        self.log_mut().state.conditional_writes = verdict;
    }

    /// Reads the parts of the root state that are tables, which need the index.
    pub(crate) fn with_tables(self) -> Result<Self> {
        let mut state = self.log().state.clone();
        if state.refs_table.is_none() && state.packs_table.is_none() {
            return Ok(self);
        }
        let object = || self.log().place.map_or_else(String::new, |place| pack_path(place.pack));
        let label = || self.backend.label().to_owned();
        state.read_tables(&self).map_err(|source| StoreError::Format {
            place: label(),
            object: object(),
            source,
        })?;
        self.log_mut().set_state(state).map_err(|source| StoreError::Format {
            place: label(),
            object: object(),
            source,
        })?;
        index_all(&mut self.index(), &self.log());
        Ok(self)
    }

    /// Removes packs that dead processes left in shared memory without publishing them: its room is bounded. Best effort.
    pub(crate) fn clean_pool(&self) {
        let known: hashbrown::HashSet<_> = self.log().state.packs.iter().map(|pack| pack.name).collect();
        self.backend.clean_pool(&|path| parse_pack_path(path).is_some_and(|name| !known.contains(&name)));
    }

    /// Notes a number that is spent without a sound entry.
    pub(crate) fn note_void(&self, number: TimeId) {
        let mut log = self.log_mut();
        log.highest = log.highest.max(number);
        if !log.void.contains(&number) {
            log.void.push(number);
        }
    }

    /// Reads the entries that were published since this process looked.
    pub(crate) fn refresh(&self) -> Result<()> {
        loop {
            let (next, repository) = {
                let log = self.log();
                (log.next_number(), log.state.repository)
            };
            // Behind the last number nothing can come.
            let Some(next) = next else { return Ok(()) };
            match read_entry(&self.backend, next) {
                Ok(read) => self.take_foreign(&read, repository)?,
                Err(error) if error.is_missing() => return Ok(()),
                Err(StoreError::Format { source: FormatError::Void { .. }, .. }) => self.note_void(next),
                Err(error) => return Err(error),
            }
        }
    }

    /// Looks whether the newest entry that this process knows still stands there: else somebody has removed the repository, and
    /// perhaps made another one in its place. An entry without those before it would be a ruin, or a stranger's.
    ///
    /// # Errors
    /// When it does not, or what stands there cannot be read.
    pub(crate) fn check_head(&self) -> Result<()> {
        let head = self.log().head;
        let found = read_entry(&self.backend, head.number);
        if matches!(&found, Err(error) if error.is_missing()) {
            return Err(StoreError::Replaced { place: self.backend.label().to_owned() });
        }
        match found?.digest == head.digest {
            true => Ok(()),
            false => Err(StoreError::Replaced { place: self.backend.label().to_owned() }),
        }
    }

    /// As [`Inner::refresh`] and [`Inner::check_head`], at once.
    pub(crate) fn refresh_checked(&self) -> Result<()> {
        let (checked, refreshed) = self.backend.both(|| self.check_head(), || self.refresh());
        checked.and(refreshed)
    }

    /// Takes an entry of another writer, if it follows the head or another thread has taken it.
    pub(crate) fn take_foreign(
        &self,
        read: &ReadEntry,
        repository: chipmink_types::RepositoryId,
    ) -> Result<()> {
        let head = self.log().head;
        let follows = read.entry.previous == Some(head) || read.entry.number <= head.number;
        if read.entry.repository != repository || !follows {
            return Err(StoreError::Replaced { place: self.backend.label().to_owned() });
        }
        self.take(read)
    }

    /// Takes the entries of others that were found where one was to be created.
    pub(crate) fn take_winners(
        &self,
        read: &[ReadEntry],
        repository: chipmink_types::RepositoryId,
    ) -> Result<()> {
        read.iter().try_for_each(|read| self.take_foreign(read, repository))
    }

    /// Makes everything up to the head survive a power cut. Returns the head's number.
    pub(crate) fn sync_all(&self) -> Result<TimeId> {
        loop {
            let head = self.log().head.number;
            let packs = self.log().unsynced_packs();
            let is_there = |pack: &PackInfo| self.backend.byte_len(&pack_path(pack.name));
            let mut has_gone = false;
            for pack in &packs {
                has_gone |= is_there(pack)?.is_none();
            }
            let synced = if has_gone { Ok(None) } else { self.sync_head().map(Some) };
            match synced {
                Ok(Some(head)) => return Ok(head),
                Err(error) if !error.is_missing() => return Err(error),
                // A sweep that this process has not heard of may have deleted a pack.
                failed => {
                    self.refresh()?;
                    if self.log().head.number == head {
                        failed?;
                        return self.sync_head();
                    }
                }
            }
        }
    }

    fn sync_head(&self) -> Result<TimeId> {
        let (head, entries, packs) = {
            let log = self.log();
            if log.is_synced() {
                return Ok(log.head.number);
            }
            (log.head.number, log.unsynced_entries(&self.backend)?, log.unsynced_packs())
        };
        let mut paths: Vec<String> = packs.iter().map(|pack| pack_path(pack.name)).collect();
        for number in &entries {
            // A number without a sound entry is no part of the log.
            if self.backend.byte_len(&root_path(*number))?.is_some() {
                paths.push(root_path(*number));
            }
        }
        // What was there at opening was checked then, and since then there was no power cut.
        let rewritten = self.backend.sync(&paths)?;
        for pack in packs.iter().filter(|pack| rewritten.contains(&pack_path(pack.name))) {
            check_pack(&self.backend, pack, self.options.blob_bytes_max)?;
        }
        if entries.contains(&TimeId(0)) {
            self.backend.sync_upwards()?;
        }
        self.log_mut().note_synced(head);
        Ok(head)
    }
}

/// The index segments that are in force, newest last: merged ones, then those of the packs that no merge covers.
pub(crate) fn segments(log: &Log) -> impl Iterator<Item = SegmentInForce> {
    let merged = log.state.segments.iter().map(|segment| SegmentInForce {
        stands_in: segment.pack,
        place: segment.place,
        covers: segment.covers.clone(),
    });
    merged.chain(log.uncovered.iter().map(own_segment))
}

fn own_segment(pack: &PackInfo) -> SegmentInForce {
    SegmentInForce { stands_in: pack.name, place: pack.index, covers: vec![pack.name] }
}

fn index_all(index: &mut Index, log: &Log) {
    for pack in &log.state.packs {
        index.add_pack(pack);
    }
    index.set_segments(segments(log));
}
