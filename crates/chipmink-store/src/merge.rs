//! Merging the indexes of many packs into one segment.

use crate::backend::Backend;
use crate::pack_writer::Merged;
use crate::parallel::in_parallel;
use chipmink_format::{MergePart, PackInfo, decode_segment, merge_segments, pack_path};

/// Packs whose indexes are merged into one segment.
pub(crate) const FAN_OUT: usize = 16;

/// The merged index of packs. What cannot be read is left as it is.
pub(crate) fn merge_indexes(backend: &Backend, packs: &[PackInfo]) -> Option<Merged> {
    let read = |pack: &PackInfo| {
        let range = pack.index.byte_offset..pack.index.byte_offset + pack.index.byte_len;
        let bytes = backend.get_range(&pack_path(pack.name), range).ok()?;
        decode_segment(&bytes).ok()
    };
    let read = in_parallel(packs, backend.ranges_at_once(), read);
    let decoded: Vec<_> =
        packs.iter().zip(read).filter_map(|(pack, parts)| Some((pack.name, parts?))).collect();
    if decoded.len() < 2 {
        return None;
    }
    let parts: Vec<MergePart<'_>> =
        decoded.iter().map(|(name, (head, rows))| MergePart { head, rows, stands_in: *name }).collect();
    let covers = decoded.iter().map(|(name, _)| *name).collect();
    Some(Merged { segment: merge_segments(&parts), covers })
}
