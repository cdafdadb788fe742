//! The entries that a transfer will publish.
//!
//! 1. Each version has an entry of its own, and moves a branch that reaches it; parents go before children.
//! 2. In a copy of the source every entry keeps its number: those that are not repeated are filled with entries that change
//!    nothing. Elsewhere a version gets the next free number, and the one of the source stays as an alias.

use super::closure::{Closure, Sent};
use super::history::{Carried, Selection, TAG, Version};
use super::options::TransferOptions;
use crate::inner::Inner;
use chipmink_format::{RefMove, RefTarget, RootEntry};
use chipmink_types::{Digest, RepositoryId, TimeId};
use hashbrown::{HashMap, HashSet};

/// Where a ref is to point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Goal {
    /// At the version of this step.
    Here,
    /// At this commit of the destination.
    At(Digest),
    /// Nowhere.
    Gone,
}

/// What one entry does.
#[derive(Clone, Debug, Default)]
pub(super) struct Step {
    /// The number that it must have.
    pub(super) number: Option<TimeId>,
    pub(super) version: Option<NewVersion>,
    pub(super) refs: Vec<(String, Goal)>,
}

/// A version of a step.
#[derive(Clone, Debug)]
pub(super) struct NewVersion {
    pub(super) sent: Sent,
    /// Its number in the source.
    pub(super) number: TimeId,
    pub(super) aliases: Vec<(RepositoryId, TimeId)>,
}

/// All that is to be published.
#[derive(Debug)]
pub(super) struct Steps {
    pub(super) steps: Vec<Step>,
    /// Commits that are in the destination.
    pub(super) known: HashMap<Digest, RefTarget>,
    /// The commit that each ref of the destination points at, as far as this transfer knows.
    pub(super) at: HashMap<String, Digest>,
    pub(super) ahead: Vec<String>,
}

pub(super) fn plan(
    target: &Inner,
    options: &TransferOptions,
    selection: &Selection,
    closure: &Closure<'_>,
) -> Steps {
    let log = target.log();
    let head = log.head.number;
    let at: HashMap<String, Digest> =
        log.state.refs.iter().map(|(name, target)| (name.clone(), target.commit)).collect();
    drop(log);
    let mut known: HashMap<Digest, RefTarget> =
        selection.known.values().map(|target| (target.commit, *target)).collect();
    let fits = selection.versions.iter().all(|version| version.number > head);
    let mut steps = match &selection.replica {
        Some(entries) if fits => replica(entries, head, options, selection, closure, &mut known),
        _ => lines(selection, closure),
    };
    steps.push(last(&steps, &at, options, selection, closure));
    Steps { steps, known, at, ahead: selection.ahead.clone() }
}

fn new_version(version: &Version, closure: &Closure<'_>) -> Option<NewVersion> {
    let sent = closure.sent(&version.digest)?.clone();
    Some(NewVersion { sent, number: version.number, aliases: version.aliases.clone() })
}

/// The entries of the source once more.
fn replica(
    entries: &[RootEntry],
    head: TimeId,
    options: &TransferOptions,
    selection: &Selection,
    closure: &Closure<'_>,
    known: &mut HashMap<Digest, RefTarget>,
) -> Vec<Step> {
    let by_number: HashMap<TimeId, &Version> =
        selection.versions.iter().map(|version| (version.number, version)).collect();
    let again: HashSet<Digest> = selection.again.iter().map(|version| version.digest).collect();
    let step = |entry: &RootEntry| {
        let version = by_number.get(&entry.number).and_then(|version| new_version(version, closure));
        let mut refs = Vec::new();
        for change in &entry.refs {
            let goal = match change.to {
                RefMove::Inline(_) if version.is_some() => Goal::Here,
                RefMove::Existing(to) if closure.sent(&to.commit).is_some() || again.contains(&to.commit) => {
                    Goal::At(to.commit)
                }
                RefMove::Existing(to) if to.time <= head && known.contains_key(&to.commit) => {
                    Goal::At(to.commit)
                }
                RefMove::Deleted if options.mirror => Goal::Gone,
                _ => continue,
            };
            refs.push((change.name.clone(), goal));
        }
        Step { number: Some(entry.number), version, refs }
    };
    entries.iter().map(step).collect()
}

/// The versions one after another, each on a branch that reaches it.
fn lines(selection: &Selection, closure: &Closure<'_>) -> Vec<Step> {
    let by_digest: HashMap<Digest, &Version> =
        selection.versions.iter().map(|version| (version.digest, version)).collect();
    let branches: Vec<&Carried> =
        selection.carried.iter().filter(|carried| !carried.to.starts_with(TAG)).collect();
    let mut reached_by: HashMap<Digest, Vec<&Carried>> = HashMap::new();
    for branch in branches {
        let mut next = Some(branch.tip);
        while let Some(version) = next.and_then(|digest| by_digest.get(&digest)) {
            reached_by.entry(version.digest).or_default().push(branch);
            next = version.commit.parents.first().copied();
        }
    }
    let step = |version: &Version| {
        let new = new_version(version, closure)?;
        let branches = reached_by.get(&version.digest).map_or(&[][..], Vec::as_slice);
        let own = branches.iter().find(|branch| Some(&branch.from) == version.ref_name.as_ref());
        let branch = own.or(branches.first());
        let refs = branch.map(|branch| (branch.to.clone(), Goal::Here)).into_iter().collect();
        Some(Step { number: None, version: Some(new), refs })
    };
    selection.versions.iter().filter_map(step).collect()
}

/// Puts the refs where they are to end.
fn last(
    steps: &[Step],
    at: &HashMap<String, Digest>,
    options: &TransferOptions,
    selection: &Selection,
    closure: &Closure<'_>,
) -> Step {
    let mut ends = at.clone();
    for step in steps {
        for (name, goal) in &step.refs {
            match (goal, &step.version) {
                (Goal::Here, Some(version)) => drop(ends.insert(name.clone(), version.sent.digest)),
                (Goal::At(commit), _) => drop(ends.insert(name.clone(), *commit)),
                (Goal::Gone, _) => drop(ends.remove(name)),
                (Goal::Here, None) => {}
            }
        }
    }
    let mut refs = Vec::new();
    for carried in &selection.carried {
        let sent = closure.sent(&carried.tip).map(|sent| sent.digest);
        let tip = sent.or_else(|| selection.known.get(&carried.tip).map(|target| target.commit));
        // Older than what was asked for: there is nothing to point at.
        let Some(tip) = tip else { continue };
        if ends.get(&carried.to) != Some(&tip) {
            refs.push((carried.to.clone(), Goal::At(tip)));
        }
        ends.remove(&carried.to);
    }
    if options.mirror && options.refs.is_empty() {
        let mut gone: Vec<String> = ends.into_keys().collect();
        gone.sort_unstable();
        refs.extend(gone.into_iter().map(|name| (name, Goal::Gone)));
    }
    Step { number: None, version: None, refs }
}
