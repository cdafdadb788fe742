//! The system calls of the local backend, as a trait: the seam at which the tests put faults and crashes.
//!
//! Refuses to be a file system library: what is not needed to publish and read immutable objects is not here.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, IoSlice};
use std::path::Path;
use std::time::SystemTime;

/// What a path is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    /// Length in bytes; of no meaning for a directory.
    pub byte_len: u64,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Number of the file itself, whatever its names; 0 where the system has none.
    pub file_number: u64,
    /// Time of the last change of its content.
    pub modified: SystemTime,
}

/// A new file that is being written from its beginning.
pub trait Output: fmt::Debug + Send + Sync {
    /// Appends all bytes of `parts`.
    ///
    /// # Errors
    /// As `writev(2)`; an unknown part of the bytes may have been written.
    fn write_all(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()>;

    /// Begins to send the bytes written so far to the disk, beside what the caller goes on with, so that [`Output::fsync`] has
    /// less to wait for. What fails of it is an error of that. Where it cannot be done nothing happens.
    fn sync_ahead(&mut self) {}

    /// Makes the bytes written so far survive a power cut (not the file's name: that is its directory's).
    ///
    /// # Errors
    /// As `fsync(2)`; the bytes must then be written again to another file.
    fn fsync(&mut self) -> io::Result<()>;
}

/// An open file that is read at any place.
pub trait Input: fmt::Debug + Send + Sync {
    /// Reads at `byte_offset` into `buffer`; fewer bytes than asked for only at the end of the file.
    ///
    /// # Errors
    /// As `pread(2)`.
    fn read_at(&self, buffer: &mut [u8], byte_offset: u64) -> io::Result<usize>;

    /// Reads `len` bytes at `byte_offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// As `pread(2)`.
    fn read_new(&self, len: usize, byte_offset: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let filled = self.read_at(&mut bytes, byte_offset)?;
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// What the file is.
    ///
    /// # Errors
    /// As `fstat(2)`.
    fn stat(&self) -> io::Result<Stat>;
}

/// The system calls. All paths are absolute or relative to the process' working directory, as the system takes them.
pub trait Syscalls: fmt::Debug + Send + Sync + 'static {
    /// Creates a file that must not exist.
    ///
    /// # Errors
    /// As `open(2)` with `O_CREAT | O_EXCL`.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// As `open(2)`.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Input>>;

    /// Opens a file for reading as the standard library's type, e.g. to map it.
    ///
    /// # Errors
    /// As `open(2)`; `Unsupported` where there are no real files.
    fn open_file(&self, path: &Path) -> io::Result<std::fs::File>;

    /// Makes a file's bytes, or a directory's entries, survive a power cut.
    ///
    /// # Errors
    /// As `open(2)` and `fsync(2)`.
    fn fsync(&self, path: &Path) -> io::Result<()>;

    /// Renames, replacing what has the new name.
    ///
    /// # Errors
    /// As `rename(2)`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Renames unless the new name exists.
    ///
    /// # Errors
    /// As `renameat2(2)` with `RENAME_NOREPLACE`; `Unsupported` where there is no such call.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name, which must not exist.
    ///
    /// # Errors
    /// As `link(2)`.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a name of a file.
    ///
    /// # Errors
    /// As `unlink(2)`.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Makes one directory, whose parent exists.
    ///
    /// # Errors
    /// As `mkdir(2)`.
    fn mkdir(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, in no order, and whether each is a directory.
    ///
    /// # Errors
    /// As `opendir(3)` and `readdir(3)`.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<(OsString, bool)>>;

    /// What a path is.
    ///
    /// # Errors
    /// As `stat(2)`.
    fn stat(&self, path: &Path) -> io::Result<Stat>;

    /// A name for the time since the machine was started: what was written in it and not synced is still seen whole.
    fn boot(&self) -> Option<[u8; 16]>;
}
