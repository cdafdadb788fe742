//! Sparse deltas: the elements of a chunk that differ from its previous version, as gaps and values.
//!
//! Training changes a few bits of scattered weights, so that no run of bytes stays the same and yet little is new. The
//! places of the changed elements come first, then the changed bits, byte plane by byte plane: each has few values,
//! which an entropy coder turns into about what they are worth.
//!
//! Invariants:
//! 1. `apply` changes nothing beyond the bytes that it is given, and reads no more than the stored ones hold.
//! 2. An encoded body is never longer than the chunk; a longer one is damage.
//! 3. The stored bytes carry a checksum of their own, so that they can be checked where the base is not at hand.

use super::compressor::{Method, Packer};
use super::decode::{damaged, decompress, frame_len};
use crate::error::Result;
use crate::wire::{CHECKSUM_LEN, checksum, put_varint};
use std::borrow::Cow;

/// In the byte after the checksum: the body is a zstd frame.
const IS_COMPRESSED: u8 = 16;
/// A gap of so many elements and more goes on in the next byte.
const GAP_STEP: u8 = 255;
/// Bodies below this many bytes are not worth a frame around them.
const PACKED_FROM: usize = 64;
/// Chunks of which more than one word in so many changed are no business of this encoding.
const DENSE: usize = 4;
/// Bytes that are compared at once.
const STRIDE: usize = 64;
const WORD: usize = 8;

const ONES: u64 = 0x0101_0101_0101_0101;

/// The words of eight bytes in which a chunk differs from its base.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Ordinal of each, and the bits that changed (first byte lowest).
    words: Vec<(u32, u64)>,
    /// Changed elements if elements have 1, 2, 4 or 8 bytes.
    counts: [usize; 4],
    width: usize,
    values: Vec<u64>,
}

/// The eight bytes at `at`, as if zeros followed the last one.
fn word(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; WORD];
    if let Some(rest) = bytes.get(at..) {
        let len = rest.len().min(WORD);
        eight[..len].copy_from_slice(&rest[..len]);
    }
    u64::from_le_bytes(eight)
}

impl Changes {
    /// Compares a chunk with its base. False if too much of it changed, or it is too long.
    pub(super) fn find(&mut self, bytes: &[u8], base: &[u8]) -> bool {
        self.words.clear();
        self.counts = [0; 4];
        if bytes.len() > 1 << 20 {
            return false;
        }
        let most = bytes.len().div_ceil(WORD) / DENSE;
        let mut pairs = bytes.chunks_exact(STRIDE).zip(base.chunks_exact(STRIDE));
        let common = pairs.len() * STRIDE;
        for (stride, (new, old)) in pairs.by_ref().enumerate() {
            if new == old {
                continue;
            }
            for at in (0..STRIDE).step_by(WORD) {
                self.note(stride * STRIDE + at, word(new, at) ^ word(old, at));
            }
            if self.words.len() > most {
                return false;
            }
        }
        for at in (common..bytes.len()).step_by(WORD) {
            // Past the chunk's end there is nothing to change.
            let mut changed = word(bytes, at) ^ word(base, at);
            if bytes.len() - at < WORD {
                changed &= (1 << (8 * (bytes.len() - at))) - 1;
            }
            self.note(at, changed);
        }
        self.choose_width(bytes.len());
        self.words.len() <= most
    }

    fn note(&mut self, byte_offset: usize, changed: u64) {
        if changed == 0 {
            return;
        }
        self.words.push(((byte_offset / WORD) as u32, changed));
        // The high bit of each byte that is not zero; then of each pair, each four.
        let low = 0x7f * ONES;
        let bytes = (((changed & low) + low) | changed) & !low;
        let pairs = (bytes | bytes << 8) & 0x8000_8000_8000_8000;
        let fours = (pairs | pairs << 16) & 0x8000_0000_8000_0000;
        self.counts[0] += bytes.count_ones() as usize;
        self.counts[1] += pairs.count_ones() as usize;
        self.counts[2] += fours.count_ones() as usize;
        self.counts[3] += 1;
    }

    /// Takes the width of elements that costs least: eight bits for a gap and one and a half for each byte of a value,
    /// beside those that are not zero, which cost the same under every width.
    fn choose_width(&mut self, len: usize) {
        let cost = |log: usize| self.counts[log] * (16 + (3 << log));
        let fits = |log: &usize| len.is_multiple_of(1 << log);
        self.width = 1 << (0..4).filter(fits).min_by_key(|log| cost(*log)).unwrap_or(0);
    }

    pub(super) const fn width(&self) -> usize {
        self.width
    }

    /// Appends the body for a chunk of `len` bytes. False if it is longer than the chunk.
    pub(super) fn encode(&mut self, len: usize, body: &mut Vec<u8>) -> bool {
        let width = self.width;
        let count = self.counts[width.trailing_zeros() as usize];
        put_varint(body, count as u64);
        let per_word = WORD / width;
        let mask = u64::MAX >> (64 - 8 * width);
        self.values.clear();
        let mut next = 0;
        for (ordinal, changed) in &self.words {
            for lane in 0..per_word {
                let value = changed >> (8 * width * lane) & mask;
                if value == 0 {
                    continue;
                }
                let element = *ordinal as usize * per_word + lane;
                let mut gap = element - next;
                next = element + 1;
                while gap >= usize::from(GAP_STEP) {
                    body.push(GAP_STEP);
                    gap -= usize::from(GAP_STEP);
                }
                body.push(gap as u8);
                self.values.push(value);
            }
        }
        if body.len() + count * width > len {
            return false;
        }
        for plane in 0..width {
            body.extend(self.values.iter().map(|value| (value >> (8 * plane)) as u8));
        }
        true
    }
}

/// Puts checksum and form before a body, which it compresses where that pays.
pub(super) fn wrap(width: usize, body: &mut Vec<u8>, packer: &mut Packer) {
    let mut form = width as u8;
    if body.len() >= PACKED_FROM
        && let Some(frame) = packer.pack(Method::Zstd, body, body.len() - body.len() / 16)
    {
        form |= IS_COMPRESSED;
        body.clear();
        body.extend_from_slice(frame);
    }
    body.splice(0..0, [0; CHECKSUM_LEN].into_iter().chain([form]));
    let (sum, rest) = body.split_at_mut(CHECKSUM_LEN);
    sum.copy_from_slice(&checksum(rest));
}

/// The width of elements and the body, which is as it was written.
fn unwrap(stored: &[u8], len: usize) -> Result<(usize, Cow<'_, [u8]>)> {
    let Some((sum, rest)) = stored.split_first_chunk::<CHECKSUM_LEN>() else {
        return Err(damaged(format!("{} bytes are no sparse delta", stored.len())));
    };
    let (Some((&form, body)), true) = (rest.split_first(), checksum(rest) == *sum) else {
        return Err(damaged("the checksum of a sparse delta fails".to_owned()));
    };
    let width = usize::from(form & !IS_COMPRESSED);
    if !matches!(width, 1 | 2 | 4 | 8) || !len.is_multiple_of(width) {
        return Err(damaged(format!("a sparse delta of elements of {width} bytes, of {len}")));
    }
    if form & IS_COMPRESSED == 0 {
        return Ok((width, Cow::Borrowed(body)));
    }
    let body_len = frame_len(body)?;
    if body_len > len as u64 {
        return Err(damaged(format!("a sparse delta of {body_len} bytes, longer than its {len}")));
    }
    Ok((width, Cow::Owned(decompress(body, body_len as usize)?)))
}

/// Whether the stored bytes are as they were written.
///
/// # Errors
/// When they are not.
pub(super) fn check(stored: &[u8], len: usize) -> Result<()> {
    unwrap(stored, len).map(drop)
}

/// Changes `bytes`, which are those of the base in the length of the chunk, into the chunk.
///
/// # Errors
/// When the stored bytes are no sparse delta of a chunk of that length.
pub(super) fn apply(stored: &[u8], bytes: &mut [u8]) -> Result<()> {
    let (width, body) = unwrap(stored, bytes.len())?;
    patch(width, &body, bytes)
}

fn patch(width: usize, body: &[u8], bytes: &mut [u8]) -> Result<()> {
    let cut = || damaged("a sparse delta is cut off or too long".to_owned());
    if body.len() > bytes.len() {
        return Err(cut());
    }
    let mut input = crate::wire::Input::new("sparse delta", body);
    let count = input.count(1 + width)?;
    let rest = input.take(input.left())?;
    let planes_len = count * width;
    let (gaps, planes) = rest.split_at(rest.len() - planes_len);
    match width {
        1 => patch_lanes::<1>(count, gaps, planes, bytes),
        2 => patch_lanes::<2>(count, gaps, planes, bytes),
        4 => patch_lanes::<4>(count, gaps, planes, bytes),
        _ => patch_lanes::<8>(count, gaps, planes, bytes),
    }
    .ok_or_else(cut)
}

/// `None`: the gaps do not fit the count or the chunk.
fn patch_lanes<const WIDTH: usize>(count: usize, gaps: &[u8], planes: &[u8], bytes: &mut [u8]) -> Option<()> {
    let (elements, _) = bytes.as_chunks_mut::<WIDTH>();
    let mut next = 0usize;
    let mut seen = 0;
    for gap in gaps {
        next += usize::from(*gap);
        if *gap == GAP_STEP {
            continue;
        }
        if seen == count {
            return None;
        }
        let element = elements.get_mut(next)?;
        for (plane, byte) in element.iter_mut().enumerate() {
            *byte ^= planes[plane * count + seen];
        }
        seen += 1;
        next += 1;
    }
    let is_whole = seen == count && gaps.last() != Some(&GAP_STEP);
    is_whole.then_some(())
}
