//! From stored bytes back to a blob.

use super::{Codec, sparse};
use crate::error::{FormatError, Result};
use bytes::{Bytes, BytesMut};
use std::cell::RefCell;

/// Bytes that each stored byte of an LZ4 block can become at most: a length is continued by bytes of up to 255.
const LZ4_EXPANSION: usize = 255;

/// The most that so many stored bytes can become under any codec. One zstd block holds at most 128 KiB and takes at least
/// four bytes; a sparse delta takes at least three for a chunk.
pub const fn expansion_max(stored_len: u64) -> u64 {
    stored_len.saturating_mul(128 * 1024 / 4).saturating_add(1 << 16)
}

/// The decoded bytes of a blob that needs no base.
///
/// `decoded_len` is that of the index row, `max` what the caller is ready to hold, in bytes.
///
/// # Errors
/// When the lengths contradict each other or pass `max`, or the stored bytes are not of that codec.
pub fn decode_blob(stored: Bytes, codec: Codec, decoded_len: u64, max: u64) -> Result<Bytes> {
    let len = bounded(decoded_len, max)?;
    match codec {
        Codec::Raw if stored.len() == len => Ok(stored),
        Codec::Raw => Err(damaged(format!("{} stored bytes, the index says {len}", stored.len()))),
        Codec::Zstd => decompress(&stored, len).map(Bytes::from),
        Codec::Lz4 => decompress_lz4(&stored, len).map(Bytes::from),
        Codec::XorDelta | Codec::SparseDelta => {
            Err(damaged("a chunk delta was read without its base".to_owned()))
        }
    }
}

/// The decoded bytes of a chunk delta, given the decoded bytes of its base, which are changed in place if nobody else holds
/// them.
///
/// # Errors
/// As [`decode_blob`]; and when the codec is none of a delta.
pub fn decode_delta(stored: &[u8], codec: Codec, decoded_len: u64, base: Bytes, max: u64) -> Result<Bytes> {
    let len = bounded(decoded_len, max)?;
    match codec {
        Codec::XorDelta => {
            let mut bytes = decompress(stored, len)?;
            bytes.iter_mut().zip(base).for_each(|(byte, base)| *byte ^= base);
            Ok(bytes.into())
        }
        Codec::SparseDelta => {
            let own = if base.len() == len { base.try_into_mut() } else { Err(base) };
            let mut bytes = match own {
                Ok(bytes) => bytes,
                Err(base) => {
                    let mut bytes = allocate(len)?;
                    bytes.extend_from_slice(&base[..base.len().min(len)]);
                    bytes.resize(len, 0);
                    BytesMut::from(Bytes::from(bytes))
                }
            };
            sparse::apply(stored, &mut bytes)?;
            Ok(bytes.freeze())
        }
        Codec::Raw | Codec::Zstd | Codec::Lz4 => Err(damaged("it is no chunk delta".to_owned())),
    }
}

/// Whether the stored bytes of a chunk delta are as they were written, as far as that shows without the base.
///
/// # Errors
/// As [`decode_delta`].
pub fn check_delta(stored: &[u8], codec: Codec, decoded_len: u64, max: u64) -> Result<()> {
    let len = bounded(decoded_len, max)?;
    match codec {
        Codec::XorDelta => decompress(stored, len).map(drop),
        Codec::SparseDelta => sparse::check(stored, len),
        Codec::Raw | Codec::Zstd | Codec::Lz4 => Err(damaged("it is no chunk delta".to_owned())),
    }
}

fn bounded(decoded_len: u64, max: u64) -> Result<usize> {
    match usize::try_from(decoded_len) {
        Ok(len) if decoded_len <= max => Ok(len),
        _ => Err(FormatError::TooLarge { what: "a blob", found: decoded_len, limit: max }),
    }
}

/// Blobs may swell thirty-thousandfold: room that cannot be had is an error, not the end of the process.
fn allocate(len: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match bytes.try_reserve_exact(len) {
        Ok(()) => Ok(bytes),
        Err(_) => Err(damaged(format!("there is no memory for the {len} bytes that it claims to hold"))),
    }
}

thread_local! {
    /// A context costs several times what a small blob does, so each thread keeps one.
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> =
        RefCell::new(zstd::bulk::Decompressor::new().ok());
}

/// What a frame says that it holds, in bytes.
pub(super) fn frame_len(stored: &[u8]) -> Result<u64> {
    match zstd::zstd_safe::get_frame_content_size(stored) {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(damaged("its zstd frame does not state its size".to_owned())),
        Err(_) => Err(damaged("it is no zstd frame".to_owned())),
    }
}

pub(super) fn decompress(stored: &[u8], len: usize) -> Result<Vec<u8>> {
    // The frame must agree with the index before anything is allocated for it.
    let found = frame_len(stored)?;
    if found != len as u64 {
        return Err(damaged(format!("its frame has {found} bytes, the index says {len}")));
    }
    let mut bytes = allocate(len)?;
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

fn decompress_lz4(stored: &[u8], len: usize) -> Result<Vec<u8>> {
    if len / LZ4_EXPANSION > stored.len() {
        return Err(damaged(format!("{} bytes of LZ4 cannot hold the {len} of the index", stored.len())));
    }
    let mut bytes = allocate(len)?;
    bytes.resize(len, 0);
    match lz4_flex::block::decompress_into(stored, &mut bytes) {
        Ok(found) if found == len => Ok(bytes),
        Ok(found) => Err(damaged(format!("{found} bytes came out of its LZ4 block, expected {len}"))),
        Err(error) => Err(damaged(format!("LZ4: {error}"))),
    }
}

pub(super) fn damaged(reason: String) -> FormatError {
    FormatError::Damaged { what: "a stored blob".into(), byte_offset: 0, reason: reason.into() }
}
