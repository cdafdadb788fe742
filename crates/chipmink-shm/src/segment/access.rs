//! The descriptor of shared memory, and reading and writing through it.

use crate::error::{Result, ShmError};
use rustix::fs::{FallocateFlags, FlockOperation, Mode};
use rustix::io::Errno;
use rustix::shm::OFlags;
use shared_memory::{ShmemConf, ShmemError};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// How long the lock on the leases is waited for: it is held for microseconds.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// A name that the system takes as that of shared memory, with a leading slash.
pub(crate) fn path_of(name: &str) -> Result<String> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let is_plain = bare.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    if bare.is_empty() || bare.len() > 200 || !is_plain || bare == "." || bare == ".." {
        return Err(ShmError::Segment {
            name: name.to_owned(),
            reason: "its name must be 1 to 200 visible ASCII characters without a slash".to_owned(),
        });
    }
    Ok(format!("/{bare}"))
}

/// Open shared memory.
#[derive(Debug)]
pub(crate) struct Access {
    pub(crate) name: String,
    file: File,
}

impl Access {
    pub(crate) fn of_file(name: String, file: File) -> Self {
        Access { name, file }
    }

    pub(crate) fn open(name: &str, is_writable: bool) -> Result<Self> {
        let flags = if is_writable { OFlags::RDWR } else { OFlags::RDONLY };
        let fd = rustix::shm::open(path_of(name)?, flags, Mode::empty())
            .map_err(|error| ShmError::system(format!("opening shared memory {name:?}"), error))?;
        Ok(Access { name: name.to_owned(), file: fd.into() })
    }

    /// Makes it, of zeros, with its space reserved; nobody but the user may open it, and nothing removes it when this
    /// process ends.
    pub(crate) fn create(name: &str, byte_len: u64) -> Result<Self> {
        let path = path_of(name)?;
        let context = |verb: &str| format!("{verb} shared memory {name:?}");
        let size =
            usize::try_from(byte_len).map_err(|_| ShmError::system(context("creating"), Errno::FBIG))?;
        let mut made = ShmemConf::new().os_id(&path).size(size).create().map_err(|error| match error {
            ShmemError::MappingIdExists => ShmError::system(context("creating"), Errno::EXIST),
            ShmemError::MapCreateFailed(code) | ShmemError::UnknownOsError(code) => {
                let source = std::io::Error::from_raw_os_error(i32::try_from(code).unwrap_or(0));
                ShmError::System { context: context("creating"), source }
            }
            other => ShmError::System { context: context("creating"), source: std::io::Error::other(other) },
        })?;
        made.set_owner(false);
        let reserved = Access::open(name, true).and_then(|access| {
            // Without it the first write beyond what memory there is would fail, or kill whoever maps it.
            rustix::fs::fallocate(&access.file, FallocateFlags::empty(), 0, byte_len).map_err(|error| {
                let context = format!("reserving {byte_len} bytes of shared memory for {name:?}");
                ShmError::system(context, error)
            })?;
            Ok(access)
        });
        if reserved.is_err() {
            // It is there for nobody: now it goes with the mapping.
            made.set_owner(true);
        }
        reserved
    }

    pub(crate) fn unlink(name: &str) -> Result<()> {
        rustix::shm::unlink(path_of(name)?)
            .map_err(|error| ShmError::system(format!("unlinking shared memory {name:?}"), error))
    }

    /// The bytes that it has at this moment.
    pub(crate) fn byte_len(&self) -> Result<u64> {
        let metadata = self.file.metadata();
        Ok(metadata.map_err(|error| self.failed("measuring", error))?.len())
    }

    /// Fills `into`, all of it.
    pub(crate) fn read_at(&self, byte_offset: u64, into: &mut [u8]) -> Result<()> {
        match self.file.read_exact_at(into, byte_offset) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(self.bad(format!(
                "it ends before byte {}; it was shrunk by another process",
                byte_offset.saturating_add(into.len() as u64)
            ))),
            Err(error) => Err(self.failed("reading", error)),
        }
    }

    pub(crate) fn write_at(&self, byte_offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, byte_offset).map_err(|error| self.failed("writing", error))
    }

    /// Runs `act` while no other process does so on the same memory.
    pub(crate) fn locked<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let began = Instant::now();
        loop {
            match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK | Errno::INTR) if began.elapsed() < LOCK_WAIT => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(self.failed("locking", error)),
            }
        }
        let result = act();
        // Closing the descriptor would end it, too.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
        result
    }

    pub(crate) fn bad(&self, reason: impl Into<String>) -> ShmError {
        ShmError::Segment { name: self.name.clone(), reason: reason.into() }
    }

    pub(crate) fn failed(&self, what: &str, error: impl Into<std::io::Error>) -> ShmError {
        ShmError::system(format!("{what} shared memory {:?}", self.name), error)
    }
}
