//! The tables of co-variables and definition groups, as a session knows them.

use crate::hash::KeyMap;
use chipmink_format::{CovariableRef, Extensions, Tree};
use chipmink_graph::Slots;
use chipmink_types::{Component, Digest, PodKey, PodRecord, Slot};
use std::sync::{Arc, OnceLock};

/// Index of a definition group in the base.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct GroupId(pub(crate) u32);

/// What is known of a co-variable.
#[derive(Debug)]
pub(crate) enum Holding {
    /// This session has saved it.
    Known(Box<KnownTable>),
    /// Only where it is, and how many names it has.
    Unread { reference: CovariableRef, name_count: usize },
}

impl Holding {
    pub(crate) fn reference(&self) -> &CovariableRef {
        match self {
            Holding::Known(table) => &table.reference,
            Holding::Unread { reference, .. } => reference,
        }
    }

    pub(crate) fn name_count(&self) -> usize {
        match self {
            Holding::Known(table) => table.names.len(),
            Holding::Unread { name_count, .. } => *name_count,
        }
    }
}

/// A row of a table, with the pod that a walk found for it.
#[derive(Clone, Debug)]
pub(crate) struct KnownPod {
    pub(crate) key: PodKey,
    pub(crate) record: Arc<PodRecord>,
    pub(crate) rank: u64,
    pub(crate) slot: Slot,
    /// Whether its row names a definition group.
    pub(crate) has_definitions: bool,
}

/// A co-variable or definition group as it was walked and saved.
#[derive(Debug)]
pub(crate) struct KnownTable {
    /// As the walk gave them; none in a definition group.
    pub(crate) names: Vec<(String, PodKey, u32)>,
    /// In the order of the walk; aliases stand behind the walked ones.
    pub(crate) pods: Vec<KnownPod>,
    /// How many pods the walk gave.
    pub(crate) walked: usize,
    pub(crate) slots: Slots,
    /// Definition groups by the ordinal that rows use.
    pub(crate) groups: Vec<GroupId>,
    /// Their digests as the table names them; a group whose digest is another now has changed since.
    pub(crate) group_digests: Vec<Digest>,
    pub(crate) tree: Tree,
    pub(crate) extensions: Extensions,
    pub(crate) reference: CovariableRef,
    /// Where each pod is, once it was needed. Slots are kept for life, so it stays true.
    pub(crate) by_key: OnceLock<KeyMap<Slot>>,
}

impl KnownTable {
    /// The slot of each pod.
    pub(crate) fn slots_by_key(&self) -> &KeyMap<Slot> {
        self.by_key.get_or_init(|| self.pods.iter().map(|pod| (pod.key, pod.slot)).collect())
    }

    /// Whether a walk found the very same pods under the same names.
    pub(crate) fn is_same(&self, component: &Component) -> bool {
        component.names.len() == self.names.len()
            && component.pods.len() == self.walked
            && component
                .pods
                .iter()
                .zip(&self.pods)
                .all(|(walked, known)| Arc::ptr_eq(&walked.record, &known.record) && walked.key == known.key)
            && component.names == self.names
    }
}
