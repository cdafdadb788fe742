//! [`ForeignSegment`]: shared memory of other makers, such as Python's `SharedMemory` or torch's storages.

use super::access::Access;
use crate::error::Result;
use std::os::fd::BorrowedFd;

/// Shared memory that has no structure of ours. It may be written, shrunk and unlinked by others at any time.
#[derive(Debug)]
pub struct ForeignSegment {
    access: Access,
}

impl ForeignSegment {
    /// Opens it by its name, with or without the leading slash.
    ///
    /// # Errors
    /// When there is none, or it may not be opened.
    pub fn open(name: &str) -> Result<Self> {
        Ok(ForeignSegment { access: Access::open(name, false)? })
    }

    /// What an open descriptor refers to; `name` is what errors call it. It need not have a name any more.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated.
    pub fn of_descriptor(descriptor: BorrowedFd<'_>, name: &str) -> Result<Self> {
        let file = descriptor.try_clone_to_owned().map_err(|error| {
            crate::ShmError::system(format!("duplicating the descriptor of shared memory {name:?}"), error)
        })?;
        Ok(ForeignSegment { access: Access::of_file(name.to_owned(), file.into()) })
    }

    /// Makes one, of zeros, with its space reserved, for others to attach. It stays until it is unlinked.
    ///
    /// # Errors
    /// When the name is taken, or there is not enough memory.
    pub fn create(name: &str, byte_len: u64) -> Result<Self> {
        Ok(ForeignSegment { access: Access::create(name, byte_len)? })
    }

    /// Its length at this moment, in bytes.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn byte_len(&self) -> Result<u64> {
        self.access.byte_len()
    }

    /// Copies bytes out. Others may write meanwhile, so only the copy may be digested and stored.
    ///
    /// # Errors
    /// When it ends before: it was shrunk.
    pub fn read_at(&self, byte_offset: u64, into: &mut [u8]) -> Result<()> {
        self.access.read_at(byte_offset, into)
    }

    /// Copies bytes in.
    ///
    /// # Errors
    /// When it was opened for reading only, or there is no more memory.
    pub fn write_at(&self, byte_offset: u64, bytes: &[u8]) -> Result<()> {
        self.access.write_at(byte_offset, bytes)
    }
}
