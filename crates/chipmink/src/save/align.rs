//! Which pods of a walk are which rows of a table.

use hashbrown::HashMap;
use std::hash::{BuildHasher, Hash};

/// For each of `new_len` new members, the old member that it continues; each old one is continued at most once.
///
/// Members are equal when their identities are. Runs at both ends are matched by position, without hashing; what lies
/// between is matched by identity, equal ones in their order.
pub(super) fn align<K: Eq + Hash, S: BuildHasher + Default>(
    new_len: usize,
    new: impl Fn(usize) -> K,
    old_len: usize,
    old: impl Fn(usize) -> K,
) -> Vec<Option<usize>> {
    let shorter = new_len.min(old_len);
    let head = (0..shorter).take_while(|&i| new(i) == old(i)).count();
    let tail = (0..shorter - head).take_while(|&i| new(new_len - 1 - i) == old(old_len - 1 - i)).count();
    let mut matched: Vec<Option<usize>> = (0..head).map(Some).collect();
    let (new_end, old_end) = (new_len - tail, old_len - tail);
    if new_end > head && old_end > head {
        // Equal identities form a chain through `next`, from the first to the last.
        let mut first: HashMap<K, usize, S> = HashMap::with_capacity_and_hasher(old_end - head, S::default());
        let mut next = vec![usize::MAX; old_end - head];
        for at in (head..old_end).rev() {
            if let Some(later) = first.insert(old(at), at) {
                next[at - head] = later;
            }
        }
        for at in head..new_end {
            let place = first.get_mut(&new(at)).filter(|place| **place != usize::MAX);
            matched.push(place.map(|place| std::mem::replace(place, next[*place - head])));
        }
    } else {
        matched.resize(new_end, None);
    }
    matched.extend((old_end..old_len).map(Some));
    matched
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::hash_map::RandomState;

    fn aligned(new: &[u8], old: &[u8]) -> Vec<Option<usize>> {
        align::<u8, RandomState>(new.len(), |i| new[i], old.len(), |i| old[i])
    }

    #[test]
    fn ends_are_matched_by_position_and_the_middle_by_identity() {
        assert_eq!(aligned(b"abXcd", b"abcd"), [Some(0), Some(1), None, Some(2), Some(3)]);
        assert_eq!(aligned(b"aBCd", b"aCBd"), [Some(0), Some(2), Some(1), Some(3)]);
        assert_eq!(aligned(b"", b"abc"), []);
        assert_eq!(aligned(b"abc", b""), [None, None, None]);
        assert_eq!(aligned(b"xaay", b"yaaax"), [Some(4), Some(1), Some(2), Some(0)]);
    }

    proptest! {
        #[test]
        fn every_match_is_between_equals_and_none_is_missed(
            new in prop::collection::vec(0u8..6, 0..30), old in prop::collection::vec(0u8..6, 0..30)
        ) {
            let matched = aligned(&new, &old);
            prop_assert_eq!(matched.len(), new.len());
            let mut used = vec![false; old.len()];
            for (at, found) in matched.iter().enumerate() {
                if let Some(found) = found {
                    prop_assert_eq!(new[at], old[*found]);
                    prop_assert!(!std::mem::replace(&mut used[*found], true));
                }
            }
            for value in 0..6u8 {
                let (in_new, in_old) = (new.iter().filter(|v| **v == value).count(), old.iter().filter(|v| **v == value).count());
                let pairs = matched.iter().enumerate().filter(|(at, found)| found.is_some() && new[*at] == value).count();
                prop_assert_eq!(pairs, in_new.min(in_old));
            }
        }
    }
}
