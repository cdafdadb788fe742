//! [`OwnPages`]: a mapping of our own.

use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::ops::Range;
use std::ptr::NonNull;

/// Private memory without a file, readable and writable until drop, of which only this value knows. It is reached through
/// pointers: the kernel may empty pages of it at any time.
#[derive(Debug)]
pub(super) struct OwnPages {
    start: NonNull<u8>,
    byte_len: usize,
}

// SAFETY: the mapping belongs to this value and nothing in it is bound to a thread; whoever uses pointers into it answers
// for what they do with them.
unsafe impl Send for OwnPages {}

impl OwnPages {
    /// Maps so many bytes, in whole pages.
    pub(super) fn new(byte_len: usize) -> rustix::io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                byte_len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        let start = NonNull::new(start.cast()).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(OwnPages { start, byte_len })
    }

    /// The first byte; valid for reads and writes of [`OwnPages::byte_len`] bytes for as long as `self` lives.
    pub(super) const fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(super) const fn byte_len(&self) -> usize {
        self.byte_len
    }

    /// The byte at an offset.
    pub(super) fn byte(&self, at: usize) -> NonNull<u8> {
        assert!(at < self.byte_len, "only its own bytes");
        // SAFETY: inside the mapping.
        unsafe { self.start.add(at) }
    }

    /// Tells the kernel what will be done with some of the pages.
    pub(super) fn advise(&self, at: Range<usize>, advice: Advice) -> rustix::io::Result<()> {
        assert!(at.start < at.end && at.end <= self.byte_len, "only its own bytes");
        // SAFETY: the pages lie in the mapping, and nobody relies on what is in them.
        unsafe { rustix::mm::madvise(self.byte(at.start).as_ptr().cast(), at.len(), advice) }
    }
}

impl Drop for OwnPages {
    fn drop(&mut self) {
        // SAFETY: nobody else knows the mapping. A failure would leak it.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.byte_len) };
    }
}
