//! The variables of the base, in the order of the namespace.

use bytes::Bytes;
use chipmink_format::{CovariableRef, ManifestRow, ManifestValue};
use chipmink_types::{GlobalName, SkippedVariable};
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;
use std::sync::OnceLock;

/// What a name of the base refers to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    Inline(Box<[u8]>),
    Named(GlobalName),
    /// Index of the co-variable in the base.
    Covariable(u32),
    Skipped(SkippedVariable),
}

/// A name of the base.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub(crate) name: String,
    /// Order label: the namespace is in ascending order of labels.
    pub(crate) order: u64,
    pub(crate) value: Value,
}

impl Variable {
    /// The manifest's row. `reference` is that of the co-variable, if it has one.
    pub(crate) fn row(&self, reference: Option<&CovariableRef>) -> Option<Vec<u8>> {
        let value = match &self.value {
            Value::Inline(atom) => ManifestValue::Inline(Bytes::copy_from_slice(atom)),
            Value::Named(name) => ManifestValue::Named(name.clone()),
            Value::Skipped(skipped) => ManifestValue::Skipped(skipped.clone()),
            Value::Covariable(_) => ManifestValue::Covariable(reference?.clone()),
        };
        Some(ManifestRow { order: self.order, value }.encode())
    }
}

/// The variables of the base; a name is found by its place in the namespace, or through an index made at first need.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    all: Vec<Variable>,
    index: OnceLock<(DefaultHashBuilder, HashTable<u32>)>,
}

impl Variables {
    pub(crate) fn new(all: Vec<Variable>) -> Self {
        Variables { all, index: OnceLock::new() }
    }

    pub(crate) fn all(&self) -> &[Variable] {
        &self.all
    }

    /// Changes one variable's row, not its name.
    pub(crate) fn set(&mut self, at: usize, order: u64, value: Value) {
        let variable = &mut self.all[at];
        (variable.order, variable.value) = (order, value);
    }

    /// The place of a name; `hint` is where it is looked for first.
    pub(crate) fn find(&self, name: &str, hint: usize) -> Option<usize> {
        if self.all.get(hint).is_some_and(|variable| variable.name == name) {
            return Some(hint);
        }
        let (hasher, table) = self.index.get_or_init(|| {
            let hasher = DefaultHashBuilder::default();
            let hash = |at: &u32| hasher.hash_one(self.all[*at as usize].name.as_str());
            let mut table = HashTable::with_capacity(self.all.len());
            for at in 0..self.all.len() as u32 {
                table.insert_unique(hash(&at), at, hash);
            }
            (hasher, table)
        });
        table.find(hasher.hash_one(name), |at| self.all[*at as usize].name == name).map(|at| *at as usize)
    }
}
