//! The walk over all that versions reach.

use super::packs::{examine, is_sound};
use super::{Findings, Health, LostVersion, VerifyReport, damaged_newest};
use crate::error::Result;
use crate::generations::DigestSet;
use crate::inner::Inner;
use crate::log::{Log, check_state, read_entry};
use bytes::Bytes;
use chipmink_digest::{Grid, NodeKind, visit_tree};
use chipmink_format::{
    Commit, Covariable, CovariableRef, GROUP_DEPTH_MAX, ManifestRow, ManifestValue, PackName, PodRow, Text,
    Tree, manifest_name, pack_path, parse_pack_path, root_path,
};
use chipmink_types::{BlobError, BlobSource, Digest, RegionRecord, TimeId};
use hashbrown::HashSet;
use std::ops::ControlFlow;

/// Blobs that are checked at once.
const WINDOW: usize = 256;

pub(super) struct Walk<'a> {
    source: &'a Inner,
    is_full: bool,
    pub(super) report: VerifyReport,
    has_false_state: bool,
    time: TimeId,
    /// Blobs whose presence (or bytes) was checked.
    blobs: DigestSet,
    /// Blobs that cannot be had.
    bad: DigestSet,
    /// Blobs that were found sound where they lie.
    sound: HashSet<u64>,
    bad_packs: Vec<PackName>,
    bad_entries: Vec<TimeId>,
    /// Numbers whose versions have others now.
    replaced: HashSet<TimeId>,
    /// The versions that were walked, and their manifests.
    versions: Vec<(TimeId, Digest)>,
    /// Co-variables, groups, lists and regions that were walked.
    walked: DigestSet,
    window: Vec<Digest>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(source: &'a Inner, is_full: bool, time: TimeId) -> Self {
        Walk {
            source,
            is_full,
            report: VerifyReport::default(),
            has_false_state: false,
            time,
            blobs: DigestSet::default(),
            bad: DigestSet::default(),
            sound: HashSet::new(),
            bad_packs: Vec::new(),
            bad_entries: Vec::new(),
            replaced: HashSet::new(),
            versions: Vec::new(),
            walked: DigestSet::default(),
            window: Vec::new(),
        }
    }

    fn problem(&mut self, object: impl Into<String>, reason: impl ToString) {
        self.report.add(Some(self.time), object.into(), reason.to_string());
    }

    /// Looks at what stands above the newest sound entry.
    pub(super) fn newest(&mut self, log: &Log) -> Result<()> {
        let newest = log.newest.as_ref().and_then(|newest| newest.state);
        if let Some(Err(error)) = newest.map(|place| check_state(&self.source.backend, &place)) {
            self.has_false_state = true;
            let reason =
                format!("the root state that it names cannot be had, all entries are read instead: {error}");
            self.report.add(None, root_path(log.head.number), reason);
        }
        for number in log.void.iter().filter(|number| **number > log.head.number) {
            if let Some(reason) = damaged_newest(self.source, *number)? {
                self.report.add(None, root_path(*number), reason);
                self.lost_entry(*number);
            }
        }
        Ok(())
    }

    fn lost_entry(&mut self, number: TimeId) {
        self.bad_entries.push(number);
        self.report.lose(LostVersion { time: number, variables: Vec::new(), is_whole: true });
    }

    pub(super) fn packs(&mut self) -> Result<()> {
        let packs = self.source.log().state.packs.clone();
        for (pack, exam) in packs.iter().zip(examine(self.source, &packs, self.is_full)) {
            self.report.packs += 1;
            self.report.bytes += pack.byte_len;
            self.sound.extend(exam.sound);
            if !exam.problems.is_empty() {
                self.bad_packs.push(pack.name);
            }
            for reason in exam.problems {
                self.report.add(None, pack_path(pack.name), reason);
            }
        }
        let condemned = self.source.log().state.condemned.clone();
        let condemned = condemned.iter().map(|(name, _)| *name);
        let known: HashSet<_> = packs.iter().map(|pack| pack.name).chain(condemned).collect();
        let mut orphans = 0;
        self.source.backend.list("packs", |path| {
            orphans += u64::from(parse_pack_path(path).is_none_or(|name| !known.contains(&name)));
            true
        })?;
        self.report.orphan_packs = orphans;
        Ok(())
    }

    pub(super) fn all_versions(&mut self, log: &Log) {
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
                        let own = commit.aliases.iter().filter(|(id, _)| *id == read.entry.repository);
                        self.replaced.extend(own.map(|(_, number)| *number));
                        match Commit::decode(&commit.bytes) {
                            Ok(commit) => self.commit(&commit),
                            Err(error) => self.problem(root_path(number), error),
                        }
                    }
                    read.entry.previous.map(|previous| previous.number)
                }
                // What it published was brought back under another number.
                Err(_) if self.replaced.contains(&number) => {
                    self.report.void_entries.push(number);
                    number.0.checked_sub(1).map(TimeId)
                }
                Err(error) => {
                    self.problem(root_path(number), error);
                    self.lost_entry(number);
                    // The chain is broken here; what stands below is still worth a look.
                    number.0.checked_sub(1).map(TimeId).filter(|below| {
                        self.source.backend.byte_len(&root_path(*below)).is_ok_and(|len| len.is_some())
                    })
                }
            };
        }
    }

    pub(super) fn version(&mut self, time: TimeId) {
        self.time = time;
        match read_entry(&self.source.backend, time) {
            Ok(read) => match read.entry.commit(0) {
                Ok(commit) => self.commit(&commit),
                Err(error) => self.problem(root_path(time), error),
            },
            Err(error) => {
                self.problem(root_path(time), error);
                self.lost_entry(time);
            }
        }
    }

    fn commit(&mut self, commit: &Commit) {
        self.report.versions += 1;
        self.versions.push((self.time, commit.manifest));
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
        let reason = error.map_or_else(|| "no pack holds it".to_owned(), |error| error.to_string());
        let mut doubtful = Vec::new();
        for (digest, found) in window.iter().zip(found) {
            match found {
                None => self.lost_blob(*digest, &reason),
                Some(found) if !self.is_full || is_sound(self.source, &self.sound, digest, &found) => {}
                Some(_) => doubtful.push(*digest),
            }
        }
        if doubtful.is_empty() || self.source.read_many(&doubtful).is_ok() {
            return;
        }
        for digest in doubtful {
            if let Err(error) = self.source.read_many(&[digest]) {
                self.lost_blob(digest, error);
            }
        }
    }

    fn lost_blob(&mut self, digest: Digest, reason: impl ToString) {
        self.bad.insert(digest);
        self.problem(format!("blob {digest}"), reason);
    }

    /// Finds out what the damage costs.
    pub(super) fn finish(mut self) -> Findings {
        self.report.blobs = self.blobs.len() as u64;
        let is_damaged = !self.bad.is_empty() || !self.bad_packs.is_empty() || !self.report.is_clean();
        if is_damaged {
            let mut health = Health::new(self.source, &self.bad);
            for (time, manifest) in &self.versions {
                if let Some(lost) = health.of(*time, *manifest) {
                    self.report.lose(lost);
                }
            }
        }
        self.report.lost.sort_by_key(|lost| std::cmp::Reverse(lost.time));
        Findings {
            report: self.report,
            has_false_state: self.has_false_state,
            packs: self.bad_packs,
            entries: self.bad_entries,
        }
    }
}
