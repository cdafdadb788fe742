//! [`PackWriter`]: a pack on its way to the store, blob by blob.

use crate::backend::Backend;
use crate::error::{Result, StoreError};
use crate::local::PackOutput;
use crate::random;
use chipmink_format::{
    Codec, EncodedSegment, IndexRow, PackHeader, PackInfo, PackLayout, PackName, SegmentInfo, pack_path,
};
use chipmink_types::{BlobKind, Digest, RepositoryId, TimeId};

/// Bytes that are gathered before they are written.
const BUFFER_LEN: usize = 1 << 20;
/// Blobs of this length are not copied into the buffer: a system call costs less than the copy.
const DIRECT_LEN: usize = 64 << 10;

/// Chunks of whole pages that are stored as they are begin at multiples of a page, so that they can be mapped (the last
/// chunk of a region then mostly does, too). On a machine with larger pages they are read.
const ALIGNMENT: usize = 4096;
/// Shorter chunks are not worth the padding.
const ALIGNED_LEN: usize = 32 << 10;

/// A pack that is being written.
#[derive(Debug)]
pub(crate) struct PackWriter {
    layout: PackLayout,
    output: Box<dyn PackOutput>,
    buffer: Vec<u8>,
    path: String,
    label: String,
    /// Chunks are aligned: the pack will be a file that can be mapped.
    aligns: bool,
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
        let header = PackHeader { name: PackName(random::bytes()), repository, born };
        let path = pack_path(header.name);
        let output = backend.create_pack(&path)?;
        let (layout, bytes) = PackLayout::begin(header);
        let mut buffer = Vec::with_capacity(BUFFER_LEN);
        buffer.extend_from_slice(&bytes);
        let (label, aligns) = (backend.label().to_owned(), backend.files().is_some());
        Ok(PackWriter { layout, output, buffer, path, label, aligns })
    }

    pub(crate) fn byte_len(&self) -> u64 {
        self.layout.byte_len()
    }

    pub(crate) fn name(&self) -> PackName {
        self.layout.header().name
    }

    fn failed(&self, error: object_store::Error) -> StoreError {
        StoreError::storage(format!("writing {} in {}", self.path, self.label), error)
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
        let can_be_mapped = kind == BlobKind::Chunk
            && codec == Codec::Raw
            && stored.len() >= ALIGNED_LEN
            && stored.len().is_multiple_of(ALIGNMENT);
        if self.aligns && can_be_mapped {
            let padding = self.layout.pad_to(ALIGNMENT as u64);
            self.write(&[0; ALIGNMENT][..padding as usize])?;
        }
        let byte_offset = self.layout.append(digest, kind, codec, decoded_len, base, stored.len() as u64);
        self.write(stored)?;
        Ok(byte_offset)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() >= DIRECT_LEN {
            self.output.write(&[&self.buffer, bytes]).map_err(|error| self.failed(error))?;
            self.buffer.clear();
            return Ok(());
        }
        if self.buffer.len() + bytes.len() > BUFFER_LEN {
            self.output.write(&[&self.buffer]).map_err(|error| self.failed(error))?;
            self.buffer.clear();
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Ends the pack and puts it in its place.
    pub(crate) fn seal(mut self, merged: Option<Merged>, is_synced: bool) -> Result<SealedPack> {
        let header = *self.layout.header();
        let placeholder = PackLayout::begin(header).0;
        let layout = std::mem::replace(&mut self.layout, placeholder);
        let (segments, covers) =
            merged.map(|merged| (vec![merged.segment], merged.covers)).unwrap_or_default();
        let finished = layout.finish(&segments);
        self.output.write(&[&self.buffer, &finished.tail]).map_err(|error| self.failed(error))?;
        self.output.finish().map_err(|error| self.failed(error))?;
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
