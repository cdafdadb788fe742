//! [`Compressor`]: contexts and buffers that are kept from blob to blob.

use super::{Codec, sparse};
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

/// The zstd level of all that is compressed: the highest at which a first save still costs less than C pickle does.
pub const ZSTD_LEVEL: i32 = 1;

/// Bytes of a sample.
const SAMPLE_LEN: usize = 4 * 1024;
/// From this many bytes on, there are three samples instead of one.
const SAMPLED_MORE_FROM: usize = 128 * 1024;
/// The format's limit is 2^31 - 2^25 - 1; what is longer goes to zstd.
const LZ4_LEN_MAX: usize = 1 << 30;
/// A buffer that grew beyond this for a large blob is not kept.
const KEPT_LEN: usize = 1 << 20;

/// A way to compress a blob by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// Small and slow.
    Zstd,
    /// Larger and fast, above all when read; it sees repetitions only.
    Lz4,
}

impl Method {
    /// The codec of what it makes.
    pub const fn codec(self) -> Codec {
        match self {
            Method::Zstd => Codec::Zstd,
            Method::Lz4 => Codec::Lz4,
        }
    }
}

/// Keeps compression contexts and their buffers from blob to blob.
#[derive(Default)]
pub struct Compressor {
    packer: Packer,
    changes: sparse::Changes,
    body: Vec<u8>,
}

impl Compressor {
    /// A compressor. Contexts are made at first use; if one cannot be had, blobs stay as they are.
    pub fn new() -> Self {
        Compressor::default()
    }

    /// The compressed bytes, if they are at most `limit`.
    pub fn compress(&mut self, method: Method, bytes: &[u8], limit: usize) -> Option<&[u8]> {
        self.packer.pack(method, bytes, limit)
    }

    /// What the last success of [`Compressor::compress`] gave.
    pub fn output(&self) -> &[u8] {
        &self.packer.out[..self.packer.len]
    }

    /// Whether samples of a large blob look as if the whole could come down to `limit` bytes.
    pub fn promises(&mut self, method: Method, bytes: &[u8], limit: usize) -> bool {
        self.packer.promises(method, bytes, limit)
    }

    /// A chunk as a delta against `base`, under the encoding that suits it, if that has at most `limit` bytes.
    pub fn compress_delta(&mut self, bytes: &[u8], base: &[u8], limit: usize) -> Option<(Codec, &[u8])> {
        let Compressor { packer, changes, body } = self;
        body.clear();
        if changes.find(bytes, base) {
            if !changes.encode(bytes.len(), body) || body.len() > bytes.len() {
                return None;
            }
            sparse::wrap(changes.width(), body, packer);
            return (body.len() <= limit).then_some((Codec::SparseDelta, body));
        }
        body.extend_from_slice(bytes);
        body.iter_mut().zip(base).for_each(|(byte, base)| *byte ^= base);
        if !packer.promises(Method::Zstd, body, limit) {
            return None;
        }
        // What comes out of the frame has no digest without the base: a checksum speaks for it.
        packer.context()?.include_checksum(true).ok()?;
        let len = packer.pack(Method::Zstd, body, limit).map(<[u8]>::len);
        packer.context()?.include_checksum(false).ok()?;
        len.map(|len| (Codec::XorDelta, &packer.out[..len]))
    }

    /// Lets go of buffers that a large blob made large.
    pub fn trim(&mut self) {
        self.packer.len = 0;
        for buffer in [&mut self.packer.out, &mut self.body] {
            if buffer.capacity() > KEPT_LEN {
                *buffer = Vec::new();
            }
        }
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

/// The contexts of both methods and the buffer that they write to.
#[derive(Default)]
pub(super) struct Packer {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    lz4: Option<CompressTable>,
    out: Vec<u8>,
    /// Bytes of `out` that the last success wrote.
    len: usize,
}

impl Packer {
    pub(super) fn pack(&mut self, method: Method, bytes: &[u8], limit: usize) -> Option<&[u8]> {
        let len = match method {
            Method::Zstd => self.zstd(bytes, limit)?,
            Method::Lz4 => self.lz4(bytes)?,
        };
        if len > limit {
            return None;
        }
        self.len = len;
        Some(&self.out[..len])
    }

    fn room(&mut self, len: usize) -> &mut [u8] {
        if self.out.len() < len {
            self.out.resize(len, 0);
        }
        &mut self.out[..len]
    }

    fn zstd(&mut self, bytes: &[u8], limit: usize) -> Option<usize> {
        self.room(limit);
        self.context()?;
        let Packer { zstd, out, .. } = self;
        // Where the room is too small zstd gives up: that is the answer, and it comes early.
        zstd.as_mut()?.compress_to_buffer(bytes, &mut out[..limit]).ok()
    }

    fn context(&mut self) -> Option<&mut zstd::bulk::Compressor<'static>> {
        match &mut self.zstd {
            Some(zstd) => Some(zstd),
            none => Some(none.insert(zstd::bulk::Compressor::new(ZSTD_LEVEL).ok()?)),
        }
    }

    fn lz4(&mut self, bytes: &[u8]) -> Option<usize> {
        if bytes.len() > LZ4_LEN_MAX {
            return None;
        }
        self.room(get_maximum_output_size(bytes.len()));
        // A table for long blobs costs twice the clearing, which is most of the work for a short one.
        if bytes.len() < usize::from(u16::MAX) && matches!(self.lz4, Some(CompressTable::Large(_))) {
            self.lz4 = None;
        }
        let table = self.lz4.get_or_insert_with(CompressTable::small);
        compress_into_with_table(bytes, &mut self.out, table).ok()
    }

    /// A sample compresses worse than the whole, so a quarter more than the limit's share is good enough.
    pub(super) fn promises(&mut self, method: Method, bytes: &[u8], limit: usize) -> bool {
        if bytes.len() < 2 * SAMPLE_LEN {
            return true;
        }
        let count = if bytes.len() < SAMPLED_MORE_FROM { 1 } else { 3 };
        let share = limit as f64 / bytes.len() as f64 * 1.25;
        let mut room = ((count * SAMPLE_LEN) as f64 * share.min(1.0)) as usize;
        (1..=count).all(|i| {
            let start = (bytes.len() - SAMPLE_LEN) / (count + 1) * i;
            let sample = &bytes[start..start + SAMPLE_LEN];
            let len = self.pack(method, sample, room.min(SAMPLE_LEN)).map_or(SAMPLE_LEN, <[u8]>::len);
            let left = room.checked_sub(len);
            room = left.unwrap_or(0);
            left.is_some()
        })
    }
}
