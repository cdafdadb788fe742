//! [`PoolObjects`]: a pool as an `object_store::ObjectStore`.

use super::pressure::Pressure;
use crate::local::{PackOutput, range_of};
use async_trait::async_trait;
use bytes::Bytes;
use chipmink_types::{PoolError, PoolObject, PoolWriter, SharedPool};
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Reads of more than this are tried for room first: what claims a length may be hostile.
const LARGE_READ: u64 = 1 << 28;

/// Objects in a pool, in front of those of another store if there is one below.
#[derive(Clone, Debug)]
pub(crate) struct PoolObjects {
    pool: Arc<dyn SharedPool>,
    lower: Option<Arc<dyn ObjectStore>>,
    pressure: Arc<Pressure>,
}

impl fmt::Display for PoolObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.lower {
            Some(lower) => write!(f, "PoolObjects({}, {lower})", self.pool.label()),
            None => write!(f, "PoolObjects({})", self.pool.label()),
        }
    }
}

/// What an error of a pool is to those who know object stores.
pub(crate) fn pool_failure(error: PoolError) -> object_store::Error {
    match error {
        PoolError::Exists { name, .. } => {
            object_store::Error::AlreadyExists { path: name.clone(), source: name.into() }
        }
        PoolError::Missing { name, .. } => {
            object_store::Error::NotFound { path: name.clone(), source: name.into() }
        }
        error => object_store::Error::Generic { store: "pool", source: Box::new(error) },
    }
}

fn meta(object: &PoolObject) -> Result<ObjectMeta> {
    Ok(ObjectMeta {
        location: Path::parse(&object.name)?,
        last_modified: DateTime::<Utc>::from_timestamp_micros(object.modified_at).unwrap_or_default(),
        size: object.byte_len,
        e_tag: Some(format!("{:x}", object.generation)),
        version: None,
    })
}

impl PoolObjects {
    pub(crate) fn new(
        pool: Arc<dyn SharedPool>,
        lower: Option<Arc<dyn ObjectStore>>,
        pressure: Arc<Pressure>,
    ) -> Self {
        PoolObjects { pool, lower, pressure }
    }

    /// Whether there is a place below.
    pub(crate) fn is_above(&self) -> bool {
        self.lower.is_some()
    }

    pub(crate) fn find(&self, location: &Path) -> Result<Option<PoolObject>> {
        self.pool.find(location.as_ref()).map_err(pool_failure)
    }

    /// Fills `into` from an object of the pool; `false`: it is not there.
    pub(crate) fn read_into(&self, location: &Path, byte_offset: u64, into: &mut [u8]) -> Result<bool> {
        let Some(object) = self.find(location)? else { return Ok(false) };
        match self.pool.read_at(&object, byte_offset, into) {
            Ok(()) => Ok(true),
            Err(PoolError::Missing { .. }) => Ok(false),
            Err(error) => Err(pool_failure(error)),
        }
    }

    /// Removes objects that `is_orphan` names and whose writers are dead, if there is nothing below, whose packs may be
    /// needed by what is staged. Best effort.
    pub(crate) fn clean(&self, is_orphan: &dyn Fn(&str) -> bool) {
        let (None, Ok(all)) = (&self.lower, self.pool.list()) else { return };
        for object in all.iter().filter(|object| is_orphan(&object.name)) {
            if self.pool.is_abandoned(object).unwrap_or(false) {
                let _ = self.pool.remove(&object.name);
            }
        }
    }

    /// Begins a pack.
    pub(crate) fn create_pack(&self, location: &Path) -> Result<PoolPack> {
        Ok(PoolPack { objects: self.clone(), writer: Some(self.begin(location, false)?) })
    }

    /// Tries until there is room, as far as waiting can help.
    fn with_room<T>(&self, mut act: impl FnMut() -> Result<T, PoolError>) -> Result<T> {
        let mut began = None;
        loop {
            match act() {
                Err(full @ PoolError::Full { .. }) if self.lower.is_some() => {
                    self.pressure.wait(&*self.pool, full, &mut began).map_err(pool_failure)?;
                }
                other => return other.map_err(pool_failure),
            }
        }
    }

    fn begin(&self, location: &Path, is_exclusive: bool) -> Result<Box<dyn PoolWriter>> {
        self.with_room(|| self.pool.begin(location.as_ref(), is_exclusive))
    }

    fn write(&self, writer: &mut dyn PoolWriter, bytes: &[u8]) -> Result<()> {
        self.with_room(|| writer.write(bytes))
    }

    fn read(&self, object: &PoolObject, range: Range<u64>) -> Result<Bytes, PoolError> {
        let failed = |reason: io::ErrorKind| PoolError::Failed {
            context: format!("reading {} in {}", object.name, self.pool.label()),
            source: Box::new(io::Error::from(reason)),
        };
        if range.start > range.end || range.end > object.byte_len {
            return Err(failed(io::ErrorKind::UnexpectedEof));
        }
        let byte_len = range.end - range.start;
        let len = usize::try_from(byte_len).map_err(|_| failed(io::ErrorKind::FileTooLarge))?;
        if byte_len > LARGE_READ && Vec::<u8>::new().try_reserve_exact(len).is_err() {
            return Err(failed(io::ErrorKind::OutOfMemory));
        }
        let mut bytes = vec![0; len];
        self.pool.read_at(object, range.start, &mut bytes)?;
        Ok(bytes.into())
    }

    fn put_result(object: &PoolObject) -> PutResult {
        PutResult {
            e_tag: Some(format!("{:x}", object.generation)),
            version: None,
            extensions: Default::default(),
        }
    }

    async fn put(&self, location: &Path, payload: PutPayload, is_exclusive: bool) -> Result<PutResult> {
        let mut writer = self.begin(location, is_exclusive)?;
        if let (true, Some(lower)) = (is_exclusive, &self.lower) {
            // From here on nobody else can create it in the pool, and what left the pool earlier is below.
            match lower.head(location).await {
                Err(object_store::Error::NotFound { .. }) => {}
                Ok(_) => {
                    let path = location.to_string();
                    return Err(object_store::Error::AlreadyExists { source: path.clone().into(), path });
                }
                Err(error) => return Err(error),
            }
        }
        payload.iter().try_for_each(|part| self.write(&mut *writer, part))?;
        writer.finish().map(|object| PoolObjects::put_result(&object)).map_err(pool_failure)
    }

    /// What the pool has below a prefix.
    fn listed(&self, prefix: Option<&Path>) -> Result<BTreeMap<Path, ObjectMeta>> {
        let all = self.pool.list().map_err(pool_failure)?;
        // A name that no path can have is not one of ours.
        let metas = all.iter().filter_map(|object| meta(object).ok());
        let is_below = |meta: &ObjectMeta| {
            let Some(prefix) = prefix else { return true };
            meta.location.prefix_match(prefix).is_some_and(|mut rest| rest.next().is_some())
        };
        Ok(metas.filter(is_below).map(|meta| (meta.location.clone(), meta)).collect())
    }
}

#[async_trait]
impl ObjectStore for PoolObjects {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        match (options.mode, &self.lower) {
            (PutMode::Create, _) => self.put(location, payload, true).await,
            (PutMode::Overwrite, None) => self.put(location, payload, false).await,
            (PutMode::Overwrite, Some(lower)) => {
                let result = lower.put(location, payload).await?;
                self.pool.remove(location.as_ref()).map_err(pool_failure)?;
                Ok(result)
            }
            (PutMode::Update(_), _) => Err(object_store::Error::NotImplemented {
                operation: "`put_opts` with mode `PutMode::Update`".into(),
                implementer: self.to_string(),
            }),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let pack = self.create_pack(location)?;
        Ok(Box::new(PoolUpload { state: Mutex::new((Some(pack), None)), path: location.to_string() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if let Some(object) = self.find(location)? {
            let meta = meta(&object)?;
            options.check_preconditions(&meta)?;
            let range = match options.range.as_ref().filter(|_| !options.head) {
                None => 0..object.byte_len,
                Some(range) => {
                    range_of(range, object.byte_len).map_err(|reason| object_store::Error::Generic {
                        store: "pool",
                        source: format!("{location}: {reason}").into(),
                    })?
                }
            };
            let bytes = match options.head {
                true => Ok(Bytes::new()),
                false => self.read(&object, range.clone()),
            };
            match bytes {
                Ok(bytes) => {
                    return Ok(GetResult {
                        payload: GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed()),
                        meta,
                        range,
                        attributes: Default::default(),
                        extensions: Default::default(),
                    });
                }
                // It went below since.
                Err(PoolError::Missing { .. }) if self.lower.is_some() => {}
                Err(error) => return Err(pool_failure(error)),
            }
        }
        match &self.lower {
            Some(lower) => lower.get_opts(location, options).await,
            None => Err(object_store::Error::NotFound {
                path: location.to_string(),
                source: format!("{location} is not in {}", self.pool.label()).into(),
            }),
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if let Some(object) = self.find(location)? {
            let read = |range: &Range<u64>| self.read(&object, range.clone());
            match ranges.iter().map(read).collect::<Result<Vec<_>, _>>() {
                Ok(read) => return Ok(read),
                Err(PoolError::Missing { .. }) if self.lower.is_some() => {}
                Err(error) => return Err(pool_failure(error)),
            }
        }
        match &self.lower {
            Some(lower) => lower.get_ranges(location, ranges).await,
            None => Err(object_store::Error::NotFound {
                path: location.to_string(),
                source: format!("{location} is not in {}", self.pool.label()).into(),
            }),
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        locations
            .then(move |location| {
                let this = this.clone();
                async move {
                    let location = location?;
                    let was_there = this.pool.remove(location.as_ref()).map_err(pool_failure)?;
                    match &this.lower {
                        None if was_there => Ok(location),
                        None => Err(object_store::Error::NotFound {
                            path: location.to_string(),
                            source: format!("{location} is not in {}", this.pool.label()).into(),
                        }),
                        Some(lower) => match lower.delete(&location).await {
                            Err(object_store::Error::NotFound { .. }) if was_there => Ok(location),
                            other => other.map(|()| location),
                        },
                    }
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        // What is not in the pool by now was below before, so it is in the second list.
        let near = match self.listed(prefix) {
            Ok(near) => near,
            Err(error) => return stream::iter([Err(error)]).boxed(),
        };
        let metas: Vec<Result<ObjectMeta>> = near.values().cloned().map(Ok).collect();
        let metas = stream::iter(metas);
        let Some(lower) = &self.lower else { return metas.boxed() };
        let is_below = move |meta: &Result<ObjectMeta>| {
            std::future::ready(meta.as_ref().map_or(true, |meta| !near.contains_key(&meta.location)))
        };
        metas.chain(lower.list(prefix).filter(is_below)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let root = Path::default();
        let depth = prefix.unwrap_or(&root).parts().count() + 1;
        let mut result =
            ListResult { common_prefixes: Vec::new(), objects: Vec::new(), extensions: Default::default() };
        let mut all: Vec<ObjectMeta> = self.list(prefix).try_collect().await?;
        all.sort_unstable_by(|one, other| one.location.cmp(&other.location));
        for meta in all {
            if meta.location.parts().count() > depth {
                let directory: Path = meta.location.parts().take(depth).collect();
                if result.common_prefixes.last() != Some(&directory) {
                    result.common_prefixes.push(directory);
                }
            } else {
                result.objects.push(meta);
            }
        }
        Ok(result)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let bytes = ObjectStoreExt::get(self, from).await?.bytes().await?;
        let mode = match options.mode {
            CopyMode::Overwrite => PutMode::Overwrite,
            CopyMode::Create => PutMode::Create,
        };
        self.put_opts(to, PutPayload::from_bytes(bytes), mode.into()).await.map(drop)
    }
}

/// A pack that goes into the pool as it is written.
#[derive(Debug)]
pub(crate) struct PoolPack {
    objects: PoolObjects,
    writer: Option<Box<dyn PoolWriter>>,
}

impl PackOutput for PoolPack {
    fn write(&mut self, parts: &[&[u8]]) -> Result<()> {
        let Some(writer) = &mut self.writer else { return Err(over()) };
        parts.iter().try_for_each(|part| self.objects.write(&mut **writer, part))
    }

    fn finish(&mut self) -> Result<()> {
        let writer = self.writer.take().ok_or_else(over)?;
        writer.finish().map(drop).map_err(pool_failure)
    }
}

fn over() -> object_store::Error {
    object_store::Error::Generic { store: "pool", source: "the upload is over".into() }
}

/// An object written in parts, in the order in which they were given, and the failure of one.
#[derive(Debug)]
struct PoolUpload {
    state: Mutex<(Option<PoolPack>, Option<String>)>,
    path: String,
}

impl PoolUpload {
    fn state(&self) -> MutexGuard<'_, (Option<PoolPack>, Option<String>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl MultipartUpload for PoolUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let mut state = self.state();
        let written = match &mut state.0 {
            None => Err(over()),
            Some(pack) => data.iter().try_for_each(|part| pack.write(&[part])),
        };
        if let Err(error) = &written {
            state.1 = Some(error.to_string());
        }
        Box::pin(std::future::ready(written))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (pack, failure) = std::mem::take(&mut *self.state());
        if let Some(failure) = failure {
            return Err(object_store::Error::Generic { store: "pool", source: failure.into() });
        }
        let mut pack = pack.ok_or_else(over)?;
        pack.finish()?;
        match pack.objects.pool.find(&self.path).map_err(pool_failure)? {
            Some(object) => Ok(PoolObjects::put_result(&object)),
            None => Ok(PutResult { e_tag: None, version: None, extensions: Default::default() }),
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.state().0 = None;
        Ok(())
    }
}
