//! Reading many blobs where each goes on to a place of its own: checked while it is in the cache, by several threads.
//!
//! Invariants:
//! 1. What is handed on has its digest.
//! 2. After an error no more is handed on than what was being read.

use crate::inner::Inner;
use crate::raw::RawPlaces;
use chipmink_digest::digest;
use chipmink_types::{BlobError, Digest};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Bytes that are read at once: they are still in the cache of their core when they are digested and handed on.
const READ_LEN: u64 = 256 << 10;
/// Blobs that do not lie as they are, and are read at once.
const READ_COUNT: usize = 32;
/// Bytes for which another thread is worth its start.
const THREAD_LEN: u64 = 4 << 20;
/// More threads than these do not make memory any faster.
const THREADS_MAX: usize = 4;

/// Blobs that are read at once: neighbours in one file, or some that lie otherwise.
struct Piece {
    blobs: Range<usize>,
    /// Ordinal of the file, and where they begin in it.
    place: Option<(usize, u64)>,
}

fn pieces_of(blobs: &[(Digest, u64)], places: &RawPlaces) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut len = 0;
    for (at, ((_, byte_len), place)) in blobs.iter().zip(&places.places).enumerate() {
        // No buffer is made as long as an index says.
        let place = place.filter(|_| *byte_len <= READ_LEN);
        let continues = pieces.last().is_some_and(|last| match (last.place, place) {
            (Some((file, start)), Some((next_file, next))) => {
                file == next_file && start + len == next && len + byte_len <= READ_LEN
            }
            (None, None) => len + byte_len <= READ_LEN && last.blobs.len() < READ_COUNT,
            _ => false,
        });
        match pieces.last_mut() {
            Some(last) if continues => last.blobs.end = at + 1,
            _ => {
                pieces.push(Piece { blobs: at..at + 1, place });
                len = 0;
            }
        }
        len += byte_len;
    }
    pieces
}

#[cfg(unix)]
fn read_exact(file: &File, buffer: &mut [u8], byte_offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, byte_offset)
}

#[cfg(not(unix))]
fn read_exact(_file: &File, _buffer: &mut [u8], _byte_offset: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

impl Inner {
    /// Reads blobs, given with their lengths and places, and hands each to `take` with its ordinal: in no order, and by
    /// several threads.
    pub(crate) fn read_each(
        &self,
        blobs: &[(Digest, u64)],
        places: &RawPlaces,
        take: &(dyn Fn(usize, &[u8]) + Sync),
    ) -> Result<(), BlobError> {
        let pieces = pieces_of(blobs, places);
        let (next, has_failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = || {
            let mut buffer = Vec::new();
            while !has_failed.load(Ordering::Relaxed)
                && let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed))
            {
                self.read_piece(blobs, places, piece, &mut buffer, take)
                    .inspect_err(|_| has_failed.store(true, Ordering::Relaxed))?;
            }
            Ok(())
        };
        let byte_len: u64 = blobs.iter().fold(0, |sum, (_, byte_len)| sum.saturating_add(*byte_len));
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get()).min(THREADS_MAX);
        let helpers = (byte_len / THREAD_LEN).min(processors as u64 - 1);
        std::thread::scope(|scope| {
            let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
            // With fewer threads it takes longer.
            let helpers: Vec<_> = (0..helpers).filter_map(spawn).collect();
            let mut result = work();
            for helper in helpers {
                let found = helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result = result.and(found);
            }
            result
        })
    }

    fn read_piece(
        &self,
        blobs: &[(Digest, u64)],
        places: &RawPlaces,
        piece: &Piece,
        buffer: &mut Vec<u8>,
        take: &(dyn Fn(usize, &[u8]) + Sync),
    ) -> Result<(), BlobError> {
        let wanted = &blobs[piece.blobs.clone()];
        let Some((file, byte_offset)) = piece.place else {
            let digests: Vec<Digest> = wanted.iter().map(|(name, _)| *name).collect();
            for ((at, (name, len)), bytes) in piece.blobs.clone().zip(wanted).zip(self.read_many(&digests)?) {
                take(at, of_length(name, &bytes, *len)?);
            }
            return Ok(());
        };
        buffer.resize(wanted.iter().map(|(_, len)| *len as usize).sum(), 0);
        let is_read = read_exact(&places.files[file].file, buffer, byte_offset).is_ok();
        let mut from = 0;
        for (at, (name, len)) in piece.blobs.clone().zip(wanted) {
            let bytes = &buffer[from..from + *len as usize];
            from += bytes.len();
            if is_read && digest(bytes) == *name {
                take(at, bytes);
                continue;
            }
            // Another copy may be whole.
            let bytes = self.read_at_depth(name, 0)?;
            take(at, of_length(name, &bytes, *len)?);
        }
        Ok(())
    }
}

fn of_length<'a>(name: &Digest, bytes: &'a [u8], len: u64) -> Result<&'a [u8], BlobError> {
    if bytes.len() as u64 != len {
        let reason = format!("it has {} bytes where {len} belong", bytes.len());
        return Err(BlobError::Damaged { digest: *name, reason });
    }
    Ok(bytes)
}
