//! What versions name that is not in them: lines of versions with values of a cluster, and sets of files of other engines.
//!
//! Both have unguessable names, which stand inside of pods. So whether a version needs one is found by looking for its name in
//! the version's pods; what the name means is not known here.
//!
//! 1. A version never arrives before what it names: lines and sets are brought first.
//! 2. Only what the destination lacks is looked for, so a transfer of nothing new reads no pod.

use crate::error::Result;
use crate::repository::Repository;
use chipmink_store::{FileSet, RefSpec, Since, TransferOptions, TransferReport, Watch};
use chipmink_types::{Digest, PodSource, TimeId};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What the names of lines begin with that hold nothing but values of others' versions.
const LINE: &str = "remote/";
/// Bytes by which marks are told apart at first sight.
const HEAD: usize = 8;

impl Repository {
    /// For each mark, whether a pod of one of the versions holds it, or of only the variables `names` of them. Each pod is read
    /// once. A mark has at least eight bytes; shorter ones are held nowhere.
    ///
    /// # Errors
    /// When a version is unknown, or a table or pod is missing or damaged.
    pub fn mentioned(
        &self,
        times: &[TimeId],
        names: Option<&[String]>,
        marks: &[Vec<u8>],
    ) -> Result<Vec<bool>> {
        let mut by_head: HashMap<[u8; HEAD], Vec<usize>> = HashMap::new();
        for (at, mark) in marks.iter().enumerate() {
            if let Some(head) = mark.first_chunk::<HEAD>() {
                by_head.entry(*head).or_default().push(at);
            }
        }
        let mut found = vec![false; marks.len()];
        let mut seen: HashSet<Digest> = HashSet::new();
        for time in times {
            if found.iter().all(|is_found| *is_found) {
                break;
            }
            let wanted = match names {
                None => None,
                Some(names) => {
                    let has = self.names(*time)?;
                    Some(names.iter().filter(|name| has.contains(name)).cloned().collect::<Vec<_>>())
                }
            };
            let plan = self.plan(*time, wanted.as_deref())?;
            let mut pods = self.pods(&plan);
            for (position, pod) in plan.pods.iter().enumerate() {
                if seen.insert(pod.digest) {
                    search(&pods.pod(position)?, &by_head, marks, &mut found);
                }
            }
        }
        Ok(found)
    }

    /// Pushes, and before that what the versions name.
    pub(crate) fn push_with_elsewhere(
        &self,
        to: &Repository,
        options: &TransferOptions,
        watch: &mut Watch<'_>,
    ) -> Result<TransferReport> {
        let (sets, lines) = self.named_elsewhere(to, options)?;
        if !(sets.is_empty() && lines.is_empty()) {
            // What cannot be done moves nothing.
            self.store().check_transfer(to.store(), options)?;
        }
        let bytes = self.store().copy_file_sets(&sets, to.store(), options.limit, watch)?;
        let mut brought = TransferReport::default();
        if !lines.is_empty() {
            let refs = lines.into_iter().map(|line| RefSpec { from: line.clone(), to: line }).collect();
            let (limit, verify, parallel) = (options.limit, options.verify, options.parallel);
            let alone = TransferOptions { refs, limit, verify, parallel, ..TransferOptions::default() };
            brought = self.store().transfer(to.store(), &alone, watch)?;
        }
        let own = self.without_lines(options)?;
        let mut report = self.store().transfer(to.store(), &own, watch)?;
        report.versions += brought.versions;
        report.blobs += brought.blobs;
        report.packs += brought.packs;
        report.packs_resumed += brought.packs_resumed;
        report.bytes_resumed += brought.bytes_resumed;
        report.seconds += brought.seconds;
        report.bytes += brought.bytes + bytes;
        Ok(report)
    }

    /// If less than everything is carried: the same options, by which no line is.
    fn without_lines(&self, options: &TransferOptions) -> Result<TransferOptions> {
        let refs = self.refs()?;
        let has_lines = refs.keys().any(|name| name.starts_with(LINE));
        let is_mirror = options.mirror && options.names.is_none();
        if options.is_whole() || is_mirror || !options.refs.is_empty() || !has_lines {
            return Ok(options.clone());
        }
        let refs = refs.into_keys().filter(|name| !name.starts_with(LINE));
        let refs = refs.map(|name| RefSpec { from: name.clone(), to: name }).collect();
        Ok(TransferOptions { refs, ..options.clone() })
    }

    /// The sets and lines to bring before the versions.
    fn named_elsewhere(
        &self,
        to: &Repository,
        options: &TransferOptions,
    ) -> Result<(Vec<FileSet>, Vec<String>)> {
        let known: HashMap<String, FileSet> =
            to.store().file_sets()?.into_iter().map(|set| (set.name.clone(), set)).collect();
        let is_whole_there = |set: &FileSet| {
            known.get(&set.name).is_some_and(|there| set.files.iter().all(|file| there.files.contains(file)))
        };
        let mut sets = self.store().file_sets()?;
        sets.retain(|set| !is_whole_there(set));
        if options.is_whole() {
            // All lines are refs, and travel as such.
            return Ok((sets, Vec::new()));
        }
        let (refs, heads) = (self.store_refs()?, to.store_refs()?);
        let mut lines: Vec<String> = refs
            .iter()
            .filter(|(name, commit)| name.starts_with(LINE) && heads.get(*name) != Some(commit))
            .map(|(name, _)| name.clone())
            .collect();
        if sets.is_empty() && lines.is_empty() {
            return Ok((sets, lines));
        }
        let of_sets = sets.iter().map(|set| format!("{LINE}{}", set.name).into_bytes());
        let marks: Vec<Vec<u8>> = of_sets.chain(lines.iter().map(|line| line.clone().into_bytes())).collect();
        let mut named = vec![false; marks.len()];
        let (mut times, mut names) = (self.carried(options)?, options.names.as_deref());
        let tips = self.refs()?;
        // Values on lines may name others.
        while !times.is_empty() {
            let left: Vec<usize> = (0..marks.len()).filter(|at| !named[*at]).collect();
            let wanted: Vec<Vec<u8>> = left.iter().map(|at| marks[*at].clone()).collect();
            let found = self.mentioned(&times, names, &wanted)?;
            names = None;
            times.clear();
            for (at, _) in left.into_iter().zip(found).filter(|(_, is_found)| *is_found) {
                named[at] = true;
                times.extend(at.checked_sub(sets.len()).and_then(|at| tips.get(&lines[at])));
            }
        }
        let mut is_named = named.into_iter();
        sets.retain(|_| is_named.next() == Some(true));
        lines.retain(|_| is_named.next() == Some(true));
        Ok((sets, lines))
    }

    fn store_refs(&self) -> Result<BTreeMap<String, Digest>> {
        self.store().refresh()?;
        Ok(self.store().head().refs.into_iter().map(|(name, target)| (name, target.commit)).collect())
    }

    /// The versions that a transfer is about, newest first.
    fn carried(&self, options: &TransferOptions) -> Result<Vec<TimeId>> {
        let heads = self.store_refs()?;
        let is_asked = |name: &String| match options.refs.is_empty() {
            true => !name.starts_with(LINE),
            false => options.refs.iter().any(|spec| spec.from == *name),
        };
        let mut reached: HashSet<Digest> =
            heads.iter().filter(|(name, _)| is_asked(name)).map(|(_, commit)| *commit).collect();
        let mut times = Vec::new();
        for version in self.log()? {
            let version = version?;
            // Parents are older, so they come later.
            if !reached.contains(&version.commit) {
                continue;
            }
            reached.extend(version.parents.iter().copied());
            let is_cut = match options.since {
                None => false,
                Some(Since::Version(first)) => version.time < first,
                Some(Since::SavedAt(first)) => version.saved_at < first,
            };
            if !is_cut && self.store().check_retained(version.time).is_ok() {
                times.push(version.time);
            }
        }
        Ok(times)
    }
}

fn search(bytes: &[u8], by_head: &HashMap<[u8; HEAD], Vec<usize>>, marks: &[Vec<u8>], found: &mut [bool]) {
    for (at, window) in bytes.windows(HEAD).enumerate() {
        let Some(candidates) = by_head.get(window) else { continue };
        for candidate in candidates {
            found[*candidate] |= bytes[at..].starts_with(&marks[*candidate]);
        }
    }
}
