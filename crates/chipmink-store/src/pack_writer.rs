//! [`PackWriter`]: a pack on its way to the store, blob by blob.

use crate::backend::Backend;
use crate::block_writer::{BLOCK_LEN, BlockWriter};
use crate::error::{Result, StoreError};
use crate::random;
use chipmink_format::{
    Codec, EncodedSegment, IndexRow, PackHeader, PackInfo, PackLayout, PackName, SegmentInfo, pack_path,
};
use chipmink_types::{BlobKind, Digest, RepositoryId, TimeId};

/// Memory for the first block: most packs are small.
const FIRST_LEN: usize = 64 << 10;
/// Chunks of whole pages that are stored as they are begin at multiples of a page, so that they can be mapped (the last
/// chunk of a region then mostly does, too). On a machine with larger pages they are read.
const ALIGNMENT: usize = 4096;
/// Shorter chunks are not worth the padding.
const ALIGNED_LEN: usize = 32 << 10;
/// The first chunk of many that follow each other begins at a multiple of a larger power of two, at most a block, so that
/// they lie in large pages of the file cache and are mapped by many at once: reading 512 MiB through a mapping took 1.35
/// times as long from pages of 4 KiB. The padding is at most this part of them.
const PADDING_PART: u64 = 64;

/// A pack that is being written.
#[derive(Debug)]
pub(crate) struct PackWriter {
    layout: PackLayout,
    output: BlockWriter,
    /// Less than [`BLOCK_LEN`] bytes.
    block: Vec<u8>,
    path: String,
    label: String,
    /// Chunks are aligned: the pack will be a file that can be mapped.
    aligns: bool,
    /// Of the region that is being put something was aligned already.
    run_began: bool,
}

/// A pack that stands in its place, and is not published yet.
#[derive(Debug)]
pub(crate) struct SealedPack {
    pub(crate) info: PackInfo,
    pub(crate) segments: Vec<SegmentInfo>,
    pub(crate) rows: Vec<IndexRow>,
}

/// A merged index segment and the packs whose own it replaces.
#[derive(Debug)]
pub(crate) struct Merged {
    pub(crate) segment: EncodedSegment,
    pub(crate) covers: Vec<PackName>,
}

impl PackWriter {
    pub(crate) fn begin(backend: &Backend, repository: RepositoryId, born: TimeId) -> Result<Self> {
        PackWriter::begin_as(backend, PackHeader { name: PackName(random::bytes()), repository, born })
    }

    /// As [`PackWriter::begin`], with a name that nobody has used.
    pub(crate) fn begin_as(backend: &Backend, header: PackHeader) -> Result<Self> {
        let path = pack_path(header.name);
        let output = backend.create_pack(&path)?;
        let (layout, bytes) = PackLayout::begin(header);
        let mut block = Vec::with_capacity(FIRST_LEN);
        block.extend_from_slice(&bytes);
        let (label, aligns) = (backend.label().to_owned(), backend.files().is_some());
        let output = BlockWriter::new(output, aligns);
        Ok(PackWriter { layout, output, block, path, label, aligns, run_began: false })
    }

    pub(crate) fn byte_len(&self) -> u64 {
        self.layout.byte_len()
    }

    pub(crate) fn name(&self) -> PackName {
        self.layout.header().name
    }

    /// Whether to append so many bytes now would wait for a place far away.
    pub(crate) fn would_wait(&self, byte_len: usize) -> bool {
        let byte_len = self.block.len() + byte_len;
        byte_len >= BLOCK_LEN && self.output.would_wait(byte_len)
    }

    /// The next chunks are those of another region.
    pub(crate) fn begin_region(&mut self) {
        self.run_began = false;
    }

    /// Lets the next blob, a chunk, begin where it can be mapped, if it can be at all. `expected`: bytes that are put of its
    /// region from here on, as far as that is known.
    pub(crate) fn align_chunk(&mut self, codec: Codec, byte_len: usize, expected: u64) -> Result<()> {
        let can_be_mapped =
            codec == Codec::Raw && byte_len >= ALIGNED_LEN && byte_len.is_multiple_of(ALIGNMENT);
        if !self.aligns || !can_be_mapped {
            return Ok(());
        }
        let alignment = match std::mem::replace(&mut self.run_began, true) {
            true => ALIGNMENT as u64,
            false => run_alignment(expected),
        };
        let mut padding = self.layout.pad_to(alignment) as usize;
        while padding > 0 {
            let now = padding.min(ALIGNMENT);
            self.write(&[0; ALIGNMENT][..now])?;
            padding -= now;
        }
        Ok(())
    }

    /// Appends a blob as it is stored; returns where it begins. `base` is that of a delta.
    pub(crate) fn put(
        &mut self,
        digest: Digest,
        kind: BlobKind,
        codec: Codec,
        decoded_len: u64,
        base: Option<Digest>,
        stored: &[u8],
    ) -> Result<u64> {
        let byte_offset = self.layout.append(digest, kind, codec, decoded_len, base, stored.len() as u64);
        self.write(stored)?;
        Ok(byte_offset)
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while self.block.len() + bytes.len() >= BLOCK_LEN {
            let (now, later) = bytes.split_at(BLOCK_LEN - self.block.len());
            self.block.extend_from_slice(now);
            let full = std::mem::take(&mut self.block);
            self.block = self.output.write(full).map_err(|error| failed(&self.path, &self.label, error))?;
            bytes = later;
        }
        self.block.extend_from_slice(bytes);
        Ok(())
    }

    /// Ends the pack and puts it in its place.
    pub(crate) fn seal(self, merged: Option<Merged>, is_synced: bool) -> Result<SealedPack> {
        let PackWriter { layout, output, block, path, label, .. } = self;
        let header = *layout.header();
        let (segments, covers) =
            merged.map(|merged| (vec![merged.segment], merged.covers)).unwrap_or_default();
        let finished = layout.finish(&segments);
        output.finish(&[&block, &finished.tail]).map_err(|error| failed(&path, &label, error))?;
        let placed = finished.merged.iter().map(|segment| SegmentInfo {
            pack: header.name,
            place: segment.place,
            level: segment.level,
            covers: covers.clone(),
        });
        let info = PackInfo {
            name: header.name,
            byte_len: finished.byte_len,
            index: finished.index,
            born: header.born,
            is_synced,
        };
        Ok(SealedPack { info, segments: placed.collect(), rows: finished.rows })
    }
}

fn failed(path: &str, label: &str, error: object_store::Error) -> StoreError {
    StoreError::storage(format!("writing {path} in {label}"), error)
}

/// What the first of so many bytes of chunks is aligned to: a power of two of at least a page.
fn run_alignment(expected: u64) -> u64 {
    let most = (expected / PADDING_PART).clamp(ALIGNMENT as u64, BLOCK_LEN as u64);
    1 << most.ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_a_small_part_of_what_it_is_for() {
        assert_eq!(run_alignment(0), 4096);
        assert_eq!(run_alignment(64 << 10), 4096);
        assert_eq!(run_alignment(4 << 20), 64 << 10);
        assert_eq!(run_alignment((4 << 20) - 1), 32 << 10);
        assert_eq!(run_alignment(1 << 30), 256 << 10);
        assert_eq!(run_alignment(u64::MAX), 256 << 10);
    }
}
