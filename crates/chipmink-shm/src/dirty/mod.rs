//! Which pages of live memory were written since they were last looked at.
//!
//! 1. A page is reported as unwritten only if that is proved. Whatever cannot be proved is written: parts of pages at the
//!    ends of a range, pages that are not there, memory that is shared, mapped from a file, mapped anew, moved, or that of
//!    a forked child.
//! 2. Reporting and protecting a page anew are one step of the kernel's, so a write falls either before it, and is
//!    reported by it, or after it, and is reported by the next. Who wants to remember what the bytes were must read them
//!    after that step.
//! 3. No two tracked ranges overlap: a page's mark is read by one reader only.
//!
//! What no page fault tells is not seen: a device that writes to memory which was pinned before the page was protected
//! (DMA, also `O_DIRECT` or io_uring reads under way at that moment). As far as the kernel counts pinned memory, nothing
//! is tracked while there is any.

#[cfg(target_os = "linux")]
mod fork;
#[cfg(target_os = "linux")]
mod ioctl;
#[cfg(target_os = "linux")]
mod maps;
#[cfg(target_os = "linux")]
mod own;
#[cfg(target_os = "linux")]
mod protect;
#[cfg(target_os = "linux")]
mod self_test;

#[cfg(target_os = "linux")]
pub(crate) use ioctl::query_map;
#[cfg(target_os = "linux")]
pub use protect::WriteProtection;

use std::fmt;
use std::ops::Range;

/// What is known of a range of memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing; the range is not tracked any more.
    Unknown,
    /// Every byte outside these ranges of addresses is as it was when the range was last asked about, or tracked.
    /// Ascending, not overlapping; each lies within the range.
    Written(Vec<Range<usize>>),
}

/// Why a range is not tracked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Untracked {
    /// The system cannot do it, or does it wrongly.
    #[error("this system does not tell which pages were written: {0}")]
    Unavailable(String),
    /// It belongs to the process that this one was forked from.
    #[error("pages are tracked for the process that this one was forked from; probe again")]
    Forked,
    /// It contains no whole page.
    #[error("{0} bytes that contain no whole page cannot be tracked")]
    TooSmall(usize),
    /// Some of it is tracked already, as another range.
    #[error("memory at {0:#x} is tracked already as part of another range")]
    Overlaps(usize),
    /// It is not private anonymous memory, so that it can be written through another mapping.
    #[error("memory at {0:#x} is shared or mapped from a file; only private memory can be tracked")]
    NotPrivate(usize),
    /// The kernel refused.
    #[error("the kernel refused to track memory at {address:#x}: {reason}")]
    Refused {
        /// Where the range begins.
        address: usize,
        /// What it said.
        reason: String,
    },
}

/// Tells which pages of live memory were written.
pub trait DirtyPages: Send + fmt::Debug {
    /// Why nothing can be tracked here at all; `None` if something can.
    fn unavailable(&self) -> Option<String> {
        None
    }

    /// Bytes of a page.
    fn page_len(&self) -> usize;

    /// Whether what was tracked may still be trusted. `false`: every range must be tracked again, perhaps by a new probe.
    fn is_trusted(&mut self) -> bool;

    /// Whether it was lost for good, as in a forked child.
    fn is_lost(&self) -> bool {
        false
    }

    /// Tracks a range: from here on writes to it are noticed.
    ///
    /// # Errors
    /// When it cannot be tracked, for whatever reason; it then counts as written.
    fn track(&mut self, address: usize, byte_len: usize) -> Result<(), Untracked>;

    /// What was written to a tracked range since the last call, or since it was tracked, and begins anew.
    fn written(&mut self, address: usize, byte_len: usize) -> Verdict;

    /// Lets a range go; writing to it costs nothing any more.
    fn untrack(&mut self, address: usize, byte_len: usize);
}

/// Where pages cannot be tracked: nothing is ever proved.
#[derive(Clone, Debug)]
pub struct NoDirtyPages {
    reason: String,
}

impl NoDirtyPages {
    /// `reason`: why not.
    pub fn new(reason: impl Into<String>) -> Self {
        NoDirtyPages { reason: reason.into() }
    }
}

impl DirtyPages for NoDirtyPages {
    fn unavailable(&self) -> Option<String> {
        Some(self.reason.clone())
    }

    fn page_len(&self) -> usize {
        4096
    }

    fn is_trusted(&mut self) -> bool {
        true
    }

    fn track(&mut self, _address: usize, _byte_len: usize) -> Result<(), Untracked> {
        Err(Untracked::Unavailable(self.reason.clone()))
    }

    fn written(&mut self, _address: usize, _byte_len: usize) -> Verdict {
        Verdict::Unknown
    }

    fn untrack(&mut self, _address: usize, _byte_len: usize) {}
}

/// The best that this system has, after it has been tried out.
pub fn probe() -> Box<dyn DirtyPages> {
    #[cfg(target_os = "linux")]
    match WriteProtection::probe() {
        Ok(protection) => Box::new(protection),
        Err(error) => Box::new(NoDirtyPages::new(error.to_string())),
    }
    #[cfg(not(target_os = "linux"))]
    Box::new(NoDirtyPages::new("only Linux can"))
}
