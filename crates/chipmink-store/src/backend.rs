//! [`Backend`]: an object store behind blocking calls that say what they were doing.

use crate::compression::PlaceKind;
use crate::error::{Result, StoreError};
use crate::local::{LocalDisk, LocalFiles, PackOutput};
use crate::memory::{MemoryPack, Room};
use crate::pool::{PoolObjects, Pressure};
use crate::remote::{CacheFolder, CachedObjects};
use crate::runner::Runner;
use crate::turn::Turn;
use crate::upload::Upload;
use bytes::Bytes;
use chipmink_format::ConditionalWrites;
use chipmink_types::{NewGather, SharedPool};
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// Small objects that are read at once.
const SMALL_AT_ONCE: usize = 64;
/// Ranges that are read at once: 8 MiB each at most, so 64 MiB.
const RANGES_AT_ONCE: usize = 8;

/// An object, as a listing tells of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ListedObject {
    pub(crate) path: String,
    pub(crate) byte_len: u64,
    /// By the store's clock, in microseconds since 1970.
    pub(crate) modified_at: i64,
}

/// An object store, and what can be done with it beyond that.
#[derive(Clone, Debug)]
pub struct Backend {
    objects: Arc<dyn ObjectStore>,
    /// The same place, for objects that need not survive a power cut.
    relaxed: Arc<dyn ObjectStore>,
    files: Option<Arc<dyn LocalFiles>>,
    runner: Runner,
    kind: PlaceKind,
    /// The store again and its bounds, if it is the memory of this process.
    memory: Option<(Arc<InMemory>, Arc<Room>)>,
    /// The pool that new objects go to.
    pool: Option<PoolObjects>,
    label: Arc<str>,
    /// In which order the saves of this process become visible here. Clones share it.
    turn: Arc<Turn>,
    /// The place itself, if what is read of it is kept elsewhere.
    origin: Option<Arc<dyn ObjectStore>>,
    /// Parts of packs that are being sent. Clones share it.
    parts: Arc<AtomicUsize>,
}

impl Backend {
    /// Files in a directory.
    pub fn local(disk: LocalDisk) -> Self {
        let label = disk.root().display().to_string().into();
        let relaxed = Arc::new(disk.relaxed());
        let disk = Arc::new(disk);
        let kind = PlaceKind::LocalDisk;
        let (runner, memory, pool) = (Runner::InPlace, None, None);
        let (turn, origin, files) = (Arc::default(), None, Some(disk.clone() as Arc<dyn LocalFiles>));
        let parts = Arc::default();
        Backend { objects: disk, relaxed, files, runner, kind, memory, pool, label, turn, origin, parts }
    }

    /// The memory of this process: at most so many bytes of it, gathered so. What does not fit is refused.
    pub fn memory(byte_len: u64, gather: NewGather) -> Self {
        let objects = Arc::new(InMemory::new());
        Backend {
            objects: objects.clone(),
            relaxed: objects.clone(),
            files: None,
            runner: Runner::InPlace,
            kind: PlaceKind::Memory,
            memory: Some((objects, Arc::new(Room::new(byte_len, gather)))),
            pool: None,
            label: "memory://".into(),
            turn: Arc::default(),
            origin: None,
            parts: Arc::default(),
        }
    }

    /// Any object store. `label` is what errors call it.
    pub fn remote(objects: Arc<dyn ObjectStore>, label: &str) -> Self {
        Backend {
            relaxed: objects.clone(),
            objects,
            files: None,
            runner: Runner::Runtime(Arc::default()),
            kind: PlaceKind::Remote,
            memory: None,
            pool: None,
            label: label.into(),
            turn: Arc::default(),
            origin: None,
            parts: Arc::default(),
        }
    }

    /// Memory that processes share. What does not fit is refused.
    pub fn pool(pool: Arc<dyn SharedPool>) -> Self {
        let label = pool.label().into();
        let objects = PoolObjects::new(pool, None, Arc::default());
        let shared = Arc::new(objects.clone());
        Backend {
            objects: shared.clone(),
            relaxed: shared,
            files: None,
            runner: Runner::InPlace,
            kind: PlaceKind::Memory,
            memory: None,
            pool: Some(objects),
            label,
            turn: Arc::default(),
            origin: None,
            parts: Arc::default(),
        }
    }

    /// A pool in front of another place: new objects are in the pool first.
    pub(crate) fn staged(pool: Arc<dyn SharedPool>, lower: &Backend, pressure: Arc<Pressure>) -> Self {
        let over = |objects: &Arc<dyn ObjectStore>| {
            PoolObjects::new(pool.clone(), Some(objects.clone()), pressure.clone())
        };
        let objects = over(&lower.objects);
        Backend {
            objects: Arc::new(objects.clone()),
            relaxed: Arc::new(over(&lower.relaxed)),
            pool: Some(objects),
            memory: None,
            // A save may wait for room with its turn held, and who makes room needs that of the place below.
            turn: Arc::default(),
            ..lower.clone()
        }
    }

    /// The same place, where all of this process that name it so publish in turn.
    pub(crate) fn in_turn_at(self, place: &str) -> Self {
        Backend { turn: Turn::at(place), ..self }
    }

    /// The same place, of which what is read of packs is kept in a folder that takes at most so many bytes.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn cached_in(self, folder: &std::path::Path, byte_len_max: u64) -> std::io::Result<Self> {
        Ok(self.cached(Arc::new(CacheFolder::open(folder, byte_len_max)?)))
    }

    pub(crate) fn cached(self, folder: Arc<CacheFolder>) -> Self {
        let objects = Arc::new(CachedObjects::new(self.objects.clone(), folder));
        Backend { origin: Some(self.objects), objects, ..self }
    }

    /// The place itself, whatever is kept of it.
    pub(crate) fn uncached(&self) -> Self {
        let objects = self.origin.clone().unwrap_or_else(|| self.objects.clone());
        Backend { objects, origin: None, ..self.clone() }
    }

    /// In which order the saves of this process become visible here.
    pub(crate) fn turn(&self) -> &Turn {
        &self.turn
    }

    /// Whether a call that failed does nothing later.
    pub(crate) fn is_prompt(&self) -> bool {
        self.kind != PlaceKind::Remote || self.pool.is_some()
    }

    /// Whether new objects go to a pool in front of another place.
    pub(crate) fn is_staged(&self) -> bool {
        self.pool.as_ref().is_some_and(PoolObjects::is_above)
    }

    /// What kind of place it is.
    pub const fn kind(&self) -> PlaceKind {
        self.kind
    }

    /// What errors call it.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The same place, for objects that need not survive a power cut.
    pub(crate) fn relaxed(&self) -> Backend {
        Backend { objects: self.relaxed.clone(), files: None, ..self.clone() }
    }

    /// What can be done if objects are local files.
    pub fn files(&self) -> Option<&Arc<dyn LocalFiles>> {
        self.files.as_ref()
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runner.run(future)
    }

    pub(crate) fn parts(&self) -> &Arc<AtomicUsize> {
        &self.parts
    }

    pub(crate) fn runner(&self) -> &Runner {
        &self.runner
    }

    pub(crate) fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// Does two things, at once where each waits for a network.
    pub(crate) fn both<A: Send, B>(
        &self,
        first: impl FnOnce() -> A + Send,
        second: impl FnOnce() -> B,
    ) -> (A, B) {
        if self.kind != PlaceKind::Remote {
            return (first(), second());
        }
        std::thread::scope(|scope| {
            let first = scope.spawn(first);
            let second = second();
            (first.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), second)
        })
    }

    /// How many threads should read ranges at once: several where each waits for a network.
    pub(crate) fn ranges_at_once(&self) -> usize {
        if self.kind == PlaceKind::Remote { RANGES_AT_ONCE } else { 1 }
    }

    fn context(&self, verb: &str, path: &str) -> String {
        format!("{verb} {path} in {}", self.label)
    }

    /// The whole of an object, which must not be longer than `limit`.
    pub(crate) fn get(&self, path: &str, limit: u64) -> Result<Bytes> {
        self.run(self.read(path, limit))
    }

    async fn read(&self, path: &str, limit: u64) -> Result<Bytes> {
        let location = Path::from(path);
        let read = async {
            let found = self.objects.get(&location).await?;
            if found.meta.size > limit {
                let reason = format!("it has {} bytes, at most {limit} are expected", found.meta.size);
                return Err(object_store::Error::Generic { store: "chipmink", source: reason.into() });
            }
            found.bytes().await
        };
        read.await.map_err(|error| StoreError::storage(self.context("reading", path), error))
    }

    /// Bytes from the end of an object, at most `byte_len`, and the object's length.
    pub(crate) fn get_tail(&self, path: &str, byte_len: u64) -> Result<(Bytes, u64)> {
        let location = Path::from(path);
        let read = async {
            let options = GetOptions { range: Some(GetRange::Suffix(byte_len)), ..GetOptions::default() };
            let found = self.objects.get_opts(&location, options).await?;
            let size = found.meta.size;
            Ok((found.bytes().await?, size))
        };
        self.run(read).map_err(|error| StoreError::storage(self.context("reading the end of", path), error))
    }

    /// Several ranges of an object.
    pub(crate) fn get_ranges(&self, path: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.run(self.read_ranges(path, ranges))
    }

    async fn read_ranges(&self, path: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let found = self.objects.get_ranges(&Path::from(path), ranges).await;
        found
            .and_then(|found| {
                let fits = found.len() == ranges.len()
                    && found
                        .iter()
                        .zip(ranges)
                        .all(|(bytes, range)| bytes.len() as u64 == range.end - range.start);
                if fits {
                    return Ok(found);
                }
                Err(object_store::Error::Generic {
                    store: "chipmink",
                    source: "it is shorter than expected".into(),
                })
            })
            .map_err(|error| StoreError::storage(self.context("reading", path), error))
    }

    /// A range of each of several objects, at once where they are far away.
    pub(crate) fn get_each(&self, parts: &[(String, Range<u64>)]) -> Vec<Result<Bytes>> {
        let at_once = if self.kind == PlaceKind::Remote { SMALL_AT_ONCE } else { 1 };
        let read = |(path, range): &(String, Range<u64>)| {
            let (path, range) = (path.clone(), range.clone());
            async move { self.read_ranges(&path, &[range]).await.map(|mut found| found.swap_remove(0)) }
        };
        self.run(futures::stream::iter(parts.iter().map(read)).buffered(at_once).collect())
    }

    pub(crate) fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        Ok(self.get_ranges(path, std::slice::from_ref(&range))?.swap_remove(0))
    }

    /// Length of an object, if it is there.
    pub(crate) fn byte_len(&self, path: &str) -> Result<Option<u64>> {
        match self.run(self.objects.head(&Path::from(path))) {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(StoreError::storage(self.context("looking at", path), error)),
        }
    }

    /// Stores an object by `put`, where that is bounded: if there is room.
    fn put_bounded(
        &self,
        path: &str,
        byte_len: usize,
        put: impl FnOnce() -> object_store::Result<()>,
    ) -> object_store::Result<()> {
        match &self.memory {
            Some((_, room)) => room.put(path, byte_len as u64, put),
            None => put(),
        }
    }

    /// Creates an object that must not be there. The error is as the store gave it: it decides nothing yet.
    pub(crate) fn create(&self, path: &str, bytes: Bytes) -> object_store::Result<()> {
        let byte_len = bytes.len();
        let payload = PutPayload::from_bytes(bytes);
        self.put_bounded(path, byte_len, || {
            self.run(self.objects.put_opts(&Path::from(path), payload, PutMode::Create.into())).map(drop)
        })
    }

    /// Creates a root entry. Where conditional writes do not work there is but one writer, which looks before it writes.
    pub(crate) fn create_entry(
        &self,
        path: &str,
        bytes: Bytes,
        verdict: ConditionalWrites,
    ) -> object_store::Result<()> {
        if verdict != ConditionalWrites::Broken {
            return self.create(path, bytes);
        }
        match self.run(self.objects.head(&Path::from(path))) {
            Err(object_store::Error::NotFound { .. }) => {
                self.run(self.objects.put(&Path::from(path), PutPayload::from_bytes(bytes))).map(drop)
            }
            Err(error) => Err(error),
            Ok(_) => Err(object_store::Error::AlreadyExists {
                path: path.to_owned(),
                source: "somebody else writes there".into(),
            }),
        }
    }

    /// Replaces an object.
    pub(crate) fn replace(&self, path: &str, bytes: Bytes) -> Result<()> {
        let byte_len = bytes.len();
        let payload = PutPayload::from_bytes(bytes);
        self.put_bounded(path, byte_len, || self.run(self.objects.put(&Path::from(path), payload)).map(drop))
            .map_err(|error| StoreError::storage(self.context("writing", path), error))
    }

    pub(crate) fn delete(&self, path: &str) -> Result<()> {
        if let Some((_, room)) = &self.memory {
            room.free(path);
        }
        self.run(self.objects.delete(&Path::from(path)))
            .map_err(|error| StoreError::storage(self.context("removing", path), error))
    }

    /// Paths under a prefix in the order of the store, until `take` says that it has seen enough.
    pub(crate) fn list(&self, prefix: &str, mut take: impl FnMut(&str) -> bool) -> Result<()> {
        let prefix = Path::from(prefix);
        let read = async {
            let mut listing = self.objects.list(Some(&prefix)).boxed();
            while let Some(meta) = listing.try_next().await? {
                if !take(meta.location.as_ref()) {
                    break;
                }
            }
            Ok(())
        };
        self.run(read).map_err(|error| StoreError::storage(self.context("listing", prefix.as_ref()), error))
    }

    /// Objects under a prefix, in the order of the store.
    pub(crate) fn list_objects(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        let prefix = Path::from(prefix);
        let listed = self.run(self.objects.list(Some(&prefix)).try_collect::<Vec<_>>());
        let listed =
            listed.map_err(|error| StoreError::storage(self.context("listing", prefix.as_ref()), error))?;
        let object = |meta: object_store::ObjectMeta| ListedObject {
            path: meta.location.as_ref().to_owned(),
            byte_len: meta.size,
            modified_at: meta.last_modified.timestamp_micros(),
        };
        Ok(listed.into_iter().map(object).collect())
    }

    /// When an object was written, by the store's clock in microseconds since 1970, if it is there.
    pub(crate) fn modified_at(&self, path: &str) -> Result<Option<i64>> {
        match self.run(self.objects.head(&Path::from(path))) {
            Ok(meta) => Ok(Some(meta.last_modified.timestamp_micros())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(StoreError::storage(self.context("looking at", path), error)),
        }
    }

    /// The whole of several objects, none of which must be longer than `limit`; `None` for one that is not there. What is
    /// far away is read at once.
    pub(crate) fn get_all(&self, paths: &[String], limit: u64) -> Result<Vec<Option<Bytes>>> {
        let get = |path: &String| {
            let path = path.clone();
            async move {
                match self.read(&path, limit).await {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(error) if error.is_missing() => Ok(None),
                    Err(error) => Err(error),
                }
            }
        };
        let at_once = if self.kind == PlaceKind::Remote { SMALL_AT_ONCE } else { 1 };
        self.run(futures::stream::iter(paths.iter().map(get)).buffered(at_once).try_collect())
    }

    /// Removes objects, those that are gone already too. Far away many are removed by one request where the place knows
    /// that; the first failure is told, and what is left then is for the next time.
    pub(crate) fn delete_all(&self, paths: &[String]) -> Result<()> {
        if self.kind == PlaceKind::Remote && self.pool.is_none() {
            return self.delete_far(paths);
        }
        let mut failure = None;
        for path in paths {
            match self.delete(path) {
                Err(error) if !error.is_missing() => drop(failure.get_or_insert(error)),
                _ => {}
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn delete_far(&self, paths: &[String]) -> Result<()> {
        let locations: Vec<_> = paths.iter().map(|path| Ok(Path::from(path.as_str()))).collect();
        let mut removed = self.objects.delete_stream(futures::stream::iter(locations).boxed());
        let remove = async {
            while let Some(told) = removed.next().await {
                match told {
                    Err(object_store::Error::NotFound { .. }) | Ok(_) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        self.run(remove).map_err(|error| {
            StoreError::storage(format!("removing {} objects of {}", paths.len(), self.label), error)
        })
    }

    /// Makes the directories of a repository, where there are directories.
    pub(crate) fn make_directories(&self, names: &[&str]) -> Result<()> {
        let Some(files) = &self.files else { return Ok(()) };
        files.make_directories(names).map_err(|error| self.write_error("making its folders", error))
    }

    /// A name for the time in which what is written and not synced stays whole.
    pub(crate) fn boot(&self) -> Option<[u8; 16]> {
        self.files.as_ref().and_then(|files| files.boot())
    }

    /// Removes what dead processes left. Best effort.
    pub(crate) fn clean(&self) {
        if let Some(files) = &self.files {
            files.clean();
        }
    }

    /// Removes objects of a pool without a place below that `is_orphan` names and whose writers are dead. Best effort.
    pub(crate) fn clean_pool(&self, is_orphan: &dyn Fn(&str) -> bool) {
        if let Some(pool) = &self.pool {
            pool.clean(is_orphan);
        }
    }

    /// What a failed write means.
    pub(crate) fn write_error(&self, context: &str, error: object_store::Error) -> StoreError {
        match error {
            object_store::Error::NotSupported { source } => {
                let reason =
                    format!("its file system can neither link nor rename without replacing ({source})");
                StoreError::ReadOnly { place: self.label.to_string(), reason }
            }
            error => StoreError::storage(format!("{context} in {}", self.label), error),
        }
    }

    /// Begins an object that is written from front to back.
    pub(crate) fn create_pack(&self, path: &str) -> Result<Box<dyn PackOutput>> {
        let location = Path::from(path);
        if let Some(pool) = &self.pool {
            let begun = pool.create_pack(&location);
            return begun
                .map(|pack| Box::new(pack) as _)
                .map_err(|error| StoreError::storage(self.context("beginning", path), error));
        }
        let begun = match (&self.files, &self.memory) {
            (Some(files), _) => files.create_pack(&location),
            (None, Some((objects, room))) => {
                Ok(Box::new(MemoryPack::new(objects.clone(), room.clone(), path)) as _)
            }
            (None, None) => Ok(Box::new(Upload::new(self.clone(), location)) as _),
        };
        begun.map_err(|error| StoreError::storage(self.context("beginning", path), error))
    }

    /// As [`Backend::create_pack`], past a pool that stands in front of another place.
    pub(crate) fn create_below(&self, path: &str) -> Result<Box<dyn PackOutput>> {
        let pool = self.pool.clone().filter(|pool| !pool.is_above());
        Backend { pool, ..self.clone() }.create_pack(path)
    }

    /// Fills `into` from an object.
    pub(crate) fn read_into(&self, path: &str, byte_offset: u64, into: &mut [u8]) -> Result<()> {
        let failed = |error| StoreError::storage(self.context("reading", path), error);
        if let Some(pool) = &self.pool
            && pool.read_into(&Path::from(path), byte_offset, into).map_err(failed)?
        {
            return Ok(());
        }
        match &self.files {
            Some(files) => files.read_at(&Path::from(path), byte_offset, into).map_err(failed),
            None => {
                into.copy_from_slice(&self.get_range(path, byte_offset..byte_offset + into.len() as u64)?);
                Ok(())
            }
        }
    }

    /// Makes objects of any writer survive a power cut (remote stores have done that when they answered). Returns
    /// those that had to be written to new files and must be checked.
    pub(crate) fn sync(&self, paths: &[String]) -> Result<Vec<String>> {
        let Some(files) = &self.files else { return Ok(Vec::new()) };
        let mut locations: Vec<Path> = paths.iter().map(|path| Path::from(path.as_str())).collect();
        if let Some(pool) = &self.pool {
            // What is only staged is synced when it goes below.
            locations.retain(|location| {
                pool.find(location).is_ok_and(|found| found.is_none_or(|object| object.is_settled))
            });
        }
        let context = || format!("syncing earlier saves in {}", self.label);
        let rewritten = files.sync(&locations).map_err(|error| StoreError::storage(context(), error))?;
        Ok(rewritten.iter().map(ToString::to_string).collect())
    }

    /// Makes the directory of the repository survive a power cut.
    pub(crate) fn sync_upwards(&self) -> Result<()> {
        let Some(files) = &self.files else { return Ok(()) };
        files
            .sync_upwards()
            .map_err(|error| StoreError::storage(format!("syncing the folder {}", self.label), error))
    }
}
