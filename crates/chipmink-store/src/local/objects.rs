//! [`LocalDisk`]: the local backend as an `object_store::ObjectStore`.

use super::disk::{Disk, Publish, TMP, TmpFile};
use super::error::LocalError;
use super::files::LocalFiles;
use super::syscalls::{Input, Stat, Syscalls};
use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};
use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// Bytes of one piece of a streamed read.
const STREAM_LEN: u64 = 1 << 20;

/// Objects as files under a directory. Cloning is cheap and gives another handle of the same directory.
///
/// Its futures are ready at their first poll: the system calls are made in place.
#[derive(Debug, Clone)]
pub struct LocalDisk {
    disk: Arc<Disk>,
}

impl fmt::Display for LocalDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalDisk({})", self.disk.root.display())
    }
}

impl LocalDisk {
    /// A handle of a directory, which need not exist yet. Makes no call.
    ///
    /// With `is_durable` every object is synced before the call that made it returns.
    pub fn new(root: PathBuf, calls: Arc<dyn Syscalls>, is_durable: bool) -> Self {
        LocalDisk { disk: Arc::new(Disk { root, calls, is_durable, has_lost_names: AtomicBool::new(false) }) }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.disk.root
    }

    /// A handle of the same directory that syncs nothing.
    pub fn relaxed(&self) -> Self {
        LocalDisk::new(self.disk.root.clone(), Arc::clone(&self.disk.calls), false)
    }

    fn file(&self, location: &ObjectPath) -> Result<PathBuf> {
        let mut parts = location.parts().peekable();
        if parts.peek().is_none_or(|first| first.as_ref() == TMP) {
            return Err(object_store::Error::NotSupported {
                source: format!("{location:?} is no name for an object here").into(),
            });
        }
        Ok(parts.fold(self.disk.root.clone(), |path, part| path.join(part.as_ref())))
    }

    fn open_object(&self, location: &ObjectPath) -> Result<(Box<dyn Input>, PathBuf, Stat)> {
        let path = self.file(location)?;
        let input = self.disk.open(&path)?;
        let stat = input.stat().map_err(|error| LocalError::new("look at", &path, error))?;
        if stat.is_directory {
            return Err(LocalError::new("open", &path, io::ErrorKind::NotFound.into()).into());
        }
        Ok((input, path, stat))
    }

    /// Names of all objects below a directory, ascending within each directory.
    fn names(&self, directory: &ObjectPath, into: &mut Vec<ObjectPath>) -> Result<()> {
        let path = directory.parts().fold(self.disk.root.clone(), |path, part| path.join(part.as_ref()));
        let mut names = match self.disk.calls.read_dir(&path) {
            Ok(names) => names,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(error) => return Err(LocalError::new("list", &path, error).into()),
        };
        names.sort_unstable();
        for (name, is_directory) in names {
            let Some(name) = name.to_str() else { continue };
            if directory.as_ref().is_empty() && name == TMP {
                continue;
            }
            // A name that no object can have is not one of ours.
            let Ok(child) =
                ObjectPath::parse(name).map(|name| directory.parts().chain(name.parts()).collect())
            else {
                continue;
            };
            if is_directory { self.names(&child, into)? } else { into.push(child) }
        }
        Ok(())
    }

    fn meta(&self, location: ObjectPath) -> Result<Option<ObjectMeta>> {
        let path = self.file(&location)?;
        match self.disk.calls.stat(&path) {
            Ok(stat) => Ok(Some(meta(location, &stat))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LocalError::new("look at", &path, error).into()),
        }
    }

    fn put_result(&self, location: &ObjectPath) -> PutResult {
        let meta = self.meta(location.clone()).ok().flatten();
        PutResult { e_tag: meta.and_then(|meta| meta.e_tag), version: None, extensions: Default::default() }
    }

    fn listing(
        &self,
        prefix: Option<&ObjectPath>,
        after: Option<&ObjectPath>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let mut names = Vec::new();
        if let Err(error) = self.names(prefix.unwrap_or(&ObjectPath::default()), &mut names) {
            return stream::iter([Err(error)]).boxed();
        }
        if let Some(after) = after {
            names.retain(|name| name > after);
        }
        let this = self.clone();
        stream::iter(names).filter_map(move |name| std::future::ready(this.meta(name).transpose())).boxed()
    }

    fn copy(&self, from: &ObjectPath, to: &ObjectPath, mode: Publish) -> Result<()> {
        let (input, path, stat) = self.open_object(from)?;
        let mut file = self.disk.begin()?;
        let mut byte_offset = 0;
        while byte_offset < stat.byte_len {
            let piece = read(&*input, &path, byte_offset..(byte_offset + STREAM_LEN).min(stat.byte_len))?;
            file.write(&[IoSlice::new(&piece)])?;
            byte_offset += piece.len() as u64;
        }
        Ok(file.publish(&self.file(to)?, mode)?)
    }
}

fn meta(location: ObjectPath, stat: &Stat) -> ObjectMeta {
    let nanos = stat.modified.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_nanos());
    ObjectMeta {
        location,
        last_modified: DateTime::<Utc>::from(stat.modified),
        size: stat.byte_len,
        e_tag: Some(format!("{:x}-{nanos:x}-{:x}", stat.file_number, stat.byte_len)),
        version: None,
    }
}

/// Reads of more than this are tried for room first: a sparse file may claim any length.
const LARGE_READ: usize = 1 << 28;

fn read(input: &dyn Input, path: &Path, range: Range<u64>) -> Result<Bytes> {
    let fail = |error| object_store::Error::from(LocalError::new("read", path, error));
    let len = usize::try_from(range.end - range.start)
        .map_err(|_| fail(io::Error::from(io::ErrorKind::FileTooLarge)))?;
    if len > LARGE_READ && Vec::<u8>::new().try_reserve_exact(len).is_err() {
        return Err(fail(io::Error::from(io::ErrorKind::OutOfMemory)));
    }
    match input.read_new(len, range.start) {
        Ok(bytes) if bytes.len() == len => Ok(bytes.into()),
        Ok(_) => Err(fail(io::ErrorKind::UnexpectedEof.into())),
        Err(error) => Err(fail(error)),
    }
}

#[async_trait]
impl ObjectStore for LocalDisk {
    async fn put_opts(
        &self,
        location: &ObjectPath,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let mode = match options.mode {
            PutMode::Overwrite => Publish::Replace,
            PutMode::Create => Publish::Create,
            PutMode::Update(_) => {
                return Err(object_store::Error::NotImplemented {
                    operation: "`put_opts` with mode `PutMode::Update`".into(),
                    implementer: self.to_string(),
                });
            }
        };
        let to = self.file(location)?;
        let mut file = self.disk.begin()?;
        let parts: Vec<IoSlice<'_>> = payload.iter().map(|part| IoSlice::new(part)).collect();
        file.write(&parts)?;
        file.publish(&to, mode)?;
        Ok(self.put_result(location))
    }

    async fn put_multipart_opts(
        &self,
        location: &ObjectPath,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let to = self.file(location)?;
        let state = UploadState { file: Some(self.disk.begin()?), failure: None };
        Ok(Box::new(LocalUpload {
            disk: self.clone(),
            location: location.clone(),
            to,
            state: Arc::new(Mutex::new(state)),
        }))
    }

    async fn get_opts(&self, location: &ObjectPath, options: GetOptions) -> Result<GetResult> {
        let (input, path, stat) = self.open_object(location)?;
        let meta = meta(location.clone(), &stat);
        options.check_preconditions(&meta)?;
        let range = match options.range.filter(|_| !options.head) {
            None => 0..stat.byte_len,
            Some(range) => {
                range_of(&range, stat.byte_len).map_err(|reason| object_store::Error::Generic {
                    store: "local",
                    source: format!("{location}: {reason}").into(),
                })?
            }
        };
        let pieces = range.clone().step_by(STREAM_LEN as usize);
        let (end, wanted) = (range.end, !options.head);
        let stream = stream::iter(pieces.filter(move |_| wanted))
            .map(move |at| read(&*input, &path, at..(at + STREAM_LEN).min(end)));
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream.boxed()),
            meta,
            range,
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }

    async fn get_ranges(&self, location: &ObjectPath, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (input, path, stat) = self.open_object(location)?;
        let checked = |range: &Range<u64>| {
            if range.start > range.end || range.end > stat.byte_len {
                let source = io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("bytes {}..{} of {} are wanted", range.start, range.end, stat.byte_len),
                );
                return Err(LocalError::new("read", &path, source).into());
            }
            read(&*input, &path, range.clone())
        };
        ranges.iter().map(checked).collect()
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<ObjectPath>>,
    ) -> BoxStream<'static, Result<ObjectPath>> {
        let this = self.clone();
        let delete = move |location: Result<ObjectPath>| {
            let location = location?;
            let path = this.file(&location)?;
            this.disk.calls.unlink(&path).map_err(|error| LocalError::new("remove", &path, error))?;
            Ok(location)
        };
        locations.map(delete).boxed()
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&ObjectPath>,
        offset: &ObjectPath,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, Some(offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> Result<ListResult> {
        let root = ObjectPath::default();
        let prefix = prefix.unwrap_or(&root);
        let depth = prefix.parts().count() + 1;
        let mut names = Vec::new();
        self.names(prefix, &mut names)?;
        let mut result =
            ListResult { common_prefixes: Vec::new(), objects: Vec::new(), extensions: Default::default() };
        for name in names {
            if name.parts().count() > depth {
                let directory: ObjectPath = name.parts().take(depth).collect();
                if result.common_prefixes.last() != Some(&directory) {
                    result.common_prefixes.push(directory);
                }
            } else if let Some(meta) = self.meta(name)? {
                result.objects.push(meta);
            }
        }
        Ok(result)
    }

    async fn copy_opts(&self, from: &ObjectPath, to: &ObjectPath, options: CopyOptions) -> Result<()> {
        let mode = match options.mode {
            CopyMode::Overwrite => Publish::Replace,
            CopyMode::Create => Publish::Create,
        };
        self.copy(from, to, mode)
    }
}

pub(crate) fn range_of(range: &GetRange, byte_len: u64) -> std::result::Result<Range<u64>, String> {
    match range {
        GetRange::Bounded(range) if range.start >= range.end => Err("the range is empty".into()),
        GetRange::Bounded(Range { start, .. }) | GetRange::Offset(start) if *start >= byte_len => {
            Err(format!("the range starts at {start}, the object has {byte_len} bytes"))
        }
        GetRange::Bounded(range) => Ok(range.start..range.end.min(byte_len)),
        GetRange::Offset(start) => Ok(*start..byte_len),
        GetRange::Suffix(len) => Ok(byte_len.saturating_sub(*len)..byte_len),
    }
}

#[derive(Debug)]
struct UploadState {
    file: Option<TmpFile>,
    failure: Option<String>,
}

/// An object written in parts, in the order in which they were given.
#[derive(Debug)]
struct LocalUpload {
    disk: LocalDisk,
    location: ObjectPath,
    to: PathBuf,
    state: Arc<Mutex<UploadState>>,
}

impl LocalUpload {
    fn state(&self) -> std::sync::MutexGuard<'_, UploadState> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[async_trait]
impl MultipartUpload for LocalUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let mut state = self.state();
        let written = match &mut state.file {
            None => Err(LocalError::new("write", &self.to, io::Error::other("the upload is over"))),
            Some(file) => file.write(&data.iter().map(|part| IoSlice::new(part)).collect::<Vec<_>>()),
        };
        if let Err(error) = &written {
            state.failure = Some(error.to_string());
        }
        Box::pin(std::future::ready(written.map_err(Into::into)))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let mut state = self.state();
        let (file, failure) = (state.file.take(), state.failure.take());
        drop(state);
        match (file, failure) {
            (_, Some(failure)) => Err(LocalError::new("publish", &self.to, io::Error::other(failure)).into()),
            (None, None) => {
                Err(LocalError::new("publish", &self.to, io::Error::other("the upload is over")).into())
            }
            (Some(mut file), None) => {
                file.publish(&self.to, Publish::Replace)?;
                Ok(self.disk.put_result(&self.location))
            }
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.state().file = None;
        Ok(())
    }
}

impl LocalFiles for LocalDisk {
    fn make_directories(&self, names: &[&str]) -> Result<()> {
        self.disk.make_directories(&self.disk.root.join(TMP))?;
        names.iter().try_for_each(|name| self.disk.make_directories(&self.disk.root.join(name)))?;
        Ok(())
    }

    fn boot(&self) -> Option<[u8; 16]> {
        self.disk.calls.boot()
    }

    fn clean(&self) {
        self.disk.clean_tmp(SystemTime::now());
    }

    fn sync(&self, locations: &[ObjectPath]) -> Result<Vec<ObjectPath>> {
        let paths = locations.iter().map(|location| self.file(location)).collect::<Result<Vec<_>>>()?;
        let rewritten = self.disk.sync_files(&paths)?;
        let pairs = locations.iter().zip(&paths).filter(|(_, path)| rewritten.contains(path));
        Ok(pairs.map(|(location, _)| location.clone()).collect())
    }

    fn sync_upwards(&self) -> Result<()> {
        Ok(self.disk.sync_upwards()?)
    }

    fn open_file(&self, location: &ObjectPath) -> Result<std::fs::File> {
        let path = self.file(location)?;
        Ok(self.disk.calls.open_file(&path).map_err(|error| LocalError::new("open", &path, error))?)
    }

    fn create_pack(&self, location: &ObjectPath) -> Result<Box<dyn super::files::PackOutput>> {
        Ok(Box::new(LocalPack { to: self.file(location)?, file: self.disk.begin()? }))
    }

    fn read_at(&self, location: &ObjectPath, byte_offset: u64, into: &mut [u8]) -> Result<()> {
        let path = self.file(location)?;
        let input = self.disk.open(&path)?;
        match input.read_at(into, byte_offset) {
            Ok(filled) if filled == into.len() => Ok(()),
            Ok(_) => Err(LocalError::new("read", &path, io::ErrorKind::UnexpectedEof.into()).into()),
            Err(error) => Err(LocalError::new("read", &path, error).into()),
        }
    }
}

/// A pack that goes to its file as it is written.
#[derive(Debug)]
struct LocalPack {
    to: PathBuf,
    file: TmpFile,
}

impl super::files::PackOutput for LocalPack {
    fn write(&mut self, parts: &[&[u8]]) -> Result<()> {
        let parts: smallvec::SmallVec<[IoSlice<'_>; 2]> =
            parts.iter().map(|part| IoSlice::new(part)).collect();
        Ok(self.file.write(&parts)?)
    }

    fn finish(&mut self) -> Result<()> {
        Ok(self.file.publish(&self.to, Publish::Replace)?)
    }
}
