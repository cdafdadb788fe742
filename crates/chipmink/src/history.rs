//! The log of versions.

use crate::error::Result;
use chipmink_format::{Commit, RefMove, Text};
use chipmink_store::{Entries, Store};
use chipmink_types::{Digest, TimeId};
use std::collections::BTreeMap;

/// A version, as its commit describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    /// Its number.
    pub time: TimeId,
    /// The ref that its publication moved.
    pub ref_name: String,
    /// Digest of its commit.
    pub commit: Digest,
    /// Digests of the commits that it follows.
    pub parents: Vec<Digest>,
    /// Root of its manifest.
    pub manifest: Digest,
    /// When it was saved, in microseconds since 1970-01-01 UTC, by the saver's clock.
    pub saved_at: i64,
    /// What the user said of it.
    pub message: String,
    /// Who saved it, as far as the user said.
    pub author: String,
    /// The code that ran before it, if it is known.
    pub code: Option<String>,
    /// Figures of the save.
    pub statistics: BTreeMap<String, String>,
}

impl Version {
    pub(crate) fn read(time: TimeId, ref_name: String, commit: Commit, store: &Store) -> Result<Self> {
        Ok(Version {
            time,
            ref_name,
            commit: commit.digest(),
            manifest: commit.manifest,
            saved_at: commit.saved_at,
            message: commit.message.load(store)?,
            code: commit.code.as_ref().map(|code: &Text| code.load(store)).transpose()?,
            parents: commit.parents,
            author: commit.author,
            statistics: commit.statistics,
        })
    }
}

/// The versions of a repository, newest first. After an error it goes on if it can.
#[derive(Debug)]
pub struct Log {
    store: Store,
    entries: Entries,
    /// Versions of the entry that was read last, the next one last.
    ready: Vec<Result<Version>>,
}

impl Log {
    pub(crate) fn new(store: Store) -> Self {
        let entries = store.entries();
        Log { store, entries, ready: Vec::new() }
    }
}

impl Iterator for Log {
    type Item = Result<Version>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() {
            let entry = match self.entries.next()? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error.into())),
            };
            // One that came from elsewhere may have moved no ref.
            for ordinal in (0..entry.commits.len() as u32).rev() {
                let change = entry.refs.iter().find(|change| change.to == RefMove::Inline(ordinal));
                let ref_name = change.map_or_else(String::new, |change| change.name.clone());
                let version = entry
                    .commit(ordinal)
                    .map_err(Into::into)
                    .and_then(|commit| Version::read(entry.number, ref_name, commit, &self.store));
                self.ready.push(version);
            }
        }
        self.ready.pop()
    }
}
