//! Union-find over dense indices.

/// A partition of `0..len` that only grows coarser.
#[derive(Clone, Debug, Default)]
pub struct UnionFind {
    parents: Vec<u32>,
    sizes: Vec<u32>,
}

impl UnionFind {
    /// `len` members, each alone. At most 2^32 - 1.
    ///
    /// # Panics
    /// If there are more members than that.
    pub fn new(len: usize) -> Self {
        let mut sets = UnionFind::default();
        sets.reset(len);
        sets
    }

    /// Makes it `len` members again, each alone, and keeps the memory.
    ///
    /// # Panics
    /// If there are more than 2^32 - 1 members.
    pub fn reset(&mut self, len: usize) {
        let len = u32::try_from(len).expect("a graph of 2^32 pods and names does not fit in memory");
        self.parents.clear();
        self.parents.extend(0..len);
        self.sizes.clear();
        self.sizes.resize(len as usize, 1);
    }

    /// Adds a member, alone, and returns its index.
    ///
    /// # Panics
    /// If there are 2^32 - 1 members already.
    pub fn push(&mut self) -> usize {
        let index = self.parents.len();
        self.parents
            .push(u32::try_from(index).expect("a graph of 2^32 pods and names does not fit in memory"));
        self.sizes.push(1);
        index
    }

    /// Drops every member from `len` on. None of them may have been joined with one that stays.
    pub fn truncate(&mut self, len: usize) {
        self.parents.truncate(len);
        self.sizes.truncate(len);
        debug_assert!(self.parents.iter().all(|&parent| (parent as usize) < len));
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.parents.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.parents.is_empty()
    }

    /// The member that stands for the set of `member`; it changes when sets are joined.
    ///
    /// # Panics
    /// If there is no such member.
    pub fn find(&mut self, member: usize) -> usize {
        let mut at = member;
        loop {
            let parent = self.parents[at] as usize;
            if parent == at {
                return at;
            }
            let grandparent = self.parents[parent];
            self.parents[at] = grandparent;
            at = grandparent as usize;
        }
    }

    /// Joins the sets of `a` and `b`; returns whether they were apart.
    ///
    /// # Panics
    /// If there is no such member.
    pub fn union(&mut self, a: usize, b: usize) -> bool {
        let (a, b) = (self.find(a), self.find(b));
        if a == b {
            return false;
        }
        let (large, small) = if self.sizes[a] >= self.sizes[b] { (a, b) } else { (b, a) };
        // Fits: `large` is an index below 2^32.
        self.parents[small] = large as u32;
        self.sizes[large] += self.sizes[small];
        true
    }

    /// Whether `a` and `b` are in one set.
    ///
    /// # Panics
    /// If there is no such member.
    pub fn is_joined(&mut self, a: usize, b: usize) -> bool {
        self.find(a) == self.find(b)
    }

    /// For each member the number of its set; sets are numbered by their first member.
    pub fn labels(&mut self) -> (Vec<usize>, usize) {
        let mut of_root = vec![usize::MAX; self.len()];
        let mut count = 0;
        let labels = (0..self.len())
            .map(|member| {
                let root = self.find(member);
                if of_root[root] == usize::MAX {
                    of_root[root] = count;
                    count += 1;
                }
                of_root[root]
            })
            .collect();
        (labels, count)
    }
}

/// For each of `len` members the number of its connected component, and how many there are.
///
/// Components are numbered by their first member.
///
/// # Panics
/// If an edge names a member that is not below `len`.
pub fn components(len: usize, edges: impl IntoIterator<Item = (usize, usize)>) -> (Vec<usize>, usize) {
    let mut sets = UnionFind::new(len);
    for (a, b) in edges {
        sets.union(a, b);
    }
    sets.labels()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Components by flooding, the slow and obvious way.
    fn flooded(len: usize, edges: &[(usize, usize)]) -> Vec<usize> {
        let mut labels = vec![usize::MAX; len];
        let mut count = 0;
        for start in 0..len {
            if labels[start] != usize::MAX {
                continue;
            }
            labels[start] = count;
            let mut is_growing = true;
            while is_growing {
                is_growing = false;
                for &(a, b) in edges {
                    for (a, b) in [(a, b), (b, a)] {
                        if labels[a] == count && labels[b] != count {
                            labels[b] = count;
                            is_growing = true;
                        }
                    }
                }
            }
            count += 1;
        }
        labels
    }

    proptest! {
        #[test]
        fn components_are_those_of_a_flood(
            (len, edges) in (1usize..40).prop_flat_map(|n| (Just(n), prop::collection::vec((0..n, 0..n), 0..60)))
        ) {
            let (labels, count) = components(len, edges.iter().copied());
            prop_assert_eq!(&labels, &flooded(len, &edges));
            prop_assert_eq!(count, labels.iter().max().unwrap() + 1);
        }
    }

    #[test]
    fn members_added_later_join_and_truncated_ones_are_gone() {
        let mut sets = UnionFind::new(2);
        let third = sets.push();
        assert!(sets.union(0, third));
        assert!(!sets.union(third, 0));
        assert!(sets.is_joined(0, 2) && !sets.is_joined(1, 2));
        let fourth = sets.push();
        assert_eq!(fourth, 3);
        sets.truncate(3);
        assert_eq!(sets.len(), 3);
        assert_eq!(sets.labels(), (vec![0, 1, 0], 2));
    }

    #[test]
    fn a_chain_of_a_million_is_found_without_recursion() {
        let len = 1_000_000;
        let (labels, count) = components(len, (1..len).map(|i| (i - 1, i)));
        assert_eq!((count, labels[len - 1]), (1, 0));
    }
}
