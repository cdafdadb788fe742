//! Index segments: from digest to place.
//!
//! A segment is a head and then blocks of rows in ascending order of digest. The head holds the names of the packs, a
//! fence (first digest, length) for each block and a filter, so a lookup is: filter, fences, one block by range read. A
//! pack's own index and the merged index of many packs have this one layout; the former names no packs and means the
//! pack in which it stands.
//!
//! Invariants:
//! 1. Rows with one digest (copies in several packs) stand in one block, by ascending pack.
//! 2. Head and blocks each carry a checksum, so a damaged one is an error and never a missing blob.

mod filter;
mod row;

pub use row::IndexRow;

use crate::error::{FormatError, Result};
use crate::names::PackName;
use crate::wire::{CHECKSUM_LEN, Input, checksum, put_varint};
use chipmink_types::{DIGEST_LEN, Digest};
use filter::Filter;
use row::{ROW_LEN_MIN, put_shared, shared};

const LETTER: u8 = b'I';
/// Fixed bytes at the start of a head: letter, version, length of the whole head as u32 little-endian.
pub const SEGMENT_PREFIX_LEN: usize = 6;
/// Rows of a block take about this many bytes.
const BLOCK_LEN: usize = 4096;

/// Where a segment lies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SegmentPlace {
    /// Where it begins, in bytes from the start of its pack.
    pub byte_offset: u64,
    /// Bytes of the whole segment.
    pub byte_len: u64,
    /// Bytes of its head, which come first.
    pub head_len: u64,
}

impl SegmentPlace {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.byte_offset);
        put_varint(out, self.byte_len);
        put_varint(out, self.head_len);
    }

    pub(crate) fn decode(input: &mut Input<'_>) -> Result<Self> {
        let place = SegmentPlace {
            byte_offset: input.varint()?,
            byte_len: input.varint()?,
            head_len: input.varint()?,
        };
        if place.byte_offset.checked_add(place.byte_len).is_none() || place.head_len > place.byte_len {
            return Err(input.damaged("an index segment does not fit its place"));
        }
        Ok(place)
    }
}

/// A block of a segment, as its head describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fence {
    /// Digest of the block's first row.
    pub first: Digest,
    /// Where the block begins, in bytes from the start of the segment.
    pub byte_offset: u64,
    /// Its bytes, with the checksum.
    pub byte_len: u64,
}

/// The head of a segment: all that is needed to find the block of a digest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentHead {
    /// 0 for a pack's own index; a merge of segments of level n has level n + 1.
    pub level: u8,
    /// The packs that rows name by ordinal; empty: the pack in which the segment stands.
    pub packs: Vec<PackName>,
    /// Rows in all blocks.
    pub row_count: u64,
    /// The blocks.
    pub blocks: Vec<Fence>,
    filter: Filter,
}

/// A segment, encoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedSegment {
    /// Its level.
    pub level: u8,
    /// Head and blocks.
    pub bytes: Vec<u8>,
    /// Bytes of the head.
    pub head_len: u64,
}

/// Encodes the segment over `rows`, in any order. `packs` is empty for a pack's own index, whose rows have ordinal 0.
pub fn encode_segment(level: u8, packs: &[PackName], mut rows: Vec<IndexRow>) -> EncodedSegment {
    rows.sort_unstable_by_key(|row| (row.digest, row.pack, row.byte_offset));
    let mut blocks = Vec::new();
    let mut fences: Vec<(Digest, usize)> = Vec::new();
    let mut block = Vec::new();
    let mut before: Option<Digest> = None;
    let mut first = None;
    let mut close = |block: &mut Vec<u8>, first: &mut Option<Digest>| {
        let Some(first) = first.take() else { return };
        let sum = checksum(block);
        block.extend_from_slice(&sum);
        fences.push((first, block.len()));
        blocks.append(block);
    };
    for row in &rows {
        if block.len() >= BLOCK_LEN && before != Some(row.digest) {
            close(&mut block, &mut first);
            before = None;
        }
        first.get_or_insert(row.digest);
        row.encode(before.as_ref(), !packs.is_empty(), &mut block);
        before = Some(row.digest);
    }
    close(&mut block, &mut first);
    let filter = match fences.len() {
        // One block is read anyway.
        0 | 1 => Filter::default(),
        _ => Filter::of(rows.len(), rows.iter().map(|row| &row.digest)),
    };
    let mut bytes = encode_head(level, packs, rows.len(), &fences, &filter);
    let head_len = bytes.len() as u64;
    bytes.append(&mut blocks);
    EncodedSegment { level, bytes, head_len }
}

fn encode_head(
    level: u8,
    packs: &[PackName],
    rows: usize,
    fences: &[(Digest, usize)],
    filter: &Filter,
) -> Vec<u8> {
    let mut out = vec![LETTER, 1, 0, 0, 0, 0, level];
    put_varint(&mut out, packs.len() as u64);
    packs.iter().for_each(|name| out.extend_from_slice(&name.0));
    put_varint(&mut out, rows as u64);
    put_varint(&mut out, fences.len() as u64);
    let mut before = None;
    for (first, byte_len) in fences {
        put_shared(before, first, &mut out);
        put_varint(&mut out, *byte_len as u64);
        before = Some(first);
    }
    filter.encode(&mut out);
    let head_len = (out.len() + CHECKSUM_LEN) as u32;
    out[2..SEGMENT_PREFIX_LEN].copy_from_slice(&head_len.to_le_bytes());
    let sum = checksum(&out);
    out.extend_from_slice(&sum);
    out
}

impl SegmentHead {
    /// Decodes the head, which stands at the start of `bytes`; what follows it is not looked at. `byte_len` is the
    /// length of the whole segment.
    ///
    /// # Errors
    /// When the head is cut off, damaged, of a later version, or its blocks do not fill the segment exactly.
    pub fn decode(bytes: &[u8], byte_len: u64) -> Result<Self> {
        let mut prefix = Input::with_header("index segment", LETTER, bytes)?;
        let head_len = u32::from_le_bytes(prefix.array()?) as usize;
        if head_len > bytes.len() || head_len < SEGMENT_PREFIX_LEN + CHECKSUM_LEN {
            return Err(prefix.damaged(format!("a head of {head_len} bytes in {}", bytes.len())));
        }
        let (body, sum) = bytes[..head_len].split_at(head_len - CHECKSUM_LEN);
        if checksum(body) != sum {
            return Err(prefix.damaged("the checksum of the head fails"));
        }
        let mut input = Input::new("index segment", body);
        input.take(SEGMENT_PREFIX_LEN)?;
        let level = input.u8()?;
        let pack_count = input.count(16)?;
        let packs = (0..pack_count).map(|_| input.array().map(PackName)).collect::<Result<Vec<_>>>()?;
        let row_count = input.varint()?;
        let block_count = input.count(2)?;
        let mut blocks: Vec<Fence> = Vec::with_capacity(block_count);
        let mut byte_offset = head_len as u64;
        for _ in 0..block_count {
            let first = shared(&mut input, blocks.last().map(|fence| &fence.first))?;
            if blocks.last().is_some_and(|fence| fence.first >= first) {
                return Err(input.damaged("fences do not ascend"));
            }
            let len = input.varint()?;
            let end = byte_offset.checked_add(len).filter(|end| *end <= byte_len);
            let Some(end) = end.filter(|_| len > CHECKSUM_LEN as u64) else {
                return Err(input.damaged("a block does not fit the segment"));
            };
            blocks.push(Fence { first, byte_offset, byte_len: len });
            byte_offset = end;
        }
        if byte_offset != byte_len {
            return Err(
                input.damaged(format!("head and blocks have {byte_offset} bytes, the segment {byte_len}"))
            );
        }
        let filter = Filter::decode(&mut input)?;
        input.end()?;
        Ok(SegmentHead { level, packs, row_count, blocks, filter })
    }

    /// `false`: the segment surely does not hold the blob.
    pub fn may_hold(&self, digest: &Digest) -> bool {
        self.filter.may_hold(digest)
    }

    /// The one block that can hold the blob, after the filter was asked.
    pub fn block_for(&self, digest: &Digest) -> Option<&Fence> {
        if !self.may_hold(digest) {
            return None;
        }
        let after = self.blocks.partition_point(|fence| fence.first <= *digest);
        after.checked_sub(1).map(|at| &self.blocks[at])
    }

    /// The rows of a block, given the bytes that its fence tells of.
    ///
    /// # Errors
    /// When the block is damaged or of another fence.
    pub fn decode_block(&self, fence: &Fence, bytes: &[u8]) -> Result<Vec<IndexRow>> {
        let mut rows: Vec<IndexRow> = Vec::with_capacity(bytes.len() / (DIGEST_LEN + ROW_LEN_MIN));
        let bad = |reason: &'static str| FormatError::Damaged {
            what: "index block".into(),
            byte_offset: fence.byte_offset,
            reason: reason.into(),
        };
        if bytes.len() as u64 != fence.byte_len || bytes.len() < CHECKSUM_LEN {
            return Err(bad("it is not as long as its fence says"));
        }
        let (body, sum) = bytes.split_at(bytes.len() - CHECKSUM_LEN);
        if checksum(body) != sum {
            return Err(bad("its checksum fails"));
        }
        let mut input = Input::new("index block", body);
        while !input.is_at_end() {
            let before = rows.last().map(|row| row.digest);
            let row = IndexRow::decode(&mut input, before.as_ref(), self.packs.len())?;
            if before.is_some_and(|before| before > row.digest) {
                return Err(bad("its rows do not ascend"));
            }
            rows.push(row);
        }
        if rows.first().map(|row| row.digest) != Some(fence.first) {
            return Err(bad("it does not begin with its fence"));
        }
        Ok(rows)
    }

    /// The rows of a blob in its block: more than one if several packs hold it, none if it is not there.
    ///
    /// # Errors
    /// As [`SegmentHead::decode_block`].
    pub fn find_in_block(&self, fence: &Fence, bytes: &[u8], digest: &Digest) -> Result<Vec<IndexRow>> {
        let mut rows = self.decode_block(fence, bytes)?;
        rows.retain(|row| row.digest == *digest);
        Ok(rows)
    }
}

/// Decodes a whole segment: its head and all rows, in ascending order of digest.
///
/// # Errors
/// When head or any block is damaged.
pub fn decode_segment(bytes: &[u8]) -> Result<(SegmentHead, Vec<IndexRow>)> {
    let head = SegmentHead::decode(bytes, bytes.len() as u64)?;
    let mut rows: Vec<IndexRow> = Vec::new();
    for fence in &head.blocks {
        let start = fence.byte_offset as usize;
        let mut more = head.decode_block(fence, &bytes[start..start + fence.byte_len as usize])?;
        if rows.last().zip(more.first()).is_some_and(|(last, first)| last.digest >= first.digest) {
            return Err(FormatError::Damaged {
                what: "index segment".into(),
                byte_offset: fence.byte_offset,
                reason: "blocks do not ascend".into(),
            });
        }
        rows.append(&mut more);
    }
    if rows.len() as u64 != head.row_count {
        return Err(FormatError::Damaged {
            what: "index segment".into(),
            byte_offset: 0,
            reason: format!("{} rows, its head says {}", rows.len(), head.row_count).into(),
        });
    }
    Ok((head, rows))
}

/// One part of a merge: a decoded segment, and the pack in which it stands if its head names none.
#[derive(Clone, Copy, Debug)]
pub struct MergePart<'a> {
    /// Its head.
    pub head: &'a SegmentHead,
    /// Its rows.
    pub rows: &'a [IndexRow],
    /// The pack that holds it.
    pub stands_in: PackName,
}

/// The merged segment of several: one level above the highest of them.
pub fn merge_segments(parts: &[MergePart<'_>]) -> EncodedSegment {
    let mut packs: Vec<PackName> = Vec::new();
    let mut ordinal = |name: PackName| match packs.iter().position(|other| *other == name) {
        Some(at) => at as u32,
        None => {
            packs.push(name);
            packs.len() as u32 - 1
        }
    };
    let mut rows = Vec::new();
    for part in parts {
        let own = [part.stands_in];
        let names = if part.head.packs.is_empty() { &own[..] } else { &part.head.packs };
        let ordinals: Vec<u32> = names.iter().map(|name| ordinal(*name)).collect();
        rows.extend(part.rows.iter().map(|row| IndexRow { pack: ordinals[row.pack as usize], ..*row }));
    }
    rows.sort_unstable_by_key(|row| (row.digest, row.pack, row.byte_offset));
    rows.dedup();
    let level = parts.iter().map(|part| part.head.level).max().unwrap_or(0).saturating_add(1);
    encode_segment(level, &packs, rows)
}

#[cfg(test)]
mod tests;
