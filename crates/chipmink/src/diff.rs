//! Which variables differ between two versions, without loading any.

use crate::error::Result;
use chipmink_format::{ManifestRow, ManifestValue, Tree, manifest_name};
use chipmink_types::{BlobSource, Digest};
use std::mem::discriminant;

/// How one version differs from another. Names are in the order of their bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Diff {
    /// Names that only the later version has.
    pub added: Vec<String>,
    /// Names that only the earlier version has.
    pub removed: Vec<String>,
    /// Names that refer to something else, or to objects of a co-variable in which something changed.
    pub changed: Vec<String>,
}

impl Diff {
    /// Whether there is no difference.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// Compares two manifests; what they share is not read.
pub(crate) fn diff(before: Digest, after: Digest, source: &dyn BlobSource) -> Result<Diff> {
    let mut diff = Diff::default();
    for change in Tree::diff(&Tree::open(before), &Tree::open(after), source)? {
        let name = manifest_name(&change.key)?;
        match (change.before, change.after) {
            (None, _) => diff.added.push(name),
            (_, None) => diff.removed.push(name),
            (Some(before), Some(after)) => {
                // A row also changes when only its place in the namespace does.
                if !is_same(&ManifestRow::decode(&before)?.value, &ManifestRow::decode(&after)?.value) {
                    diff.changed.push(name);
                }
            }
        }
    }
    Ok(diff)
}

/// Whether two rows refer to the same content.
pub(crate) fn is_same(a: &ManifestValue, b: &ManifestValue) -> bool {
    match (a, b) {
        (ManifestValue::Covariable(a), ManifestValue::Covariable(b)) => a.digest() == b.digest(),
        _ => discriminant(a) == discriminant(b) && a == b,
    }
}
