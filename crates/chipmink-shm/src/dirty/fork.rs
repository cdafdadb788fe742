//! Whether this process is a fork of the one that made a mark.
//!
//! What was opened before a fork still speaks of the parent's memory. A page that the kernel empties in the child tells;
//! unlike a process id it cannot come round again.

use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

/// A mark that is gone in a forked child.
#[derive(Debug)]
pub(super) struct ForkMark {
    /// A page of our own: `byte_len` bytes, mapped until drop, only ever accessed as its first byte.
    page: NonNull<AtomicU8>,
    byte_len: usize,
}

// SAFETY: the page belongs to this value, and is accessed atomically.
unsafe impl Send for ForkMark {}

impl ForkMark {
    /// Sets a mark.
    pub(super) fn set() -> rustix::io::Result<Self> {
        let byte_len = rustix::param::page_size();
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
        let page = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                byte_len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        let page = NonNull::new(page.cast()).ok_or(rustix::io::Errno::NOMEM)?;
        let mark = ForkMark { page, byte_len };
        // SAFETY: the advice is about the page mapped above and nothing else.
        unsafe { rustix::mm::madvise(page.as_ptr().cast(), byte_len, Advice::LinuxWipeOnFork) }?;
        mark.byte().store(1, Ordering::Relaxed);
        Ok(mark)
    }

    /// Whether this is still the process that set the mark.
    pub(super) fn is_here(&self) -> bool {
        self.byte().load(Ordering::Relaxed) == 1
    }

    fn byte(&self) -> &AtomicU8 {
        // SAFETY: the page is mapped, readable and writable for as long as `self` lives.
        unsafe { self.page.as_ref() }
    }
}

impl Drop for ForkMark {
    fn drop(&mut self) {
        // SAFETY: nobody else knows the page. A failure would leak it.
        let _ = unsafe { rustix::mm::munmap(self.page.as_ptr().cast(), self.byte_len) };
    }
}
