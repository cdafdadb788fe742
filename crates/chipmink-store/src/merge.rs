//! Merging the indexes of many packs into one segment, and merged segments into higher ones.
//!
//! Segments are merged as in a log-structured tree: sixteen of a level make one of the next, so a look-up asks sixteen of each
//! level at most, and a row is written again once for each level.

use crate::backend::Backend;
use crate::log::Log;
use crate::pack_writer::Merged;
use crate::parallel::in_parallel;
use chipmink_format::{
    MergePart, PackInfo, PackName, SegmentInfo, SegmentPlace, decode_segment, merge_segments, pack_path,
};
use hashbrown::HashSet;

/// Packs whose indexes are merged into one segment, and segments of one level that are merged into one of the next.
pub(crate) const FAN_OUT: usize = 16;
/// Bytes of merged segments that one save reads and writes again at most. Those that are larger stay: they are few.
const MERGED_MAX: u64 = 8 << 20;

/// Merged segments that the next merge takes in, besides the packs that none covers.
pub(crate) fn segments_due(log: &Log) -> Vec<SegmentInfo> {
    let (mut due, mut byte_len) = (Vec::new(), 0);
    for level in 1..u8::MAX {
        let of_level = || log.state.segments.iter().filter(|segment| segment.level == level);
        byte_len += of_level().map(|segment| segment.place.byte_len).sum::<u64>();
        // With the one that is being made of those below.
        if of_level().count() + 1 < FAN_OUT || byte_len > MERGED_MAX {
            break;
        }
        due.extend(of_level().cloned());
    }
    due
}

/// The merged index of packs. What cannot be read is left as it is.
pub(crate) fn merge_indexes(backend: &Backend, packs: &[PackInfo]) -> Option<Merged> {
    merge_all(backend, packs, &[], &HashSet::new())
}

/// The merged index of packs and merged segments, as far as the packs of these are live.
pub(crate) fn merge_all(
    backend: &Backend,
    packs: &[PackInfo],
    segments: &[SegmentInfo],
    live: &HashSet<PackName>,
) -> Option<Merged> {
    let own = packs.iter().map(|pack| (pack.name, pack.index, vec![pack.name]));
    let merged = segments.iter().map(|segment| {
        let covers = segment.covers.iter().filter(|name| live.contains(*name)).copied();
        (segment.pack, segment.place, covers.collect())
    });
    let parts: Vec<(PackName, SegmentPlace, Vec<PackName>)> = own.chain(merged).collect();
    let read = |(stands_in, place, _): &(PackName, SegmentPlace, _)| {
        let range = place.byte_offset..place.byte_offset + place.byte_len;
        let bytes = backend.get_range(&pack_path(*stands_in), range).ok()?;
        let (head, mut rows) = decode_segment(&bytes).ok()?;
        rows.retain(|row| head.packs.get(row.pack as usize).is_none_or(|name| live.contains(name)));
        Some((head, rows))
    };
    let read = in_parallel(&parts, backend.ranges_at_once(), read);
    let decoded: Vec<_> = parts.iter().zip(read).filter_map(|(part, read)| Some((part, read?))).collect();
    if decoded.len() < 2 {
        return None;
    }
    let parts: Vec<MergePart<'_>> = decoded
        .iter()
        .map(|((stands_in, ..), (head, rows))| MergePart { head, rows, stands_in: *stands_in })
        .collect();
    let covers = decoded.iter().flat_map(|((.., covers), _)| covers.iter().copied()).collect();
    Some(Merged { segment: merge_segments(&parts), covers })
}
