//! Reading the heads of index segments: far away several at once, and short segments whole.

use super::{Index, Segment, rows_bytes};
use crate::compression::PlaceKind;
use crate::error::Result;
use bytes::Bytes;
use chipmink_format::{FormatError, IndexRow, SegmentHead, pack_path};
use std::ops::Range;
use std::sync::Arc;

/// Segments that are no longer than this are read whole from a place far away: those of a gibibyte of chunks. To find the first
/// byte of a version takes half a dozen look-ups, each in another block; as many requests take longer than this at 10 MB/s
/// and 20 ms a request.
const WHOLE_LEN: u64 = 512 << 10;

/// Heads of segments far away that are read at once, older ones along with that which is needed, if they are short.
const HEADS_AT_ONCE: usize = 8;

impl Index {
    /// The head of a segment, with the ordinals here of the packs that it names.
    pub(super) fn head(&mut self, at: usize) -> Result<(Arc<SegmentHead>, Arc<[u32]>)> {
        let Segment { place, head, .. } = &self.segments[at];
        if let Some(head) = head {
            return Ok(head.clone());
        }
        let byte_offset = place.byte_offset;
        if !self.lies_inside(at) {
            let (what, reason) = ("index segment".into(), "it ends behind the end of its pack".into());
            return Err(self.damage(at, FormatError::Damaged { what, byte_offset, reason }));
        }
        let bytes = match self.read_heads(at) {
            Some(bytes) => bytes,
            None => self.read(at, self.first_read(at))?,
        };
        self.take_head(at, &bytes)
    }

    /// Reads the head of a segment far away and takes those of older ones along, which are asked next if it does not hold what is
    /// looked for. `None` if there are none, or it cannot be read.
    fn read_heads(&mut self, at: usize) -> Option<Bytes> {
        if self.backend.kind() != PlaceKind::Remote {
            return None;
        }
        let byte_len = |at: usize| {
            let range = self.first_read(at);
            range.end - range.start
        };
        let mut batch = vec![at];
        let mut left = WHOLE_LEN.saturating_sub(byte_len(at));
        for older in (0..at).rev() {
            let Segment { head, resident_since, .. } = &self.segments[older];
            if head.is_some() || *resident_since == Some(self.dropped()) || !self.lies_inside(older) {
                continue;
            }
            left = match left.checked_sub(byte_len(older)) {
                Some(left) if batch.len() < HEADS_AT_ONCE => left,
                _ => break,
            };
            batch.push(older);
        }
        if batch.len() == 1 {
            return None;
        }
        let part = |at: &usize| {
            let name = self.packs[self.segments[*at].stands_in as usize].name;
            (pack_path(name), self.first_read(*at))
        };
        let parts: Vec<_> = batch.iter().map(part).collect();
        let mut read = self.backend.get_each(&parts).into_iter();
        let wanted = read.next()?.ok();
        for (older, bytes) in batch.into_iter().skip(1).zip(read) {
            // What cannot be had now says so when it is needed.
            let _ = bytes.and_then(|bytes| self.take_head(older, &bytes));
        }
        wanted
    }

    /// Whether a segment ends before its pack does.
    fn lies_inside(&self, at: usize) -> bool {
        let Segment { stands_in, place, .. } = &self.segments[at];
        let end = place.byte_offset.checked_add(place.byte_len);
        self.packs.get(*stands_in as usize).is_some_and(|pack| end.is_some_and(|end| end <= pack.byte_len))
    }

    /// The bound, or less where what was read along could not be kept: rows take some four times their bytes.
    pub(super) fn kept(&self, byte_len: u64) -> u64 {
        byte_len.min(self.cache_bytes / 16)
    }

    /// What is read of a segment first: what is short and far away with its blocks.
    fn first_read(&self, at: usize) -> Range<u64> {
        let place = &self.segments[at].place;
        let is_whole = place.byte_len <= self.kept(WHOLE_LEN) && self.backend.kind() == PlaceKind::Remote;
        let len = if is_whole { place.byte_len } else { place.head_len };
        place.byte_offset..place.byte_offset + len
    }

    /// Takes what [`Index::first_read`] said.
    fn take_head(&mut self, at: usize, bytes: &Bytes) -> Result<(Arc<SegmentHead>, Arc<[u32]>)> {
        let Segment { stands_in, place, .. } = &self.segments[at];
        let (stands_in, start) = (*stands_in, place.byte_offset);
        // A segment begins with its head.
        let head_len = place.head_len.min(bytes.len() as u64) as usize;
        let head = SegmentHead::decode(&bytes[..head_len], place.byte_len)
            .map_err(|source| self.damage(at, source))?;
        if bytes.len() as u64 == place.byte_len {
            self.keep_blocks((stands_in, start), &head, bytes);
        }
        let ordinals: Arc<[u32]> = match head.packs.is_empty() {
            true => [stands_in].into(),
            // A pack that the root log does not name (any more) is not live.
            false => {
                let names = head.packs.clone();
                names.into_iter().map(|name| self.ordinal_or_dead(name)).collect()
            }
        };
        let head = (Arc::new(head), ordinals);
        self.segments[at].head = Some(head.clone());
        Ok(head)
    }

    /// Keeps the blocks of a segment of which all bytes were read; one that is damaged is found when it is needed.
    fn keep_blocks(&mut self, (stands_in, start): (u32, u64), head: &SegmentHead, bytes: &[u8]) {
        for fence in &head.blocks {
            let block = bytes.get(fence.byte_offset as usize..(fence.byte_offset + fence.byte_len) as usize);
            if let Some(Ok(rows)) = block.map(|block| head.decode_block(fence, block)) {
                let rows: Arc<[IndexRow]> = rows.into();
                self.blocks.insert((stands_in, start + fence.byte_offset), rows.clone(), rows_bytes(&rows));
            }
        }
    }
}
