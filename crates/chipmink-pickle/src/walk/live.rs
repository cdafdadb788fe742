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
use std::sync::{Mutex, PoisonError};

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
        let mut part = Vec::with_capacity(SIGNALS_EVERY.min(grid.chunk_count() as usize));
        let mut chunks = grid.chunks().enumerate().peekable();
        while chunks.peek().is_some() {
            if !digests.is_empty() {
                self.check_signals()?;
            }
            part.clear();
            part.extend(chunks.by_ref().take(SIGNALS_EVERY).map(|(i, (offset, len))| {
                let known = look.digest(i as u64);
                hashed += if known.is_none() { len } else { 0 };
                Chunk { start: span.start + offset as usize, len: len as usize, known }
            }));
            digest_all(&part, &mut digests);
        }
        self.learn(span, record, &look, &digests, hashed);
        Ok(digests)
    }
}

/// Chunks that are digested between two looks at signals.
const SIGNALS_EVERY: usize = 1024;
/// Bytes for which another thread is worth its start, some 30 microseconds.
const THREAD_LEN: usize = 1 << 20;
/// More threads than these do not make memory any faster.
const THREADS_MAX: usize = 4;
/// Chunks that a thread takes at once.
const SHARE: usize = 8;

/// A chunk of live memory.
struct Chunk {
    start: usize,
    len: usize,
    /// Its digest, if it need not be computed.
    known: Option<Digest>,
}

impl Chunk {
    fn digest(&self) -> Digest {
        self.known.unwrap_or_else(|| live_digest(self.start as *const u8, self.len))
    }
}

/// Appends the digests of chunks, which several threads compute if they are many. The caller keeps the memory alive.
fn digest_all(chunks: &[Chunk], digests: &mut Vec<Digest>) {
    let byte_len: usize = chunks.iter().filter(|chunk| chunk.known.is_none()).map(|chunk| chunk.len).sum();
    let wanted = (byte_len / THREAD_LEN).min(THREADS_MAX);
    let threads = match wanted {
        0 | 1 => 1,
        _ => wanted.min(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)),
    };
    if threads == 1 {
        digests.extend(chunks.iter().map(Chunk::digest));
        return;
    }
    let from = digests.len();
    digests.resize(from + chunks.len(), Digest::xxh3([0; 16]));
    let shares = chunks.chunks(SHARE).zip(digests[from..].chunks_mut(SHARE)).collect::<Vec<_>>();
    let shares = Mutex::new(shares);
    // Taken and given back with nothing in between that could fail.
    let next = || shares.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work = || {
        while let Some((chunks, digests)) = next() {
            digests.iter_mut().zip(chunks).for_each(|(digest, chunk)| *digest = chunk.digest());
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // With fewer threads it takes longer.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_find_the_same_digests() {
        let bytes: Vec<u8> = (0..5_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 23) as u8).collect();
        let known = Digest::xxh3([9; 16]);
        let chunk = |(i, bytes): (usize, &[u8])| Chunk {
            start: bytes.as_ptr() as usize,
            len: bytes.len(),
            known: (i % 5 == 4).then_some(known),
        };
        for len in [0, 1, 65_536, 1 << 20, 3 << 20, bytes.len()] {
            let chunks: Vec<Chunk> = bytes[..len].chunks(65_536).enumerate().map(chunk).collect();
            let expected: Vec<Digest> = bytes[..len]
                .chunks(65_536)
                .enumerate()
                .map(|(i, bytes)| if i % 5 == 4 { known } else { chipmink_digest::digest(bytes) })
                .collect();
            let mut digests = vec![known];
            digest_all(&chunks, &mut digests);
            assert_eq!(digests[1..], expected, "{len} bytes");
        }
    }
}
