//! Digests of live memory that need not be computed again, because nobody has written to it since.

use super::memory::Span;
use super::regions::live_digest;
use super::session::PySession;
use super::walker::{Step, Walker};
use chipmink_digest::Grid;
use chipmink_types::{Digest, LiveRegion, Look, RegionRecord};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

impl Walker<'_, '_> {
    /// What is known of the memory of a region. From here on writes to it are noticed, so its bytes are read after this.
    pub(crate) fn look(&mut self, span: Span, record: &RegionRecord) -> Look {
        match &mut self.session.live {
            Some(live) => live.look(&live_region(span, record)),
            None => Look::default(),
        }
    }

    /// Keeps what the chunks of a region turned out to be after a look at it. So many bytes had to be hashed.
    pub(crate) fn learn(
        &mut self,
        span: Span,
        record: &RegionRecord,
        look: &Look,
        digests: &[Digest],
        hashed: u64,
    ) {
        self.stats.region_bytes += hashed;
        self.stats.unwritten_bytes += record.byte_len - hashed;
        if look.ticket != 0
            && let Some(live) = &mut self.session.live
        {
            live.learn(&live_region(span, record), look.ticket, digests);
        }
    }

    /// The digests of the chunks of live memory; only what may have been written is hashed.
    pub(crate) fn live_digests(
        &mut self,
        span: Span,
        record: &RegionRecord,
        grid: &Grid,
    ) -> Step<Vec<Digest>> {
        let look = self.look(span, record);
        let mut digests = Vec::with_capacity(grid.chunk_count() as usize);
        let mut hashed = 0;
        for (i, (offset, len)) in grid.chunks().enumerate() {
            if i % 1024 == 1023 {
                self.check_signals()?;
            }
            digests.push(look.digest(i as u64).unwrap_or_else(|| {
                hashed += len;
                live_digest((span.start + offset as usize) as *const u8, len as usize)
            }));
        }
        self.learn(span, record, &look, &digests, hashed);
        Ok(digests)
    }
}

impl PySession {
    /// The digests of the chunks of a buffer, cut as a region is; only what may have been written since it was looked at last
    /// is hashed.
    ///
    /// # Errors
    /// When the buffer has not the region's length, or the region cannot be cut.
    pub fn digests_of(
        &mut self,
        py: Python<'_>,
        buffer: &PyBuffer<u8>,
        record: &RegionRecord,
    ) -> PyResult<Vec<Digest>> {
        let grid = Grid::of(record).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let start = buffer.buf_ptr() as usize;
        let span = Span { start, end: start + buffer.len_bytes() };
        if span.len() as u64 != record.byte_len || !buffer.is_c_contiguous() {
            let reason =
                format!("a buffer of {} bytes stands for a region of {}", span.len(), record.byte_len);
            return Err(PyValueError::new_err(reason));
        }
        let look = match &mut self.live {
            Some(live) => live.look(&live_region(span, record)),
            None => Look::default(),
        };
        let mut digests = Vec::with_capacity(grid.chunk_count() as usize);
        for (i, (offset, len)) in grid.chunks().enumerate() {
            if i % 1024 == 1023 {
                py.check_signals()?;
            }
            // The buffer is held, and has the region's length.
            let hash = || live_digest((span.start + offset as usize) as *const u8, len as usize);
            digests.push(look.digest(i as u64).unwrap_or_else(hash));
        }
        Ok(digests)
    }
}

fn live_region(span: Span, record: &RegionRecord) -> LiveRegion {
    LiveRegion {
        address: span.start,
        byte_len: span.len(),
        grid: record.grid,
        row_len: record.row_len,
        first_chunk_len: record.first_chunk_len,
    }
}
