//! One version out of several: what the processes of one program have saved, each its own variables.
//!
//! 1. Nothing is copied: the new manifest has the rows of the others. The versions that are joined stay what they are.
//! 2. They must still be there when the new one becomes visible; else nothing is published.

use crate::error::{Error, Result};
use crate::refs::check_branch;
use crate::repository::Repository;
use crate::save::now_micros;
use chipmink_format::{Commit, Edit, Extensions, ManifestRow, Text, Tree, read_manifest};
use chipmink_graph::assign_ranks;
use chipmink_store::{Publication, StoreError};
use chipmink_types::TimeId;
use std::collections::BTreeMap;

impl Repository {
    /// Publishes, as the next version of a ref, one that has the variables of all `versions`, in their order. The ref must be at
    /// `expected` (`None`: not be there yet).
    ///
    /// # Errors
    /// When a version is unknown, was dropped, or is damaged; two have a variable of the same name; or the ref is elsewhere.
    pub fn join(
        &self,
        ref_name: &str,
        expected: Option<TimeId>,
        versions: &[TimeId],
        message: &str,
    ) -> Result<TimeId> {
        check_branch(ref_name)?;
        let (shared, store) = (self.shared(), self.store());
        store.refresh()?;
        let mut transaction = store.begin();
        let mut rows: BTreeMap<String, (TimeId, usize, ManifestRow)> = BTreeMap::new();
        let before = expected.map(|before| shared.place(before)).transpose()?;
        for time in versions {
            let place = shared.place(*time)?;
            transaction.build_on(*time);
            for (name, row) in read_manifest(place.manifest, store)? {
                let order = rows.len();
                if let Some((first, ..)) = rows.get(&name) {
                    return Err(Error::JoinedTwice { name, first: *first, second: *time });
                }
                rows.insert(name, (*time, order, row));
            }
        }
        let orders = assign_ranks(&vec![None; rows.len()]);
        let edits = rows.into_iter().map(|(name, (_, order, row))| -> Edit {
            let row = ManifestRow { order: orders[order], value: row.value };
            (name.into_bytes(), Some(row.encode()))
        });
        let edits: Vec<Edit> = edits.collect();
        let manifest = Tree::empty().apply(&edits, store, &mut transaction)?;
        let commit = Commit {
            parents: before.iter().map(|place| place.commit).collect(),
            manifest,
            saved_at: now_micros(),
            message: Text::store(message, &mut transaction)?,
            author: String::new(),
            code: None,
            statistics: BTreeMap::new(),
            extensions: Extensions::default(),
        };
        let publication = Publication { ref_name: ref_name.to_owned(), expected, commit };
        let published = transaction.publish(&publication);
        if let Some(stager) = &shared.stager {
            stager.wake();
        }
        // A base that this object may have of the ref is no longer its newest version.
        shared.forget_base(ref_name);
        published.map_err(|error| match error {
            StoreError::BaseSwept => {
                let gone = versions.iter().find(|time| store.check_retained(**time).is_err());
                match gone.map(|time| store.check_retained(*time)) {
                    Some(Err(dropped)) => dropped.into(),
                    _ => error.into(),
                }
            }
            other => other.into(),
        })
    }
}
