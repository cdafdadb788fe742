//! [`Books`]: what the callers were told, to be compared with what is there in the end.

use chipmink_store::{Store, StoreError};
use chipmink_testkit::toy::{self, Namespace};
use chipmink_types::TimeId;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What the caller of a publication was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    Published(TimeId),
    Failed,
    /// That the outcome is unknown, or nothing because the process died.
    Unknown,
}

/// A version that somebody tried to publish.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    pub(crate) namespace: Namespace,
    pub(crate) ref_name: String,
    pub(crate) told: Told,
}

/// All that was told to anybody.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// Versions, by their messages.
    pub(crate) saved: BTreeMap<String, Saved>,
    /// Refs that were made, by their names: each is used once.
    pub(crate) refs: BTreeMap<String, (TimeId, Told)>,
    /// Refs that somebody tried to delete.
    pub(crate) deleted: HashSet<String>,
    pub(crate) sweeps_begun: u64,
    pub(crate) sweeps_ended: u64,
    /// A sweep that failed may have taken tags away.
    pub(crate) has_unclear_tags: bool,
    pub(crate) problems: Vec<String>,
}

impl Books {
    pub(crate) fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// Versions that were published, as far as somebody was told.
    pub(crate) fn published(&self) -> Vec<(TimeId, &Saved)> {
        let time = |saved: &Saved| match saved.told {
            Told::Published(time) => Some(time),
            _ => None,
        };
        self.saved.values().filter_map(|saved| Some((time(saved)?, saved))).collect()
    }

    /// Compares what was told with what is there.
    pub(crate) fn close(&mut self, store: &Store) {
        let mut found: HashMap<String, Vec<TimeId>> = HashMap::new();
        let mut moved: HashMap<String, Vec<TimeId>> = HashMap::new();
        let mut next = Some(store.head().number);
        while let Some(number) = next {
            // Those of dropped versions, too: they are never removed.
            let entry = match store.entry(number) {
                Ok(entry) => entry,
                Err(error) => return self.problem(format!("lost: the log ends at {number}: {error}")),
            };
            next = entry.previous.map(|previous| previous.number);
            entry.refs.iter().for_each(|change| {
                moved.entry(change.name.clone()).or_default().push(entry.number);
            });
            for ordinal in 0..entry.commits.len() {
                let message = entry.commit(ordinal as u32).and_then(|commit| commit.message.load(store));
                match message {
                    Ok(message) => found.entry(message).or_default().push(entry.number),
                    Err(error) => self.problem(format!("commit of {}: {error}", entry.number)),
                }
            }
        }
        let mut problems = Vec::new();
        let dropped = store.dropped();
        let is_dropped = |time: TimeId| dropped.range_of(time).is_some();
        for (message, saved) in &self.saved {
            let times = found.remove(message).unwrap_or_default();
            match (saved.told, &times[..]) {
                (Told::Published(time), [at]) if *at == time => {}
                (Told::Published(time), _) => {
                    problems.push(format!("lost: {message} was told {time}, it stands at {times:?}"));
                }
                (Told::Failed, []) | (Told::Unknown, [] | [_]) => {}
                (Told::Failed, _) => {
                    problems.push(format!("phantom: {message} failed, it stands at {times:?}"))
                }
                (Told::Unknown, _) => problems.push(format!("twice: {message} stands at {times:?}")),
            }
            for time in times.into_iter().filter(|time| !is_dropped(*time)) {
                match toy::load(store, time) {
                    Ok(loaded) if loaded == saved.namespace => {}
                    Ok(_) => problems.push(format!("wrong: version {time} ({message}) is another")),
                    Err(error) => problems.push(format!("missing: version {time} ({message}): {error}")),
                }
            }
        }
        problems.extend(found.keys().map(|message| format!("phantom: nobody saved {message}")));
        let head = store.head();
        for (name, target) in head.refs.iter().filter(|(_, target)| is_dropped(target.time)) {
            problems.push(format!("missing: {name} points at version {}, which was dropped", target.time));
        }
        for (name, (target, told)) in &self.refs {
            let is_made = moved.contains_key(name);
            let points_at = head.refs.get(name).map(|target| target.time);
            let is_deleted = self.deleted.contains(name) || self.has_unclear_tags;
            match told {
                Told::Published(_) if !is_made => problems.push(format!("lost: ref {name}")),
                Told::Failed if is_made => problems.push(format!("phantom: ref {name}")),
                _ if name.starts_with("tag/") && is_made && !is_deleted && points_at != Some(*target) => {
                    problems.push(format!("moved: {name} points at {points_at:?}, not {target}"));
                }
                _ => {}
            }
        }
        match store.verify(true) {
            Ok(report) if report.is_clean() => {}
            Ok(report) => problems.push(format!("damaged: {:?}", report.problems)),
            Err(error) => problems.push(format!("cannot be verified: {error}")),
        }
        self.problems.extend(problems);
    }
}

/// What a failed publication tells its caller.
pub(crate) fn told(error: &StoreError) -> Told {
    match error {
        StoreError::OutcomeUnknown { .. } => Told::Unknown,
        _ => Told::Failed,
    }
}
