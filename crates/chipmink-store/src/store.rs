//! [`Store`]: an open repository.

use crate::backend::Backend;
use crate::cancel::Cancel;
use crate::compression::PlaceKind;
use crate::creation;
use crate::error::{Result, StoreError};
use crate::inner::Inner;
use crate::local::{LocalDisk, System};
use crate::log::{Log, ReadEntry, decode_entry, read_entry};
use crate::options::StoreOptions;
use crate::place::Place;
use crate::raw::{OpenPacks, RawPlaces};
use crate::sweep::{self, SweepReport, SweepRequest};
use crate::transaction::PackTransaction;
use crate::verify::{self, VerifyReport};
use bytes::Bytes;
use chipmink_format::{
    Commit, DroppedVersions, FormatError, ROOT_ENTRY_LEN_MAX, RefTarget, RootEntry, root_path,
};
use chipmink_types::{BlobError, BlobSource, Digest, RepositoryId, TimeId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What the root log says now, as far as this process has looked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// Number of the newest entry.
    pub number: TimeId,
    /// The refs and what they point at.
    pub refs: BTreeMap<String, RefTarget>,
}

/// An open repository. Clones are one handle; threads may share it.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

impl Store {
    /// Creates a repository where there is none.
    ///
    /// # Errors
    /// When there is one already, the place cannot be written, or it does not honour conditional writes.
    pub fn create(place: Place, options: StoreOptions) -> Result<Self> {
        Store::create_in(backend(place, &options)?, options)
    }

    /// Opens a repository.
    ///
    /// # Errors
    /// When there is none, or it cannot be read by this build.
    pub fn open(place: Place, options: StoreOptions) -> Result<Self> {
        Store::open_in(backend(place, &options)?, options)
    }

    /// Opens a repository, creating it if there is none.
    ///
    /// # Errors
    /// As [`Store::open`] and [`Store::create`].
    pub fn open_or_create(place: Place, options: StoreOptions) -> Result<Self> {
        Store::open_or_create_in(backend(place, &options)?, options)
    }

    /// As [`Store::create`], on any backend.
    ///
    /// # Errors
    /// As [`Store::create`].
    pub fn create_in(backend: Backend, options: StoreOptions) -> Result<Self> {
        let verdict = creation::create(&backend, &options)?;
        let store = Store::open_in(backend, options)?;
        store.inner.note_verdict(verdict);
        Ok(store)
    }

    /// As [`Store::open`], on any backend.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_in(backend: Backend, options: StoreOptions) -> Result<Self> {
        let Some(log) = Log::open(&backend, options.trust())? else {
            return Err(StoreError::NoRepository { place: backend.label().to_owned() });
        };
        backend.clean();
        let inner = Inner::new(backend, options, log).with_tables()?;
        inner.clean_pool();
        Ok(Store { inner: Arc::new(inner) })
    }

    /// As [`Store::open_or_create`], on any backend.
    ///
    /// # Errors
    /// As [`Store::open_or_create`].
    pub fn open_or_create_in(backend: Backend, options: StoreOptions) -> Result<Self> {
        match Store::open_in(backend.clone(), options.clone()) {
            Err(StoreError::NoRepository { .. }) => {}
            other => return other,
        }
        match Store::create_in(backend.clone(), options.clone()) {
            Err(StoreError::AlreadyThere { .. }) => Store::open_in(backend, options),
            other => other,
        }
    }

    /// The identity of the repository.
    pub fn repository(&self) -> RepositoryId {
        self.inner.log().state.repository
    }

    /// What errors call the place.
    pub fn label(&self) -> &str {
        self.inner.backend.label()
    }

    /// Whether each request waits for a network.
    pub fn is_far(&self) -> bool {
        self.inner.backend.kind() == PlaceKind::Remote
    }

    /// How the store works.
    pub fn options(&self) -> &StoreOptions {
        &self.inner.options
    }

    /// The backend.
    pub fn backend(&self) -> &Backend {
        &self.inner.backend
    }

    /// What the root log says, as far as this process has looked.
    pub fn head(&self) -> Head {
        let log = self.inner.log();
        Head { number: log.head.number, refs: log.state.refs.clone() }
    }

    /// Numbers that are spent without a sound entry, as far as this process has met them.
    pub fn void_entries(&self) -> Vec<TimeId> {
        self.inner.log().void.clone()
    }

    /// Looks for entries that others have published.
    ///
    /// # Errors
    /// When the place fails or an entry is damaged.
    pub fn refresh(&self) -> Result<()> {
        self.inner.refresh()
    }

    /// One entry of the root log.
    ///
    /// # Errors
    /// When there is no sound one with this number.
    pub fn entry(&self, time: TimeId) -> Result<RootEntry> {
        // One more question to a place far away, for what was just read there.
        if let (PlaceKind::Remote, Some(newest)) = (self.inner.backend.kind(), &self.inner.log().newest)
            && newest.number == time
        {
            return Ok(newest.clone());
        }
        self.checked(time, read_entry(&self.inner.backend, time))
    }

    /// An entry that was read, if it is one of this log.
    fn checked(&self, time: TimeId, read: Result<ReadEntry>) -> Result<RootEntry> {
        let unknown = |reason: &str| StoreError::UnknownVersion {
            place: self.label().to_owned(),
            time,
            reason: reason.to_owned(),
        };
        let read = match read {
            Ok(read) => read,
            Err(error) if error.is_missing() => {
                return Err(unknown("no entry of the root log has this number"));
            }
            Err(StoreError::Format { source: source @ FormatError::Void { .. }, .. }) => {
                return Err(unknown(&source.to_string()));
            }
            Err(error) => return Err(error),
        };
        if read.entry.repository != self.repository() {
            return Err(StoreError::Replaced { place: self.label().to_owned() });
        }
        if self.inner.log().void.contains(&time) {
            return Err(unknown("it was not synced, and a power cut left it without what it builds on"));
        }
        Ok(read.entry)
    }

    /// The entries of the root log, newest first, without those that only dropped versions stand in.
    pub fn entries(&self) -> Entries {
        Entries { store: self.clone(), next: Some(self.inner.log().head.number), ahead: Ahead::default() }
    }

    /// The commit that an entry published.
    ///
    /// # Errors
    /// When there is no such entry, it published none, or a sweep has dropped the version.
    pub fn commit(&self, time: TimeId) -> Result<Commit> {
        self.check_retained(time)?;
        let entry = self.entry(time)?;
        if entry.commits.is_empty() {
            let reason = "that entry of the root log published no version".to_owned();
            return Err(StoreError::UnknownVersion { place: self.label().to_owned(), time, reason });
        }
        let object = root_path(time);
        entry.commit(0).map_err(|source| StoreError::Format {
            place: self.label().to_owned(),
            object,
            source,
        })
    }

    /// Whether a version was not dropped by a sweep, as far as this process has looked.
    ///
    /// # Errors
    /// When it was.
    pub fn check_retained(&self, time: TimeId) -> Result<()> {
        self.inner.check_retained(time)
    }

    /// The versions that sweeps have dropped, as far as this process has looked.
    pub fn dropped(&self) -> DroppedVersions {
        self.inner.log().dropped.clone()
    }

    /// Drops versions and gives back the room of what nothing reaches any more, while others go on saving.
    ///
    /// # Errors
    /// When a version that is to stay cannot be read in full, the place fails, or others publish all the time. What was
    /// condemned by then is deleted by a later sweep.
    pub fn sweep(&self, request: &SweepRequest) -> Result<SweepReport> {
        sweep::sweep(&self.inner, request)
    }

    /// Claims a version for so long, by the store's clock: no sweep drops it meanwhile. Returns by what the claim is known.
    ///
    /// # Errors
    /// When the version was dropped already, or the claim cannot be published.
    pub fn take_lease(&self, holds: TimeId, lasting: Duration) -> Result<[u8; 16]> {
        self.commit(holds)?;
        sweep::take_lease(&self.inner, holds, lasting)
    }

    /// Gives a claim back.
    ///
    /// # Errors
    /// When that cannot be published.
    pub fn release_lease(&self, id: [u8; 16]) -> Result<()> {
        sweep::release_lease(&self.inner, id)
    }

    /// Whether the repository holds a blob, as far as its index says. That says nothing of the blobs that it names: they may
    /// have been swept, unless a retained version reaches it.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn contains(&self, digest: &Digest) -> Result<bool> {
        self.inner.index().find(digest).map(|found| found.is_some())
    }

    /// Fills `into` with blobs one after another, each given with its length. What lies raw and together in one pack is
    /// read in place, without a copy.
    ///
    /// # Errors
    /// When a blob is missing, damaged or of another length, or the lengths do not fill `into`.
    pub fn read_into(&self, blobs: &[(Digest, u64)], into: &mut [u8]) -> Result<(), BlobError> {
        self.inner.read_into(blobs, into, None)
    }

    /// As [`Store::read_into`], until it is cancelled.
    ///
    /// # Errors
    /// As [`Store::read_into`], and when it was cancelled.
    pub fn read_into_unless(
        &self,
        cancel: &Cancel,
        blobs: &[(Digest, u64)],
        into: &mut [u8],
    ) -> Result<(), BlobError> {
        self.inner.read_into(blobs, into, Some(cancel))
    }

    /// Reads blobs, each given with its length and its place as [`Store::raw_places`] has found it, and hands each on with
    /// its ordinal once it is checked: in no order, and by several threads.
    ///
    /// # Errors
    /// When a blob is missing, damaged or of another length. Others may have been handed on by then.
    ///
    /// # Panics
    /// If there are not as many places as blobs.
    pub fn read_each(
        &self,
        blobs: &[(Digest, u64)],
        places: &RawPlaces,
        take: &(dyn Fn(usize, &[u8]) + Sync),
    ) -> Result<(), BlobError> {
        assert_eq!(blobs.len(), places.places.len(), "each blob has a place");
        self.inner.read_each(blobs, places, take)
    }

    /// Where blobs, given with their lengths, lie as they are in files, so that they can be mapped. Nothing is read, and
    /// nothing is compared with the digests. Packs that are open in `packs` are not opened again.
    ///
    /// # Errors
    /// When a blob is missing, or the index cannot be read.
    pub fn raw_places(&self, blobs: &[(Digest, u64)], packs: &mut OpenPacks) -> Result<RawPlaces, BlobError> {
        self.inner.raw_places(blobs, packs)
    }

    /// Whether this process may publish here, as far as is known without asking.
    ///
    /// # Errors
    /// When the place was found not to honour conditional writes, and the caller does not vouch for being alone.
    pub fn check_writable(&self) -> Result<()> {
        self.inner.check_writable()
    }

    /// Begins a save.
    pub fn begin(&self) -> PackTransaction {
        PackTransaction::new(Arc::clone(&self.inner))
    }

    /// Checks everything that versions reach, from disk: of all versions and down to each byte if `full`, else the
    /// tables of what the refs point at and the whereabouts of the rest.
    ///
    /// # Errors
    /// When the log itself cannot be read; other damage is in the report.
    pub fn verify(&self, full: bool) -> Result<VerifyReport> {
        verify::verify(&self.inner, full)
    }

    /// Bytes that caches and thesaurus take, as an estimate.
    pub fn cache_bytes(&self) -> u64 {
        self.inner.cache_bytes()
    }

    /// Forgets all that can be read again.
    pub fn clear_caches(&self) {
        self.inner.forget();
    }
}

impl BlobSource for Store {
    fn get(&self, digest: &Digest) -> Result<Bytes, BlobError> {
        self.inner.get(digest)
    }

    fn get_many(&self, digests: &[Digest]) -> Result<Vec<Bytes>, BlobError> {
        self.inner.get_many(digests)
    }
}

/// The backend of a place.
pub(crate) fn backend(place: Place, options: &StoreOptions) -> Result<Backend> {
    match place {
        Place::Local(root) => {
            let path = root.canonicalize().or_else(|_| std::path::absolute(&root)).unwrap_or(root.clone());
            let disk = LocalDisk::new(root, Arc::new(System), options.durable);
            Ok(Backend::local(disk).in_turn_at(&path.to_string_lossy()))
        }
        Place::Memory => Ok(Backend::memory(options.memory_bytes, options.gather)),
        Place::Remote(place) => {
            let backend = Backend::remote(place.connect()?, &place.to_string()).in_turn_at(&place.url());
            Ok(match place.cache()? {
                Some(folder) => backend.cached(folder),
                None => backend,
            })
        }
        Place::Shared(name) => Err(StoreError::Place {
            place: format!("shm://{name}"),
            reason: "a store does not open shared memory by name; give it the pool".to_owned(),
        }),
    }
}

/// Numbers that are looked at below an entry that cannot be read.
const GAP: usize = 64;

/// Entries of a log far away that are read at once: the more, the longer somebody goes on.
const AHEAD_MAX: usize = 64;

/// Entries that were read and not asked for yet.
#[derive(Debug, Default)]
struct Ahead {
    /// Those that are next, the very next one last.
    read: Vec<(TimeId, Bytes)>,
    count: usize,
}

/// The entries of a root log, newest first, over void ones. After one that cannot be read it goes on. At most sixty-four are in
/// memory at once.
#[derive(Debug)]
pub struct Entries {
    store: Store,
    next: Option<TimeId>,
    ahead: Ahead,
}

impl Entries {
    /// Below the range of dropped versions that a number is in stands an entry.
    fn step_over_dropped(&self, mut number: TimeId) -> Option<TimeId> {
        while let Some(range) = self.store.inner.log().dropped.range_of(number) {
            number = TimeId(range.first.0.checked_sub(1)?);
        }
        Some(number)
    }

    fn read(&mut self, number: TimeId) -> Result<RootEntry> {
        let backend = self.store.inner.backend.clone();
        if backend.kind() != PlaceKind::Remote {
            return self.store.entry(number);
        }
        if self.ahead.read.last().is_none_or(|(next, _)| *next != number) {
            self.read_ahead(number);
        }
        match self.ahead.read.pop_if(|(next, _)| *next == number) {
            Some((_, bytes)) => self.store.checked(number, decode_entry(&backend, number, &bytes)),
            None => self.store.entry(number),
        }
    }

    /// What cannot be had this way is left to be read by itself.
    fn read_ahead(&mut self, from: TimeId) {
        let count = self.ahead.count;
        self.ahead.count = (2 * count).clamp(2, AHEAD_MAX);
        let below = |number: &TimeId| self.step_over_dropped(TimeId(number.0.checked_sub(1)?));
        let numbers: Vec<TimeId> = std::iter::successors(Some(from), below).take(count).collect();
        let paths: Vec<String> = numbers.iter().map(|number| root_path(*number)).collect();
        let read = self.store.inner.backend.get_all(&paths, ROOT_ENTRY_LEN_MAX).unwrap_or_default();
        let found = numbers.into_iter().zip(read).filter_map(|(number, bytes)| Some((number, bytes?)));
        self.ahead.read = found.collect();
        self.ahead.read.reverse();
    }
}

impl Iterator for Entries {
    type Item = Result<RootEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        let number = self.next.take()?;
        let number = self.step_over_dropped(number)?;
        let entry = self.read(number);
        self.next = match &entry {
            Ok(entry) => entry.previous.map(|previous| previous.number),
            // What it followed is not known; what stands below is still worth a look.
            Err(_) => {
                let is_there = |below: &TimeId| {
                    self.store.backend().byte_len(&root_path(*below)).is_ok_and(|found| found.is_some())
                };
                (0..number.0).rev().take(GAP).map(TimeId).find(is_there)
            }
        };
        Some(entry)
    }
}
