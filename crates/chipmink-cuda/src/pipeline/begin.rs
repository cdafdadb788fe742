//! The first half of a capture: all that is enqueued before the program goes on.

use super::capture::Capture;
use super::fence::shares_queues;
use super::plan::Plan;
use super::tables::{RAW_LEN, Tables, chunk_bytes};
use super::{Busy, DeviceRegion, Fence, Host, Inner, Pipeline, Release, Stage};
use crate::driver::{Part, StreamHandle, relax_capture};
use crate::{CudaError, Result};
use chipmink_kernels::layout::{RawDigest, Totals};
use chipmink_types::Digest;
use std::any::Any;

/// Entries of the list that are copied to the host along with the totals: enough for a save that changes little.
const FIRST_ENTRIES: u32 = 4096;

impl Pipeline {
    /// Captures regions as they are when the program's streams have come to this point. `streams` are the handles of all
    /// streams in which the program writes to them; `keep` keeps the memory alive.
    ///
    /// # Safety
    /// The regions can be read as long as `keep` lives, and the streams are alive and of this device. From now until the
    /// capture is released nothing writes to the regions but what waits for it, or stands in the streams already.
    ///
    /// # Errors
    /// When a capture is under way, a stream is being captured into a graph, there is no room for larger tables, or the device
    /// fails. Then nothing is known that was not known before.
    pub unsafe fn begin(
        &self,
        regions: &[DeviceRegion],
        streams: &[u64],
        keep: Box<dyn Any + Send>,
        release: Release,
        fence: Fence,
    ) -> Result<Capture> {
        let inner = &self.0;
        let busy = Busy::take(inner)?;
        let _relaxed = relax_capture(&inner.context)?;
        for stream in streams {
            StreamHandle(*stream).refuse_capture(&inner.context)?;
        }
        let mut host = inner.host();
        host.prepare(inner, regions)?;
        host.serial = host.serial.wrapping_add(1);
        let plan = host.plan.clone();
        let known: Vec<Option<Vec<RawDigest>>> = regions
            .iter()
            .map(|region| host.slots.get(region).and_then(|known| known.digests.clone()))
            .collect();
        let capacity = inner.stage_place().1;
        let is_bounded = plan.staged_len <= capacity && release == Release::WhenStaged;
        let unknown_len: u64 = regions
            .iter()
            .zip(&known)
            .filter(|(_, known)| known.is_none())
            .map(|(region, _)| region.grid.chunks().map(|(_, byte_len)| byte_len).sum::<u64>())
            .sum();
        let expects_late = !is_bounded && (unknown_len > capacity || host.was_late || shares_queues());
        let serial = host.serial;
        drop(host);
        // From here on an error drops the capture, which lets the streams go on.
        let mut capture =
            Capture::new(inner.clone(), busy, plan, known, keep, release, is_bounded, expects_late, serial);
        for stream in streams {
            inner.mark.record(StreamHandle(*stream))?;
            inner.work.handle().wait(&inner.context, &inner.mark)?;
        }
        // SAFETY: the caller's promise, and the capture keeps what it is about.
        unsafe { inner.enqueue(&capture)? };
        if fence == Fence::Now {
            capture.fence(streams)?;
        }
        Ok(capture)
    }
}

/// A digest without its algorithm byte.
pub(crate) fn raw_digest(digest: &Digest) -> RawDigest {
    let mut canonical = [0; 16];
    canonical.copy_from_slice(&digest.as_bytes()[1..]);
    RawDigest::from_canonical(canonical)
}

impl Host {
    /// Brings descriptors and slots up to date with the set of regions.
    pub(super) fn prepare(&mut self, inner: &Inner, regions: &[DeviceRegion]) -> Result<()> {
        if self.plan.regions() == regions {
            return Ok(());
        }
        let plan = Plan::new(regions)?;
        // Until all is done there is no plan, so that a failure leaves none that is half made.
        self.plan = Plan::default();
        self.set += 1;
        if plan.chunk_count() > self.tables.capacity() {
            self.grow(inner, plan.chunk_count())?;
        }
        for region in regions {
            if let Some(known) = self.slots.get_mut(region) {
                known.used = self.set;
            }
        }
        let first_slots: Result<Vec<u32>> =
            regions.iter().map(|region| self.slot_of(inner, region)).collect();
        let bytes = chunk_bytes(&plan.chunks(&first_slots?));
        let at = self.tables.offsets().chunks;
        self.tables.memory().write(inner.work.handle(), at, &bytes)?;
        self.plan = plan;
        Ok(())
    }

    /// The first slot of a region, which gets some if it has none.
    pub(super) fn slot_of(&mut self, inner: &Inner, region: &DeviceRegion) -> Result<u32> {
        if let Some(known) = self.slots.get(region) {
            return Ok(known.first);
        }
        let count = region.chunk_count();
        let mut first = self.slots.insert(*region, count, self.set);
        if first.is_none() {
            self.slots.evict_unused(self.set);
            first = self.slots.insert(*region, count, self.set);
        }
        let Some(first) = first else {
            // What is free lies in pieces, or the tables are too small.
            let wanted = self.tables.capacity().saturating_add(count);
            self.grow(inner, wanted)?;
            return self.slot_of(inner, region);
        };
        let start = self.tables.offsets().previous + u64::from(first) * RAW_LEN;
        let range = start..start + u64::from(count) * RAW_LEN;
        // All ones: `RawDigest::UNKNOWN`.
        if let Err(error) = self.tables.memory().fill(inner.work.handle(), range, 0xff) {
            self.slots.remove(region);
            return Err(error);
        }
        Ok(first)
    }

    /// Makes larger tables. What the old ones knew is kept.
    fn grow(&mut self, inner: &Inner, wanted: u32) -> Result<()> {
        let old = self.tables.capacity();
        let capacity = wanted.checked_next_power_of_two().unwrap_or(wanted);
        let tables = Tables::new(&inner.context, &*inner.allocator, capacity)?;
        let from = self.tables.offsets().previous;
        let range = from..from + u64::from(old) * RAW_LEN;
        let work = inner.work.handle();
        self.tables.memory().copy_to(work, range, tables.memory(), tables.offsets().previous)?;
        // The old ones are freed below.
        inner.work.synchronize()?;
        self.tables = tables;
        self.slots.extend(old, capacity);
        Ok(())
    }
}

impl Inner {
    /// Enqueues all that `begin` enqueues on the stream of its own.
    ///
    /// # Safety
    /// As [`Pipeline::begin`].
    unsafe fn enqueue(&self, capture: &Capture) -> Result<()> {
        let host = self.host();
        let work = self.work.handle();
        let count = host.plan.chunk_count();
        let (at, offsets) = (host.tables.addresses(), host.tables.offsets());
        let (staging, capacity) = self.stage_place();
        if count > 0 {
            let part = Part {
                chunks: at.chunks,
                dirty: at.dirty,
                totals: at.totals,
                first: 0,
                byte_offset: 0,
                staging,
                capacity,
            };
            // SAFETY: the tables have room for all descriptors, by `prepare`; regions can be read, by the caller's promise.
            unsafe { self.kernels.digest(work, at.chunks, count, at.digests)? };
            // SAFETY: as above.
            unsafe { self.kernels.compare(work, at.chunks, count, at.digests, at.previous, at.masks)? };
            // SAFETY: as above.
            unsafe {
                let (masks, dirty, totals) = (at.masks, at.dirty, at.totals);
                self.kernels.compact(work, at.chunks, count, at.digests, masks, capacity, dirty, totals)?;
            };
            // SAFETY: as above; the staging area is the capture's, and there is one at a time.
            unsafe { self.kernels.gather(work, part)? };
            self.read.record(work)?;
            if capture.is_released_by_device() {
                // SAFETY: the word lives as long as the pipeline, which waits for its stream.
                unsafe {
                    self.kernels.release(work, at.totals, self.word.device_address(), capture.serial())?;
                };
            }
            if matches!(self.stage, Stage::Scratch(_)) {
                // SAFETY: as for the copies.
                unsafe { self.kernels.confirm(work, part, at.digests)? };
            }
        } else {
            host.tables.memory().fill(
                work,
                offsets.totals..offsets.totals + size_of::<Totals>() as u64,
                0,
            )?;
            self.read.record(work)?;
        }
        let entries = u64::from(count.min(FIRST_ENTRIES)) * super::tables::DIRTY_LEN;
        let range = offsets.totals..offsets.dirty + entries;
        host.tables.memory().read(work, range, host.tables.report(), 0)?;
        self.listed.record(work)
    }
}

pub(crate) const fn first_entries() -> u32 {
    FIRST_ENTRIES
}

/// An entry of the list that names no chunk of the plan, which only a device that fails can make.
pub(crate) fn bad_entry(device: i32) -> CudaError {
    CudaError::Lost {
        call: "chipmink_compact",
        device,
        message: "the list of dirty chunks makes no sense".to_owned(),
    }
}
