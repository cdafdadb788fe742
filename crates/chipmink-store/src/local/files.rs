//! What a backend on a local file system can do beyond `object_store::ObjectStore`.

use object_store::Result;
use object_store::path::Path as ObjectPath;
use std::fmt;
use std::fs::File;

/// Objects that are local files: they can be synced later, mapped, read in place and written without a copy.
pub trait LocalFiles: fmt::Debug + Send + Sync {
    /// Makes the directories of a repository; if durable, syncs them up to the first that was there before.
    ///
    /// # Errors
    /// When one cannot be made or synced.
    fn make_directories(&self, names: &[&str]) -> Result<()>;

    /// A name for the time since the machine was started, if it has one.
    fn boot(&self) -> Option<[u8; 16]>;

    /// Removes what dead processes left unfinished. Best effort.
    fn clean(&self);

    /// Makes objects survive a power cut, whoever wrote them, with the entries in their directories.
    ///
    /// Returns those whose sync failed and whose bytes, as they could still be read, went to new files: the caller
    /// must check them.
    ///
    /// # Errors
    /// When one cannot be synced, not even by writing its bytes to a new file.
    fn sync(&self, locations: &[ObjectPath]) -> Result<Vec<ObjectPath>>;

    /// Makes the directory of the repository, and those above it, survive a power cut.
    ///
    /// # Errors
    /// When one that may be opened cannot be synced.
    fn sync_upwards(&self) -> Result<()>;

    /// Opens an object, e.g. to map it.
    ///
    /// # Errors
    /// When it cannot be opened.
    fn open_file(&self, location: &ObjectPath) -> Result<File>;

    /// Begins an object whose bytes go to the file as they are written. It is seen when it is finished.
    ///
    /// # Errors
    /// When the file cannot be made.
    fn create_pack(&self, location: &ObjectPath) -> Result<Box<dyn PackOutput>>;

    /// Fills `into` from `byte_offset` of an object.
    ///
    /// # Errors
    /// When it cannot be opened or is too short.
    fn read_at(&self, location: &ObjectPath, byte_offset: u64, into: &mut [u8]) -> Result<()>;
}

/// A pack that is being written. Dropped before [`PackOutput::finish`], it leaves nothing.
pub trait PackOutput: fmt::Debug + Send {
    /// Appends bytes.
    ///
    /// # Errors
    /// When they cannot be written; the pack must then be given up.
    fn write(&mut self, parts: &[&[u8]]) -> Result<()>;

    /// Whether to append so many bytes now would wait for a place far away.
    fn would_wait(&self, _byte_len: usize) -> bool {
        false
    }

    /// Makes the pack visible, and durable if its place is.
    ///
    /// # Errors
    /// When that fails; the pack must then be given up.
    fn finish(&mut self) -> Result<()>;
}
