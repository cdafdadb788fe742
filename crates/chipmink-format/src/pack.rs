//! Packs: the stored objects that hold blobs.
//!
//! A pack is a header of [`PACK_HEADER_LEN`] bytes, blobs one after another (with zeros between them where one is
//! aligned), index segments, and a footer that says where those are. It is written from front to back without being held
//! in memory: [`PackLayout`] does the book-keeping, the caller moves the bytes.
//!
//! Invariants:
//! 1. A pack is written once, under a random name that is used once, and never changes.
//! 2. A pack that was not finished has no footer, so it is never taken for a whole one.

use crate::codec::Codec;
use crate::error::{FormatError, Result};
use crate::index::{EncodedSegment, IndexRow, SegmentPlace, encode_segment};
use crate::names::{PackName, check_magic};
use crate::wire::{CHECKSUM_LEN, Input, checksum, put_varint};
use chipmink_types::{BlobKind, Digest, RepositoryId, TimeId};

/// First bytes of a pack.
pub const PACK_MAGIC: &[u8; 8] = b"chmkpack";
/// Last bytes of a finished pack.
pub const PACK_END_MAGIC: &[u8; 8] = b"chmkpend";
/// Bytes of a pack's header.
pub const PACK_HEADER_LEN: usize = 64;
/// Bytes from the end of a pack that hold the footer of any pack of this version: read so many to begin with.
pub const PACK_FOOTER_GUESS: u64 = 256;
/// Fixed bytes at the end of the footer: checksum, length of the body as u32 little-endian, magic.
const FOOTER_TAIL_LEN: usize = CHECKSUM_LEN + 4 + 8;
/// Bound on segments in one pack: its own and one merged segment for each level.
const SEGMENTS_MAX: usize = 64;

/// What a pack's header says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PackHeader {
    /// Its name.
    pub name: PackName,
    /// The repository for which it was written.
    pub repository: RepositoryId,
    /// Its birth number: that of the newest root entry when it was begun.
    pub born: TimeId,
}

impl PackHeader {
    /// The header's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(PACK_HEADER_LEN);
        out.extend_from_slice(PACK_MAGIC);
        out.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(&self.name.0);
        out.extend_from_slice(&self.repository.0);
        out.extend_from_slice(&self.born.0.to_le_bytes());
        let sum = checksum(&out);
        out.extend_from_slice(&sum);
        out
    }

    /// Decodes the first [`PACK_HEADER_LEN`] bytes of a pack; more may be given.
    ///
    /// # Errors
    /// When it is no pack, is cut off or damaged, or of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        check_magic("pack", PACK_MAGIC, bytes)?;
        let mut input = Input::new("pack header", bytes);
        let body = input.take(PACK_HEADER_LEN - CHECKSUM_LEN)?;
        if input.array()? != checksum(body) {
            return Err(input.damaged("its checksum fails"));
        }
        let mut input = Input::new("pack header", &body[8..]);
        let version = input.array::<8>()?;
        if version != [1, 0, 0, 0, 0, 0, 0, 0] {
            return Err(input.unsupported(format!("version and flags {version:02x?}")));
        }
        let (name, repository) = (PackName(input.array()?), RepositoryId(input.array()?));
        Ok(PackHeader { name, repository, born: TimeId(u64::from_le_bytes(input.array()?)) })
    }
}

/// A segment of a pack.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PlacedSegment {
    /// Its level: 0 is the pack's own index.
    pub level: u8,
    /// Where it lies.
    pub place: SegmentPlace,
}

/// Knows what has been written to a pack so far. It holds one row per blob and no blob.
#[derive(Debug)]
pub struct PackLayout {
    header: PackHeader,
    byte_len: u64,
    rows: Vec<IndexRow>,
}

/// The end of a pack and what is to be said of it in a root entry.
#[derive(Debug)]
pub struct FinishedPack {
    /// The bytes that follow the last blob: segments and footer.
    pub tail: Vec<u8>,
    /// The pack's own index.
    pub index: SegmentPlace,
    /// The merged segments that it carries, as given.
    pub merged: Vec<PlacedSegment>,
    /// Bytes of the whole pack.
    pub byte_len: u64,
    /// The rows of its own index, in the order in which the blobs were appended.
    pub rows: Vec<IndexRow>,
}

impl PackLayout {
    /// Starts a pack; returns the header bytes to write first.
    pub fn begin(header: PackHeader) -> (Self, Vec<u8>) {
        let bytes = header.encode();
        (PackLayout { header, byte_len: bytes.len() as u64, rows: Vec::new() }, bytes)
    }

    /// What the header says.
    pub const fn header(&self) -> &PackHeader {
        &self.header
    }

    /// Bytes written so far.
    pub const fn byte_len(&self) -> u64 {
        self.byte_len
    }

    /// The blobs so far.
    pub fn rows(&self) -> &[IndexRow] {
        &self.rows
    }

    /// Zero bytes to write so that the next blob begins at a multiple of `alignment`; counts them as written.
    pub fn pad_to(&mut self, alignment: u64) -> u64 {
        let padding = self.byte_len.next_multiple_of(alignment.max(1)) - self.byte_len;
        self.byte_len += padding;
        padding
    }

    /// Notes the next blob; returns its offset in bytes, where the caller writes its `stored_len` bytes.
    /// `base` is given for chunk deltas and only for them.
    pub fn append(
        &mut self,
        digest: Digest,
        kind: BlobKind,
        codec: Codec,
        decoded_len: u64,
        base: Option<Digest>,
        stored_len: u64,
    ) -> u64 {
        debug_assert!(base.is_some() == codec.is_delta(), "a base belongs to a delta");
        let byte_offset = self.byte_len;
        let kind = Some(kind);
        self.rows.push(IndexRow { digest, pack: 0, byte_offset, stored_len, decoded_len, codec, kind, base });
        self.byte_len += stored_len;
        byte_offset
    }

    /// Ends the pack. `merged` are segments over several packs that it carries beside its own index.
    pub fn finish(self, merged: &[EncodedSegment]) -> FinishedPack {
        let own = encode_segment(0, &[], self.rows.clone());
        let mut tail = Vec::with_capacity(own.bytes.len() + 128);
        let mut placed = Vec::with_capacity(1 + merged.len());
        for segment in std::iter::once(&own).chain(merged) {
            let place = SegmentPlace {
                byte_offset: self.byte_len + tail.len() as u64,
                byte_len: segment.bytes.len() as u64,
                head_len: segment.head_len,
            };
            placed.push(PlacedSegment { level: segment.level, place });
            tail.extend_from_slice(&segment.bytes);
        }
        let mut footer = Vec::with_capacity(32);
        put_varint(&mut footer, placed.len() as u64);
        for segment in &placed {
            footer.push(segment.level);
            segment.place.encode(&mut footer);
        }
        let body_len = footer.len() as u32;
        let sum = checksum(&footer);
        footer.extend_from_slice(&sum);
        footer.extend_from_slice(&body_len.to_le_bytes());
        footer.extend_from_slice(PACK_END_MAGIC);
        tail.extend_from_slice(&footer);
        let byte_len = self.byte_len + tail.len() as u64;
        let index = placed.remove(0).place;
        FinishedPack { tail, index, merged: placed, byte_len, rows: self.rows }
    }
}

/// What a pack's footer says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackFooter {
    /// Its segments; the first is its own index.
    pub segments: Vec<PlacedSegment>,
}

impl PackFooter {
    /// Decodes the footer from `tail`, the last bytes of a pack of `pack_len` bytes.
    ///
    /// # Errors
    /// [`FormatError::NeedMore`] when `tail` begins within the footer; else when the pack was not finished, is cut off
    /// or damaged.
    pub fn decode(tail: &[u8], pack_len: u64) -> Result<Self> {
        let bad = |reason: &'static str| FormatError::Damaged {
            what: "pack footer".into(),
            byte_offset: pack_len.saturating_sub(FOOTER_TAIL_LEN as u64),
            reason: reason.into(),
        };
        if tail.len() < FOOTER_TAIL_LEN {
            if pack_len <= tail.len() as u64 {
                return Err(bad("the pack is too short to have one"));
            }
            return Err(FormatError::NeedMore { needed: FOOTER_TAIL_LEN as u64 });
        }
        let (rest, end) = tail.split_at(tail.len() - FOOTER_TAIL_LEN);
        let mut input = Input::new("pack footer", end);
        let sum = input.array::<CHECKSUM_LEN>()?;
        let body_len = u32::from_le_bytes(input.array()?) as usize;
        if input.take(8)? != PACK_END_MAGIC {
            return Err(bad("it does not end as a finished pack does; the pack is cut off"));
        }
        let needed = body_len as u64 + FOOTER_TAIL_LEN as u64;
        if needed > pack_len {
            return Err(bad("it is longer than the pack"));
        }
        if body_len > rest.len() {
            return Err(FormatError::NeedMore { needed });
        }
        let body = &rest[rest.len() - body_len..];
        if checksum(body) != sum {
            return Err(bad("its checksum fails"));
        }
        let mut input = Input::new("pack footer", body);
        let count = input.count(4)?;
        if count == 0 || count > SEGMENTS_MAX {
            return Err(bad("it names no index segment, or too many"));
        }
        let mut segments = Vec::with_capacity(count);
        for _ in 0..count {
            let level = input.u8()?;
            let place = SegmentPlace::decode(&mut input)?;
            if place.byte_offset + place.byte_len > pack_len - needed {
                return Err(bad("an index segment lies outside the pack"));
            }
            segments.push(PlacedSegment { level, place });
        }
        input.end()?;
        Ok(PackFooter { segments })
    }
}

#[cfg(test)]
mod tests;
