//! Whether this process is a fork of the one that made a mark.
//!
//! What was opened before a fork still speaks of the parent's memory. A page that the kernel empties in the child tells;
//! unlike a process id it cannot come round again.

use super::own::OwnPages;
use rustix::mm::Advice;
use std::sync::atomic::{AtomicU8, Ordering};

/// A mark that is gone in a forked child.
#[derive(Debug)]
pub(super) struct ForkMark {
    /// Only ever accessed as its first byte, atomically.
    page: OwnPages,
}

impl ForkMark {
    /// Sets a mark.
    pub(super) fn set() -> rustix::io::Result<Self> {
        let page = OwnPages::new(rustix::param::page_size())?;
        page.advise(0..page.byte_len(), Advice::LinuxWipeOnFork)?;
        let mark = ForkMark { page };
        mark.byte().store(1, Ordering::Relaxed);
        Ok(mark)
    }

    /// Whether this is still the process that set the mark.
    pub(super) fn is_here(&self) -> bool {
        self.byte().load(Ordering::Relaxed) == 1
    }

    fn byte(&self) -> &AtomicU8 {
        // SAFETY: the page is mapped, readable and writable for as long as `self` lives, and accessed in no other way.
        unsafe { self.page.start().cast::<AtomicU8>().as_ref() }
    }
}
