//! The tables of one device: descriptors, digests, the list of dirty chunks.

use crate::Result;
use crate::driver::{Context, DeviceAllocator, DeviceBuffer, PinnedBuffer};
use chipmink_kernels::layout::{Chunk, Dirty, RawDigest, Totals};
use std::sync::Arc;

const TOTALS_LEN: u64 = size_of::<Totals>() as u64;
pub(crate) const DIRTY_LEN: u64 = size_of::<Dirty>() as u64;
const CHUNK_LEN: u64 = size_of::<Chunk>() as u64;
pub(crate) const RAW_LEN: u64 = size_of::<RawDigest>() as u64;

/// Tables for so many chunks: 85 bytes of device memory each (0.13 % of full chunks), and 32 of pinned memory.
#[derive(Debug)]
pub(crate) struct Tables {
    /// All of them, one after another.
    memory: DeviceBuffer,
    capacity: u32,
    /// Totals, and then the list, on the host.
    report: PinnedBuffer,
}

/// Where a table begins in the memory of all.
#[derive(Clone, Copy)]
pub(crate) struct Offsets {
    pub totals: u64,
    pub dirty: u64,
    pub chunks: u64,
    pub digests: u64,
    pub previous: u64,
    pub masks: u64,
    end: u64,
}

impl Offsets {
    fn of(capacity: u32) -> Self {
        let capacity = u64::from(capacity);
        let totals = 0;
        // The totals stand right before the list, so that one copy brings both.
        let dirty = totals + TOTALS_LEN;
        let chunks = dirty + capacity * DIRTY_LEN;
        let digests = chunks + capacity * CHUNK_LEN;
        let previous = digests + capacity * RAW_LEN;
        let masks = previous + capacity * RAW_LEN;
        Offsets { totals, dirty, chunks, digests, previous, masks, end: masks + capacity.div_ceil(32) * 4 }
    }
}

impl Tables {
    pub(crate) fn new(
        context: &Arc<Context>,
        allocator: &dyn DeviceAllocator,
        capacity: u32,
    ) -> Result<Self> {
        let memory = DeviceBuffer::new(context, allocator, "tables", Offsets::of(capacity).end)?;
        let report =
            PinnedBuffer::new(context, "pinned memory", TOTALS_LEN + u64::from(capacity) * DIRTY_LEN)?;
        Ok(Tables { memory, capacity, report })
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Offsets in [`Tables::memory`].
    pub(crate) fn offsets(&self) -> Offsets {
        Offsets::of(self.capacity)
    }

    pub(crate) fn memory(&self) -> &DeviceBuffer {
        &self.memory
    }

    /// Where the host has a copy of totals and list, at the same offsets.
    pub(crate) fn report(&self) -> &PinnedBuffer {
        &self.report
    }

    /// Addresses on the device.
    pub(crate) fn addresses(&self) -> Offsets {
        let (at, base) = (self.offsets(), self.memory.address());
        Offsets {
            totals: base + at.totals,
            dirty: base + at.dirty,
            chunks: base + at.chunks,
            digests: base + at.digests,
            previous: base + at.previous,
            masks: base + at.masks,
            end: base + at.end,
        }
    }
}

/// The totals in the bytes of a report.
pub(crate) fn read_totals(bytes: &[u8]) -> Totals {
    Totals { byte_len: word64(bytes, 0), dirty_count: word32(bytes, 8), fitting_count: word32(bytes, 12) }
}

/// The entries in the bytes of a list.
pub(crate) fn read_list(bytes: &[u8]) -> Vec<Dirty> {
    let entry = |bytes: &[u8]| Dirty {
        byte_offset: word64(bytes, 0),
        number: word32(bytes, 8),
        byte_len: word32(bytes, 12),
        digest: RawDigest { low: word64(bytes, 16), high: word64(bytes, 24) },
    };
    bytes.chunks_exact(DIRTY_LEN as usize).map(entry).collect()
}

/// The digests in the bytes of a table.
pub(crate) fn read_digests(bytes: &[u8]) -> Vec<RawDigest> {
    let digest = |bytes: &[u8]| RawDigest { low: word64(bytes, 0), high: word64(bytes, 8) };
    bytes.chunks_exact(RAW_LEN as usize).map(digest).collect()
}

/// Bytes of totals and entries, as a device takes them.
pub(crate) fn list_bytes(totals: Totals, list: &[Dirty]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity((TOTALS_LEN + DIRTY_LEN * list.len() as u64) as usize);
    bytes.extend_from_slice(&totals.byte_len.to_le_bytes());
    bytes.extend_from_slice(&totals.dirty_count.to_le_bytes());
    bytes.extend_from_slice(&totals.fitting_count.to_le_bytes());
    for entry in list {
        bytes.extend_from_slice(&entry.byte_offset.to_le_bytes());
        bytes.extend_from_slice(&entry.number.to_le_bytes());
        bytes.extend_from_slice(&entry.byte_len.to_le_bytes());
        bytes.extend_from_slice(&digest_bytes(entry.digest));
    }
    bytes
}

/// Bytes of descriptors.
pub(crate) fn chunk_bytes(chunks: &[Chunk]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(chunks.len() * CHUNK_LEN as usize);
    for chunk in chunks {
        bytes.extend_from_slice(&chunk.address.to_le_bytes());
        bytes.extend_from_slice(&chunk.byte_len.to_le_bytes());
        bytes.extend_from_slice(&chunk.slot.to_le_bytes());
    }
    bytes
}

/// Bytes of a digest as a table has it.
pub(crate) fn digest_bytes(digest: RawDigest) -> [u8; 16] {
    (u128::from(digest.high) << 64 | u128::from(digest.low)).to_le_bytes()
}

fn word64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn word32(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_comes_back_from_its_bytes() {
        let digest = RawDigest { low: 3, high: u64::MAX - 1 };
        let list = [
            Dirty { byte_offset: 7, number: 1, byte_len: 2, digest },
            Dirty { byte_offset: u64::MAX, number: 4, byte_len: 5, digest: RawDigest::UNKNOWN },
        ];
        let totals = Totals { byte_len: 9, dirty_count: 2, fitting_count: 1 };
        let bytes = list_bytes(totals, &list);
        assert_eq!(read_totals(&bytes), totals);
        assert_eq!(read_list(&bytes[TOTALS_LEN as usize..]), list);
        assert_eq!(read_digests(&digest_bytes(digest)), [digest]);
    }

    #[test]
    fn tables_begin_where_their_entries_can_be_read_at_once() {
        for capacity in [0, 1, 31, 33, 1 << 20] {
            let at = Offsets::of(capacity);
            for offset in [at.totals, at.dirty, at.chunks, at.digests, at.previous, at.masks] {
                assert_eq!(offset % 16, 0);
            }
        }
    }
}
