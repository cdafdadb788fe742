//! Where the chunks of a region begin.
//!
//! Invariants:
//! 1. Chunks are in order, touch each other, cover the region, and none is empty or longer than [`CHUNK_LEN`].
//! 2. A region of no bytes has no chunks.
//! 3. No arithmetic here wraps, whatever the (possibly hostile) record says.

use crate::DigestError;
use chipmink_types::{GridKind, RegionRecord};

/// Bytes of a full chunk.
pub const CHUNK_LEN: u64 = 64 * 1024;

/// How one region is cut, with its numbers checked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Grid {
    kind: GridKind,
    /// Bytes of a row; at least one chunk. Only of [`GridKind::Rows`].
    row_len: u64,
    /// Bytes of the first chunk, 1 to [`CHUNK_LEN`].
    first_chunk_len: u64,
    byte_len: u64,
}

impl Grid {
    /// The grid of a contiguous region: full chunks from its start.
    pub const fn run(byte_len: u64) -> Self {
        Grid { kind: GridKind::Run, row_len: 0, first_chunk_len: CHUNK_LEN, byte_len }
    }

    /// A grid of any kind. `row_len` is 0 unless the kind is `Rows`; `first_chunk_len` is 0 unless it is `Shard`, where
    /// 0 means a full chunk.
    ///
    /// # Errors
    /// When rows are shorter than a chunk, the first chunk is longer than one, or a number is given to a kind that has
    /// none.
    pub fn new(
        kind: GridKind,
        row_len: u64,
        first_chunk_len: u64,
        byte_len: u64,
    ) -> Result<Self, DigestError> {
        let bad = |reason: String| Err(DigestError::BadGrid { reason });
        match kind {
            GridKind::Rows if row_len < CHUNK_LEN => {
                return bad(format!("rows of {row_len} bytes, at least {CHUNK_LEN} are needed"));
            }
            GridKind::Run | GridKind::Shard if row_len != 0 => {
                return bad(format!("a row length of {row_len} in a grid without rows"));
            }
            GridKind::Run | GridKind::Rows if first_chunk_len != 0 => {
                return bad(format!(
                    "a first chunk of {first_chunk_len} bytes in a grid that starts at the region"
                ));
            }
            GridKind::Shard if first_chunk_len > CHUNK_LEN => {
                return bad(format!(
                    "a first chunk of {first_chunk_len} bytes, at most {CHUNK_LEN} are allowed"
                ));
            }
            _ => {}
        }
        let first_chunk_len = if first_chunk_len == 0 { CHUNK_LEN } else { first_chunk_len };
        Ok(Grid { kind, row_len, first_chunk_len, byte_len })
    }

    /// The grid that a record describes.
    ///
    /// # Errors
    /// As [`Grid::new`].
    pub fn of(record: &RegionRecord) -> Result<Self, DigestError> {
        Grid::new(record.grid, record.row_len, record.first_chunk_len, record.byte_len)
    }

    /// Bytes of the whole region.
    pub const fn byte_len(&self) -> u64 {
        self.byte_len
    }

    /// How many chunks there are.
    pub const fn chunk_count(&self) -> u64 {
        match self.kind {
            GridKind::Run => self.byte_len.div_ceil(CHUNK_LEN),
            GridKind::Rows => {
                let per_row = self.row_len.div_ceil(CHUNK_LEN);
                // At most one chunk per 32 KiB, as a row has at least CHUNK_LEN bytes: this cannot overflow.
                self.byte_len / self.row_len * per_row + (self.byte_len % self.row_len).div_ceil(CHUNK_LEN)
            }
            GridKind::Shard => {
                if self.byte_len <= self.first_chunk_len {
                    (self.byte_len > 0) as u64
                } else {
                    1 + (self.byte_len - self.first_chunk_len).div_ceil(CHUNK_LEN)
                }
            }
        }
    }

    /// Offset and length, in bytes, of the chunk with this ordinal; `None` past the last.
    pub fn chunk(&self, ordinal: u64) -> Option<(u64, u64)> {
        if ordinal >= self.chunk_count() {
            return None;
        }
        let (byte_offset, limit) = match self.kind {
            GridKind::Run => (ordinal * CHUNK_LEN, CHUNK_LEN),
            GridKind::Rows => {
                let per_row = self.row_len.div_ceil(CHUNK_LEN);
                let within = ordinal % per_row * CHUNK_LEN;
                (ordinal / per_row * self.row_len + within, CHUNK_LEN.min(self.row_len - within))
            }
            GridKind::Shard if ordinal == 0 => (0, self.first_chunk_len),
            GridKind::Shard => (self.first_chunk_len + (ordinal - 1) * CHUNK_LEN, CHUNK_LEN),
        };
        Some((byte_offset, limit.min(self.byte_len - byte_offset)))
    }

    /// Every chunk in order: offset and length in bytes.
    pub const fn chunks(&self) -> Chunks {
        Chunks { grid: *self, next: 0, count: self.chunk_count() }
    }
}

/// Iterator over the chunks of a region: offset and length in bytes.
#[derive(Clone, Debug)]
pub struct Chunks {
    grid: Grid,
    next: u64,
    count: u64,
}

impl Iterator for Chunks {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        let chunk = self.grid.chunk(self.next)?;
        self.next += 1;
        Some(chunk)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.count - self.next).unwrap_or(usize::MAX);
        (left, Some(left))
    }
}

/// Offset and length of each chunk of the region that `record` describes.
///
/// # Errors
/// As [`Grid::new`].
pub fn chunk_lens(record: &RegionRecord) -> Result<Chunks, DigestError> {
    Ok(Grid::of(record)?.chunks())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lens(grid: Grid) -> Vec<u64> {
        grid.chunks().map(|(_, len)| len).collect()
    }

    #[test]
    fn a_run_has_full_chunks_and_a_short_last_one() {
        assert_eq!(lens(Grid::run(0)), Vec::<u64>::new());
        assert_eq!(lens(Grid::run(1)), [1]);
        assert_eq!(lens(Grid::run(CHUNK_LEN)), [CHUNK_LEN]);
        assert_eq!(lens(Grid::run(2 * CHUNK_LEN + 5)), [CHUNK_LEN, CHUNK_LEN, 5]);
    }

    #[test]
    fn each_row_begins_a_chunk() {
        let row = CHUNK_LEN + 10;
        let grid = Grid::new(GridKind::Rows, row, 0, 2 * row + 7).unwrap();
        assert_eq!(lens(grid), [CHUNK_LEN, 10, CHUNK_LEN, 10, 7]);
        assert_eq!(grid.chunk(2), Some((row, CHUNK_LEN)));
        let exact = Grid::new(GridKind::Rows, CHUNK_LEN, 0, 3 * CHUNK_LEN).unwrap();
        assert_eq!(lens(exact), [CHUNK_LEN; 3]);
    }

    #[test]
    fn a_shard_starts_inside_a_chunk_of_the_global_tensor() {
        let grid = |first, len| Grid::new(GridKind::Shard, 0, first, len).unwrap();
        assert_eq!(lens(grid(100, 100 + CHUNK_LEN + 1)), [100, CHUNK_LEN, 1]);
        assert_eq!(lens(grid(100, 40)), [40]);
        assert_eq!(lens(grid(0, CHUNK_LEN + 1)), [CHUNK_LEN, 1]);
        assert_eq!(lens(grid(100, 0)), Vec::<u64>::new());
    }

    #[test]
    fn contradicting_numbers_are_refused() {
        assert!(Grid::new(GridKind::Rows, CHUNK_LEN - 1, 0, 1).is_err());
        assert!(Grid::new(GridKind::Rows, 0, 0, 1).is_err());
        assert!(Grid::new(GridKind::Run, 1, 0, 1).is_err());
        assert!(Grid::new(GridKind::Run, 0, 1, 1).is_err());
        assert!(Grid::new(GridKind::Rows, CHUNK_LEN, 1, 1).is_err());
        assert!(Grid::new(GridKind::Shard, 0, CHUNK_LEN + 1, 1).is_err());
        assert!(Grid::new(GridKind::Shard, CHUNK_LEN, 1, 1).is_err());
    }

    /// A shard cut at its place in the global tensor has the chunks of the whole but for its first and last.
    #[test]
    fn shards_share_the_inner_chunks_of_the_whole() {
        let (start, end) = (CHUNK_LEN + 300, 5 * CHUNK_LEN + 20);
        let shard = Grid::new(GridKind::Shard, 0, CHUNK_LEN - 300, end - start).unwrap();
        let whole: Vec<_> = Grid::run(7 * CHUNK_LEN).chunks().collect();
        let inner: Vec<_> = shard.chunks().map(|(at, len)| (at + start, len)).collect();
        assert_eq!(inner[1..4], whole[2..5]);
    }

    fn any_grid() -> impl Strategy<Value = Grid> {
        let len = prop_oneof![0..2_000_000u64, Just(u64::MAX), (u64::MAX - 100)..u64::MAX];
        (0..3u8, CHUNK_LEN..300_000u64, 0..=CHUNK_LEN, len).prop_map(|(kind, row, first, len)| match kind {
            0 => Grid::run(len),
            1 => Grid::new(GridKind::Rows, row, 0, len).unwrap(),
            _ => Grid::new(GridKind::Shard, 0, first, len).unwrap(),
        })
    }

    proptest! {
        #[test]
        fn chunks_touch_and_cover(grid in any_grid()) {
            let count = grid.chunk_count();
            prop_assert_eq!(grid.chunk(count), None);
            let mut expected_offset = 0;
            for (at, len) in grid.chunks().take(200) {
                prop_assert_eq!(at, expected_offset);
                prop_assert!(len > 0 && len <= CHUNK_LEN);
                expected_offset = at + len;
            }
            if count <= 200 {
                prop_assert_eq!(expected_offset, grid.byte_len());
            }
            if let Some((at, len)) = count.checked_sub(1).and_then(|last| grid.chunk(last)) {
                prop_assert_eq!(at + len, grid.byte_len());
            }
        }
    }
}
