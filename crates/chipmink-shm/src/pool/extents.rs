//! Pieces of a pool, and which of them are free.

use super::layout::{GRAIN, PoolLayout};
use std::ops::Range;

/// A piece of a pool, in whole grains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extent {
    pub(super) start: u64,
    pub(super) byte_len: u64,
}

/// The pieces that none of `used` touches, in order.
pub(super) fn gaps(layout: &PoolLayout, used: impl Iterator<Item = Extent>) -> Vec<Extent> {
    let mut used: Vec<Extent> = used.collect();
    used.sort_unstable_by_key(|extent| extent.start);
    let mut free = Vec::new();
    let mut at = layout.data_at();
    for extent in used {
        if extent.start > at {
            free.push(Extent { start: at, byte_len: extent.start - at });
        }
        at = at.max(extent.start + extent.byte_len);
    }
    if layout.data_end() > at {
        free.push(Extent { start: at, byte_len: layout.data_end() - at });
    }
    free
}

/// Adds pieces of `free` to `extents` until there is room for `needed` bytes more; `wanted`, which is no less, are taken if
/// one piece has them. `false`: there is not enough, or it would take too many pieces.
pub(super) fn take(
    extents: &mut Vec<Extent>,
    mut free: Vec<Extent>,
    needed: u64,
    wanted: u64,
    most: usize,
) -> bool {
    let round = |byte_len: u64| byte_len.checked_next_multiple_of(GRAIN).unwrap_or(u64::MAX / GRAIN * GRAIN);
    let (mut needed, wanted) = (round(needed), round(wanted));
    let mut is_first = true;
    while needed > 0 {
        let wish = if is_first { wanted } else { needed };
        is_first = false;
        // What follows the last piece makes it longer and is no further one.
        let end = extents.last().map(|last| last.start + last.byte_len);
        let follows = free.iter().position(|gap| Some(gap.start) == end);
        let large = || free.iter().position(|gap| gap.byte_len >= wish);
        let largest = || (0..free.len()).max_by_key(|at| free[*at].byte_len);
        let Some(at) = follows.or_else(large).or_else(largest) else { return false };
        let gap = &mut free[at];
        let taken = Extent { start: gap.start, byte_len: gap.byte_len.min(wish) };
        gap.start += taken.byte_len;
        gap.byte_len -= taken.byte_len;
        if gap.byte_len == 0 {
            free.remove(at);
        }
        let count = extents.len();
        match extents.last_mut().filter(|last| last.start + last.byte_len == taken.start) {
            Some(last) => last.byte_len += taken.byte_len,
            None if count == most => return false,
            None => extents.push(taken),
        }
        needed = needed.saturating_sub(taken.byte_len);
    }
    true
}

/// Gives back what lies behind the first `byte_len` bytes.
pub(super) fn trim(extents: &mut Vec<Extent>, byte_len: u64) {
    let mut left = byte_len;
    extents.retain_mut(|extent| {
        let kept = extent.byte_len.min(left.next_multiple_of(GRAIN));
        left = left.saturating_sub(extent.byte_len);
        extent.byte_len = kept;
        kept > 0
    });
}

/// Where bytes of an object lie in the segment, and which of them they are.
pub(super) fn places(extents: &[Extent], range: Range<u64>) -> Vec<(u64, Range<usize>)> {
    let mut places = Vec::new();
    let mut begins = 0u64;
    for extent in extents {
        let ends: u64 = extent.byte_len.saturating_add(begins);
        let (from, to) = (range.start.max(begins), range.end.min(ends));
        if from < to {
            let at = (from - range.start) as usize..(to - range.start) as usize;
            places.push((extent.start + (from - begins), at));
        }
        begins = ends;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(start: u64, grains: u64) -> Extent {
        Extent { start: start * GRAIN, byte_len: grains * GRAIN }
    }

    #[test]
    fn pieces_grow_in_place_and_are_trimmed() {
        let free = vec![extent(300, 2), extent(310, 100)];
        let mut extents = Vec::new();
        assert!(take(&mut extents, free.clone(), 10, 5 * GRAIN, 4));
        assert_eq!(extents, [extent(310, 5)]);
        assert!(take(&mut extents, vec![extent(300, 2), extent(315, 95)], GRAIN, GRAIN, 4));
        assert_eq!(extents, [extent(310, 6)]);
        trim(&mut extents, 3 * GRAIN - 1);
        assert_eq!(extents, [extent(310, 3)]);
        trim(&mut extents, 0);
        assert_eq!(extents, []);
        assert!(!take(&mut Vec::new(), free, 103 * GRAIN, 103 * GRAIN, 4));
    }

    #[test]
    fn scattered_room_is_used_up_to_the_number_of_pieces() {
        let free: Vec<Extent> = (0..10).map(|at| extent(300 + 2 * at, 1)).collect();
        let mut extents = Vec::new();
        assert!(take(&mut extents, free.clone(), 4 * GRAIN, 4 * GRAIN, 4));
        assert_eq!(extents.len(), 4);
        assert!(!take(&mut Vec::new(), free, 5 * GRAIN, 5 * GRAIN, 4));
        let total: usize = places(&extents, 10..4 * GRAIN - 10).iter().map(|(_, range)| range.len()).sum();
        assert_eq!(total as u64, 4 * GRAIN - 20);
    }
}
