//! Which of several old tables a new component continues.

/// The id met most often, and how often; of equally frequent ones, the lowest. `None` if there are none.
///
/// When co-variables merge, the component continues the table that gives it most pods, so that the smaller one moves.
pub fn most_frequent(ids: impl IntoIterator<Item = usize>) -> Option<(usize, usize)> {
    // Nearly always a single id, in one long run: count runs first, then join runs of the same id.
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for id in ids {
        match runs.last_mut() {
            Some((last, count)) if *last == id => *count += 1,
            _ => runs.push((id, 1)),
        }
    }
    if runs.len() > 1 {
        runs.sort_unstable_by_key(|&(id, _)| id);
        runs.dedup_by(|next, kept| {
            let is_same = next.0 == kept.0;
            if is_same {
                kept.1 += next.1;
            }
            is_same
        });
    }
    runs.into_iter().max_by(|a, b| a.1.cmp(&b.1).then(b.0.cmp(&a.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_id_wins_however_it_is_scattered() {
        assert_eq!(most_frequent([1, 2, 1, 3, 1, 2]), Some((1, 3)));
        assert_eq!(most_frequent([5, 5, 5, 1, 1]), Some((5, 3)));
        assert_eq!(most_frequent([]), None);
    }

    #[test]
    fn a_tie_goes_to_the_lowest() {
        assert_eq!(most_frequent([9, 4, 4, 9, 7]), Some((4, 2)));
    }
}
