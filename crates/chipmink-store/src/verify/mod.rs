//! Checking a repository against itself.
//!
//! Invariants:
//! 1. It reads from the store, never from what this process remembers.
//! 2. It goes on after damage: every object that cannot be had is named, and every variable of every version that needs it.
//! 3. It holds one digest for each blob seen (in full, one number for each blob that was found sound, too) and a few
//!    windows of blobs, whatever the damage claims.

mod loss;
mod packs;
mod walk;

pub(crate) use loss::Health;

use crate::error::{Result, StoreError};
use crate::inner::Inner;
use crate::log::{Log, read_entry};
use crate::options::StoreOptions;
use chipmink_format::{FormatError, PackName, ROOT_ENTRY_LEN_MAX, root_path};
use chipmink_types::TimeId;
use walk::Walk;

/// More problems are counted and not described.
const PROBLEMS_MAX: usize = 1000;

/// Something that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The version in which it was met first; `None`: it is no part of a version.
    pub time: Option<TimeId>,
    /// The object: a path in the store, or what it is of the version.
    pub object: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What damage costs of one version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LostVersion {
    /// The version.
    pub time: TimeId,
    /// The variables that cannot be loaded, in the order of their bytes; the others can.
    pub variables: Vec<String>,
    /// More may be lost than that: its entry, or its list of variables, cannot be read.
    pub is_whole: bool,
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VerifyReport {
    /// Versions walked.
    pub versions: u64,
    /// Distinct blobs met.
    pub blobs: u64,
    /// Packs looked at.
    pub packs: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Damage, the first thousand pieces of it.
    pub problems: Vec<Problem>,
    /// All pieces of damage.
    pub problem_count: u64,
    /// The versions that have lost something, the first thousand of them, newest first.
    pub lost: Vec<LostVersion>,
    /// All versions that have lost something.
    pub lost_count: u64,
    /// Numbers of the root log that are spent without a sound entry. That is no damage.
    pub void_entries: Vec<TimeId>,
    /// Packs that no entry names: left by saves that failed, or being written now. That is no damage.
    pub orphan_packs: u64,
}

impl VerifyReport {
    /// Whether everything is as it should be.
    pub fn is_clean(&self) -> bool {
        self.problem_count == 0
    }

    fn add(&mut self, time: Option<TimeId>, object: String, reason: String) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { time, object, reason });
        }
    }

    fn lose(&mut self, lost: LostVersion) {
        self.lost_count += 1;
        if self.lost.len() < PROBLEMS_MAX {
            self.lost.push(lost);
        }
    }
}

/// What a check found, and what a repair needs to know beyond the report.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) report: VerifyReport,
    /// The newest entry names a root state that cannot be had.
    pub(crate) has_false_state: bool,
    /// Packs that are not what they should be.
    pub(crate) packs: Vec<PackName>,
    /// Numbers of the log whose entries are damaged.
    pub(crate) entries: Vec<TimeId>,
}

/// A handle of the same place that remembers nothing.
pub(crate) fn afresh(inner: &Inner) -> Result<Inner> {
    let backend = inner.backend.uncached();
    let missing = || StoreError::NoRepository { place: backend.label().to_owned() };
    let log = Log::open(&backend, inner.options.trust())?.ok_or_else(missing)?;
    let options = StoreOptions { thesaurus_bytes: 64 << 20, cache_bytes: 16 << 20, ..inner.options.clone() };
    Inner::new(backend, options, log).with_tables()
}

pub(crate) fn verify(inner: &Inner, is_full: bool) -> Result<VerifyReport> {
    Ok(find(&afresh(inner)?, is_full)?.report)
}

/// Checks what a fresh handle sees.
pub(crate) fn find(source: &Inner, is_full: bool) -> Result<Findings> {
    let log = source.log().clone();
    let mut walk = Walk::new(source, is_full, log.head.number);
    walk.report.void_entries = log.void.clone();
    walk.newest(&log)?;
    walk.packs()?;
    if is_full {
        walk.all_versions(&log);
    } else {
        let mut times: Vec<TimeId> = log.state.refs.values().map(|target| target.time).collect();
        times.sort_unstable();
        times.dedup();
        times.into_iter().rev().for_each(|time| walk.version(time));
    }
    Ok(walk.finish())
}

/// Why what stands under a number above the newest sound entry is damage. What a power cut leaves of an entry that was not
/// synced is nothing, or zeros.
fn damaged_newest(source: &Inner, number: TimeId) -> Result<Option<String>> {
    let path = root_path(number);
    let bytes = match source.backend.get(&path, ROOT_ENTRY_LEN_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.is_missing() => return Ok(None),
        Err(error) => return Ok(Some(error.to_string())),
    };
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    Ok(match read_entry(&source.backend, number) {
        Err(StoreError::Format { source: FormatError::Void { reason, .. }, .. }) => {
            Some(format!("{reason}; it was among the newest, and what it published is lost"))
        }
        Err(error) => Some(error.to_string()),
        // It stands on one that a power cut has taken away, or that is damaged and named itself.
        Ok(_) => None,
    })
}
