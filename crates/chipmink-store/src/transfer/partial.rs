//! [`Partial`]: versions with some of their variables.
//!
//! What is sent is a version of its own, with another digest: its manifest has the rows of the variables that were asked
//! for, of those that share objects with them, and of those that their functions read. It is known again by the number
//! that it has in the source, which it keeps as an alias.

use super::closure::Sent;
use super::history::Version;
use crate::error::{Result, StoreError};
use crate::inner::Inner;
use bytes::Bytes;
use chipmink_format::{
    Commit, Covariable, CovariableRef, Edit, FormatError, GROUP_DEPTH_MAX, ManifestRow, ManifestValue,
    PodRow, RefTarget, Tree, TreeRoot,
};
use chipmink_types::{BlobError, BlobKind, BlobSink, Digest};
use hashbrown::{HashMap, HashSet};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Rows of a manifest by their keys.
pub(super) type Rows = BTreeMap<Vec<u8>, Bytes>;
/// Blobs that were made.
type Made = Vec<(BlobKind, Digest, Bytes)>;

/// Picks variables out of versions.
pub(super) struct Partial<'a> {
    source: &'a Inner,
    names: &'a [String],
    /// Those of them that a version had.
    found: HashSet<String>,
    /// The names that come along with a co-variable.
    along: HashMap<Digest, Vec<String>>,
    /// The rows of versions that were sent, by the source's commits.
    sent: HashMap<Digest, Rows>,
}

/// Takes blobs and keeps them.
#[derive(Default)]
struct Collect(Made);

impl BlobSink for Collect {
    fn put(&mut self, kind: BlobKind, digest: Digest, bytes: &[u8]) -> Result<bool, BlobError> {
        self.0.push((kind, digest, Bytes::copy_from_slice(bytes)));
        Ok(true)
    }

    fn holds(&mut self, _: &Digest) -> bool {
        false
    }
}

impl<'a> Partial<'a> {
    pub(super) fn new(source: &'a Inner, names: &'a [String]) -> Self {
        let (found, along, sent) = (HashSet::new(), HashMap::new(), HashMap::new());
        Partial { source, names, found, along, sent }
    }

    /// The rows of a version that are sent.
    pub(super) fn rows(&mut self, version: &Version) -> Result<Rows, FormatError> {
        let all: HashMap<Vec<u8>, Bytes> =
            Tree::open(version.commit.manifest).rows(self.source)?.into_iter().collect();
        let mut rows = Rows::new();
        let mut open: Vec<String> = self.names.to_vec();
        while let Some(name) = open.pop() {
            let key = name.as_bytes();
            let Some(row) = all.get(key).filter(|_| !rows.contains_key(key)) else { continue };
            rows.insert(key.to_vec(), row.clone());
            if let ManifestValue::Covariable(covariable) = ManifestRow::decode(row)?.value {
                open.extend(self.along(&covariable, 0)?);
            }
            if self.names.contains(&name) {
                self.found.insert(name);
            }
        }
        Ok(rows)
    }

    /// The variables of a co-variable, and those that its functions read.
    fn along(&mut self, covariable: &CovariableRef, depth: usize) -> Result<Vec<String>, FormatError> {
        if let Some(known) = self.along.get(&covariable.digest()) {
            return Ok(known.clone());
        }
        let Covariable { names, groups, table, .. } = covariable.load(self.source)?;
        let mut along: HashSet<String> = names.into_iter().map(|root| root.name).collect();
        table.scan(&[], self.source, &mut |_, row| {
            along.extend(PodRow::decode(row, self.source)?.names);
            Ok(ControlFlow::Continue(()))
        })?;
        if depth < GROUP_DEPTH_MAX {
            for group in groups {
                along.extend(self.along(&CovariableRef::Stored(group), depth + 1)?);
            }
        }
        let along: Vec<String> = along.into_iter().collect();
        self.along.insert(covariable.digest(), along.clone());
        Ok(along)
    }

    /// The rows that the destination has of a version before.
    pub(super) fn before(
        &self,
        commit: &Digest,
        known: Option<&RefTarget>,
        target: &Inner,
    ) -> Result<Rows, FormatError> {
        if let Some(rows) = self.sent.get(commit) {
            return Ok(rows.clone());
        }
        let Some(known) = known else { return Ok(Rows::new()) };
        Ok(Tree::open(known.manifest).rows(target)?.into_iter().collect())
    }

    /// Makes the version of these rows.
    pub(super) fn commit(
        &mut self,
        version: &Version,
        rows: Rows,
        parents: Vec<Digest>,
    ) -> Result<(Sent, Made), FormatError> {
        let mut made = Collect::default();
        let edits: Vec<Edit> = rows.iter().map(|(key, value)| (key.clone(), Some(value.to_vec()))).collect();
        let mut tree = Tree::empty();
        let manifest = tree.apply(&edits, self.source, &mut made)?;
        debug_assert_eq!(tree.root(), Some(&TreeRoot::Stored(manifest)));
        let commit = Commit { parents, manifest, ..version.commit.clone() };
        let bytes = Bytes::from(commit.encode());
        // Of the versions before only the last can be asked for again, but for branches.
        self.sent.insert(version.digest, rows);
        Ok((Sent { bytes, digest: commit.digest(), manifest }, made.0))
    }

    /// Whether each name was met in some version.
    pub(super) fn check(&self, versions: &[Version], place: &str) -> Result<()> {
        let lacking = self.names.iter().find(|name| !self.found.contains(*name));
        match lacking {
            Some(name) if !versions.is_empty() => {
                Err(StoreError::UnknownName { place: place.to_owned(), name: name.clone() })
            }
            _ => Ok(()),
        }
    }
}
