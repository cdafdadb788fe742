//! [`LargePages`]: bytes in a mapping of large pages.

use rustix::mm::{Advice, MapFlags, MremapFlags, ProtFlags};
use std::io;
use std::ptr::NonNull;

/// Bytes of a large page where pages have 4 KiB.
const LARGE_PAGE_LEN: usize = 2 << 20;

/// Address space that the first bytes are given. What is not touched takes no memory.
const FIRST_CAPACITY: usize = 32 << 20;

/// Bytes that can be added to, in memory of their own.
#[derive(Debug)]
pub(super) struct LargePages {
    start: NonNull<u8>,
    byte_len: usize,
    /// What is mapped, in whole pages.
    capacity: usize,
}

// SAFETY: the memory belongs to this value and nothing in it is bound to a thread.
unsafe impl Send for LargePages {}
// SAFETY: through a shared reference bytes are only read.
unsafe impl Sync for LargePages {}

impl LargePages {
    /// An empty one.
    ///
    /// # Errors
    /// When there is no address space for it.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use. The kernel aligns
        // mappings of whole large pages to them.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                FIRST_CAPACITY,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let buffer = LargePages { start, byte_len: 0, capacity: FIRST_CAPACITY };
        buffer.advise();
        Ok(buffer)
    }

    /// Asks for large pages. Where there are none, small ones do.
    fn advise(&self) {
        // SAFETY: the range is this value's mapping, and the advice changes no byte.
        let _ =
            unsafe { rustix::mm::madvise(self.start.as_ptr().cast(), self.capacity, Advice::LinuxHugepage) };
    }

    fn resize_mapping(&mut self, capacity: usize) -> io::Result<()> {
        // SAFETY: the mapping belongs to this value, which is borrowed exclusively: nobody has a pointer into it.
        let start = unsafe {
            rustix::mm::mremap(self.start.as_ptr().cast(), self.capacity, capacity, MremapFlags::MAYMOVE)
        }?;
        self.start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        self.capacity = capacity;
        Ok(())
    }

    /// Adds bytes at the end.
    ///
    /// # Errors
    /// When there is no address space for them; nothing is added then.
    pub(super) fn extend_from_slice(&mut self, bytes: &[u8]) -> io::Result<()> {
        let needed = self.byte_len.checked_add(bytes.len()).ok_or(io::ErrorKind::OutOfMemory)?;
        if needed > self.capacity {
            let capacity =
                needed.max(self.capacity.saturating_mul(2)).checked_next_multiple_of(LARGE_PAGE_LEN);
            self.resize_mapping(capacity.ok_or(io::ErrorKind::OutOfMemory)?)?;
            self.advise();
        }
        // SAFETY: `needed` is within the mapping, which `bytes` is no part of: it belongs to this value alone.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                self.start.add(self.byte_len).as_ptr(),
                bytes.len(),
            );
        }
        self.byte_len = needed;
        Ok(())
    }

    /// Gives back what is not used, to a page.
    pub(super) fn shrink_to_fit(&mut self) {
        let capacity = self.byte_len.max(1).next_multiple_of(rustix::param::page_size());
        if capacity < self.capacity {
            // A mapping that cannot be cut stays as it is.
            let _ = self.resize_mapping(capacity);
        }
    }
}

impl AsRef<[u8]> for LargePages {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: so many bytes were written; they are private memory that changes through `&mut self` only.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.byte_len) }
    }
}

impl Drop for LargePages {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to this value, and nobody has a reference into it any more.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.capacity) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    fn bytes(byte_len: usize, seed: u8) -> Vec<u8> {
        (0..byte_len).map(|i| i as u8 ^ seed).collect()
    }

    #[test]
    fn what_is_not_used_is_given_back() {
        let mut buffer = LargePages::new().unwrap();
        buffer.shrink_to_fit();
        assert_eq!(buffer.capacity, rustix::param::page_size());
        buffer.extend_from_slice(&bytes(100_000, 3)).unwrap();
        assert!(buffer.capacity >= 2 << 20);
        buffer.shrink_to_fit();
        assert_eq!(buffer.capacity, 100_000usize.next_multiple_of(rustix::param::page_size()));
        assert!(buffer.as_ref() == bytes(100_000, 3));
    }
}
