//! [`FaultAhead`]: the page tables of a region filled by another thread, before they are asked for.
//!
//! What the program will write to is given its own pages at once: a page that was looked up first costs more to write to
//! than one that was not (each must then be taken from the other processors, too).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// Bytes looked up at a time: a drop of the region waits for one such step at most, some tens of microseconds.
const STEP_LEN: usize = 2 << 20;
/// Bytes copied at a time, some hundred microseconds: as long as every change of what this process has mapped may wait.
const COPY_LEN: usize = 256 << 10;

/// Where a region is, for as long as it is mapped: address and length in whole pages.
#[derive(Debug)]
pub(super) struct Place {
    extent: Mutex<Option<(usize, usize)>>,
    /// Whose threads look at it.
    process: u32,
}

impl Place {
    pub(super) fn new(extent: (usize, usize)) -> Self {
        Self { extent: Mutex::new(Some(extent)), process: std::process::id() }
    }

    /// Held while it is used.
    fn held(&self) -> MutexGuard<'_, Option<(usize, usize)>> {
        // What is guarded is replaced as a whole.
        self.extent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for whoever is at it, and lets nobody come to it any more. `false` where nobody can tell when they are done: a thread that
    /// held it when this process was forked is not there to give it back.
    pub(super) fn leave(&self) -> bool {
        let mut extent = match self.extent.try_lock() {
            Ok(extent) => extent,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) if self.process != std::process::id() => return false,
            Err(TryLockError::WouldBlock) => self.held(),
        };
        extent.take();
        true
    }
}

/// What the program is about to do with the pages.
#[derive(Clone, Copy)]
enum Use {
    Read,
    Write,
}

/// Lets another thread look up the pages of a [`super::MappedRegion`] that lie in the file cache, so that whoever reads the
/// region does not pause at each of them. It changes no byte and keeps nothing alive.
#[derive(Debug)]
pub struct FaultAhead(pub(super) Arc<Place>);

impl FaultAhead {
    /// Looks up all pages, from the first on. It stops, without a word, where the region is no longer mapped or the system
    /// cannot do it (Linux before 5.14, other systems): the pages come when they are used, as without it.
    pub fn run(&self) {
        self.run_with(Use::Read);
    }

    /// As [`FaultAhead::run`], for a program that is about to write to all of the region: each page becomes memory of the
    /// process' own, with the bytes that it has.
    pub fn run_for_writing(&self) {
        self.run_with(Use::Write);
    }

    fn run_with(&self, next: Use) {
        let step_len = match next {
            Use::Read => STEP_LEN,
            Use::Write => COPY_LEN,
        };
        let mut at = 0;
        while self.step(at, step_len, next) {
            at += step_len;
        }
    }

    fn step(&self, at: usize, step_len: usize, next: Use) -> bool {
        let place = self.0.held();
        let Some((start, mapped_len)) = *place else { return false };
        if at >= mapped_len {
            return false;
        }
        let byte_len = step_len.min(mapped_len - at);
        populate((start + at) as *mut std::ffi::c_void, byte_len, next)
    }
}

#[cfg(target_os = "linux")]
fn populate(start: *mut std::ffi::c_void, byte_len: usize, next: Use) -> bool {
    use rustix::mm::Advice;
    let advice = match next {
        Use::Read => Advice::LinuxPopulateRead,
        Use::Write => Advice::LinuxPopulateWrite,
    };
    // SAFETY: the range is within a mapping that its owner cannot unmap while its place is held; no byte of it changes. Pages
    // of a file that was cut are an error of the call, not a signal.
    unsafe { rustix::mm::madvise(start, byte_len, advice) }.is_ok()
}

#[cfg(not(target_os = "linux"))]
fn populate(_: *mut std::ffi::c_void, _: usize, _: Use) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forked_child_does_not_wait_for_a_thread_that_it_has_not() {
        let place = Place { process: std::process::id() + 1, ..Place::new((0, 4096)) };
        let at_the_fork = place.held();
        assert!(!place.leave());
        drop(at_the_fork);
        assert!(place.leave());
        assert!(place.held().is_none());
    }
}
