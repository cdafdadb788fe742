//! Which versions a sweep keeps.
//!
//! A version is kept if any rule keeps it; without a rule all are. Versions that are named go all the same. The newest version of
//! each branch and those that are held by a lease are always kept.

use super::history::{History, ListedVersion, line};
use chipmink_format::RefTarget;
use chipmink_types::TimeId;
use hashbrown::HashSet;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What the names of tags begin with (`FORMAT.md` §7).
const TAG_PREFIX: &str = "tag/";

/// Of how many versions, or of what time, one is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeepEvery {
    /// The newest of those whose numbers lie between two multiples of this.
    Numbers(u64),
    /// The newest of those that were saved in one such period, counted from 1970.
    Time(Duration),
}

/// Which versions a sweep keeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Retention {
    /// So many newest versions of each branch.
    pub keep_last: Option<u64>,
    /// One for each period, of each branch.
    pub keep_every: Option<KeepEvery>,
    /// Versions with a tag; else a tag goes with its version.
    pub keep_tagged: bool,
    /// Versions that are not older than this.
    pub older_than: Option<Duration>,
    /// Of those that the other rules keep (without one: of all), the newest that fit into so many bytes of packs.
    pub max_bytes: Option<u64>,
    /// Versions that go although a rule keeps them, unless a branch, a tag that counts, or a lease does.
    pub drop: BTreeSet<TimeId>,
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            keep_last: None,
            keep_every: None,
            keep_tagged: true,
            older_than: None,
            max_bytes: None,
            drop: BTreeSet::new(),
        }
    }
}

/// What the rules say of the versions.
#[derive(Debug)]
pub(super) struct Decision {
    /// Kept whatever room they take.
    pub(super) always: BTreeSet<TimeId>,
    /// Kept by a rule, those included.
    pub(super) kept: BTreeSet<TimeId>,
}

impl Retention {
    /// Applies the rules but that of bytes. `held`: versions with a lease; `now`: microseconds since 1970.
    pub(super) fn decide(
        &self,
        history: &History,
        refs: &BTreeMap<String, RefTarget>,
        held: &[TimeId],
        now: i64,
    ) -> Decision {
        let is_tag = |name: &str| name.starts_with(TAG_PREFIX);
        let pointed = refs.iter().filter(|(name, _)| self.keep_tagged || !is_tag(name));
        let mut always: BTreeSet<TimeId> = pointed.map(|(_, target)| target.time).collect();
        always.extend(held);
        let has_rule = self.keep_last.is_some() || self.keep_every.is_some() || self.older_than.is_some();
        if !has_rule {
            let all = history.versions().map(|version| version.time);
            let kept = all.filter(|time| always.contains(time) || !self.drop.contains(time)).collect();
            return Decision { always, kept };
        }
        let mut kept = always.clone();
        for (name, target) in refs.iter().filter(|(name, _)| !is_tag(name)) {
            let versions = line(history, name, &target.commit);
            let last = usize::try_from(self.keep_last.unwrap_or(0)).unwrap_or(usize::MAX);
            kept.extend(versions.iter().take(last).map(|version| version.time));
            if let Some(every) = self.keep_every {
                let mut periods = HashSet::new();
                let newest = versions.iter().filter(|version| periods.insert(period(version, every)));
                kept.extend(newest.map(|version| version.time));
            }
        }
        if let Some(age) = self.older_than {
            let since = now.saturating_sub_unsigned(micros(age));
            let young = history.versions().filter(|version| version.saved_at >= since);
            kept.extend(young.map(|version| version.time));
        }
        kept.retain(|time| always.contains(time) || !self.drop.contains(time));
        Decision { always, kept }
    }
}

fn period(version: &ListedVersion, every: KeepEvery) -> i128 {
    match every {
        KeepEvery::Numbers(count) => i128::from(version.time.0 / count.max(1)),
        KeepEvery::Time(time) => i128::from(version.saved_at).div_euclid(i128::from(micros(time).max(1))),
    }
}

/// Microseconds of a duration.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
