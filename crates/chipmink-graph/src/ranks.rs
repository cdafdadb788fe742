//! Order labels: sparse numbers of which only the order counts.
//!
//! A table stores one label per pod, and a pod that did not move keeps its label, so that its row stays the same. Which
//! pods did not move is a choice; the longest ascending run of old labels keeps most. A new pod gets a label between its
//! neighbours; where none is left, labels around it are spread again, as few as possible.

/// Distance of labels that are given out at either end, where there is room for more.
const STRIDE: u64 = 1 << 20;

/// The first label of a fresh table: small, so that it encodes short, with room for a million pods in front of it.
const START: u64 = 1 << 40;

/// Labels are spread again until they lie this far apart on average, so that the next insertion there finds room.
const ROOM: u64 = 1 << 8;

/// Assigner of order labels; a name for [`assign_ranks`] where a type reads better.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ranks;

impl Ranks {
    /// See [`assign_ranks`].
    pub fn assign(old: &[Option<u64>]) -> Vec<u64> {
        assign_ranks(old)
    }
}

/// Labels for pods in their new order, given the label that each had before (`None`: a new pod).
///
/// The result is strictly ascending. Old labels may be in any order and may repeat.
pub fn assign_ranks(old: &[Option<u64>]) -> Vec<u64> {
    let is_ascending = old.iter().all(Option::is_some) && old.is_sorted_by(|a, b| a < b);
    if is_ascending {
        return old.iter().flatten().copied().collect();
    }
    let mut labels = longest_ascending(old);
    let mut at = 0;
    while at < labels.len() {
        if labels[at].is_some() {
            at += 1;
            continue;
        }
        let end = labels[at..].iter().position(Option::is_some).map_or(labels.len(), |n| at + n);
        fill(&mut labels, at, end);
        at = end;
    }
    labels.into_iter().map(|label| label.expect("every gap was filled")).collect()
}

/// The old labels with all but a longest strictly ascending subsequence taken away (patience sorting).
fn longest_ascending(old: &[Option<u64>]) -> Vec<Option<u64>> {
    // tails[n]: position of the smallest label that ends an ascending subsequence of length n + 1.
    let mut tails: Vec<usize> = Vec::new();
    let mut previous: Vec<Option<usize>> = vec![None; old.len()];
    for (position, label) in old.iter().enumerate() {
        let Some(label) = *label else { continue };
        let length = tails.partition_point(|&tail| old[tail].is_some_and(|tail| tail < label));
        previous[position] = length.checked_sub(1).map(|n| tails[n]);
        if length == tails.len() {
            tails.push(position);
        } else {
            tails[length] = position;
        }
    }
    let mut kept = vec![None; old.len()];
    let mut at = tails.last().copied();
    while let Some(position) = at {
        kept[position] = old[position];
        at = previous[position];
    }
    kept
}

/// Labels the gap `start..end`; on its sides stand labels, or the ends.
fn fill(labels: &mut [Option<u64>], start: usize, end: usize) {
    let count = (end - start) as u64;
    let below = start.checked_sub(1).and_then(|i| labels[i]);
    let above = labels.get(end).copied().flatten();
    let run = count.checked_mul(STRIDE);
    match (below, above) {
        (None, None) if run.is_some_and(|run| run <= u64::MAX - START) => {
            return place(&mut labels[start..end], START, STRIDE);
        }
        (Some(below), None) if run.is_some_and(|run| run <= u64::MAX - below) => {
            return place(&mut labels[start..end], below + STRIDE, STRIDE);
        }
        (None, Some(above)) if run.is_some_and(|run| run <= above) => {
            return place(&mut labels[start..end], above - count * STRIDE, STRIDE);
        }
        _ => {}
    }
    // Widen the window over labelled neighbours until its members get room, at first not at all.
    let (mut first, mut last, mut reach, mut room) = (start, end, 1usize, 1u64);
    loop {
        // Labels strictly between the two; the ends of the range are never given out.
        let low = first.checked_sub(1).and_then(|i| labels[i]).unwrap_or(0);
        let high = labels.get(last).copied().flatten().unwrap_or(u64::MAX);
        let members = (last - first) as u64;
        let step = high.saturating_sub(low) / (members + 1);
        let is_everything = first == 0 && last == labels.len();
        if step >= room || is_everything {
            return place(&mut labels[first..last], low + step, step);
        }
        room = ROOM;
        first = first.saturating_sub(reach);
        // To the right there may be gaps that were not labelled yet: end the window at a label.
        last = (last + reach).min(labels.len());
        while last < labels.len() && labels[last].is_none() {
            last += 1;
        }
        reach *= 2;
    }
}

/// Sets labels from `first` on, `step` apart.
fn place(labels: &mut [Option<u64>], first: u64, step: u64) {
    for (n, label) in labels.iter_mut().enumerate() {
        *label = Some(first + n as u64 * step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_ascending(labels: &[u64]) -> bool {
        labels.is_sorted_by(|a, b| a < b)
    }

    #[test]
    fn a_fresh_table_leaves_room_on_all_sides() {
        let labels = assign_ranks(&[None; 4]);
        assert_eq!(labels, [START, START + STRIDE, START + 2 * STRIDE, START + 3 * STRIDE]);
    }

    #[test]
    fn unmoved_pods_keep_their_labels() {
        assert_eq!(assign_ranks(&[Some(10), Some(20), Some(30)]), [10, 20, 30]);
        assert_eq!(assign_ranks(&[Some(10), None, Some(20)]), [10, 15, 20]);
        // One pod moved to the front: only its label changes.
        let labels = assign_ranks(&[Some(9 << 30), Some(1 << 30), Some(2 << 30), Some(3 << 30)]);
        assert_eq!(labels[1..], [1 << 30, 2 << 30, 3 << 30]);
        assert!(labels[0] < 1 << 30);
    }

    #[test]
    fn a_used_up_gap_is_spread_again_locally() {
        let mut old: Vec<Option<u64>> = (0..1000).map(|n| Some(START + n * STRIDE)).collect();
        old[500] = Some(START + 499 * STRIDE + 1);
        old.insert(500, None);
        let labels = assign_ranks(&old);
        assert!(is_ascending(&labels));
        let moved = labels.iter().zip(&old).filter(|(new, old)| old.is_some_and(|old| old != **new)).count();
        assert!(moved <= 4, "{moved} labels moved");
    }

    #[test]
    fn the_whole_range_can_be_full() {
        let labels = assign_ranks(&[Some(0), None, Some(1), None, Some(u64::MAX), None]);
        assert!(is_ascending(&labels), "{labels:?}");
        let labels = assign_ranks(&[None, Some(0), Some(1), Some(2)]);
        assert!(is_ascending(&labels), "{labels:?}");
        let labels = assign_ranks(&[Some(u64::MAX - 1), Some(u64::MAX), None, None]);
        assert!(is_ascending(&labels), "{labels:?}");
    }

    #[test]
    fn insertions_at_one_place_move_few_labels_each() {
        let mut labels: Vec<u64> = assign_ranks(&[None; 100]);
        let mut moved = 0;
        for _ in 0..2000 {
            let mut old: Vec<Option<u64>> = labels.iter().copied().map(Some).collect();
            old.insert(50, None);
            labels = assign_ranks(&old);
            assert!(is_ascending(&labels));
            moved += labels.iter().zip(&old).filter(|(new, old)| old.is_some_and(|old| old != **new)).count();
        }
        assert!(moved < 2000 * 20, "{moved} labels moved by 2000 insertions");
    }

    /// Length of the longest strictly ascending subsequence, the quadratic way.
    fn longest(old: &[Option<u64>]) -> usize {
        let labels: Vec<u64> = old.iter().flatten().copied().collect();
        let mut best = vec![1usize; labels.len()];
        for i in 0..labels.len() {
            for j in 0..i {
                if labels[j] < labels[i] {
                    best[i] = best[i].max(best[j] + 1);
                }
            }
        }
        best.into_iter().max().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn labels_ascend_and_as_many_as_possible_are_kept(
            old in prop::collection::vec(prop::option::of((0u64..1000).prop_map(|n| START + n * STRIDE)), 0..60)
        ) {
            let labels = assign_ranks(&old);
            prop_assert_eq!(labels.len(), old.len());
            prop_assert!(is_ascending(&labels));
            let kept = labels.iter().zip(&old).filter(|(new, old)| **old == Some(**new)).count();
            prop_assert_eq!(kept, longest(&old));
        }

        #[test]
        fn crowded_labels_ascend_too(
            old in prop::collection::vec(prop::option::of(prop_oneof![0u64..20, u64::MAX - 20..=u64::MAX]), 0..80)
        ) {
            prop_assert!(is_ascending(&assign_ranks(&old)));
        }
    }
}
