//! Which versions are to be sent: those that the refs reach in the source and that the destination does not have.
//!
//! Both logs are read from their newest entries down, and only as far as it takes to find where they meet.

use super::options::{Since, TransferOptions};
use crate::compression::PlaceKind;
use crate::error::{Result, StoreError};
use crate::inner::Inner;
use crate::log::read_entry;
use crate::parallel::in_parallel;
use bytes::Bytes;
use chipmink_format::{Commit, RefChange, RefMove, RefTarget, RootEntry, root_path};
use chipmink_types::{Digest, RepositoryId, TimeId};
use hashbrown::{HashMap, HashSet};

/// What names of tags begin with: no save moves them.
pub(super) const TAG: &str = "tag/";
/// Entries that are read at once: the first time, and at most.
const BATCH: u64 = 8;
const BATCH_MAX: u64 = 64;
/// Requests under way at once.
const THREADS: usize = 16;

/// A version of the source.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) number: TimeId,
    pub(super) digest: Digest,
    pub(super) bytes: Bytes,
    pub(super) commit: Commit,
    pub(super) aliases: Vec<(RepositoryId, TimeId)>,
    /// The ref that its publication moved.
    pub(super) ref_name: Option<String>,
    /// A sweep has dropped it.
    pub(super) is_dropped: bool,
}

/// A ref that is carried.
#[derive(Clone, Debug)]
pub(super) struct Carried {
    /// Its name in the source, and in the destination.
    pub(super) from: String,
    pub(super) to: String,
    /// The commit of the source that it points at.
    pub(super) tip: Digest,
}

/// What is to be sent.
#[derive(Debug)]
pub(super) struct Selection {
    /// The versions, oldest first: each after those that it follows.
    pub(super) versions: Vec<Version>,
    /// Versions that the destination once got, and to which a ref is to point now: something of them may be gone.
    pub(super) again: Vec<Version>,
    /// What the destination has of the source's commits, as far as that was looked for.
    pub(super) known: HashMap<Digest, RefTarget>,
    /// The refs, but for those that are ahead.
    pub(super) carried: Vec<Carried>,
    /// Refs of the destination that are ahead of the source's.
    pub(super) ahead: Vec<String>,
    /// The entries of the source above those of the destination, oldest first, if that is a replica of it.
    pub(super) replica: Option<Vec<RootEntry>>,
}

/// A log, read from its newest entry down.
struct Side<'a> {
    inner: &'a Inner,
    next: Option<TimeId>,
    batch: u64,
    commits: HashMap<Digest, Version>,
    /// Commits by their numbers elsewhere.
    aliases: HashMap<(RepositoryId, TimeId), Digest>,
    entries: Vec<RootEntry>,
}

impl<'a> Side<'a> {
    fn new(inner: &'a Inner) -> Self {
        let next = Some(inner.log().head.number);
        let (commits, aliases) = (HashMap::new(), HashMap::new());
        Side { inner, next, batch: BATCH, commits, aliases, entries: Vec::new() }
    }

    const fn is_exhausted(&self) -> bool {
        self.next.is_none()
    }

    fn read(&self, numbers: &[TimeId]) -> Vec<(TimeId, Result<RootEntry>)> {
        let threads = if self.inner.backend.kind() == PlaceKind::Remote { THREADS } else { 1 };
        let read =
            |number: &TimeId| (*number, read_entry(&self.inner.backend, *number).map(|read| read.entry));
        in_parallel(numbers, threads, read)
    }

    fn take(&mut self, entry: &RootEntry) -> Result<()> {
        let is_dropped = self.inner.log().dropped.range_of(entry.number).is_some();
        for (ordinal, inline) in entry.commits.iter().enumerate() {
            let moves = |change: &&RefChange| change.to == RefMove::Inline(ordinal as u32);
            let commit = Commit::decode(&inline.bytes).map_err(|source| StoreError::Format {
                place: self.inner.backend.label().to_owned(),
                object: root_path(entry.number),
                source,
            })?;
            let version = Version {
                number: entry.number,
                digest: commit.digest(),
                bytes: inline.bytes.clone(),
                commit,
                aliases: inline.aliases.clone(),
                ref_name: entry.refs.iter().find(moves).map(|change| change.name.clone()),
                is_dropped,
            };
            for alias in &version.aliases {
                self.aliases.insert(*alias, version.digest);
            }
            self.commits.insert(version.digest, version);
        }
        Ok(())
    }

    /// Reads some entries more.
    fn advance(&mut self) -> Result<()> {
        let Some(newest) = self.next else { return Ok(()) };
        let lowest = newest.0.saturating_sub(self.batch - 1);
        self.batch = (self.batch * 2).min(BATCH_MAX);
        let numbers: Vec<TimeId> = (lowest..=newest.0).rev().map(TimeId).collect();
        let mut read: HashMap<TimeId, Result<RootEntry>> = self.read(&numbers).into_iter().collect();
        // Only what the chain names counts; the other numbers are spent.
        while let Some(number) = self.next
            && let Some(entry) = read.remove(&number)
        {
            let entry = entry?;
            self.take(&entry)?;
            self.next = entry.previous.map(|previous| previous.number);
            self.entries.push(entry);
        }
        Ok(())
    }

    fn target(&self, digest: &Digest) -> Option<RefTarget> {
        let version = self.commits.get(digest).filter(|version| !version.is_dropped)?;
        Some(RefTarget { commit: *digest, time: version.number, manifest: version.commit.manifest })
    }

    /// Whether `below` is reached from `above`; `None`: that is not known yet.
    fn reaches(&self, above: &Digest, is_it: impl Fn(&Digest) -> bool) -> Option<bool> {
        let mut seen: HashSet<Digest> = [*above].into_iter().collect();
        let mut open = vec![*above];
        let mut is_open = false;
        while let Some(digest) = open.pop() {
            if is_it(&digest) {
                return Some(true);
            }
            match self.commits.get(&digest) {
                Some(version) => {
                    open.extend(version.commit.parents.iter().filter(|parent| seen.insert(**parent)));
                }
                None => is_open = true,
            }
        }
        if is_open && !self.is_exhausted() { None } else { Some(false) }
    }
}

/// The versions of these entries, whatever reaches them.
pub(super) fn of_entries(source: &Inner, entries: &[RootEntry]) -> Result<Selection> {
    let mut side = Side::new(source);
    entries.iter().try_for_each(|entry| side.take(entry))?;
    let mut versions: Vec<Version> = side.commits.into_values().collect();
    versions.sort_unstable_by_key(|version| version.number);
    let (again, known, carried, ahead) = (Vec::new(), HashMap::new(), Vec::new(), Vec::new());
    Ok(Selection { versions, again, known, carried, ahead, replica: None })
}

/// Both logs, as far as they were read.
struct Logs<'a> {
    source: Side<'a>,
    target: Side<'a>,
    repository: RepositoryId,
    is_partial: bool,
    since: Option<Since>,
    /// What the destination's refs point at.
    heads: HashMap<Digest, RefTarget>,
}

/// What is found from a tip down.
#[derive(Default)]
struct Reached {
    /// Versions that the destination does not have.
    new: HashSet<Digest>,
    /// Commits that the source has, too, somewhere further down.
    is_open: bool,
    /// A line of new versions came to its first one.
    has_end: bool,
}

impl Logs<'_> {
    /// A commit of the source, as the destination has it.
    fn in_target(&self, digest: &Digest) -> Option<RefTarget> {
        let same = self.heads.get(digest).copied().or_else(|| self.target.target(digest));
        if same.is_some() || !self.is_partial {
            return same;
        }
        let number = self.source.commits.get(digest)?.number;
        self.target.target(self.target.aliases.get(&(self.repository, number))?)
    }

    fn is_cut(&self, version: &Version) -> bool {
        match self.since {
            _ if version.is_dropped => true,
            None => false,
            Some(Since::Version(number)) => version.number < number,
            Some(Since::SavedAt(time)) => version.commit.saved_at < time,
        }
    }

    fn explore(&self, tips: impl Iterator<Item = Digest>) -> Reached {
        let mut reached = Reached::default();
        let mut open: Vec<Digest> = tips.collect();
        let mut seen: HashSet<Digest> = open.iter().copied().collect();
        while let Some(digest) = open.pop() {
            let Some(version) = self.source.commits.get(&digest) else {
                reached.is_open |= self.in_target(&digest).is_none();
                continue;
            };
            if self.in_target(&digest).is_some() || self.is_cut(version) {
                continue;
            }
            reached.new.insert(digest);
            reached.has_end |= version.commit.parents.is_empty();
            open.extend(version.commit.parents.iter().filter(|parent| seen.insert(**parent)));
        }
        reached
    }

    /// Whether the tip continues what the destination's ref points at.
    fn continues(&self, tip: &Digest, head: &Digest) -> Option<bool> {
        let is_it = |digest: &Digest| self.in_target(digest).is_some_and(|target| target.commit == *head);
        self.source.reaches(tip, is_it)
    }

    /// Whether the destination's ref is ahead of the tip.
    fn is_ahead(&self, tip: &Digest, head: &Digest) -> Option<bool> {
        match self.in_target(tip) {
            Some(target) => self.target.reaches(head, |digest| *digest == target.commit),
            None if self.target.is_exhausted() => Some(false),
            None => None,
        }
    }
}

/// Decides what is sent.
pub(super) fn select(source: &Inner, target: &Inner, options: &TransferOptions) -> Result<Selection> {
    let refs = source.log().state.refs.clone();
    let heads = target.log().state.refs.clone();
    let mut carried: Vec<(Carried, Option<RefTarget>)> = Vec::new();
    let mut carry = |from: &str, to: &str| match refs.get(from) {
        Some(tip) => {
            let head = heads.get(to).copied();
            carried.push((Carried { from: from.to_owned(), to: to.to_owned(), tip: tip.commit }, head));
            Ok(())
        }
        None => Err(StoreError::UnknownRef {
            place: source.backend.label().to_owned(),
            ref_name: from.to_owned(),
        }),
    };
    match options.refs.is_empty() {
        true => refs.keys().try_for_each(|name| carry(name, name))?,
        false => options.refs.iter().try_for_each(|spec| carry(&spec.from, &spec.to))?,
    }
    let mut logs = Logs {
        source: Side::new(source),
        target: Side::new(target),
        repository: source.log().state.repository,
        is_partial: options.names.is_some(),
        since: options.since,
        heads: heads.values().map(|target| (target.commit, *target)).collect(),
    };
    if logs.is_partial {
        // Of these it must be known which versions of the source they are.
        let numbers: Vec<TimeId> = heads.values().map(|target| target.time).collect();
        for (_, entry) in logs.target.read(&numbers) {
            logs.target.take(&entry?)?;
        }
    }
    loop {
        let reached = logs.explore(carried.iter().map(|(carried, _)| carried.tip));
        let mut needs_source = reached.is_open && !logs.source.is_exhausted();
        let mut needs_target = (reached.is_open || reached.has_end) && !logs.target.is_exhausted();
        for (carried, head) in &carried {
            let Some(head) = head else { continue };
            let continues = logs.continues(&carried.tip, &head.commit);
            if continues == Some(true) {
                continue;
            }
            needs_source |= continues.is_none() && !logs.source.is_exhausted();
            let is_ahead = logs.is_ahead(&carried.tip, &head.commit);
            needs_target |= is_ahead.is_none() && !logs.target.is_exhausted();
        }
        if !(needs_source || needs_target) {
            break;
        }
        if needs_source {
            logs.source.advance()?;
        }
        if needs_target {
            logs.target.advance()?;
        }
    }
    settle(logs, carried, options)
}

/// Decides what becomes of each ref, once enough is known.
fn settle(
    mut logs: Logs<'_>,
    carried: Vec<(Carried, Option<RefTarget>)>,
    options: &TransferOptions,
) -> Result<Selection> {
    let (mut kept, mut ahead, mut diverged) = (Vec::new(), Vec::new(), Vec::new());
    for (carried, head) in carried {
        let Some(head) = head.filter(|_| !options.mirror) else {
            kept.push(carried);
            continue;
        };
        let is_there = logs.in_target(&carried.tip).is_some_and(|target| target.commit == head.commit);
        let is_tag = carried.to.starts_with(TAG);
        if is_there || !is_tag && logs.continues(&carried.tip, &head.commit) == Some(true) {
            kept.push(carried);
        } else if !is_tag && logs.is_ahead(&carried.tip, &head.commit) == Some(true) {
            ahead.push(carried.to);
        } else {
            diverged.push(carried.to);
        }
    }
    if !diverged.is_empty() {
        let place = logs.target.inner.backend.label().to_owned();
        return Err(StoreError::Diverged { place, refs: diverged });
    }
    let new = logs.explore(kept.iter().map(|carried| carried.tip)).new;
    let known = |digest: &Digest| logs.in_target(digest).map(|target| (*digest, target));
    let parents = new.iter().filter_map(|digest| logs.source.commits.get(digest));
    let parents = parents.flat_map(|version| version.commit.parents.iter());
    let known = parents.chain(kept.iter().map(|carried| &carried.tip)).filter_map(known).collect();
    let is_again = |carried: &&Carried| {
        logs.in_target(&carried.tip).is_some_and(|target| !logs.heads.contains_key(&target.commit))
    };
    let again = kept.iter().filter(is_again).filter_map(|carried| logs.source.commits.get(&carried.tip));
    let again: Vec<Version> = again.cloned().collect();
    let replica = replica(&mut logs, options)?;
    let mut versions: Vec<Version> =
        new.iter().filter_map(|digest| logs.source.commits.get(digest)).cloned().collect();
    versions.sort_unstable_by_key(|version| version.number);
    Ok(Selection { versions, again, known, carried: kept, ahead, replica })
}

/// The entries that are to be repeated, if the destination is a copy of the source up to its newest entry: then its
/// versions keep their numbers.
fn replica(logs: &mut Logs<'_>, options: &TransferOptions) -> Result<Option<Vec<RootEntry>>> {
    let head = logs.target.inner.log().head.number;
    let same = logs.target.inner.log().state.repository == logs.repository;
    if !same || !options.is_whole() || head > logs.source.inner.log().head.number {
        return Ok(None);
    }
    while logs.source.next.is_some_and(|next| next >= head) {
        logs.source.advance()?;
    }
    let at_head = logs.source.entries.iter().find(|entry| entry.number == head);
    let is_copy = match at_head {
        // A number without an entry was filled with one that changes nothing.
        None => true,
        Some(_) if head == TimeId(0) => true,
        Some(theirs) => {
            let ours = read_entry(&logs.target.inner.backend, head)?.entry;
            theirs.commits.is_empty() && ours.commits.is_empty()
                || !theirs.commits.is_empty()
                    && !ours.commits.is_empty()
                    && theirs.commits[0].bytes == ours.commits[0].bytes
        }
    };
    if !is_copy || logs.source.entries.iter().any(|entry| entry.commits.len() > 1) {
        return Ok(None);
    }
    let entries = logs.source.entries.iter().filter(|entry| entry.number > head);
    let mut entries: Vec<RootEntry> = entries.cloned().collect();
    entries.reverse();
    Ok(Some(entries))
}
