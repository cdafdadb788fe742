//! Regions whose content is stored already, such as those of a program that was just restored: known without being copied.

use super::begin::raw_digest;
use super::tables::{RAW_LEN, digest_bytes, read_digests};
use super::{Busy, DeviceRegion, Pipeline};
use crate::Result;
use crate::driver::{StreamHandle, relax_capture};
use chipmink_types::Digest;

impl Pipeline {
    /// Digests regions as they are when the program's streams have come to this point, and waits for it. A region of which
    /// `is_stored` says so of every chunk has these digests from now on, as if it had been captured and adopted. Returns for each
    /// region whether that is so.
    ///
    /// # Safety
    /// Until this returns the regions can be read, the streams are alive and of this device, and nothing writes to the regions
    /// but what stands in the streams already.
    ///
    /// # Errors
    /// As [`Pipeline::begin`].
    pub unsafe fn recognise(
        &self,
        regions: &[DeviceRegion],
        streams: &[u64],
        is_stored: &mut dyn FnMut(&Digest) -> bool,
    ) -> Result<Vec<bool>> {
        let inner = &self.0;
        let _busy = Busy::take(inner)?;
        let _relaxed = relax_capture(&inner.context)?;
        for stream in streams {
            StreamHandle(*stream).refuse_capture(&inner.context)?;
        }
        let mut host = inner.host();
        host.prepare(inner, regions)?;
        let (work, count) = (inner.work.handle(), host.plan.chunk_count());
        for stream in streams {
            inner.mark.record(StreamHandle(*stream))?;
            work.wait(&inner.context, &inner.mark)?;
        }
        if count > 0 {
            let at = host.tables.addresses();
            // SAFETY: the tables have room for all descriptors, by `prepare`; regions can be read, by the caller's promise.
            let launched = unsafe { inner.kernels.digest(work, at.chunks, count, at.digests) };
            // Whatever was launched reads live memory until here.
            let done = inner.work.synchronize();
            launched.and(done)?;
        }
        let start = host.tables.offsets().digests;
        let range = start..start + u64::from(host.tables.capacity()) * RAW_LEN;
        let byte_len = range.end - range.start;
        host.tables.memory().read(work, range, host.tables.report(), 0)?;
        inner.work.synchronize()?;
        // SAFETY: the copy has been done, and no other was enqueued.
        let found = read_digests(unsafe { host.tables.report().bytes(0..byte_len) });
        let previous = host.tables.offsets().previous;
        let mut recognised = Vec::with_capacity(regions.len());
        for region in regions {
            let Some(first) = host.slots.get(region).map(|known| known.first) else {
                recognised.push(false);
                continue;
            };
            let here = &found[first as usize..first as usize + region.chunk_count() as usize];
            let is_whole = here.iter().all(|raw| is_stored(&Digest::xxh3(raw.to_canonical())));
            recognised.push(is_whole);
            if is_whole {
                let bytes: Vec<u8> = here.iter().flat_map(|digest| digest_bytes(*digest)).collect();
                host.tables.memory().write(work, previous + u64::from(first) * RAW_LEN, &bytes)?;
                if let Some(known) = host.slots.get_mut(region) {
                    known.digests = Some(here.to_vec());
                }
            }
        }
        Ok(recognised)
    }

    /// Enqueues the digests of the regions of the last capture in a stream, and nothing else, so that it can be measured how long the device
    /// takes for them. Nobody looks at what it finds.
    ///
    /// # Safety
    /// Until the stream has come to its end, the regions can be read, and nothing else is done with the pipeline. The stream is alive
    /// and of this device.
    ///
    /// # Errors
    /// When a capture is under way, the stream is being captured into a graph, or the device fails.
    pub unsafe fn digest_alone(&self, stream: u64) -> Result<()> {
        let inner = &self.0;
        let _busy = Busy::take(inner)?;
        let stream = StreamHandle(stream);
        stream.refuse_capture(&inner.context)?;
        let host = inner.host();
        let (at, count) = (host.tables.addresses(), host.plan.chunk_count());
        match count {
            0 => Ok(()),
            // SAFETY: the tables have room for all descriptors of the plan; the rest is the caller's promise.
            _ => unsafe { inner.kernels.digest(stream, at.chunks, count, at.digests) },
        }
    }

    /// Says which digests the chunks of a region had when they were stored, so that the first capture finds dirty what is
    /// not the same.
    ///
    /// # Errors
    /// When a capture is under way, there is no room, or the device fails.
    ///
    /// # Panics
    /// When there are not as many digests as chunks.
    pub fn seed(&self, region: &DeviceRegion, digests: &[Digest]) -> Result<()> {
        assert_eq!(digests.len() as u64, region.grid.chunk_count(), "there is a digest for each chunk");
        let inner = &self.0;
        let _busy = Busy::take(inner)?;
        let mut host = inner.host();
        let first = host.slot_of(inner, region)?;
        let raw: Vec<_> = digests.iter().map(raw_digest).collect();
        let bytes: Vec<u8> = raw.iter().flat_map(|digest| digest_bytes(*digest)).collect();
        let at = host.tables.offsets().previous + u64::from(first) * RAW_LEN;
        host.tables.memory().write(inner.work.handle(), at, &bytes)?;
        if let Some(known) = host.slots.get_mut(region) {
            known.digests = Some(raw);
        }
        Ok(())
    }
}
