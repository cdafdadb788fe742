//! [`Index`]: from digest to place, over the index segments of all packs.
//!
//! Invariants:
//! 1. What the index says is bounded by the pack's length in the root log before anything is read or allocated.
//! 2. A condemned pack is never named.
//! 3. A damaged segment hides no blob that another segment knows, and never turns into "missing".

mod heads;

use crate::backend::Backend;
use crate::compression::PlaceKind;
use crate::error::{Result, StoreError};
use crate::generations::{ByDigest, Generations};
use bytes::Bytes;
use chipmink_format::{
    Codec, DELTA_CHAIN_MAX, Fence, FormatError, IndexRow, PackInfo, PackName, SegmentHead, SegmentPlace,
    pack_path,
};
use chipmink_types::Digest;
use hashbrown::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Blocks that lie nearer to each other than this are read at once.
const BLOCK_GAP: u64 = 32 << 10;

/// A longer segment far away is read in ever longer pieces: of so many bytes at first, and at most.
const PIECE: u64 = 64 << 10;
const PIECE_MAX: u64 = 2 << 20;

/// What is wrong with a live pack that cannot be read, and what to do about it, if that can be seen from outside.
pub(crate) fn harm_of(backend: &Backend, path: &str, byte_len: u64) -> Option<String> {
    let harm = match backend.byte_len(path) {
        Ok(None) => "is gone, and no sweep has removed it".to_owned(),
        Ok(Some(found)) if found != byte_len => format!("has {found} bytes instead of {byte_len}"),
        // What cannot be looked at may be well.
        _ => return None,
    };
    Some(format!(
        "{harm}: `chipmink verify` tells what that costs, `chipmink repair --from MIRROR` brings it back"
    ))
}

/// Where a blob lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Location {
    pub(crate) byte_offset: u64,
    pub(crate) stored_len: u64,
    pub(crate) decoded_len: u64,
    /// Ordinal in the index.
    pub(crate) pack: u32,
    pub(crate) codec: Codec,
}

/// Where a blob lies, and what it is a delta of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) location: Location,
    pub(crate) base: Option<Digest>,
}

/// How a blob lies in what was read of the index.
enum Unread {
    Whole,
    Delta(Digest),
    Nowhere,
}

/// A pack that the root log names.
#[derive(Clone, Debug)]
pub(crate) struct Pack {
    pub(crate) name: PackName,
    pub(crate) byte_len: u64,
    /// Where its own index begins, behind its blobs.
    pub(crate) blobs_end: u64,
    pub(crate) is_live: bool,
    /// All its rows went into the thesaurus when that had dropped so many.
    resident_since: Option<u64>,
}

/// A segment that is in force.
#[derive(Debug)]
pub(crate) struct SegmentInForce {
    pub(crate) stands_in: PackName,
    pub(crate) place: SegmentPlace,
    /// The packs that it is the index of.
    pub(crate) covers: Vec<PackName>,
}

#[derive(Debug)]
struct Segment {
    stands_in: u32,
    place: SegmentPlace,
    /// Head, and ordinals here of the packs that it names.
    head: Option<(Arc<SegmentHead>, Arc<[u32]>)>,
    /// All rows of all its packs are in the thesaurus if that has dropped no more than so many.
    resident_since: Option<u64>,
    /// Reads of its blocks, which a request each would make slow far away.
    reads: u32,
}

/// The segments, and what is kept of them.
#[derive(Debug)]
pub(crate) struct Index {
    backend: Backend,
    packs: Vec<Pack>,
    by_name: HashMap<PackName, u32>,
    segments: Vec<Segment>,
    thesaurus: ByDigest<Location>,
    /// What the deltas in the thesaurus are deltas of.
    bases: ByDigest<Digest>,
    blocks: Generations<(u32, u64), Arc<[IndexRow]>>,
    /// Bytes that the blocks may take.
    cache_bytes: u64,
}

/// Ordinal of the first row that is not before a digest. It is looked for from the front in ever longer steps: who looks for
/// many finds the next one near.
fn first_at_or_behind(rows: &[IndexRow], digest: &Digest) -> usize {
    let mut end = 1;
    while rows.get(end - 1).is_some_and(|row| row.digest < *digest) {
        end *= 2;
    }
    let start = end / 2;
    start + rows[start..end.min(rows.len())].partition_point(|row| row.digest < *digest)
}

fn rows_bytes(rows: &Arc<[IndexRow]>) -> u64 {
    (rows.len() * size_of::<IndexRow>()) as u64
}

impl Index {
    pub(crate) fn new(backend: Backend, thesaurus_bytes: u64, cache_bytes: u64) -> Self {
        Index {
            backend,
            packs: Vec::new(),
            by_name: HashMap::new(),
            segments: Vec::new(),
            thesaurus: ByDigest::new(thesaurus_bytes / 4 * 3),
            bases: ByDigest::new(thesaurus_bytes / 4),
            blocks: Generations::new(cache_bytes),
            cache_bytes,
        }
    }

    /// The ordinal of a pack, which becomes known with its length and where its own index lies.
    pub(crate) fn add_pack(&mut self, pack: &PackInfo) -> u32 {
        let PackInfo { name, byte_len, index, .. } = *pack;
        *self.by_name.entry(name).or_insert_with(|| {
            let blobs_end = index.byte_offset.min(byte_len);
            self.packs.push(Pack { name, byte_len, blobs_end, is_live: true, resident_since: None });
            self.packs.len() as u32 - 1
        })
    }

    pub(crate) fn condemn(&mut self, name: &PackName) {
        if let Some(at) = self.by_name.get(name) {
            self.packs[*at as usize].is_live = false;
        }
        // The thesaurus knows one place of a blob. Where that was in the condemned pack, the others must be looked up again.
        self.segments.iter_mut().for_each(|segment| segment.resident_since = None);
    }

    pub(crate) fn pack(&self, ordinal: u32) -> &Pack {
        &self.packs[ordinal as usize]
    }

    /// Replaces the list of segments, newest last; what is known of a segment that stays is kept.
    pub(crate) fn set_segments(&mut self, wanted: impl IntoIterator<Item = SegmentInForce>) {
        let mut old: HashMap<(u32, u64), Segment> = self
            .segments
            .drain(..)
            .map(|segment| ((segment.stands_in, segment.place.byte_offset), segment))
            .collect();
        for segment in wanted {
            let stands_in = self.by_name.get(&segment.stands_in).copied().unwrap_or(u32::MAX);
            match old.remove(&(stands_in, segment.place.byte_offset)) {
                Some(known) => self.segments.push(known),
                None => self.add_segment(&segment),
            }
        }
    }

    /// Adds one segment as the newest.
    pub(crate) fn add_segment(&mut self, segment: &SegmentInForce) {
        let Some(&stands_in) = self.by_name.get(&segment.stands_in) else { return };
        let since = self.dropped();
        let is_resident = |name: &PackName| {
            let pack = self.by_name.get(name).map(|at| &self.packs[*at as usize]);
            pack.is_some_and(|pack| pack.resident_since == Some(since))
        };
        let resident_since = segment.covers.iter().all(is_resident).then_some(since);
        self.segments.push(Segment { stands_in, place: segment.place, head: None, resident_since, reads: 0 });
    }

    /// Takes the rows of a pack that this process has written, whose own segment is its newest.
    pub(crate) fn learn(&mut self, name: PackName, rows: &[IndexRow]) {
        let Some(&pack) = self.by_name.get(&name) else { return };
        let before = self.dropped();
        for row in rows {
            let IndexRow { byte_offset, stored_len, decoded_len, codec, base, .. } = *row;
            let location = Location { byte_offset, stored_len, decoded_len, pack, codec };
            self.remember(row.digest, Found { location, base });
        }
        // Some of them may not have found room.
        let is_resident = self.dropped() == before;
        if let Some(segment) = self.segments.last_mut().filter(|segment| segment.stands_in == pack) {
            segment.resident_since = is_resident.then_some(before);
        }
    }

    fn remember(&mut self, digest: Digest, found: Found) {
        self.thesaurus.insert(digest, found.location, 0);
        if let Some(base) = found.base {
            self.bases.insert(digest, base, 0);
        }
    }

    /// How much was forgotten so far for want of room. It never gets less.
    fn dropped(&self) -> u64 {
        self.thesaurus.dropped() + self.bases.dropped()
    }

    /// Bytes that the thesaurus and the cached blocks take, as an estimate.
    pub(crate) fn byte_len(&self) -> u64 {
        self.thesaurus.byte_len() + self.bases.byte_len() + self.blocks.byte_len()
    }

    /// Forgets what can be read again.
    pub(crate) fn forget(&mut self) {
        self.thesaurus.clear();
        self.bases.clear();
        self.blocks.clear();
        for segment in &mut self.segments {
            segment.head = None;
            segment.resident_since = None;
        }
        self.packs.iter_mut().for_each(|pack| pack.resident_since = None);
    }

    pub(crate) fn find(&mut self, digest: &Digest) -> Result<Option<Found>> {
        if let Some(found) = self.known(digest) {
            return Ok(Some(found));
        }
        let (found, error) = self.search(&[*digest], None);
        match (found[0], error) {
            (Some(found), _) => Ok(Some(found)),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
        }
    }

    /// Whether the index holds a blob with all that it is a delta of, if nothing must be read for the answer.
    pub(crate) fn holds_unread(&mut self, digest: &Digest) -> Option<bool> {
        let mut next = *digest;
        for _ in 0..=DELTA_CHAIN_MAX {
            match self.find_unread(&next)? {
                Unread::Delta(base) => next = base,
                Unread::Whole => return Some(true),
                Unread::Nowhere => break,
            }
        }
        Some(false)
    }

    fn find_unread(&mut self, digest: &Digest) -> Option<Unread> {
        let found = |base: Option<Digest>| Some(base.map_or(Unread::Whole, Unread::Delta));
        if let Some(known) = self.known(digest) {
            return found(known.base);
        }
        let dropped = self.dropped();
        for Segment { stands_in, place, head, resident_since, .. } in self.segments.iter().rev() {
            if *resident_since == Some(dropped) {
                continue;
            }
            let (head, _) = head.as_ref()?;
            let Some(fence) = head.block_for(digest) else { continue };
            let rows = self.blocks.get(&(*stands_in, place.byte_offset + fence.byte_offset), rows_bytes)?;
            if let Ok(at) = rows.binary_search_by(|row| row.digest.cmp(digest)) {
                return found(rows[at].base);
            }
        }
        Some(Unread::Nowhere)
    }

    fn known(&mut self, digest: &Digest) -> Option<Found> {
        let location = self.thesaurus.get(digest, |_| 0)?;
        let base = match location.codec.is_delta() {
            true => Some(self.bases.get(digest, |_| 0)?),
            false => None,
        };
        self.packs[location.pack as usize].is_live.then_some(Found { location, base })
    }

    /// Where each of several blobs lies; and the first damage met, if something was not found.
    pub(crate) fn find_many(&mut self, digests: &[Digest]) -> (Vec<Option<Found>>, Option<StoreError>) {
        let mut found: Vec<Option<Found>> = digests.iter().map(|digest| self.known(digest)).collect();
        let missing: Vec<usize> = (0..digests.len()).filter(|at| found[*at].is_none()).collect();
        if missing.is_empty() {
            return (found, None);
        }
        let wanted: Vec<Digest> = missing.iter().map(|at| digests[*at]).collect();
        let (more, error) = self.search(&wanted, None);
        missing.into_iter().zip(more).for_each(|(at, place)| found[at] = place);
        (found, error)
    }

    /// Another place of a blob than in the packs `except`.
    pub(crate) fn find_elsewhere(&mut self, digest: &Digest, except: &[u32]) -> Option<Found> {
        self.search(&[*digest], Some(except)).0[0]
    }

    /// Asks the segments, newest first.
    fn search(
        &mut self,
        digests: &[Digest],
        except: Option<&[u32]>,
    ) -> (Vec<Option<Found>>, Option<StoreError>) {
        let mut found = vec![None; digests.len()];
        let mut open: Vec<usize> = (0..digests.len()).collect();
        open.sort_unstable_by_key(|at| digests[*at]);
        let mut failure = None;
        for segment in (0..self.segments.len()).rev() {
            if open.is_empty() {
                return (found, None);
            }
            let is_resident = self.segments[segment].resident_since == Some(self.dropped());
            if is_resident && except.is_none() {
                continue;
            }
            if let Some((head, _)) = &self.segments[segment].head
                && !open.iter().any(|at| head.may_hold(&digests[*at]))
            {
                continue;
            }
            if let Err(error) = self.search_segment(segment, digests, except, &open, &mut found) {
                failure.get_or_insert(error);
            }
            open.retain(|at| found[*at].is_none());
        }
        if open.is_empty() { (found, None) } else { (found, failure) }
    }

    fn search_segment(
        &mut self,
        segment: usize,
        digests: &[Digest],
        except: Option<&[u32]>,
        open: &[usize],
        found: &mut [Option<Found>],
    ) -> Result<()> {
        let (head, ordinals) = self.head(segment)?;
        // Digests ascend, and so do the blocks that may hold them.
        let mut wanted: Vec<(&Fence, Range<usize>)> = Vec::new();
        let mut candidates = Vec::new();
        for &at in open {
            let Some(fence) = head.block_for(&digests[at]) else { continue };
            candidates.push(at);
            match wanted.last_mut() {
                Some((last, range)) if last.byte_offset == fence.byte_offset => range.end += 1,
                _ => wanted.push((fence, candidates.len() - 1..candidates.len())),
            }
        }
        let mut first = 0;
        while first < wanted.len() {
            let mut end = first + 1;
            while end < wanted.len()
                && wanted[end].0.byte_offset - (wanted[end - 1].0.byte_offset + wanted[end - 1].0.byte_len)
                    < BLOCK_GAP
            {
                end += 1;
            }
            let fences: Vec<&Fence> = wanted[first..end].iter().map(|(fence, _)| *fence).collect();
            let blocks = self.blocks(segment, &head, &fences)?;
            for (rows, (_, range)) in blocks.iter().zip(&wanted[first..end]) {
                let mut rest = &rows[..];
                for &at in &candidates[range.clone()] {
                    rest = &rest[first_at_or_behind(rest, &digests[at])..];
                    found[at] = self.choose(rest, &digests[at], &ordinals, except, segment)?;
                }
            }
            first = end;
        }
        Ok(())
    }

    /// The best of a blob's rows, which are the first of `rows`: in a live pack, and whole rather than a delta.
    fn choose(
        &mut self,
        rows: &[IndexRow],
        digest: &Digest,
        ordinals: &[u32],
        except: Option<&[u32]>,
        segment: usize,
    ) -> Result<Option<Found>> {
        let mut best: Option<Found> = None;
        for row in rows.iter().take_while(|row| row.digest == *digest) {
            let ordinal = ordinals[row.pack as usize];
            let pack = &self.packs[ordinal as usize];
            if !pack.is_live || except.is_some_and(|except| except.contains(&ordinal)) {
                continue;
            }
            // Both were added without overflow when the row was decoded.
            if row.byte_offset + row.stored_len > pack.byte_len {
                let reason = format!("blob {digest} ends behind the end of pack {}", pack.name).into();
                let source =
                    FormatError::Damaged { what: "index row".into(), byte_offset: row.byte_offset, reason };
                return Err(self.damage(segment, source));
            }
            let IndexRow { byte_offset, stored_len, decoded_len, codec, base, .. } = *row;
            let location = Location { byte_offset, stored_len, decoded_len, pack: ordinal, codec };
            if best.is_none_or(|best| best.base.is_some() && base.is_none()) {
                best = Some(Found { location, base });
            }
        }
        if let Some(best) = best {
            self.remember(*digest, best);
        }
        Ok(best)
    }

    fn damage(&self, segment: usize, source: FormatError) -> StoreError {
        let object = pack_path(self.packs[self.segments[segment].stands_in as usize].name);
        StoreError::Format { place: self.backend.label().to_owned(), object, source }
    }

    /// Bytes of the pack of a segment.
    fn read(&self, at: usize, range: Range<u64>) -> Result<Bytes> {
        let pack = &self.packs[self.segments[at].stands_in as usize];
        let path = pack_path(pack.name);
        let byte_offset = range.start;
        self.backend.get_range(&path, range).map_err(|error| {
            match harm_of(&self.backend, &path, pack.byte_len) {
                Some(reason) => {
                    let (what, reason) = ("pack".into(), reason.into());
                    self.damage(at, FormatError::Damaged { what, byte_offset, reason })
                }
                None => error,
            }
        })
    }

    fn ordinal_or_dead(&mut self, name: PackName) -> u32 {
        *self.by_name.entry(name).or_insert_with(|| {
            let (byte_len, blobs_end) = (0, 0);
            self.packs.push(Pack { name, byte_len, blobs_end, is_live: false, resident_since: None });
            self.packs.len() as u32 - 1
        })
    }

    /// The rows of neighbouring blocks; those not cached are read at once.
    fn blocks(&mut self, at: usize, head: &SegmentHead, fences: &[&Fence]) -> Result<Vec<Arc<[IndexRow]>>> {
        let Segment { stands_in, place, .. } = self.segments[at];
        let key = |fence: &Fence| (stands_in, place.byte_offset + fence.byte_offset);
        let mut blocks: Vec<Option<Arc<[IndexRow]>>> =
            fences.iter().map(|fence| self.blocks.get(&key(fence), rows_bytes)).collect();
        let Some(first) = blocks.iter().position(Option::is_none) else {
            return Ok(blocks.into_iter().flatten().collect());
        };
        let last = blocks.iter().rposition(Option::is_none).unwrap_or(first);
        let around = self.around(at, head, fences[first], fences[last]);
        let (start, end) = around
            .first()
            .zip(around.last())
            .map_or((0, 0), |(first, last)| (first.byte_offset, last.byte_offset + last.byte_len));
        let bytes = self.read(at, place.byte_offset + start..place.byte_offset + end)?;
        // Beyond those that are wanted only what was read on purpose is kept.
        let is_wider =
            start < fences[first].byte_offset || end > fences[last].byte_offset + fences[last].byte_len;
        for fence in around {
            let wanted = fences.binary_search_by_key(&fence.byte_offset, |other| other.byte_offset).ok();
            if wanted.map_or(!is_wider, |wanted| blocks[wanted].is_some()) {
                continue;
            }
            let from = (fence.byte_offset - start) as usize;
            let decoded = head.decode_block(fence, &bytes[from..from + fence.byte_len as usize]);
            let rows: Arc<[IndexRow]> = match decoded {
                Ok(rows) => rows.into(),
                Err(source) if wanted.is_some() => return Err(self.damage(at, source)),
                // It is found when it is needed.
                Err(_) => continue,
            };
            self.blocks.insert(key(fence), rows.clone(), rows_bytes(&rows));
            if let Some(wanted) = wanted {
                blocks[wanted] = Some(rows);
            }
        }
        Ok(blocks.into_iter().flatten().collect())
    }

    /// The blocks that are read when those from one to another are needed.
    fn around<'a>(&mut self, at: usize, head: &'a SegmentHead, first: &Fence, last: &Fence) -> &'a [Fence] {
        let piece_max = self.kept(PIECE_MAX);
        let segment = &mut self.segments[at];
        segment.reads = segment.reads.saturating_add(1);
        let find = |fence: &Fence| head.blocks.partition_point(|other| other.byte_offset < fence.byte_offset);
        let (mut from, mut to) = (find(first), find(last) + 1);
        if self.backend.kind() == PlaceKind::Remote {
            let len = PIECE.saturating_mul(4u64.saturating_pow(segment.reads - 1)).min(piece_max);
            let is_short = |from: usize, to: usize| {
                let (first, last) = (&head.blocks[from], &head.blocks[to - 1]);
                last.byte_offset + last.byte_len - first.byte_offset < len
            };
            while to < head.blocks.len() && is_short(from, to) {
                to += 1;
            }
            while from > 0 && is_short(from, to) {
                from -= 1;
            }
        }
        &head.blocks[from..to]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_from_the_front_as_from_the_middle() {
        let name = |i: u8| Digest::xxh3([i; 16]);
        for count in 0..40u8 {
            // Each second digest is missing, and some are there twice.
            let rows: Vec<IndexRow> = (0..count)
                .map(|i| IndexRow {
                    digest: name(2 * (i - i % 3 / 2)),
                    pack: 0,
                    byte_offset: 0,
                    stored_len: 1,
                    decoded_len: 1,
                    codec: Codec::Raw,
                    kind: None,
                    base: None,
                })
                .collect();
            for wanted in 0..2 * count + 3 {
                let expected = rows.partition_point(|row| row.digest < name(wanted));
                assert_eq!(first_at_or_behind(&rows, &name(wanted)), expected);
            }
        }
    }
}
