//! Durable files under one directory: written under `tmp/`, then given their final name.
//!
//! Invariants:
//! 1. A final name is never open for writing: what it shows is whole.
//! 2. In durable mode a final name appears only after the bytes are synced, and the call returns only after the
//!    directory is.
//! 3. A file whose fsync failed is never trusted: its bytes go to a new file. (After the failure the kernel may have
//!    dropped them and marked the pages clean, so that a second fsync of the same file would lie.)
//! 4. A finished file is never truncated and never changed.

use super::error::{LocalError, PUBLISH, is_unsupported};
use super::syscalls::{Input, Output, Syscalls};
use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use xxhash_rust::xxh3::Xxh3;

/// Directory of files that are being written.
pub(crate) const TMP: &str = "tmp";

/// Age from which a file under `tmp/` is taken for the leftover of a dead process.
pub(crate) const TMP_AGE: Duration = Duration::from_secs(24 * 3600);

/// Bytes copied at a time when a file is written again.
const COPY_LEN: usize = 1 << 20;

/// Bytes of a file after which it is synced for the first time while it is written, and then again. Less would have the file
/// system close its journal too often.
const SYNC_AHEAD_LEN: u64 = 32 << 20;

/// Whether a final name may be there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Publish {
    /// Replace it.
    Replace,
    /// Fail with `AlreadyExists`.
    Create,
}

/// A directory and the calls by which it is reached.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) root: PathBuf,
    pub(crate) calls: Arc<dyn Syscalls>,
    pub(crate) is_durable: bool,
    /// A sync of a directory failed since all was last synced. The kernel may have dropped its changes, those of others
    /// too, and a later sync of it would not tell.
    pub(crate) has_lost_names: AtomicBool,
}

impl Disk {
    pub(crate) fn open(&self, path: &Path) -> Result<Box<dyn Input>, LocalError> {
        self.calls.open(path).map_err(|error| LocalError::new("open", path, error))
    }

    pub(crate) fn fsync(&self, path: &Path) -> Result<(), LocalError> {
        self.calls.fsync(path).map_err(|error| LocalError::new("sync", path, error))
    }

    /// Makes a directory and those above it; in durable mode syncs them up to the first that was there before.
    pub(crate) fn make_directories(&self, path: &Path) -> Result<(), LocalError> {
        let mut missing = Vec::new();
        let mut at = path;
        loop {
            match self.calls.stat(at) {
                Ok(stat) if stat.is_directory => break,
                Ok(_) => {
                    return Err(LocalError::new("make directory", at, io::ErrorKind::NotADirectory.into()));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(at),
                Err(error) => return Err(LocalError::new("look at", at, error)),
            }
            match at.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => at = parent,
                _ => break,
            }
        }
        for directory in missing.iter().rev() {
            match self.calls.mkdir(directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(LocalError::new("make directory", directory, error));
                }
                _ => {}
            }
        }
        if self.is_durable {
            for directory in &missing {
                self.fsync(parent_of(directory))?;
            }
        }
        Ok(())
    }

    /// Syncs the directory of the repository and all above it that can be opened: which of them were made by a
    /// process that did not sync is not known.
    pub(crate) fn sync_upwards(&self) -> Result<(), LocalError> {
        self.fsync(&self.root)?;
        let mut at = parent_of(&self.root);
        loop {
            match self.calls.fsync(at) {
                // A directory that may not be read, or that cannot be synced (other file systems stand up there),
                // was not made by us.
                Err(error)
                    if error.kind() == io::ErrorKind::PermissionDenied
                        || error.kind() == io::ErrorKind::NotFound
                        || is_unsupported(&error) =>
                {
                    return Ok(());
                }
                Err(error) => return Err(LocalError::new("sync", at, error)),
                Ok(()) => {}
            }
            match at.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => at = parent,
                _ => return Ok(()),
            }
        }
    }

    /// Removes what dead processes left under `tmp/`. Best effort.
    pub(crate) fn clean_tmp(&self, now: SystemTime) {
        let tmp = self.root.join(TMP);
        let Ok(names) = self.calls.read_dir(&tmp) else { return };
        for (name, is_directory) in names {
            let path = tmp.join(name);
            let Ok(stat) = self.calls.stat(&path) else { continue };
            if !is_directory && now.duration_since(stat.modified).is_ok_and(|age| age > TMP_AGE) {
                let _ = self.calls.unlink(&path);
            }
        }
    }

    /// Makes files of any writer survive a power cut, with their names. Returns those that had to be written again.
    pub(crate) fn sync_files(&self, paths: &[PathBuf]) -> Result<Vec<PathBuf>, LocalError> {
        let must_rewrite = self.has_lost_names.load(Ordering::Relaxed);
        let mut rewritten = Vec::new();
        let mut directories: Vec<&Path> = Vec::new();
        for path in paths {
            if must_rewrite || self.calls.fsync(path).is_err() {
                self.has_lost_names.store(true, Ordering::Relaxed);
                self.write_again(path, None)?;
                rewritten.push(path.clone());
            }
            if !directories.contains(&parent_of(path)) {
                directories.push(parent_of(path));
            }
        }
        for directory in directories {
            if self.calls.fsync(directory).is_ok() {
                continue;
            }
            self.has_lost_names.store(true, Ordering::Relaxed);
            for path in paths.iter().filter(|path| parent_of(path) == directory) {
                self.write_again(path, None)?;
                rewritten.push(path.clone());
            }
        }
        self.has_lost_names.store(false, Ordering::Relaxed);
        Ok(rewritten)
    }

    /// Begins a file.
    pub(crate) fn begin(self: &Arc<Self>) -> Result<TmpFile, LocalError> {
        let (path, output) = self.new_tmp()?;
        let checksum = self.is_durable.then(|| Box::new(Xxh3::new()));
        Ok(TmpFile {
            disk: Arc::clone(self),
            path,
            output: Some(output),
            checksum,
            unsynced: 0,
            process: std::process::id(),
        })
    }

    fn new_tmp(&self) -> Result<(PathBuf, Box<dyn Output>), LocalError> {
        let tmp = self.root.join(TMP);
        let path = tmp.join(random_name());
        match self.calls.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_directories(&tmp)?,
            other => {
                return other
                    .map(|output| (path.clone(), output))
                    .map_err(|error| LocalError::new("create", &path, error));
            }
        }
        match self.calls.create(&path) {
            Ok(output) => Ok((path, output)),
            Err(error) => Err(LocalError::new("create", &path, error)),
        }
    }

    /// Copies a file into a new one under `tmp/` and syncs that. If `checksum` is given, what is read must have it.
    fn copy_synced(&self, from: &Path, checksum: Option<u64>) -> Result<PathBuf, LocalError> {
        let input = self.open(from)?;
        let (path, mut output) = self.new_tmp()?;
        let copied = (|| {
            let mut seen = Xxh3::new();
            let mut buffer = vec![0; COPY_LEN];
            let mut byte_offset = 0;
            loop {
                let len = input.read_at(&mut buffer, byte_offset)?;
                if len == 0 {
                    break;
                }
                seen.update(&buffer[..len]);
                output.write_all(&[IoSlice::new(&buffer[..len])])?;
                byte_offset += len as u64;
            }
            if checksum.is_some_and(|expected| expected != seen.digest()) {
                return Err(io::Error::other("its bytes were lost by the failed sync; save again"));
            }
            output.fsync()
        })();
        match copied {
            Ok(()) => Ok(path),
            Err(error) => {
                let _ = self.calls.unlink(&path);
                Err(LocalError::new("write again", from, error))
            }
        }
    }

    /// Puts the same bytes in a new, synced file under the same name, after a sync of it has failed.
    pub(crate) fn write_again(&self, path: &Path, checksum: Option<u64>) -> Result<(), LocalError> {
        let copy = self.copy_synced(path, checksum)?;
        if let Err(error) = self.calls.rename(&copy, path) {
            let _ = self.calls.unlink(&copy);
            return Err(LocalError::new("rename", path, error));
        }
        self.fsync(parent_of(path))
    }
}

/// A file that is being written, and vanishes unless it is published.
pub(crate) struct TmpFile {
    disk: Arc<Disk>,
    path: PathBuf,
    output: Option<Box<dyn Output>>,
    /// Of all that was written, in durable mode.
    checksum: Option<Box<Xxh3>>,
    /// Bytes that were written since a sync was last begun.
    unsynced: u64,
    /// A forked child must not remove its parent's file.
    process: u32,
}

impl fmt::Debug for TmpFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TmpFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl TmpFile {
    /// Appends bytes.
    pub(crate) fn write(&mut self, parts: &[IoSlice<'_>]) -> Result<(), LocalError> {
        let Some(output) = &mut self.output else {
            return Err(LocalError::new("write", &self.path, io::Error::other("the file is closed")));
        };
        output.write_all(parts).map_err(|error| LocalError::new("write", &self.path, error))?;
        if let Some(checksum) = &mut self.checksum {
            parts.iter().for_each(|part| checksum.update(part));
            self.unsynced += parts.iter().map(|part| part.len() as u64).sum::<u64>();
            if self.unsynced >= SYNC_AHEAD_LEN {
                self.unsynced = 0;
                output.sync_ahead();
            }
        }
        Ok(())
    }

    /// Gives the file its final name. On an error the name is not there, unless the error is a sync of its directory.
    pub(crate) fn publish(&mut self, to: &Path, mode: Publish) -> Result<(), LocalError> {
        let disk = Arc::clone(&self.disk);
        let expected = self.checksum.as_ref().map(|checksum| checksum.digest());
        if let Some(mut output) = self.output.take()
            && disk.is_durable
            && output.fsync().is_err()
        {
            drop(output);
            let again = disk.copy_synced(&self.path, expected)?;
            let _ = disk.calls.unlink(&self.path);
            self.path = again;
        }
        match self.give_name(to, mode) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                disk.make_directories(parent_of(to))?;
                self.give_name(to, mode)
            }
            other => other,
        }
        .map_err(|error| LocalError::new(PUBLISH, to, error))?;
        // Whatever stood there before, this is nobody's file any more.
        self.process = 0;
        if disk.is_durable && disk.fsync(parent_of(to)).is_err() {
            disk.has_lost_names.store(true, Ordering::Relaxed);
            disk.write_again(to, expected)?;
        }
        Ok(())
    }

    fn give_name(&self, to: &Path, mode: Publish) -> io::Result<()> {
        let calls = &self.disk.calls;
        match mode {
            Publish::Replace => calls.rename(&self.path, to),
            Publish::Create => match calls.link(&self.path, to) {
                Ok(()) => {
                    let _ = calls.unlink(&self.path);
                    Ok(())
                }
                Err(error) if is_unsupported(&error) => calls.rename_new(&self.path, to),
                Err(error) => Err(error),
            },
        }
    }
}

impl Drop for TmpFile {
    fn drop(&mut self) {
        if self.process == std::process::id() {
            self.output = None;
            let _ = self.disk.calls.unlink(&self.path);
        }
    }
}

/// The directory that holds `path`.
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Sixteen random bytes in hexadecimal.
pub(crate) fn random_name() -> String {
    crate::random::bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}
