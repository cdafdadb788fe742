//! Saving the chunks of one region: against its previous version where that pays.
//!
//! Invariants:
//! 1. A delta is made only against a chunk of the base version whose bytes were read and checked, and whose own chain is
//!    so short that readers take one more.
//! 2. What a region has taught is kept under the digest of its root, and only once its version is published.
//! 3. A region of which every chunk is new each time, and no delta pays, is streamed: one chunk in sixty-four is looked at
//!    again.

use crate::compression::{Backoff, Chooser};
use crate::inner::{Chain, Inner};
use bytes::Bytes;
use chipmink_digest::{NodeKind, read_tree};
use chipmink_format::DELTA_CHAIN_MAX;
use chipmink_types::{BlobSource, Digest, RegionForecast, RegionOutline};
use std::collections::VecDeque;

/// Deltas that a chunk's chain may have when another is put on top. Each costs a read and a decoding, so a chain is ended long
/// before readers refuse it.
const CHAIN_MAX: usize = DELTA_CHAIN_MAX / 2;
/// Chunks that are read at once when one after another has changed: 2 MiB.
const AHEAD_MAX: usize = 32;
/// Saves in which every chunk was new, after which the next is expected to be like them.
const DIRTY_SAVES: u8 = 2;

/// What earlier saves of a region have taught.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct RegionHistory {
    /// The last saves in which every chunk was new.
    dirty_saves: u8,
    delta: Backoff,
    compression: Backoff,
}

/// A chunk of the previous version.
#[derive(Debug)]
pub(crate) struct BaseChunk {
    pub(crate) digest: Digest,
    pub(crate) bytes: Bytes,
    /// It and the bases below it.
    pub(crate) chain: Chain,
}

/// The region whose chunks are being put.
#[derive(Debug)]
pub(crate) struct RegionSave {
    outline: RegionOutline,
    history: RegionHistory,
    /// The previous version's chunks, once one was wanted; `None` within if they cannot be had.
    previous: Option<Option<Vec<Digest>>>,
    /// Chunks of the previous version from this ordinal on, read ahead.
    window: VecDeque<Bytes>,
    window_start: u64,
    ahead: usize,
    new_chunks: u64,
    /// Bytes of chunks that are still expected.
    expected: u64,
    /// The last chunk that was compressed at all is smaller for it.
    is_compressible: bool,
}

impl RegionSave {
    pub(crate) fn new(outline: &RegionOutline, inner: &Inner, chooser: &Chooser) -> Self {
        let known = outline.previous.and_then(|(root, _)| inner.region_history(&root));
        let fresh = RegionHistory { compression: chooser.chunk_outlook(), ..RegionHistory::default() };
        RegionSave {
            outline: *outline,
            history: known.unwrap_or(fresh),
            previous: None,
            window: VecDeque::new(),
            window_start: 0,
            ahead: 1,
            new_chunks: 0,
            expected: 0,
            is_compressible: false,
        }
    }

    pub(crate) fn forecast(&self) -> RegionForecast {
        RegionForecast { is_always_dirty: self.history.dirty_saves >= DIRTY_SAVES }
    }

    /// So many bytes of chunks will be put that are probably not held.
    pub(crate) fn expect(&mut self, byte_len: u64) {
        self.expected = byte_len;
    }

    /// Bytes of chunks that are still expected, those that are being put included.
    pub(crate) fn expected(&self) -> u64 {
        self.expected
    }

    /// A chunk that is not held yet was put.
    pub(crate) fn note_new(&mut self, byte_len: u64) {
        self.new_chunks += 1;
        self.expected = self.expected.saturating_sub(byte_len);
    }

    /// How its chunks are compressed, and what is known of that.
    pub(crate) fn compression(&mut self) -> &mut Backoff {
        &mut self.history.compression
    }

    pub(crate) fn note_compressed(&mut self, is_smaller: bool) {
        self.is_compressible = is_smaller;
    }

    pub(crate) fn is_compressible(&self) -> bool {
        self.is_compressible
    }

    /// The chunk of the previous version at this place, if a delta against it is worth a try.
    pub(crate) fn base_for(&mut self, ordinal: u64, inner: &Inner) -> Option<BaseChunk> {
        let (_, count) = self.outline.previous?;
        if ordinal >= count || !self.history.delta.is_due() {
            return None;
        }
        let digest = self.previous_chunks(inner)?.get(usize::try_from(ordinal).ok()?).copied()?;
        let chain = inner.chain(&digest, CHAIN_MAX)?;
        let bytes = self.read(ordinal, inner)?;
        Some(BaseChunk { digest, bytes, chain })
    }

    /// Whether the delta that was tried last paid.
    pub(crate) fn note_delta(&mut self, has_paid: bool) {
        self.history.delta.note(has_paid);
        if !has_paid {
            self.ahead = 1;
        }
    }

    fn previous_chunks(&mut self, inner: &Inner) -> Option<&[Digest]> {
        if self.previous.is_none() {
            let read = self.outline.previous.and_then(|(root, count)| {
                read_tree(NodeKind::Region, root, count, &mut |digest| inner.get(digest)).ok()
            });
            self.previous = Some(read);
        }
        self.previous.as_ref()?.as_deref()
    }

    /// The bytes of a previous chunk; more and more at once while one follows another.
    fn read(&mut self, ordinal: u64, inner: &Inner) -> Option<Bytes> {
        let window_end = self.window_start + self.window.len() as u64;
        if ordinal < self.window_start || ordinal >= window_end {
            let follows = ordinal == window_end && window_end > 0;
            self.ahead = if follows { (2 * self.ahead).min(AHEAD_MAX) } else { 1 };
            let ahead = self.ahead;
            let wanted = self.previous_chunks(inner)?.get(usize::try_from(ordinal).ok()?..)?;
            let digests = wanted[..wanted.len().min(ahead)].to_vec();
            // A base that is missing or damaged is no base; the chunk is stored whole.
            self.window = inner.get_many(&digests).ok()?.into();
            self.window_start = ordinal;
        }
        let skipped = usize::try_from(ordinal - self.window_start).ok()?;
        self.window.drain(..skipped);
        self.window_start = ordinal + 1;
        self.window.pop_front()
    }

    /// What the region has taught, once all its chunks were put.
    pub(crate) fn end(self, chooser: &mut Chooser) -> RegionHistory {
        let is_dirty = self.new_chunks == self.outline.chunk_count && self.outline.previous.is_some();
        let dirty_saves = if is_dirty { self.history.dirty_saves.saturating_add(1) } else { 0 };
        chooser.note_chunks(self.history.compression);
        RegionHistory { dirty_saves, ..self.history }
    }
}
