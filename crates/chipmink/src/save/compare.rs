//! Comparing live objects with versions, for a checkout: a save that is never published.

use super::write_version;
use crate::diff::{Diff, diff};
use crate::error::Result;
use crate::save::Prepared;
use bytes::Bytes;
use chipmink_store::Store;
use chipmink_types::{BlobError, BlobKind, BlobSink, BlobSource, Digest, TimeId};
use hashbrown::HashMap;

impl Prepared {
    /// How what was walked differs from each of `versions`: what it has in addition is added, what it lacks removed.
    ///
    /// Objects that are equal, but lie in a co-variable with another history, may count as changed.
    ///
    /// # Errors
    /// When a version is unknown, or a table is missing or damaged.
    pub fn compare(&mut self, versions: &[TimeId]) -> Result<Vec<Diff>> {
        let (shared, base, outcome) = self.parts();
        let mut aside = Aside { store: &shared.store, tables: HashMap::new() };
        let live = write_version(base, outcome, &shared.store, &mut aside)?.manifest;
        versions.iter().map(|time| diff(shared.manifest(*time)?, live, &aside)).collect()
    }
}

/// Keeps tables that are not to be stored, on top of those that are.
struct Aside<'a> {
    store: &'a Store,
    tables: HashMap<Digest, Bytes>,
}

impl BlobSink for Aside<'_> {
    fn put(&mut self, _kind: BlobKind, digest: Digest, bytes: &[u8]) -> Result<bool, BlobError> {
        self.tables.entry(digest).or_insert_with(|| Bytes::copy_from_slice(bytes));
        Ok(true)
    }

    fn holds(&mut self, digest: &Digest) -> bool {
        self.tables.contains_key(digest)
    }
}

impl BlobSource for Aside<'_> {
    fn get(&self, digest: &Digest) -> Result<Bytes, BlobError> {
        match self.tables.get(digest) {
            Some(bytes) => Ok(bytes.clone()),
            None => self.store.get(digest),
        }
    }
}
