//! The base: what a repository object knows of the version that its next save to a ref builds on.
//!
//! 1. It changes only when a save has become visible, or by [`crate::Repository::set_base`].
//! 2. A table that the session has saved is kept as it was walked ([`KnownTable`]), so that an unchanged co-variable is
//!    recognised by comparing pointers. A table that it has not saved is known by its place only.
//! 3. Definition groups have an index of their own for life; tables name them by it, and their digests change under it.

mod regions;
mod table;
mod variables;

pub(crate) use regions::BaseRegions;
pub(crate) use table::{GroupId, Holding, KnownPod, KnownTable};
pub(crate) use variables::{Value, Variable, Variables};

use crate::error::Result;
use chipmink_format::{ManifestValue, read_manifest};
use chipmink_types::{BlobSource, Digest, TimeId};
use hashbrown::HashMap;

/// Where a version stands in its repository.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) time: TimeId,
    pub(crate) commit: Digest,
    pub(crate) manifest: Digest,
}

/// What is known of the version that a save builds on.
#[derive(Debug, Default)]
pub(crate) struct Base {
    /// `None`: the ref has no version yet.
    pub(crate) place: Option<Place>,
    /// Where the ref was when this became the base: another version after a checkout of an older one. A save fails if the
    /// ref is elsewhere by then.
    pub(crate) expected: Option<TimeId>,
    pub(crate) variables: Variables,
    /// Co-variables, by an index that a co-variable keeps while it is continued.
    pub(crate) covariables: Vec<Option<Holding>>,
    /// Definition groups, by [`GroupId`].
    pub(crate) groups: Vec<Option<Box<KnownTable>>>,
}

impl Base {
    /// The base of a ref's first version.
    pub(crate) fn empty() -> Self {
        Base::default()
    }

    /// A version of which only its manifest is read; the ref stands at `expected`.
    ///
    /// # Errors
    /// When the manifest is missing or damaged.
    pub(crate) fn read(place: Place, expected: Option<TimeId>, source: &dyn BlobSource) -> Result<Self> {
        let mut base = Base { place: Some(place), expected, ..Base::default() };
        let mut by_digest: HashMap<Digest, u32> = HashMap::new();
        let mut variables = Vec::new();
        for (name, row) in read_manifest(place.manifest, source)? {
            let value = match row.value {
                ManifestValue::Inline(atom) => Value::Inline(atom.to_vec().into()),
                ManifestValue::Named(name) => Value::Named(name),
                ManifestValue::Skipped(skipped) => Value::Skipped(skipped),
                ManifestValue::Covariable(reference) => {
                    let digest = reference.digest();
                    let index = *by_digest.entry(digest).or_insert_with(|| {
                        base.covariables.push(Some(Holding::Unread { reference, name_count: 0 }));
                        base.covariables.len() as u32 - 1
                    });
                    if let Some(Holding::Unread { name_count, .. }) =
                        base.covariables[index as usize].as_mut()
                    {
                        *name_count += 1;
                    }
                    Value::Covariable(index)
                }
            };
            variables.push(Variable { name, order: row.order, value });
        }
        base.variables = Variables::new(variables);
        Ok(base)
    }

    pub(crate) fn covariable(&self, index: u32) -> Option<&Holding> {
        self.covariables.get(index as usize)?.as_ref()
    }

    pub(crate) fn group(&self, id: GroupId) -> Option<&KnownTable> {
        self.groups.get(id.0 as usize)?.as_deref()
    }

    /// Forgets how tables were walked, which means nothing to a source that starts anew; keeps where they are.
    pub(crate) fn forget_walks(&mut self) {
        for holding in self.covariables.iter_mut().flatten() {
            if let Holding::Known(table) = holding {
                let (reference, name_count) = (table.reference.clone(), table.names.len());
                *holding = Holding::Unread { reference, name_count };
            }
        }
        self.groups.clear();
    }
}
