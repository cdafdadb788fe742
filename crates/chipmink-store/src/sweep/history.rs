//! The versions that a sweep looks at: those of the log that were not dropped before.

use crate::error::{Result, StoreError};
use crate::inner::Inner;
use crate::log::Log;
use chipmink_digest::digest;
use chipmink_format::{
    Commit, DroppedVersions, FormatError, ROOT_ENTRY_LEN_MAX, RefMove, RootEntry, Text, root_path,
};
use chipmink_types::{Digest, TimeId};
use hashbrown::{HashMap, HashSet};
use std::collections::BTreeSet;

/// Entries that are read at once.
const WINDOW: u64 = 64;

/// A version, as far as a sweep has to know it.
#[derive(Clone, Debug)]
pub(super) struct ListedVersion {
    pub(super) time: TimeId,
    /// The refs that its publication moved to it.
    pub(super) refs: Vec<String>,
    pub(super) commit: Digest,
    /// The commit whose line it continues.
    pub(super) parent: Option<Digest>,
    /// By the saver's clock, in microseconds since 1970.
    pub(super) saved_at: i64,
    pub(super) manifest: Digest,
    /// Message and code, if they are blobs.
    pub(super) texts: Vec<Digest>,
}

/// An entry of the log.
#[derive(Debug)]
struct Link {
    number: TimeId,
    previous: Option<TimeId>,
    versions: Vec<ListedVersion>,
}

/// The log as far as it was read, oldest first, without what was dropped.
#[derive(Debug, Default)]
pub(super) struct History {
    links: Vec<Link>,
}

impl History {
    /// Reads what was published since the last call.
    pub(super) fn update(&mut self, inner: &Inner, log: &Log) -> Result<()> {
        let (head, dropped) = (log.head.number, log.dropped.clone());
        let known = self.links.last().map(|link| link.number);
        let (mut newer, mut ahead) = (Vec::new(), HashMap::new());
        let mut next = Some(head);
        while let Some(number) = next.filter(|number| Some(*number) > known) {
            if let Some(range) = dropped.range_of(number) {
                next = range.first.0.checked_sub(1).map(TimeId);
                continue;
            }
            if !ahead.contains_key(&number) {
                ahead = read_window(inner, number, known, &dropped)?;
            }
            let Some(entry) = ahead.remove(&number).flatten() else {
                // It says why it cannot be had.
                crate::log::read_entry(&inner.backend, number)?;
                return Err(StoreError::Replaced { place: inner.backend.label().to_owned() });
            };
            next = entry.previous.map(|previous| previous.number);
            newer.push(link(&entry).map_err(|source| damage(inner, number, source))?);
        }
        self.links.extend(newer.into_iter().rev());
        self.links.retain(|link| dropped.range_of(link.number).is_none());
        Ok(())
    }

    /// The versions, oldest first.
    pub(super) fn versions(&self) -> impl DoubleEndedIterator<Item = &ListedVersion> {
        self.links.iter().flat_map(|link| &link.versions)
    }

    /// The ranges to drop so that of the versions only those in `kept` are left, and the versions in them.
    pub(super) fn ranges_without(&self, kept: &BTreeSet<TimeId>) -> (Vec<(TimeId, TimeId)>, Vec<TimeId>) {
        let (mut ranges, mut dropped) = (Vec::new(), Vec::new());
        let mut open: Option<(TimeId, TimeId)> = None;
        // The lowest number above the last version that stays.
        let mut start: Option<TimeId> = None;
        let mut below: Option<TimeId> = None;
        for link in &self.links {
            // The first entry stays: it is what the lowest range stands on.
            let before = below.replace(link.number);
            let Some(previous) = link.previous else { continue };
            if before != Some(previous) {
                // A range that was dropped earlier lies in between.
                ranges.extend(open.take());
                start = None;
            }
            if link.versions.iter().any(|version| kept.contains(&version.time)) {
                ranges.extend(open.take());
                start = None;
                continue;
            }
            let first = *start.get_or_insert(TimeId(previous.0 + 1));
            if !link.versions.is_empty() {
                dropped.push(link.number);
                // Entries without a version below it go with it.
                open = Some((first, link.number));
            }
        }
        ranges.extend(open);
        (ranges, dropped)
    }
}

fn damage(inner: &Inner, number: TimeId, source: FormatError) -> StoreError {
    StoreError::Format { place: inner.backend.label().to_owned(), object: root_path(number), source }
}

/// Reads the entries from `number` down that were not dropped; void ones are left out.
fn read_window(
    inner: &Inner,
    number: TimeId,
    known: Option<TimeId>,
    dropped: &DroppedVersions,
) -> Result<HashMap<TimeId, Option<RootEntry>>> {
    let lowest = number.0.saturating_sub(WINDOW - 1).max(known.map_or(0, |known| known.0 + 1));
    let wanted = (lowest..=number.0).map(TimeId).filter(|number| dropped.range_of(*number).is_none());
    let numbers: Vec<TimeId> = wanted.collect();
    let paths: Vec<String> = numbers.iter().map(|number| root_path(*number)).collect();
    let all = inner.backend.get_all(&paths, ROOT_ENTRY_LEN_MAX)?;
    let decoded = numbers.into_iter().zip(all);
    Ok(decoded
        .map(|(number, bytes)| (number, bytes.and_then(|bytes| RootEntry::decode(&bytes, number).ok())))
        .collect())
}

fn link(entry: &RootEntry) -> Result<Link, FormatError> {
    let previous = entry.previous.map(|previous| previous.number);
    Ok(Link { number: entry.number, previous, versions: versions_of(entry)? })
}

/// The versions that an entry publishes.
pub(super) fn versions_of(entry: &RootEntry) -> Result<Vec<ListedVersion>, FormatError> {
    let mut versions = Vec::with_capacity(entry.commits.len());
    for (ordinal, inline) in (0u32..).zip(&entry.commits) {
        let commit = Commit::decode(&inline.bytes)?;
        let moves = entry.refs.iter().filter(|change| change.to == RefMove::Inline(ordinal));
        let texts = [Some(&commit.message), commit.code.as_ref()].into_iter().flatten();
        versions.push(ListedVersion {
            time: entry.number,
            refs: moves.map(|change| change.name.clone()).collect(),
            commit: digest(&inline.bytes),
            parent: commit.parents.first().copied(),
            saved_at: commit.saved_at,
            manifest: commit.manifest,
            texts: texts
                .filter_map(|text| match text {
                    Text::Stored { digest, .. } => Some(*digest),
                    Text::Inline(_) => None,
                })
                .collect(),
        });
    }
    Ok(versions)
}

/// The versions of a line, newest first: those that were saved to the branch, and those that its newest one follows.
pub(super) fn line<'a>(history: &'a History, branch: &str, head: &Digest) -> Vec<&'a ListedVersion> {
    let by_commit: HashMap<Digest, &ListedVersion> =
        history.versions().map(|version| (version.commit, version)).collect();
    let mut members: HashSet<TimeId> = HashSet::new();
    let mut next = by_commit.get(head).copied();
    while let Some(version) = next {
        if !members.insert(version.time) {
            break;
        }
        next = version.parent.and_then(|parent| by_commit.get(&parent).copied());
    }
    let belongs = |version: &&ListedVersion| {
        members.contains(&version.time) || version.refs.iter().any(|name| name == branch)
    };
    history.versions().rev().filter(belongs).collect()
}
