//! Which parts of a region are mapped, and from where.
//!
//! 1. Segments are in order, do not touch each other's chunks, and begin and end with a chunk that belongs to them: one that
//!    lies in their file where they are mapped.
//! 2. Chunks between those that do not belong are *strangers*: what is mapped in their place are bytes of something else, and
//!    the caller writes over them before anybody sees them. Strangers are bridged only if there would be too many mappings
//!    otherwise: writing to a mapped page costs more than reading it into memory that is there.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

/// A stretch of strangers that is bridged at most, in bytes.
const LONGEST_BRIDGE: u64 = 1 << 20;

/// A chunk of a region.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    /// Where it begins in the region.
    pub(super) at: u64,
    pub(super) byte_len: u64,
    /// Ordinal of the file and offset in it, if it can be mapped from there.
    pub(super) place: Option<(usize, u64)>,
}

/// Chunks that one mapping holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    pub(super) chunks: Range<usize>,
    pub(super) file: usize,
    /// Of its first byte in the file.
    pub(super) byte_offset: u64,
}

/// File, and how far its offsets are ahead of those in the region.
type Source = (usize, i128);

impl Chunk {
    fn source(&self) -> Option<Source> {
        self.place.map(|(file, byte_offset)| (file, i128::from(byte_offset) - i128::from(self.at)))
    }

    pub(super) fn end(&self) -> u64 {
        self.at + self.byte_len
    }
}

impl Segment {
    /// Whether what is mapped for a chunk of it is that chunk.
    pub(super) fn holds(&self, chunks: &[Chunk], ordinal: usize) -> bool {
        let first = &chunks[self.chunks.start];
        chunks[ordinal].source() == first.source()
    }

    pub(super) fn byte_len(&self, chunks: &[Chunk]) -> u64 {
        chunks[self.chunks.end - 1].end() - chunks[self.chunks.start].at
    }

    fn own_len(&self, chunks: &[Chunk]) -> u64 {
        self.chunks.clone().filter(|i| self.holds(chunks, *i)).map(|i| chunks[i].byte_len).sum()
    }
}

/// The segments of a region, with the gaps between them at most `most` pieces; `None`: too little of it can be mapped.
pub(super) fn segments(chunks: &[Chunk], most: usize) -> Option<Vec<Segment>> {
    let runs = runs(chunks);
    let segments = if pieces(&runs, chunks.len()) <= most { runs } else { bridged(chunks, &runs, most) };
    let mapped: u64 = segments.iter().map(|segment| segment.own_len(chunks)).sum();
    let byte_len: u64 = chunks.iter().map(|chunk| chunk.byte_len).sum();
    // What is mostly read is better read in one go.
    (mapped > 0 && mapped >= byte_len / 2).then_some(segments)
}

/// Chunks that follow each other in a file.
fn runs(chunks: &[Chunk]) -> Vec<Segment> {
    let mut runs: Vec<Segment> = Vec::new();
    let mut last = None;
    for (i, chunk) in chunks.iter().enumerate() {
        let source = chunk.source();
        if let Some((file, byte_offset)) = chunk.place {
            match runs.last_mut().filter(|_| last == source) {
                Some(run) => run.chunks.end = i + 1,
                None => runs.push(Segment { chunks: i..i + 1, file, byte_offset }),
            }
        }
        last = source;
    }
    runs
}

/// How many pieces segments and the gaps around them are.
fn pieces(segments: &[Segment], chunk_count: usize) -> usize {
    let mut end = 0;
    let mut gaps = 0;
    for segment in segments {
        gaps += usize::from(segment.chunks.start > end);
        end = segment.chunks.end;
    }
    segments.len() + gaps + usize::from(chunk_count > end)
}

/// Few segments, with strangers in them: first those of the file that most of the region lies in.
fn bridged(chunks: &[Chunk], runs: &[Segment], most: usize) -> Vec<Segment> {
    let mut sources: HashMap<Source, (u64, Vec<&Segment>)> = HashMap::new();
    for run in runs {
        if let Some(source) = chunks[run.chunks.start].source() {
            let (byte_len, of_source) = sources.entry(source).or_default();
            *byte_len += run.byte_len(chunks);
            of_source.push(run);
        }
    }
    let mut by_len: Vec<(Source, (u64, Vec<&Segment>))> = sources.into_iter().collect();
    by_len.sort_unstable_by_key(|(source, (byte_len, _))| (Reverse(*byte_len), *source));
    let mut is_taken = vec![false; chunks.len()];
    let mut taken: Vec<Segment> = Vec::new();
    // Each segment may have a gap before it, and the last one behind.
    let room = most.saturating_sub(1) / 2;
    for (_, (_, of_source)) in by_len {
        if taken.len() >= room {
            break;
        }
        let mut candidates = joined(chunks, &of_source, &is_taken);
        candidates.sort_by_key(|segment| Reverse(segment.own_len(chunks)));
        candidates.truncate(room - taken.len());
        for segment in candidates {
            is_taken[segment.chunks.clone()].fill(true);
            taken.push(segment);
        }
    }
    taken.sort_unstable_by_key(|segment| segment.chunks.start);
    taken
}

/// The runs of one source, joined over strangers that nobody has taken.
fn joined(chunks: &[Chunk], of_source: &[&Segment], is_taken: &[bool]) -> Vec<Segment> {
    let mut joined: Vec<Segment> = Vec::new();
    for run in of_source.iter().filter(|run| !is_taken[run.chunks.start]) {
        if let Some(last) = joined.last_mut() {
            let between = last.chunks.end..run.chunks.start;
            let gap = chunks[run.chunks.start].at - chunks[last.chunks.end - 1].end();
            if gap <= LONGEST_BRIDGE && !is_taken[between].contains(&true) {
                last.chunks.end = run.chunks.end;
                continue;
            }
        }
        joined.push((*run).clone());
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEN: u64 = 64 << 10;

    /// Chunks of equal length, given by file and ordinal in it.
    fn chunks(places: &[Option<(usize, u64)>]) -> Vec<Chunk> {
        let chunk = |(i, place): (usize, &Option<(usize, u64)>)| Chunk {
            at: i as u64 * LEN,
            byte_len: LEN,
            place: place.map(|(file, ordinal)| (file, ordinal * LEN)),
        };
        places.iter().enumerate().map(chunk).collect()
    }

    #[test]
    fn few_runs_are_mapped_as_they_are() {
        let chunks = chunks(&[Some((0, 5)), Some((0, 6)), Some((1, 0)), None, Some((0, 9))]);
        let expected = [(0..2, 0, 5 * LEN), (2..3, 1, 0), (4..5, 0, 9 * LEN)]
            .map(|(chunks, file, byte_offset)| Segment { chunks, file, byte_offset });
        assert_eq!(segments(&chunks, 4).unwrap(), expected);
    }

    #[test]
    fn many_runs_of_one_file_become_one() {
        let places: Vec<_> = (0..1000)
            .map(|i| Some(if i % 5 == 3 { (1 + i % 7, i as u64 / 5) } else { (0, 3 + i as u64) }))
            .collect();
        let chunks = chunks(&places);
        let found = segments(&chunks, 256).unwrap();
        assert_eq!(found, [Segment { chunks: 0..1000, file: 0, byte_offset: 3 * LEN }]);
        assert!(!found[0].holds(&chunks, 3) && found[0].holds(&chunks, 4));
    }

    #[test]
    fn what_is_mostly_elsewhere_is_not_mapped() {
        let places: Vec<_> = (0..1000).map(|i| (i % 3 == 0).then_some((0, i as u64))).collect();
        assert_eq!(segments(&chunks(&places), 256), None);
        assert_eq!(segments(&chunks(&[None, None]), 256), None);
        assert_eq!(segments(&[], 256), None);
    }

    proptest! {
        #[test]
        fn segments_hold_what_they_say(
            places in prop::collection::vec(prop::option::weighted(0.9, (0usize..3, 0u64..4)), 1..400),
            most in 1usize..40,
        ) {
            // Three files, of which each holds the chunk of an ordinal at most at four places.
            let places: Vec<_> = places
                .iter()
                .enumerate()
                .map(|(i, place)| place.map(|(file, turn)| (file, i as u64 + 1000 * turn)))
                .collect();
            let chunks = chunks(&places);
            let Some(found) = segments(&chunks, most) else { return Ok(()) };
            prop_assert!(pieces(&found, chunks.len()) <= most);
            let mut end = 0;
            for segment in &found {
                prop_assert!(segment.chunks.start >= end && !segment.chunks.is_empty());
                end = segment.chunks.end;
                prop_assert!(end <= chunks.len());
                prop_assert!(segment.holds(&chunks, segment.chunks.start) && segment.holds(&chunks, end - 1));
                let first = segment.chunks.start;
                prop_assert_eq!(chunks[first].place, Some((segment.file, segment.byte_offset)));
                for i in segment.chunks.clone().filter(|i| segment.holds(&chunks, *i)) {
                    let there = segment.byte_offset + (i - first) as u64 * LEN;
                    prop_assert_eq!(chunks[i].place, Some((segment.file, there)));
                }
            }
        }
    }
}
