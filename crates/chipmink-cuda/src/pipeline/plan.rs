//! The set of regions that is captured, as descriptors.

use super::DeviceRegion;
use crate::{CudaError, Result};
use chipmink_kernels::layout::{Chunk, STAGED_ALIGNMENT};

/// More would not be counted by a signed number of 32 bits; of full chunks they are 64 TiB.
const CHUNKS_MOST: u64 = 1 << 30;

/// The regions of one capture and their chunks, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    regions: Vec<DeviceRegion>,
    /// Number of the first descriptor of each region, and of all at the end.
    firsts: Vec<u32>,
    /// Bytes that all chunks take up when they are staged.
    pub staged_len: u64,
}

impl Plan {
    /// # Errors
    /// When there are more chunks than a table can have.
    pub(crate) fn new(regions: &[DeviceRegion]) -> Result<Self> {
        let mut firsts = Vec::with_capacity(regions.len() + 1);
        let (mut count, mut staged_len) = (0u64, 0u64);
        for region in regions {
            firsts.push(count as u32);
            count = count.saturating_add(region.grid.chunk_count());
            if count > CHUNKS_MOST {
                return Err(CudaError::TooManyChunks { chunk_count: count, most: CHUNKS_MOST });
            }
            staged_len +=
                region.grid.chunks().map(|(_, len)| len.next_multiple_of(STAGED_ALIGNMENT)).sum::<u64>();
        }
        firsts.push(count as u32);
        Ok(Plan { regions: regions.to_vec(), firsts, staged_len })
    }

    pub(crate) fn regions(&self) -> &[DeviceRegion] {
        &self.regions
    }

    pub(crate) fn chunk_count(&self) -> u32 {
        self.firsts.last().copied().unwrap_or(0)
    }

    /// Number of a chunk's descriptor.
    pub(crate) fn number(&self, region: usize, ordinal: u64) -> u32 {
        self.firsts[region] + ordinal as u32
    }

    /// Region and ordinal of a descriptor; `None`: there is no such one.
    pub(crate) fn place(&self, number: u32) -> Option<(usize, u64)> {
        if number >= self.chunk_count() {
            return None;
        }
        // Of regions without a chunk and the next one, which have one number, the last.
        let region = self.firsts.partition_point(|first| *first <= number) - 1;
        Some((region, u64::from(number - self.firsts[region])))
    }

    /// The descriptors, given the first slot of each region.
    pub(crate) fn chunks(&self, first_slots: &[u32]) -> Vec<Chunk> {
        let mut chunks = Vec::with_capacity(self.chunk_count() as usize);
        for (region, first) in self.regions.iter().zip(first_slots) {
            for (ordinal, (byte_offset, byte_len)) in region.grid.chunks().enumerate() {
                chunks.push(Chunk {
                    address: region.address + byte_offset,
                    byte_len: byte_len as u32,
                    slot: first + ordinal as u32,
                });
            }
        }
        chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chipmink_digest::{CHUNK_LEN, Grid};

    fn region(address: u64, byte_len: u64) -> DeviceRegion {
        DeviceRegion { address, grid: Grid::run(byte_len) }
    }

    #[test]
    fn each_descriptor_has_one_place() {
        let regions = [region(1, 0), region(7, CHUNK_LEN + 1), region(3, 0), region(4, 5)];
        let plan = Plan::new(&regions).unwrap();
        assert_eq!(plan.chunk_count(), 3);
        assert_eq!([0, 1, 2, 3].map(|n| plan.place(n)), [Some((1, 0)), Some((1, 1)), Some((3, 0)), None]);
        assert_eq!(plan.number(1, 1), 1);
        let chunks = plan.chunks(&[9, 10, 20, 30]);
        assert_eq!(chunks[1], Chunk { address: 7 + CHUNK_LEN, byte_len: 1, slot: 11 });
        assert_eq!(chunks[2], Chunk { address: 4, byte_len: 5, slot: 30 });
        assert_eq!(plan.staged_len, CHUNK_LEN + 16 + 16);
    }

    #[test]
    fn more_chunks_than_can_be_numbered_are_refused_before_anything_is_allocated() {
        assert!(Plan::new(&[region(0, u64::MAX)]).is_err());
    }
}
