//! [`Earlier`]: which region of the last version a new object's region probably continues.
//!
//! An array that was replaced by another of the same length under the same name, or whose repository was opened anew, is
//! told by its place: it is the next region of that length in its co-variable, in the order of the walk, that no other object
//! continues. That is a guess. A wrong one costs an attempt to store a difference, and no byte.

use chipmink_types::{Digest, EarlierRegions, GridKind, RegionRecord};
use hashbrown::HashMap;
use std::collections::VecDeque;

/// Candidates among which one is looked for that is known to be continued: objects are mostly met in their old order.
const LOOKED_AT: usize = 64;

/// How a region is cut, and its length.
type Cut = (GridKind, u64, u64, u64);

fn cut(record: &RegionRecord) -> Cut {
    (record.grid, record.row_len, record.first_chunk_len, record.byte_len)
}

/// The regions of the last version that no object continues so far.
#[derive(Debug, Default)]
pub(crate) struct Earlier<'a> {
    base: Option<&'a dyn EarlierRegions>,
    /// Name of the variable that is walked.
    variable: String,
    /// Its co-variable, once it was asked for.
    covariable: Option<Option<u32>>,
    left: HashMap<(u32, Cut), VecDeque<RegionRecord>>,
    /// Co-variables whose regions are in `left`.
    read: Vec<u32>,
    /// Roots of regions that objects were known to continue before the regions of their co-variable were asked for.
    continued: Vec<Digest>,
}

impl<'a> Earlier<'a> {
    pub(crate) fn new(base: Option<&'a dyn EarlierRegions>) -> Self {
        Earlier { base, ..Earlier::default() }
    }

    /// What is met from here on belongs to this variable.
    pub(crate) fn enter(&mut self, variable: &str) {
        if self.base.is_some() {
            self.covariable = None;
            self.variable.clear();
            self.variable.push_str(variable);
        }
    }

    fn candidates(&mut self, record: &RegionRecord) -> Option<&mut VecDeque<RegionRecord>> {
        let base = self.base?;
        let covariable = (*self.covariable.get_or_insert_with(|| base.covariable_of(&self.variable)))?;
        if !self.read.contains(&covariable) {
            self.read.push(covariable);
            for region in base.regions_of(covariable) {
                if let Some(at) = self.continued.iter().take(LOOKED_AT).position(|root| *root == region.root)
                {
                    self.continued.remove(at);
                    continue;
                }
                self.left.entry((covariable, cut(&region))).or_default().push_back(region);
            }
        }
        self.left.get_mut(&(covariable, cut(record)))
    }

    /// Whether [`Earlier::take`] may have to wait for a place far away.
    pub(crate) fn would_wait(&mut self) -> bool {
        let Some(base) = self.base else { return false };
        let covariable = *self.covariable.get_or_insert_with(|| base.covariable_of(&self.variable));
        covariable.is_some_and(|covariable| !self.read.contains(&covariable) && base.would_wait(covariable))
    }

    /// What a region of which the session knows nothing probably was.
    pub(crate) fn take(&mut self, record: &RegionRecord) -> Option<RegionRecord> {
        self.candidates(record)?.pop_front()
    }

    /// An object is known to continue this region.
    pub(crate) fn note_continued(&mut self, root: &Digest, record: &RegionRecord) {
        let Some(base) = self.base else { return };
        let covariable = *self.covariable.get_or_insert_with(|| base.covariable_of(&self.variable));
        if !covariable.is_some_and(|covariable| self.read.contains(&covariable)) {
            // Most walks never ask for any.
            self.continued.push(*root);
        } else if let Some(left) = self.candidates(record)
            && let Some(at) = left.iter().take(LOOKED_AT).position(|region| region.root == *root)
        {
            left.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Base(Vec<RegionRecord>);

    impl EarlierRegions for Base {
        fn covariable_of(&self, variable: &str) -> Option<u32> {
            (variable != "new").then_some(7)
        }

        fn regions_of(&self, covariable: u32) -> Vec<RegionRecord> {
            assert_eq!(covariable, 7);
            self.0.clone()
        }
    }

    fn region(byte_len: u64, root: u8) -> RegionRecord {
        RegionRecord {
            grid: GridKind::Run,
            row_len: 0,
            first_chunk_len: 0,
            byte_len,
            buffer_id: 0,
            root: Digest::xxh3([root; 16]),
            views: Vec::new(),
        }
    }

    #[test]
    fn regions_of_one_length_are_continued_in_their_order() {
        let base = Base(vec![region(10, 1), region(20, 2), region(10, 3)]);
        let mut earlier = Earlier::new(Some(&base));
        earlier.enter("a");
        assert_eq!(earlier.take(&region(10, 0)), Some(region(10, 1)));
        earlier.enter("b");
        assert_eq!(earlier.take(&region(10, 0)), Some(region(10, 3)));
        assert_eq!(earlier.take(&region(10, 0)), None);
        assert_eq!(earlier.take(&region(30, 0)), None);
        assert_eq!(earlier.take(&region(20, 0)), Some(region(20, 2)));
    }

    #[test]
    fn what_an_object_continues_is_no_candidate_for_another() {
        let base = Base(vec![region(10, 1), region(10, 2), region(10, 3), region(10, 4)]);
        let mut earlier = Earlier::new(Some(&base));
        earlier.enter("a");
        earlier.note_continued(&region(10, 1).root, &region(10, 1));
        assert_eq!(earlier.take(&region(10, 0)), Some(region(10, 2)));
        earlier.note_continued(&region(10, 3).root, &region(10, 3));
        assert_eq!(earlier.take(&region(10, 0)), Some(region(10, 4)));
    }

    #[test]
    fn a_new_variable_and_a_first_version_have_nothing_to_continue() {
        let base = Base(vec![region(10, 1)]);
        let mut earlier = Earlier::new(Some(&base));
        earlier.enter("new");
        assert_eq!(earlier.take(&region(10, 0)), None);
        assert_eq!(Earlier::new(None).take(&region(10, 0)), None);
    }
}
