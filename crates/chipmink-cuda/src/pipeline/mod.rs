//! From device memory to chunks: digest, compare, compact, gather, confirm, copy.
//!
//! ```text
//!  program's streams ──●─────────────────────────────────────────────● wait ──►
//!                      │                                             ▲
//!  work stream         └► digest ► compare ► compact ► gather ► confirm ► totals, list ─► (more parts)
//!  copy stream                                              staging area ─► ring of pinned blocks ─► the caller
//! ```
//!
//! 1. All that reads live memory is enqueued before [`Pipeline::begin`] returns, if it fits in the staging area. Else streams
//!    that were fenced wait for a word of mapped memory, which a kernel writes if what changed fits, and the host when the last part has
//!    been read. No stream waits for a host that does not come (`fence`).
//! 2. One capture is under way at a time. Its owner has what keeps the memory alive until it is released.
//! 3. Descriptors go to the device when the set of regions is another than before, and at no other time.
//! 4. Nothing is allocated by a save, unless there are more chunks than ever.

mod begin;
mod capture;
mod drain;
mod fence;
mod options;
mod plan;
mod recognise;
mod slots;
mod tables;

pub use capture::{Capture, Found, Staged};
pub use fence::CaptureFence;
pub use options::{DeviceRegion, Fence, PipelineOptions, Release};

use crate::compile::compiled_kernels;
use crate::driver::{
    Context, DeviceAllocator, DeviceBuffer, DriverAllocator, Event, Kernels, PinnedBuffer, Stream,
    relax_capture,
};
use crate::{CudaError, Result};
use chipmink_digest::CHUNK_LEN;
use plan::Plan;
use slots::Slots;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tables::Tables;

/// What captures regions of one device.
#[derive(Clone, Debug)]
pub struct Pipeline(Arc<Inner>);

/// Where dirty chunks are staged.
#[derive(Debug)]
pub(crate) enum Stage {
    /// On the device; they go on through the ring.
    Scratch(DeviceBuffer),
    /// In the ring itself, which is mapped.
    Ring,
}

#[derive(Debug)]
pub(crate) struct Inner {
    // Dropped in this order: streams come to their end before what they use is freed.
    pub work: Stream,
    pub copy: Stream,
    pub kernels: Kernels,
    pub stage: Stage,
    pub ring: PinnedBuffer,
    pub block_len: u64,
    pub block_count: u32,
    /// The word for which fenced streams wait.
    pub word: PinnedBuffer,
    /// Live memory was read, as far as it was enqueued by `begin`.
    pub read: Event,
    /// The list of dirty chunks is on the host.
    pub listed: Event,
    /// Marks a stream of the program, and is used again at once.
    pub mark: Event,
    /// One for each block of the ring.
    pub filled: Vec<Event>,
    /// One for each half of the staging area.
    pub halves: [Event; 2],
    pub allocator: Box<dyn DeviceAllocator>,
    pub patience: Duration,
    pub host: Mutex<Host>,
    pub is_busy: AtomicBool,
    pub context: Arc<Context>,
}

/// What the host knows of the device.
#[derive(Debug)]
pub(crate) struct Host {
    pub tables: Tables,
    pub slots: Slots,
    pub plan: Plan,
    /// Number of the last capture; the word reaches it when that is released.
    pub serial: u32,
    /// Number of the last set of regions.
    pub set: u64,
    /// In the last capture more had changed than could be staged.
    pub was_late: bool,
}

impl Inner {
    pub(crate) fn host(&self) -> MutexGuard<'_, Host> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn device(&self) -> i32 {
        self.context.ordinal()
    }

    /// Address and bytes of the staging area.
    pub(crate) fn stage_place(&self) -> (u64, u64) {
        match &self.stage {
            Stage::Scratch(scratch) => (scratch.address(), scratch.byte_len()),
            Stage::Ring => (self.ring.device_address(), self.block_len * u64::from(self.block_count)),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // What fails here has failed before.
        let _ = self.work.synchronize();
        let _ = self.copy.synchronize();
    }
}

impl Pipeline {
    /// Makes all that a save on this device needs, and compiles the kernels if that was not done before.
    ///
    /// # Errors
    /// When there is no compiler, no room, or the device fails.
    pub fn new(context: &Arc<Context>, options: PipelineOptions) -> Result<Self> {
        let _relaxed = relax_capture(context)?;
        // A chunk must fit in a block, and in each half of a staging area.
        let least = 2 * CHUNK_LEN;
        let block_len = options.block_len.max(least).next_multiple_of(CHUNK_LEN);
        let block_count = options.block_count.max(2);
        let allocator = options.allocator.unwrap_or_else(|| Box::new(DriverAllocator::new(context)));
        let image = compiled_kernels(context.info().capability, &options.compiler)?;
        let stage = match options.scratch_len {
            0 => Stage::Ring,
            len => Stage::Scratch(DeviceBuffer::new(
                context,
                &*allocator,
                "scratch memory",
                len.max(least).next_multiple_of(CHUNK_LEN),
            )?),
        };
        let tables = Tables::new(context, &*allocator, options.chunk_capacity)?;
        let filled: Result<Vec<_>> = (0..block_count).map(|_| Event::new(context)).collect();
        let capacity = options.chunk_capacity;
        Ok(Pipeline(Arc::new(Inner {
            work: Stream::new(context)?,
            copy: Stream::new(context)?,
            kernels: Kernels::load(context, &image)?,
            stage,
            ring: PinnedBuffer::new(context, "pinned memory", block_len * u64::from(block_count))?,
            block_len,
            block_count,
            word: PinnedBuffer::new(context, "pinned memory", 64)?,
            read: Event::new(context)?,
            listed: Event::new(context)?,
            mark: Event::new(context)?,
            filled: filled?,
            halves: [Event::new(context)?, Event::new(context)?],
            allocator,
            patience: options.patience,
            host: Mutex::new(Host {
                tables,
                slots: Slots::new(capacity),
                plan: Plan::default(),
                serial: 0,
                set: 0,
                was_late: false,
            }),
            is_busy: AtomicBool::new(false),
            context: context.clone(),
        })))
    }

    /// The device.
    pub fn context(&self) -> &Arc<Context> {
        &self.0.context
    }

    /// Forgets all digests: the next capture finds everything dirty.
    ///
    /// # Errors
    /// When a capture is under way.
    pub fn forget(&self) -> Result<()> {
        let _busy = Busy::take(&self.0)?;
        self.0.host().forget();
        Ok(())
    }
}

impl Host {
    /// Nothing is known of the device any more.
    pub(crate) fn forget(&mut self) {
        self.slots = Slots::new(self.tables.capacity());
        self.plan = Plan::default();
    }

    /// Nothing is known of one region any more.
    pub(crate) fn unsettle(&mut self, inner: &Inner, region: &DeviceRegion) -> Result<()> {
        let Some(known) = self.slots.get_mut(region) else { return Ok(()) };
        known.digests = None;
        let start = self.tables.offsets().previous + u64::from(known.first) * tables::RAW_LEN;
        let range = start..start + u64::from(region.chunk_count()) * tables::RAW_LEN;
        let filled = self.tables.memory().fill(inner.work.handle(), range, 0xff);
        if filled.is_err() {
            self.forget();
        }
        filled
    }
}

/// One capture is under way until this is dropped.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Inner>);

impl Busy {
    pub(crate) fn take(inner: &Arc<Inner>) -> Result<Self> {
        match inner.is_busy.swap(true, Ordering::Acquire) {
            true => Err(CudaError::Busy { device: inner.device() }),
            false => Ok(Busy(inner.clone())),
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.is_busy.store(false, Ordering::Release);
    }
}
