//! Repair: what is damaged is replaced by what is whole.
//!
//! Nothing that is there is changed. Blobs that versions need and that cannot be had where they belong are looked for in
//! packs that no entry names (any more) and in the mirror, and written to new packs. If that makes everything whole, what
//! else versions need of the damaged packs is copied too, and one entry adds the new packs and condemns the damaged ones.
//! If something stays lost, no pack is condemned: what is whole can be loaded where it lies, and a mirror may be found later.

use crate::compression::Chooser;
use crate::error::Result;
use crate::generations::DigestSet;
use crate::inner::Inner;
use crate::log::read_entry;
use crate::pack_check::{check_structure, describe_pack};
use crate::pack_writer::{PackWriter, SealedPack};
use crate::reach::{Reached, reach};
use crate::store::Store;
use crate::transfer::{TransferOptions, Watch, bring_versions, publish_packs};
use crate::verify::{self, Findings, VerifyReport};
use bytes::Bytes;
use chipmink_digest::digest;
use chipmink_format::{
    Commit, IndexRow, PackName, RootEntry, decode_blob, expansion_max, pack_path, parse_pack_path,
};
use chipmink_types::{BlobError, BlobKind, BlobSource, Digest, TimeId};
use hashbrown::{HashMap, HashSet};
use std::cell::{Cell, RefCell};

/// Blobs that are looked at together.
const WINDOW: usize = 256;

/// What a repair found and did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RepairReport {
    /// What was damaged.
    pub before: VerifyReport,
    /// What is damaged now.
    pub after: VerifyReport,
    /// Blobs that were found in the mirror.
    pub blobs_fetched: u64,
    /// Blobs that were found in packs that no entry named.
    pub blobs_salvaged: u64,
    /// Packs that were replaced.
    pub packs_replaced: u64,
    /// Versions that were brought back from the mirror, under new numbers.
    pub versions_fetched: u64,
}

impl Store {
    /// Replaces what is damaged, as far as it can be had: from the place itself, or from `mirror`, a repository that holds
    /// the same versions.
    ///
    /// # Errors
    /// When the log cannot be read, or a place fails. Damage that cannot be repaired is in the report.
    pub fn repair(&self, mirror: Option<&Store>, watch: &mut Watch<'_>) -> Result<RepairReport> {
        let mirror = mirror.map(|mirror| &*mirror.inner);
        self.inner.check_writable()?;
        let near = verify::afresh(&self.inner)?;
        let findings = verify::find(&near, true)?;
        let before = findings.report.clone();
        if before.is_clean() {
            return Ok(RepairReport { after: before.clone(), before, ..RepairReport::default() });
        }
        if let Some(mirror) = mirror {
            mirror.refresh()?;
        }
        let mut report = RepairReport { before, ..RepairReport::default() };
        Repair::new(&near, mirror, &findings)?.run(&mut report)?;
        if let Some(mirror) = mirror {
            bring_back(mirror, &near, &findings, watch, &mut report)?;
        }
        self.inner.forget();
        self.inner.refresh()?;
        report.after = self.verify(true)?;
        Ok(report)
    }
}

/// Publishes once more what damaged entries had published.
fn bring_back(
    mirror: &Inner,
    near: &Inner,
    findings: &Findings,
    watch: &mut Watch<'_>,
    report: &mut RepairReport,
) -> Result<()> {
    if findings.entries.is_empty() {
        return Ok(());
    }
    let (ours, theirs) = (near.log().state.repository, mirror.log().state.repository);
    let mut entries: Vec<RootEntry> = Vec::new();
    if ours == theirs {
        let head = near.log().head.number;
        for number in findings.entries.iter().filter(|number| **number < head) {
            entries.extend(read_entry(&mirror.backend, *number).ok().map(|read| read.entry));
        }
    }
    entries.sort_unstable_by_key(|entry| entry.number);
    let options = TransferOptions::default();
    report.versions_fetched = bring_versions(mirror, near, &entries, &options, watch)?;
    Ok(())
}

struct Repair<'a> {
    near: &'a Inner,
    mirror: Option<&'a Inner>,
    findings: &'a Findings,
    /// What packs hold that no entry names.
    strays: HashMap<Digest, (PackName, IndexRow)>,
    fetched: Cell<u64>,
    salvaged: Cell<u64>,
}

/// Blobs from wherever they can be had.
impl BlobSource for Repair<'_> {
    fn get(&self, digest: &Digest) -> Result<Bytes, BlobError> {
        self.near.get(digest).or_else(|error| self.elsewhere(digest).ok_or(error))
    }
}

impl<'a> Repair<'a> {
    fn new(near: &'a Inner, mirror: Option<&'a Inner>, findings: &'a Findings) -> Result<Self> {
        let known: HashSet<PackName> = near.log().state.packs.iter().map(|pack| pack.name).collect();
        let mut names = Vec::new();
        near.backend.list("packs", |path| {
            names.extend(parse_pack_path(path).filter(|name| !known.contains(name)));
            true
        })?;
        let mut strays = HashMap::new();
        for name in names {
            // What cannot be read there helps nobody.
            let Ok((_, pack)) = describe_pack(&near.backend, name) else { continue };
            let Ok(rows) = check_structure(&near.backend, &pack) else { continue };
            strays.extend(
                rows.into_iter().filter(|row| row.base.is_none()).map(|row| (row.digest, (name, row))),
            );
        }
        Ok(Repair { near, mirror, findings, strays, fetched: Cell::new(0), salvaged: Cell::new(0) })
    }

    fn elsewhere(&self, name: &Digest) -> Option<Bytes> {
        if let Some((pack, row)) = self.strays.get(name) {
            let range = row.byte_offset..row.byte_offset + row.stored_len;
            let max = self.near.options.blob_bytes_max.min(expansion_max(row.stored_len));
            let stored = self.near.backend.get_range(&pack_path(*pack), range).ok();
            let bytes = stored.and_then(|stored| decode_blob(stored, row.codec, row.decoded_len, max).ok());
            if let Some(bytes) = bytes.filter(|bytes| digest(bytes) == *name) {
                self.salvaged.set(self.salvaged.get() + 1);
                return Some(bytes);
            }
        }
        let bytes = self.mirror?.get(name).ok()?;
        self.fetched.set(self.fetched.get() + 1);
        Some(bytes)
    }

    fn run(&self, report: &mut RepairReport) -> Result<()> {
        let Reached { blobs, mut lost, .. } = self.reach()?;
        // What was asked for on the way is asked for again, and counted then.
        self.fetched.set(0);
        self.salvaged.set(0);
        let mut seen: DigestSet = blobs.iter().map(|(name, _)| *name).collect();
        let mut needed = blobs;
        let damaged: HashSet<PackName> = self.findings.packs.iter().copied().collect();
        let (mut replaced, mut moved) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < needed.len() {
            let window = needed[at..needed.len().min(at + WINDOW)].to_vec();
            at += window.len();
            let names: Vec<Digest> = window.iter().map(|(name, _)| *name).collect();
            let (found, _) = self.near.index().find_many(&names);
            for ((name, kind), found) in window.into_iter().zip(found) {
                if let Some(base) = found.and_then(|found| found.base)
                    && seen.insert(base)
                {
                    needed.push((base, BlobKind::Chunk));
                }
                let is_damaged = found
                    .is_none_or(|found| damaged.contains(&self.near.index().pack(found.location.pack).name));
                if !is_damaged {
                    continue;
                }
                match self.near.read_many(&[name]) {
                    Ok(_) => moved.push((name, kind)),
                    Err(_) => match self.elsewhere(&name).is_some() {
                        true => replaced.push((name, kind)),
                        false => drop(lost.insert(name)),
                    },
                }
            }
        }
        let is_whole = lost.is_empty();
        self.fetched.set(0);
        self.salvaged.set(0);
        if is_whole {
            replaced.append(&mut moved);
        }
        let condemned: Vec<PackName> = if is_whole { self.findings.packs.clone() } else { Vec::new() };
        if replaced.is_empty() && condemned.is_empty() && !self.findings.has_false_state {
            return Ok(());
        }
        let packs = self.write(&replaced)?;
        report.blobs_fetched = self.fetched.get();
        report.blobs_salvaged = self.salvaged.get();
        report.packs_replaced = condemned.len() as u64;
        publish_packs(self.near, packs, condemned)
    }

    /// All that the versions reach, as far as it can be had.
    fn reach(&self) -> Result<Reached> {
        let reached = RefCell::new(Reached::default());
        let mut next = Some(self.near.log().head.number);
        while let Some(number) = next {
            if let Some(range) = self.near.log().dropped.range_of(number) {
                next = range.first.0.checked_sub(1).map(TimeId);
                continue;
            }
            let entry = match read_entry(&self.near.backend, number) {
                Ok(read) => Some(read.entry),
                Err(_) => None,
            };
            for inline in entry.iter().flat_map(|entry| &entry.commits) {
                if let Ok(commit) = Commit::decode(&inline.bytes) {
                    reach(self, &commit, &reached);
                }
            }
            next = match entry {
                Some(entry) => entry.previous.map(|previous| previous.number),
                None => number.0.checked_sub(1).map(TimeId),
            };
        }
        Ok(reached.into_inner())
    }

    fn write(&self, blobs: &[(Digest, BlobKind)]) -> Result<Vec<SealedPack>> {
        let (near, mut packs) = (self.near, Vec::new());
        if blobs.is_empty() {
            return Ok(packs);
        }
        let (born, repository) = {
            let log = near.log();
            (log.head.number, log.state.repository)
        };
        let mut chooser = Chooser::new(near.backend.kind(), near.options.compression);
        let mut writer = PackWriter::begin(&near.backend, repository, born)?;
        for (name, kind) in blobs {
            if writer.byte_len() >= near.options.pack_bytes {
                packs.push(writer.seal(None, near.options.durable)?);
                writer = PackWriter::begin(&near.backend, repository, born)?;
            }
            let bytes = match near.read_many(&[*name]) {
                Ok(mut read) => read.swap_remove(0),
                Err(error) => self.elsewhere(name).ok_or(error)?,
            };
            let (codec, stored) = chooser.encode(*kind, &bytes);
            if *kind == BlobKind::Chunk {
                writer.align_chunk(codec, stored.len(), 0)?;
            }
            writer.put(*name, *kind, codec, bytes.len() as u64, None, stored)?;
        }
        packs.push(writer.seal(None, near.options.durable)?);
        Ok(packs)
    }
}
