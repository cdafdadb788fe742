//! Checking a repository against itself.
//!
//! Invariants:
//! 1. It reads from the store, never from what this process remembers.
//! 2. It goes on after damage: every object that cannot be had is named, with the first version that needs it.
//! 3. It holds one digest for each blob seen and a window of blobs, whatever the damage claims.

use crate::error::{Result, StoreError};
use crate::generations::DigestSet;
use crate::inner::Inner;
use crate::log::{Log, read_entry};
use crate::options::StoreOptions;
use crate::pack_check::{check_pack, check_structure};
use bytes::Bytes;
use chipmink_digest::{Grid, NodeKind, visit_tree};
use chipmink_format::{
    Commit, Covariable, CovariableRef, GROUP_DEPTH_MAX, ManifestRow, ManifestValue, PodRow, Text, Tree,
    manifest_name, pack_path, parse_pack_path, root_path,
};
use chipmink_types::{BlobError, BlobSource, Digest, RegionRecord, TimeId};
use hashbrown::HashSet;
use std::ops::ControlFlow;

/// Blobs that are checked at once.
const WINDOW: usize = 256;
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

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VerifyReport {
    /// Versions walked.
    pub versions: u64,
    /// Distinct blobs met.
    pub blobs: u64,
    /// Packs looked at.
    pub packs: u64,
    /// Damage, the first thousand pieces of it.
    pub problems: Vec<Problem>,
    /// All pieces of damage.
    pub problem_count: u64,
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
}

struct Walk<'a> {
    source: &'a Inner,
    is_full: bool,
    report: VerifyReport,
    time: TimeId,
    /// Blobs whose presence (or bytes) was checked.
    blobs: DigestSet,
    /// Co-variables, groups, lists and regions that were walked.
    walked: DigestSet,
    window: Vec<Digest>,
}

pub(crate) fn verify(inner: &Inner, is_full: bool) -> Result<VerifyReport> {
    let backend = inner.backend.clone();
    let missing = || StoreError::NoRepository { place: backend.label().to_owned() };
    let log = Log::open(&backend, inner.options.trust())?.ok_or_else(missing)?;
    let options = StoreOptions { thesaurus_bytes: 64 << 20, cache_bytes: 16 << 20, ..inner.options.clone() };
    let source = Inner::new(backend, options, log.clone()).with_tables()?;
    let report = VerifyReport { void_entries: log.void.clone(), ..VerifyReport::default() };
    let mut walk = Walk {
        source: &source,
        is_full,
        report,
        time: log.head.number,
        blobs: DigestSet::default(),
        walked: DigestSet::default(),
        window: Vec::new(),
    };
    walk.packs()?;
    if is_full {
        walk.all_versions(&log);
    } else {
        let mut times: Vec<TimeId> = log.state.refs.values().map(|target| target.time).collect();
        times.sort_unstable();
        times.dedup();
        times.into_iter().for_each(|time| walk.version(time));
    }
    walk.report.blobs = walk.blobs.len() as u64;
    Ok(walk.report)
}

impl Walk<'_> {
    fn problem(&mut self, object: impl Into<String>, reason: impl ToString) {
        self.report.add(Some(self.time), object.into(), reason.to_string());
    }

    fn packs(&mut self) -> Result<()> {
        let packs = self.source.log().state.packs.clone();
        let backend = &self.source.backend;
        for pack in &packs {
            let checked = match self.is_full {
                true => check_pack(backend, pack, self.source.options.blob_bytes_max).map(drop),
                false => check_structure(backend, pack).map(drop),
            };
            self.report.packs += 1;
            if let Err(error) = checked {
                self.report.add(None, pack_path(pack.name), error.to_string());
            }
        }
        let condemned = self.source.log().state.condemned.clone();
        let condemned = condemned.iter().map(|(name, _)| *name);
        let known: HashSet<_> = packs.iter().map(|pack| pack.name).chain(condemned).collect();
        let mut orphans = 0;
        backend.list("packs", |path| {
            orphans += u64::from(parse_pack_path(path).is_none_or(|name| !known.contains(&name)));
            true
        })?;
        self.report.orphan_packs = orphans;
        Ok(())
    }

    fn all_versions(&mut self, log: &Log) {
        let mut next = Some(log.head.number);
        while let Some(number) = next {
            if let Some(range) = log.dropped.range_of(number) {
                next = range.first.0.checked_sub(1).map(TimeId);
                continue;
            }
            self.time = number;
            next = match read_entry(&self.source.backend, number) {
                Ok(read) => {
                    for commit in &read.entry.commits {
                        match Commit::decode(&commit.bytes) {
                            Ok(commit) => self.commit(&commit),
                            Err(error) => self.problem(root_path(number), error),
                        }
                    }
                    read.entry.previous.map(|previous| previous.number)
                }
                Err(error) => {
                    self.problem(root_path(number), error);
                    // The chain is broken here; what stands below is still worth a look.
                    number.0.checked_sub(1).map(TimeId).filter(|below| {
                        self.source.backend.byte_len(&root_path(*below)).is_ok_and(|len| len.is_some())
                    })
                }
            };
        }
    }

    fn version(&mut self, time: TimeId) {
        self.time = time;
        match read_entry(&self.source.backend, time) {
            Ok(read) => match read.entry.commit(0) {
                Ok(commit) => self.commit(&commit),
                Err(error) => self.problem(root_path(time), error),
            },
            Err(error) => self.problem(root_path(time), error),
        }
    }

    fn commit(&mut self, commit: &Commit) {
        self.report.versions += 1;
        for text in [Some(&commit.message), commit.code.as_ref()].into_iter().flatten() {
            if let Text::Stored { digest, .. } = text {
                self.blob(*digest);
            }
        }
        if self.walked.insert(commit.manifest) {
            let mut rows = Vec::new();
            let scanned = Tree::open(commit.manifest).scan(&[], self.source, &mut |key, value| {
                rows.push((key.to_vec(), value.clone()));
                Ok(ControlFlow::Continue(()))
            });
            if let Err(error) = scanned {
                self.problem("manifest", error);
            }
            rows.iter().for_each(|(key, value)| self.variable(key, value));
        }
        while !self.window.is_empty() {
            self.flush();
        }
    }

    fn variable(&mut self, key: &[u8], value: &Bytes) {
        let name = manifest_name(key).unwrap_or_else(|_| String::from_utf8_lossy(key).into_owned());
        match ManifestRow::decode(value) {
            Err(error) => self.problem(format!("variable {name}"), error),
            Ok(ManifestRow { value: ManifestValue::Covariable(covariable), .. }) => {
                if self.walked.insert(covariable.digest()) {
                    self.covariable(&format!("variable {name}"), &covariable, 0);
                }
            }
            Ok(_) => {}
        }
    }

    fn covariable(&mut self, object: &str, covariable: &CovariableRef, depth: usize) {
        if let CovariableRef::Stored(digest) = covariable {
            self.blob(*digest);
        }
        let covariable = match covariable.load(self.source) {
            Ok(covariable) => covariable,
            Err(error) => return self.problem(object, error),
        };
        if depth == GROUP_DEPTH_MAX && !covariable.groups.is_empty() {
            return self.problem(object, "definition groups name each other too deeply");
        }
        for group in &covariable.groups {
            if self.walked.insert(*group) {
                self.covariable(
                    &format!("definition group {group}"),
                    &CovariableRef::Stored(*group),
                    depth + 1,
                );
            }
        }
        self.table(object, &covariable);
    }

    fn table(&mut self, object: &str, covariable: &Covariable) {
        let source = self.source;
        let mut failures = Vec::new();
        let scanned = covariable.table.scan(&[], source, &mut |_, value| {
            match PodRow::decode(value, source) {
                Ok(row) => self.row(object, &row),
                Err(error) => failures.push(error),
            }
            Ok(ControlFlow::Continue(()))
        });
        failures.extend(scanned.err());
        failures.into_iter().for_each(|error| self.problem(object, error));
    }

    fn row(&mut self, object: &str, row: &PodRow) {
        self.blob(row.digest);
        row.globals.iter().for_each(|digest| self.blob(*digest));
        row.shapes.iter().for_each(|shape| self.blob(shape.names));
        row.side.iter().for_each(|digest| self.blob(*digest));
        for region in &row.regions {
            if self.walked.insert(region.root) {
                self.region(object, region);
            }
        }
    }

    fn region(&mut self, object: &str, region: &RegionRecord) {
        let source = self.source;
        let grid = match Grid::of(region) {
            Ok(grid) => grid,
            Err(error) => return self.problem(object, error),
        };
        let mut get = |digest: &Digest| source.get(digest);
        let visited = visit_tree(NodeKind::Region, region.root, grid.chunk_count(), &mut get, &mut |chunk| {
            self.blob(chunk);
            Ok::<(), BlobError>(())
        });
        if let Err(error) = visited {
            self.problem(object, format!("region {}: {error}", region.root));
        }
    }

    /// Checks a blob, some time soon.
    fn blob(&mut self, digest: Digest) {
        if self.blobs.insert(digest) {
            self.window.push(digest);
            if self.window.len() == WINDOW {
                self.flush();
            }
        }
    }

    /// Checks the blobs that wait. The bases of those that are deltas wait from now on.
    fn flush(&mut self) {
        let window = std::mem::take(&mut self.window);
        let (found, error) = self.source.index().find_many(&window);
        for base in found.iter().flatten().filter_map(|found| found.base) {
            if self.blobs.insert(base) {
                self.window.push(base);
            }
        }
        if self.is_full {
            if self.source.read_many(&window).is_ok() {
                return;
            }
            for digest in &window {
                if let Err(error) = self.source.read_many(&[*digest]) {
                    self.problem(format!("blob {digest}"), error);
                }
            }
            return;
        }
        let reason = error.map_or_else(|| "no pack holds it".to_owned(), |error| error.to_string());
        for (digest, _) in window.iter().zip(found).filter(|(_, found)| found.is_none()) {
            self.problem(format!("blob {digest}"), &reason);
        }
    }
}
