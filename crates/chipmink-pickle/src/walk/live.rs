//! Digests of live memory that need not be computed again, because nobody has written to it since.

use super::helpers::{Found, Helpers};
use super::live_hash::{digest_with_edges, edges_of};
use super::memory::Span;
use super::regions::live_digest;
use super::session::PySession;
use super::walker::{Step, Walker};
use chipmink_digest::Grid;
use chipmink_types::{Digest, Edges, LiveRegion, Look, RegionRecord};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::time::Instant;

impl Walker<'_, '_> {
    /// What is known of the memory of a region. From here on writes to it are noticed, so its bytes are read after this.
    pub(crate) fn look(&mut self, span: Span, record: &RegionRecord, grid: &Grid) -> Look {
        let Some(live) = &mut self.session.live else { return Look::default() };
        let mut look = live.look(&live_region(span, record));
        settle(&mut look, span, grid);
        look
    }

    /// Keeps what the chunks of a region turned out to be after a look at it. So many bytes had to be hashed. `edges`: of
    /// the chunks that were.
    pub(crate) fn learn(
        &mut self,
        span: Span,
        record: &RegionRecord,
        look: &Look,
        digests: &[Digest],
        mut edges: Vec<(u64, Edges)>,
        hashed: u64,
    ) {
        self.stats.region_bytes += hashed;
        self.stats.unwritten_bytes += record.byte_len - hashed;
        if look.ticket != 0
            && let Some(live) = &mut self.session.live
        {
            // Of chunks that were hashed although they were known, the newer ones count.
            edges.splice(0..0, look.doubts.iter().map(|doubt| (doubt.ordinal, doubt.edges)));
            live.learn(&live_region(span, record), look.ticket, digests, &edges);
        }
    }

    /// The digests of the chunks of live memory; only what may have been written is hashed.
    pub(crate) fn live_digests(
        &mut self,
        span: Span,
        record: &RegionRecord,
        grid: &Grid,
    ) -> Step<Vec<Digest>> {
        let began = Instant::now();
        let look = self.look(span, record, grid);
        let mut digests = Vec::with_capacity(grid.chunk_count() as usize);
        let mut edges = Vec::new();
        let mut hashed = 0;
        let mut unknown: Vec<Chunk> = Vec::new();
        let mut hash = |helpers: &mut Helpers, unknown: &mut Vec<Chunk>, digests: &mut [Digest]| {
            let ordinals: Vec<usize> = unknown.iter().map(|chunk| chunk.ordinal).collect();
            for (ordinal, (digest, of_it)) in
                ordinals.into_iter().zip(helpers.digest(std::mem::take(unknown)))
            {
                digests[ordinal] = digest;
                edges.extend(of_it.map(|edges| (ordinal as u64, edges)));
            }
        };
        for (ordinal, (offset, len)) in grid.chunks().enumerate() {
            if let Some(known) = look.digest(ordinal as u64) {
                digests.push(known);
                continue;
            }
            hashed += len;
            digests.push(NOT_YET);
            let start = span.start + offset as usize;
            unknown.push(Chunk { ordinal, start, len: len as usize, page_len: look.page_len });
            if unknown.len() == SIGNALS_EVERY {
                hash(&mut self.helpers, &mut unknown, &mut digests);
                self.check_signals()?;
            }
        }
        hash(&mut self.helpers, &mut unknown, &mut digests);
        self.stats.detection_nanos += began.elapsed().as_nanos() as u64;
        self.learn(span, record, &look, &digests, edges, hashed);
        Ok(digests)
    }

    /// The digests of the chunks of live memory as it is now, whatever is known of it.
    pub(crate) fn digests_now(&mut self, span: Span, grid: &Grid) -> Step<Vec<Digest>> {
        let chunk = |(ordinal, (offset, len)): (usize, (u64, u64))| Chunk {
            ordinal,
            start: span.start + offset as usize,
            len: len as usize,
            page_len: 0,
        };
        let mut chunks = grid.chunks().enumerate().map(chunk);
        let mut digests = Vec::with_capacity(grid.chunk_count() as usize);
        loop {
            let part: Vec<Chunk> = chunks.by_ref().take(SIGNALS_EVERY).collect();
            if part.is_empty() {
                break;
            }
            digests.extend(self.helpers.digest(part).into_iter().map(|(digest, _)| digest));
            self.check_signals()?;
        }
        Ok(digests)
    }
}

/// Finds out which of the chunks in doubt are what they were; the others leave the list.
fn settle(look: &mut Look, span: Span, grid: &Grid) {
    let page_len = look.page_len;
    let digests = &mut look.digests;
    look.doubts.retain(|doubt| {
        let place = grid.chunk(doubt.ordinal);
        let Some(((offset, len), known)) = place.zip(digests.get_mut(doubt.ordinal as usize)) else {
            return false;
        };
        let start = span.start + offset as usize;
        let Some((head, tail)) = Edges::lens(start, len as usize, page_len) else { return false };
        let is_same = |asked: bool, at: usize, len: usize, was: &Digest| {
            !asked || live_digest(at as *const u8, len) == *was
        };
        let is_known = is_same(doubt.is_head, start, head, &doubt.edges.head)
            && is_same(doubt.is_tail, start + len as usize - tail, tail, &doubt.edges.tail);
        if is_known {
            *known = Some(doubt.digest);
        }
        is_known
    });
}

/// Chunks that are hashed between two looks at signals.
const SIGNALS_EVERY: usize = 1024;
/// Stands where a digest will be.
const NOT_YET: Digest = Digest::xxh3([0; 16]);

/// A chunk of live memory whose digest is wanted.
pub(crate) struct Chunk {
    pub ordinal: usize,
    pub start: usize,
    pub len: usize,
    /// Bytes of a page, if edges are wanted; else 0.
    pub page_len: usize,
}

impl Chunk {
    pub(crate) fn digest(&self, scratch: &mut Vec<u8>) -> Found {
        let Some(lens) = edge_lens(self.start, self.len, self.page_len) else {
            return (live_digest(self.start as *const u8, self.len), None);
        };
        // SAFETY: as in `live_digest`; what is read twice is copied first.
        let bytes = unsafe { std::slice::from_raw_parts(self.start as *const u8, self.len) };
        let (digest, edges) = digest_with_edges(bytes, lens, scratch);
        (digest, Some(edges))
    }
}

/// Bytes of the head and of the tail, if edges are wanted of a chunk.
fn edge_lens(start: usize, len: usize, page_len: usize) -> Option<(usize, usize)> {
    if page_len == 0 { None } else { Edges::lens(start, len, page_len) }
}

/// The edges of a chunk that has been copied from an address, if they are wanted.
pub(crate) fn edges_of_copy(start: usize, copy: &[u8], page_len: usize) -> Option<Edges> {
    Some(edges_of(copy, copy, edge_lens(start, copy.len(), page_len)?))
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
        let mut look = match &mut self.live {
            Some(live) => live.look(&live_region(span, record)),
            None => Look::default(),
        };
        settle(&mut look, span, &grid);
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
