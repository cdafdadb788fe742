//! Publishing a staged entry below.

use crate::entry_creation::{Outcome, begin_entry, create_entry};
use crate::error::{Result, StoreError};
use crate::inner::Inner;
use crate::log::{Log, ReadEntry, read_entry};
use bytes::Bytes;
use chipmink_digest::digest;
use chipmink_format::{FormatError, PackInfo, RefMove, RootEntry, SegmentInfo, root_path};
use chipmink_types::{TimeId, WriteId};
use hashbrown::HashSet;

/// What became of a staged entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Published {
    /// Its number below.
    pub(crate) time: TimeId,
    /// The ref that it moved below, if that is not the one that it was saved to.
    pub(crate) moved_to: Option<String>,
}

impl Inner {
    /// Publishes an entry that was staged and whose packs are below by now, unless that was done already.
    pub(crate) fn publish_staged(&self, staged: &RootEntry, bytes: &Bytes) -> Result<Published> {
        let mut turn = self.publishing();
        loop {
            self.refresh_checked()?;
            if let Some(found) = self.find_write(staged)? {
                return Ok(found);
            }
            let synced = self.sync_all()?;
            let follows = {
                let log = self.log();
                staged.previous == Some(log.head) && staged.number > log.highest
            };
            let (entry, bytes) = match follows {
                true => (staged.clone(), bytes.clone()),
                false => {
                    let packs = self.prove_staged(staged)?;
                    let entry = self.rebased(&self.log(), staged, packs, synced)?;
                    let bytes = Bytes::from(entry.encode());
                    (entry, bytes)
                }
            };
            let verdict = self.log().state.conditional_writes;
            match create_entry(self, &mut turn, &entry, &bytes, verdict)? {
                Outcome::Won => {
                    let published = published(staged, &entry);
                    self.take(&ReadEntry { digest: digest(&bytes), entry })?;
                    return Ok(published);
                }
                Outcome::Lost { read, .. } => self.take_winners(&read, staged.repository)?,
                Outcome::Spent => self.note_void(entry.number),
            }
        }
    }

    /// The entry of a write id, among those that came after what the staged one builds on.
    pub(crate) fn find_write(&self, staged: &RootEntry) -> Result<Option<Published>> {
        let floor = staged.previous.map(|previous| previous.number);
        let mut next = Some(self.log().head.number);
        while let Some(number) = next.filter(|number| Some(*number) > floor) {
            let read = read_entry(&self.backend, number)?;
            let WriteId(found) = read.entry.write_id;
            if found == staged.write_id.0 {
                return Ok(Some(published(staged, &read.entry)));
            }
            next = read.entry.previous.map(|previous| previous.number);
        }
        Ok(None)
    }

    /// The entry as it can stand above entries that it does not know.
    fn rebased(
        &self,
        log: &Log,
        staged: &RootEntry,
        packs: Vec<PackInfo>,
        synced: TimeId,
    ) -> Result<RootEntry> {
        let damaged = |source: FormatError| StoreError::Format {
            place: self.backend.label().to_owned(),
            object: root_path(staged.number),
            source,
        };
        // A state that came with it knows nothing of the entries in between.
        let mut entry = begin_entry(self, log, staged.write_id, Some(synced), true)?;
        entry.requirements = log.requirements.joined(staged.requirements);
        entry.published_at = staged.published_at;
        entry.commits = staged.commits.clone();
        for commit in &mut entry.commits {
            commit.aliases.push((staged.repository, staged.number));
        }
        entry.refs = staged.refs.clone();
        for change in &mut entry.refs {
            let RefMove::Inline(ordinal) = change.to else { continue };
            let parents = staged.commit(ordinal).map_err(damaged)?.parents;
            change.name = free_ref(log, &change.name, parents.first(), staged.write_id);
        }
        entry.packs_added = packs;
        // A merge of packs of which one is covered by now would name blobs twice.
        let free: HashSet<_> = log.uncovered.iter().map(|pack| pack.name).collect();
        let covers_free = |covers: &[_]| covers.iter().all(|name| free.contains(name));
        let own: HashSet<_> = entry.packs_added.iter().map(|pack| pack.name).collect();
        let stands = |segment: &&SegmentInfo| own.contains(&segment.pack) && covers_free(&segment.covers);
        entry.segments_added = staged.segments_added.iter().filter(stands).cloned().collect();
        Ok(entry)
    }
}

/// The ref that a commit continues: the one that it was saved to, if that still points at its parent; else one beside it.
fn free_ref(log: &Log, name: &str, parent: Option<&chipmink_types::Digest>, write_id: WriteId) -> String {
    let target = |name: &str| log.target(name).map(|target| target.commit);
    if target(name).as_ref() == parent {
        return name.to_owned();
    }
    let beside = format!("{name}@staged-");
    let continued = log
        .state
        .refs
        .iter()
        .find(|(other, target)| other.starts_with(&beside) && Some(&target.commit) == parent);
    match continued {
        Some((other, _)) => other.clone(),
        None => {
            let [a, b, c, d, ..] = write_id.0;
            format!("{beside}{a:02x}{b:02x}{c:02x}{d:02x}")
        }
    }
}

fn published(staged: &RootEntry, entry: &RootEntry) -> Published {
    let pairs = staged.refs.iter().zip(&entry.refs);
    let mut moved = pairs.filter(|(staged, found)| staged.name != found.name);
    Published { time: entry.number, moved_to: moved.next().map(|(_, found)| found.name.clone()) }
}
