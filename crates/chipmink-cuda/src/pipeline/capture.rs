//! A capture: regions of a device as they were at one moment.
//!
//! 1. Streams that were told to wait go on when the capture is released, and it is at the latest when it is dropped.
//! 2. What keeps the memory alive is let go when no kernel reads it any more, not before.
//! 3. Only [`Capture::adopt`] changes what is known of the device.

use super::fence::{CaptureFence, Patience, State};
use super::plan::Plan;
use super::{Busy, DeviceRegion, Inner, Release};
use crate::{CudaError, Result};
use chipmink_kernels::layout::RawDigest;
use chipmink_types::Digest;
use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A chunk that was staged.
#[derive(Clone, Copy, Debug)]
pub struct Staged<'a> {
    /// Index of its region in what was captured.
    pub region: usize,
    /// Its place in the region's grid.
    pub ordinal: u64,
    /// Of the bytes here.
    pub digest: Digest,
    /// The copy.
    pub bytes: &'a [u8],
}

/// What a capture found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// Chunks that are not what they were, or were never seen.
    pub dirty_chunks: u64,
    /// Their bytes.
    pub dirty_bytes: u64,
    /// Those of them that did not fit in the staging area, for which fenced streams waited longer.
    pub late_chunks: u64,
}

/// Regions as they were when the streams of the program came to [`super::Pipeline::begin`].
pub struct Capture {
    inner: Arc<Inner>,
    plan: Plan,
    pub(super) digests: Vec<Option<Vec<RawDigest>>>,
    /// Regions of which the copies were not what the kernel had digested: something wrote to them meanwhile.
    pub(super) torn: BTreeSet<usize>,
    keep: Option<Box<dyn Any + Send>>,
    release: Release,
    fence: CaptureFence,
    expects_late: bool,
    is_released: bool,
    pub(super) is_taken: bool,
    // Dropped last: only then may the next capture begin.
    _busy: Busy,
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture")
            .field("device", &self.inner.device())
            .field("serial", &self.serial())
            .field("is_released", &self.is_released)
            .finish_non_exhaustive()
    }
}

impl Capture {
    #[expect(clippy::too_many_arguments, reason = "only `begin` calls it")]
    pub(super) fn new(
        inner: Arc<Inner>,
        busy: Busy,
        plan: Plan,
        digests: Vec<Option<Vec<RawDigest>>>,
        keep: Box<dyn Any + Send>,
        release: Release,
        is_bounded: bool,
        expects_late: bool,
        serial: u32,
    ) -> Self {
        let state = State { inner: inner.clone(), serial, is_bounded, is_awaited: AtomicBool::new(false) };
        Capture {
            fence: CaptureFence(Arc::new(state)),
            expects_late,
            inner,
            plan,
            digests,
            torn: BTreeSet::new(),
            keep: Some(keep),
            release,
            is_released: false,
            is_taken: false,
            _busy: busy,
        }
    }

    /// The regions, in the order in which they were given.
    pub fn regions(&self) -> &[DeviceRegion] {
        self.plan.regions()
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn serial(&self) -> u32 {
        self.fence.0.serial
    }

    /// Whether a kernel lets fenced streams go on if everything was staged.
    pub(super) fn is_released_by_device(&self) -> bool {
        self.release == Release::WhenStaged && !self.fence.0.is_bounded
    }

    /// Whether more has probably changed than can be staged: then the host had better hold the program until it is, instead of
    /// letting streams wait for the host. They would stand still as long.
    pub fn expects_late(&self) -> bool {
        self.expects_late
    }

    /// From now on the program is held by the caller, until [`Capture::let_go`], and all chunks can be read until then.
    pub fn release_by_caller(&mut self) {
        self.release = Release::ByCaller;
    }

    /// What lets streams wait for this capture, for whoever knows when they are about to write.
    pub fn fence_later(&self) -> CaptureFence {
        self.fence.clone()
    }

    /// Lets what the program enqueues later on these streams wait until its memory is no longer read.
    ///
    /// # Errors
    /// When a stream is being captured into a graph, or the device fails.
    pub fn fence(&mut self, streams: &[u64]) -> Result<()> {
        match self.is_released {
            true => Ok(()),
            false => self.fence.wait(streams),
        }
    }

    /// Watches over streams that may wait for the host, if there are any.
    pub(super) fn patience(&self) -> Option<Patience> {
        self.is_released_by_device().then(|| Patience::begin(&self.fence, self.inner.patience))
    }

    pub(super) fn release_when_staged(&mut self) {
        if self.release == Release::WhenStaged {
            self.release();
        }
    }

    /// Whether the program may write to its memory.
    pub fn is_released(&self) -> bool {
        self.is_released
    }

    /// Lets fenced streams go on. Nothing reads live memory any more, of what this capture enqueued: the caller has waited.
    pub(super) fn release(&mut self) {
        if !self.is_released {
            self.is_released = true;
            self.inner.word.word().store(self.serial(), Ordering::Release);
            self.keep = None;
        }
    }

    /// Lets the program go on that was told to wait: from now on only what was staged can be had.
    ///
    /// # Errors
    /// When the device fails; the program goes on all the same.
    pub fn let_go(&mut self) -> Result<()> {
        let done = if self.is_released { Ok(()) } else { self.inner.work.synchronize() };
        self.release();
        done
    }

    /// Whether [`Capture::take`] has succeeded.
    pub fn is_taken(&self) -> bool {
        self.is_taken
    }

    /// Digests that a region had when it was adopted or seeded last; `None`: never. After [`Capture::take`], those of now.
    pub fn known(&self, region: usize) -> Option<Vec<Digest>> {
        let raw = self.digests[region].as_deref()?;
        Some(raw.iter().map(|raw| Digest::xxh3(raw.to_canonical())).collect())
    }

    /// Digests of the chunks of a region, in order.
    ///
    /// # Panics
    /// When [`Capture::take`] has not been called, or did not succeed.
    pub fn digests(&self, region: usize) -> Vec<Digest> {
        assert!(self.is_taken, "digests are known when the capture has been taken");
        self.known(region).unwrap_or_default()
    }

    /// What was found is what is known from now on: the caller has its bytes at a place from which they are not lost.
    ///
    /// # Errors
    /// When the device fails; then nothing is known of it any more.
    ///
    /// # Panics
    /// As [`Capture::digests`].
    pub fn adopt(mut self) -> Result<()> {
        assert!(self.is_taken, "what was not taken cannot be adopted");
        let inner = self.inner.clone();
        let mut host = inner.host();
        let (at, count) = (host.tables.addresses(), host.plan.chunk_count());
        let adopted = match count {
            0 => Ok(()),
            // SAFETY: the tables have all slots of the plan, which is that of this capture: there is one at a time.
            _ => unsafe {
                inner.kernels.adopt(inner.work.handle(), at.chunks, count, at.digests, at.previous)
            },
        };
        if let Err(error) = adopted {
            host.forget();
            return Err(error);
        }
        for (index, region) in self.plan.regions().to_vec().into_iter().enumerate() {
            if self.torn.contains(&index) {
                host.unsettle(&inner, &region)?;
            } else if let Some(known) = host.slots.get_mut(&region) {
                known.digests = self.digests[index].take();
            }
        }
        Ok(())
    }

    pub(super) fn refuse_released(&self) -> Result<()> {
        match self.is_released {
            true => Err(CudaError::Released { device: self.inner.device() }),
            false => Ok(()),
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // What fails here has been reported by whatever was tried before, or concerns nobody any more.
        let _ = self.let_go();
        let _ = self.inner.copy.synchronize();
    }
}
