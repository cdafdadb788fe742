//! [`FaultAhead`]: the page tables of a region filled by another thread, before they are asked for.

use rustix::mm::Advice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes looked up at a time: a drop of the region waits for one such step at most, some tens of microseconds.
const STEP_LEN: usize = 2 << 20;

/// Where a region is, for as long as it is mapped: address and length in whole pages.
pub(super) type Place = Arc<Mutex<Option<(usize, usize)>>>;

/// The place of a region, held while it is used.
pub(super) fn held(place: &Place) -> MutexGuard<'_, Option<(usize, usize)>> {
    // What is guarded is replaced as a whole.
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets another thread look up the pages of a [`super::MappedRegion`] that lie in the file cache, so that whoever reads the
/// region does not pause at each of them. It changes no byte and keeps nothing alive.
#[derive(Debug)]
pub struct FaultAhead(pub(super) Place);

impl FaultAhead {
    /// Looks up all pages, from the first on. It stops, without a word, where the region is no longer mapped or the system
    /// cannot do it (Linux before 5.14, other systems): the pages come when they are used, as without it.
    pub fn run(&self) {
        let mut at = 0;
        while self.step(at) {
            at += STEP_LEN;
        }
    }

    fn step(&self, at: usize) -> bool {
        let place = held(&self.0);
        let Some((start, mapped_len)) = *place else { return false };
        if at >= mapped_len {
            return false;
        }
        let byte_len = STEP_LEN.min(mapped_len - at);
        populate((start + at) as *mut std::ffi::c_void, byte_len)
    }
}

#[cfg(target_os = "linux")]
fn populate(start: *mut std::ffi::c_void, byte_len: usize) -> bool {
    // SAFETY: the range is within a mapping that its owner cannot unmap while its place is held. Pages of a file that was
    // cut are an error of the call, not a signal.
    unsafe { rustix::mm::madvise(start, byte_len, Advice::LinuxPopulateRead) }.is_ok()
}

#[cfg(not(target_os = "linux"))]
fn populate(_: *mut std::ffi::c_void, _: usize) -> bool {
    false
}
