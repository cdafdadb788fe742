//! How the bytes of a blob stand in a pack.
//!
//! Invariants:
//! 1. The digest is always that of the decoded bytes; a codec changes no name.
//! 2. Decoding allocates at most the decoded length of the index row, and that only if it is within the caller's bound
//!    and agrees with what the stored bytes say of themselves.

use crate::error::{FormatError, Result};
use bytes::Bytes;
use chipmink_types::BlobKind;
use std::borrow::Cow;
use std::cell::RefCell;

/// The zstd level of all that is compressed: the highest at which a first save still costs less than C pickle does.
pub const ZSTD_LEVEL: i32 = 1;
/// Blobs below this many bytes stay raw. Measured in CPU time on a core that compresses 64 KiB of pods at 240 MB/s: level
/// 1 takes 7 us for any blob that is not noise, and below 1 KiB it rarely halves one.
pub const RAW_BELOW: usize = 1024;
/// Readers refuse longer chains of chunk deltas.
pub const DELTA_CHAIN_MAX: usize = 16;
/// From this many bytes on, samples are tried before the whole.
const SAMPLED_FROM: usize = 16 * 1024;
const SAMPLE_LEN: usize = 4 * 1024;
/// From this many bytes on, there are three samples instead of one.
const SAMPLED_MORE_FROM: usize = 128 * 1024;

/// How a blob's bytes are stored. The number is the low half of the byte in its index row.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    Raw = 0,
    /// One zstd frame that states its content size.
    Zstd = 1,
    /// LZ4; a later feature, known by number.
    Lz4 = 2,
    /// One zstd frame of the bytes XORed with those of the base blob (as if zeros followed it).
    Delta = 3,
}

impl Codec {
    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Codec::Raw),
            1 => Some(Codec::Zstd),
            2 => Some(Codec::Lz4),
            3 => Some(Codec::Delta),
            _ => None,
        }
    }
}

/// Keeps a compression context and its buffers from blob to blob.
pub struct Compressor {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    out: Vec<u8>,
}

impl Compressor {
    /// A compressor at [`ZSTD_LEVEL`]. If its context cannot be had, every blob stays raw.
    pub fn new() -> Self {
        Compressor { zstd: zstd::bulk::Compressor::new(ZSTD_LEVEL).ok(), out: Vec::new() }
    }

    /// The compressed bytes, if they are at most `limit`.
    fn compress(&mut self, bytes: &[u8], limit: usize) -> Option<&[u8]> {
        let zstd = self.zstd.as_mut()?;
        if self.out.len() < limit {
            self.out.resize(limit, 0);
        }
        // Where the room is too small zstd gives up: that is the answer, and it comes early.
        let len = zstd.compress_to_buffer(bytes, &mut self.out[..limit]).ok()?;
        Some(&self.out[..len])
    }

    /// Whether samples of a large blob look as if the whole could be halved. A sample compresses worse than the whole, so
    /// five eighths are good enough; random letters, at three quarters, are not.
    fn promises(&mut self, bytes: &[u8]) -> bool {
        let count = if bytes.len() < SAMPLED_MORE_FROM { 1 } else { 3 };
        let mut room = count * SAMPLE_LEN / 8 * 5;
        (1..=count).all(|i| {
            let start = (bytes.len() - SAMPLE_LEN) / (count + 1) * i;
            let sample = &bytes[start..start + SAMPLE_LEN];
            let len = self.compress(sample, room.min(SAMPLE_LEN)).map_or(SAMPLE_LEN, <[u8]>::len);
            let left = room.checked_sub(len);
            room = left.unwrap_or(0);
            left.is_some()
        })
    }
}

impl Default for Compressor {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

/// Chooses how to store a blob: zstd where it at least halves the bytes, else raw.
///
/// What is returned borrows from `bytes` or from `compressor`.
pub fn encode_blob<'a>(
    _kind: BlobKind,
    bytes: &'a [u8],
    compressor: &'a mut Compressor,
) -> (Codec, Cow<'a, [u8]>) {
    if bytes.len() < RAW_BELOW {
        return (Codec::Raw, Cow::Borrowed(bytes));
    }
    if bytes.len() >= SAMPLED_FROM && !compressor.promises(bytes) {
        return (Codec::Raw, Cow::Borrowed(bytes));
    }
    match compressor.compress(bytes, bytes.len() / 2) {
        Some(frame) => (Codec::Zstd, Cow::Borrowed(frame)),
        None => (Codec::Raw, Cow::Borrowed(bytes)),
    }
}

/// The decoded bytes of a blob that needs no base.
///
/// `decoded_len` is that of the index row, `max` what the caller is ready to hold, in bytes.
///
/// # Errors
/// When the lengths contradict each other or pass `max`, the stored bytes are no frame of that codec, or the codec is
/// one that this build cannot decode.
pub fn decode_blob(stored: Bytes, codec: Codec, decoded_len: u64, max: u64) -> Result<Bytes> {
    let len = bounded(decoded_len, max)?;
    match codec {
        Codec::Raw if stored.len() == len => Ok(stored),
        Codec::Raw => Err(damaged(format!("{} stored bytes, the index says {len}", stored.len()))),
        Codec::Zstd => decompress(&stored, len).map(Bytes::from),
        Codec::Lz4 => Err(unsupported("the LZ4 codec".to_owned())),
        Codec::Delta => Err(damaged("a chunk delta was read without its base".to_owned())),
    }
}

/// The decoded bytes of a chunk delta, given the decoded bytes of its base.
///
/// # Errors
/// As [`decode_blob`].
pub fn decode_delta(stored: &[u8], decoded_len: u64, base: &[u8], max: u64) -> Result<Bytes> {
    let mut bytes = decompress(stored, bounded(decoded_len, max)?)?;
    bytes.iter_mut().zip(base).for_each(|(byte, base)| *byte ^= base);
    Ok(bytes.into())
}

/// A chunk as a delta against `base`, if that has at most `limit` bytes. Writers of version 1 need not call it.
pub fn encode_delta(bytes: &[u8], base: &[u8], limit: usize, compressor: &mut Compressor) -> Option<Vec<u8>> {
    let mut changes = bytes.to_vec();
    changes.iter_mut().zip(base).for_each(|(byte, base)| *byte ^= base);
    compressor.compress(&changes, limit).map(<[u8]>::to_vec)
}

fn bounded(decoded_len: u64, max: u64) -> Result<usize> {
    match usize::try_from(decoded_len) {
        Ok(len) if decoded_len <= max => Ok(len),
        _ => Err(FormatError::TooLarge { what: "a blob", found: decoded_len, limit: max }),
    }
}

thread_local! {
    /// A context costs several times what a small blob does, so each thread keeps one.
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> =
        RefCell::new(zstd::bulk::Decompressor::new().ok());
}

fn decompress(stored: &[u8], len: usize) -> Result<Vec<u8>> {
    // The frame must agree with the index before anything is allocated for it.
    match zstd::zstd_safe::get_frame_content_size(stored) {
        Ok(Some(found)) if found == len as u64 => {}
        Ok(Some(found)) => return Err(damaged(format!("its frame has {found} bytes, the index says {len}"))),
        Ok(None) => return Err(damaged("its zstd frame does not state its size".to_owned())),
        Err(_) => return Err(damaged("it is no zstd frame".to_owned())),
    }
    // A frame may swell thirty-thousandfold: room that cannot be had is an error, not the end of the process.
    let mut bytes = Vec::new();
    if bytes.try_reserve_exact(len).is_err() {
        return Err(damaged(format!("there is no memory for the {len} bytes that it claims to hold")));
    }
    let written = DECOMPRESSOR.with_borrow_mut(|decompressor| match decompressor {
        Some(decompressor) => decompressor.decompress_to_buffer(stored, &mut bytes),
        None => zstd::bulk::decompress_to_buffer(stored, &mut bytes),
    });
    match written {
        Ok(_) if bytes.len() == len => Ok(bytes),
        Ok(found) => Err(damaged(format!("{found} bytes came out of its frame, expected {len}"))),
        Err(error) => Err(damaged(format!("zstd: {error}"))),
    }
}

fn damaged(reason: String) -> FormatError {
    FormatError::Damaged { what: "a stored blob".into(), byte_offset: 0, reason: reason.into() }
}

fn unsupported(needs: String) -> FormatError {
    FormatError::UnsupportedForReading { what: "a stored blob".into(), needs }
}

#[cfg(test)]
mod tests;
