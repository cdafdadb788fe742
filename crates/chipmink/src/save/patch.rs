//! Patches: some rows of a table changed, and nothing else about it. That is what most saves find.
//!
//! [`super::table::build_table`] comes to the same result, but looks at each pod several times.

use super::rows::{Places, encode_row};
use super::table::Tools;
use crate::base::KnownTable;
use crate::error::Result;
use crate::hash::KeyMap;
use chipmink_format::{CovariableRef, TABLE_INLINE_MAX, Tree, slot_key};
use chipmink_types::{Component, PodRecord};
use std::sync::Arc;

/// What becomes of a table.
#[derive(Debug)]
pub(crate) struct Patch {
    /// New records by the place of their pod.
    records: Vec<(usize, Arc<PodRecord>)>,
    tree: Tree,
    pub(super) reference: CovariableRef,
}

impl Patch {
    /// The version is visible: makes the table what it is there.
    pub(super) fn apply(self, table: &mut KnownTable) {
        for (at, record) in self.records {
            table.pods[at].record = record;
        }
        (table.tree, table.reference) = (self.tree, self.reference);
    }
}

/// Writes the changed rows of a co-variable; `None` if more has changed than rows, or the groups that they name may
/// have. The groups that the table names are those of this walk.
pub(super) fn patch(
    component: &Component,
    table: &KnownTable,
    tools: &mut Tools<'_>,
) -> Result<Option<Patch>> {
    if component.pods.len() != table.walked || component.names != table.names {
        return Ok(None);
    }
    let mut records = Vec::new();
    for (at, (walked, known)) in component.pods.iter().zip(&table.pods).enumerate() {
        if walked.key != known.key {
            return Ok(None);
        }
        if !Arc::ptr_eq(&walked.record, &known.record) {
            let names_groups = known.has_definitions
                || walked.record.dependencies.iter().any(|key| tools.definitions.contains_key(key));
            if names_groups && walked.record.dependencies != known.record.dependencies {
                return Ok(None);
            }
            records.push((at, Arc::clone(&walked.record)));
        }
    }
    // Ranks that were kept through a walk in another order fit the old bytes only.
    if !table.pods.is_sorted_by(|a, b| a.rank < b.rank) {
        return Ok(None);
    }
    let none = KeyMap::default();
    let has_dependencies = records.iter().any(|(_, record)| !record.dependencies.is_empty());
    let local = if has_dependencies { table.slots_by_key() } else { &none };
    let places = Places { local, definitions: tools.definitions, groups: &table.groups };
    let mut edits = Vec::with_capacity(records.len());
    for (at, record) in &records {
        let pod = &table.pods[*at];
        let row = encode_row(record, pod.rank, &places, tools.descriptors, tools.sink)?;
        edits.push((slot_key(pod.slot).to_vec(), Some(row)));
        *tools.rows_written += 1;
    }
    edits.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let mut tree = table.tree.clone();
    tree.apply_inline(&edits, TABLE_INLINE_MAX, tools.source, tools.sink)?;
    let mut header = table.reference.load(tools.source)?;
    header.table = tree.clone();
    let reference = header.store(tools.sink)?;
    Ok(Some(Patch { records, tree, reference }))
}
