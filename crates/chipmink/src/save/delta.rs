//! What a save changes in the base, held back until its commit is visible.

use super::patch::Patch;
use crate::base::{Base, GroupId, Holding, KnownTable, Place, Value, Variable, Variables};

/// New rows of the namespace.
#[derive(Debug)]
pub(crate) enum VariablesDelta {
    /// Same names in the same order; these changed: place, order label, value.
    Rows(Vec<(usize, u64, Value)>),
    /// Another namespace.
    All(Vec<Variable>),
}

/// What becomes of a co-variable of the base.
#[derive(Debug)]
pub(crate) enum Change {
    /// It is no more.
    Gone,
    /// It is new, or another.
    New(Holding),
    /// Some of its rows are others.
    Patched(Patch),
}

/// What a save changes in the base.
#[derive(Debug)]
pub(crate) struct Delta {
    /// Co-variables by index. Indices behind the end are new.
    pub(super) covariables: Vec<(u32, Change)>,
    /// Definition groups; `None`: it is no more.
    pub(super) groups: Vec<(GroupId, Option<Box<KnownTable>>)>,
    pub(super) variables: VariablesDelta,
}

impl Delta {
    /// The save changed nothing.
    pub(crate) fn none() -> Self {
        Delta { covariables: Vec::new(), groups: Vec::new(), variables: VariablesDelta::Rows(Vec::new()) }
    }

    /// The version is visible: makes it the base.
    pub(crate) fn apply(self, base: &mut Base, place: Place) {
        base.place = Some(place);
        base.expected = Some(place.time);
        for (index, change) in self.covariables {
            match change {
                Change::Gone => put(&mut base.covariables, index as usize, None),
                Change::New(holding) => put(&mut base.covariables, index as usize, Some(holding)),
                Change::Patched(patch) => {
                    if let Some(Holding::Known(table)) =
                        base.covariables.get_mut(index as usize).and_then(Option::as_mut)
                    {
                        patch.apply(table);
                    }
                }
            }
        }
        let has_groups = !self.groups.is_empty() || !base.groups.is_empty();
        for (id, group) in self.groups {
            put(&mut base.groups, id.0 as usize, group);
        }
        match self.variables {
            VariablesDelta::Rows(rows) => {
                rows.into_iter().for_each(|(at, order, value)| base.variables.set(at, order, value));
            }
            VariablesDelta::All(all) => base.variables = Variables::new(all),
        }
        if has_groups {
            drop_unused_groups(base);
        }
    }
}

fn put<T>(slab: &mut Vec<Option<T>>, at: usize, value: Option<T>) {
    if slab.len() <= at {
        slab.resize_with(at + 1, || None);
    }
    slab[at] = value;
    while slab.last().is_some_and(Option::is_none) {
        slab.pop();
    }
}

/// Groups that no co-variable names any more, not even through another group, are forgotten.
fn drop_unused_groups(base: &mut Base) {
    let mut is_used = vec![false; base.groups.len()];
    let mut open: Vec<GroupId> = Vec::new();
    for holding in base.covariables.iter().flatten() {
        if let Holding::Known(table) = holding {
            open.extend_from_slice(&table.groups);
        }
    }
    while let Some(id) = open.pop() {
        let Some(used) = is_used.get_mut(id.0 as usize) else { continue };
        if !std::mem::replace(used, true) {
            open.extend(base.group(id).iter().flat_map(|table| table.groups.iter().copied()));
        }
    }
    for (group, is_used) in base.groups.iter_mut().zip(is_used) {
        if !is_used {
            *group = None;
        }
    }
    while base.groups.last().is_some_and(Option::is_none) {
        base.groups.pop();
    }
}
