//! Memory that other processes share, and may write, shrink or take away at any time.

use std::io;

/// Bytes of shared memory, as a reader has them. What it reads is a copy: others may write meanwhile, so only the copy may
/// be digested and stored.
pub trait SharedBytes {
    /// Copies bytes out, all that fit `into`.
    ///
    /// # Errors
    /// When the memory ends before, because another process has shrunk it, or is not there any more. It never costs the
    /// process its life, as touching a mapping may.
    fn read_at(&self, byte_offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// Reads shared memory that this process has mapped.
pub trait SharedMemory: Send {
    /// The bytes that are mapped from an address on, so many of them.
    ///
    /// # Errors
    /// When nothing is mapped there, or it may not be read.
    fn open(&self, address: usize, byte_len: usize) -> io::Result<Box<dyn SharedBytes>>;
}
