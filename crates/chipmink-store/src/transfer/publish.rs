//! Making what was copied visible: one entry after another.
//!
//! 1. The first entry names all packs. Before each one it is looked whether a ref moved, or packs were condemned, since the
//!    transfer was planned.
//! 2. A pack that another transfer has published meanwhile is not named again.

use super::Watch;
use super::copy::Copied;
use super::options::{Phase, TransferReport};
use super::pace::Pace;
use super::steps::{Goal, Step, Steps};
use crate::creation::verdict;
use crate::entry_creation::{Outcome, begin_entry, create_entry};
use crate::error::{Result, StoreError};
use crate::inner::Inner;
use crate::log::{HINT, ReadEntry, read_entry};
use crate::merge::{FAN_OUT, merge_indexes};
use crate::pack_writer::{PackWriter, SealedPack};
use crate::random;
use bytes::Bytes;
use chipmink_digest::digest;
use chipmink_format::{
    Codec, ConditionalWrites, InlineCommit, PackInfo, PackName, RefChange, RefMove, RefTarget, RootEntry,
    STATE_EVERY, StatePlace,
};
use chipmink_types::{BlobKind, Digest, TimeId, WriteId};
use hashbrown::HashSet;

/// Publishes the steps. `planned` is the entry on which they were planned.
#[expect(clippy::too_many_arguments, reason = "it is the end of one long function")]
pub(super) fn publish(
    source: &Inner,
    target: &Inner,
    steps: Steps,
    copied: Copied,
    planned: TimeId,
    pace: &Pace,
    watch: &mut Watch<'_>,
    report: &mut TransferReport,
) -> Result<()> {
    let Steps { steps, known, at, ahead } = steps;
    report.ahead = ahead;
    pace.begin(Phase::Publishing, 0, steps.iter().filter(|step| step.version.is_some()).count() as u64);
    let mut publisher = Publisher {
        source,
        target,
        checked: planned,
        features: copied.features,
        packs: copied.packs,
        condemned: Vec::new(),
        known,
        at,
        moved: Vec::new(),
    };
    for step in &steps {
        while let Some(number) = step.number
            && target.log().next_number().is_some_and(|next| next < number)
        {
            publisher.publish(&Step::default(), true)?;
        }
        pace.tell(watch)?;
        publisher.publish(step, step.number.is_some())?;
        if step.version.is_some() {
            report.versions += 1;
            pace.add(1);
        }
    }
    report.refs = publisher.moved;
    Ok(())
}

/// Names packs in an entry of its own, and condemns others in the same.
pub(crate) fn publish_packs(target: &Inner, packs: Vec<SealedPack>, condemned: Vec<PackName>) -> Result<()> {
    target.refresh()?;
    let features = packs.iter().flat_map(|pack| &pack.rows).fold(0, |bits, row| bits | row.codec.features());
    let mut publisher = Publisher {
        source: target,
        target,
        checked: target.log().head.number,
        features,
        packs,
        condemned,
        known: hashbrown::HashMap::new(),
        at: hashbrown::HashMap::new(),
        moved: Vec::new(),
    };
    publisher.publish(&Step::default(), true)
}

struct Publisher<'a> {
    source: &'a Inner,
    target: &'a Inner,
    /// No entry between that on which this was planned and this one has condemned a pack.
    checked: TimeId,
    features: u64,
    /// Packs that no entry names yet.
    packs: Vec<SealedPack>,
    /// Packs that the next entry condemns.
    condemned: Vec<PackName>,
    known: hashbrown::HashMap<Digest, RefTarget>,
    at: hashbrown::HashMap<String, Digest>,
    moved: Vec<String>,
}

/// A root state that was written for an entry.
type State = (StatePlace, ConditionalWrites);

impl Publisher<'_> {
    /// Publishes one step, also if it changes nothing if `always`.
    fn publish(&mut self, step: &Step, always: bool) -> Result<()> {
        let target = self.target;
        let mut turn = target.publishing();
        let refs: Vec<&(String, Goal)> =
            step.refs.iter().filter(|(name, goal)| self.changes(name, goal)).collect();
        if !always && step.version.is_none() && refs.is_empty() && self.packs.is_empty() {
            return Ok(());
        }
        let mut state: Option<State> = None;
        let write_id = WriteId(random::bytes());
        loop {
            target.refresh_checked()?;
            self.check(&refs)?;
            self.packs.retain(|pack| !is_live(target, pack));
            if state.is_none() {
                state = self.housekeeping()?;
            }
            let synced = if target.options.durable { Some(target.sync_all()?) } else { None };
            let entry = self.entry(step, &refs, write_id, synced, state)?;
            let bytes = Bytes::from(entry.encode());
            let verdict = state.map_or(target.log().state.conditional_writes, |(_, verdict)| verdict);
            match create_entry(target, &mut turn, &entry, &bytes, verdict)? {
                Outcome::Won => return self.adopt(step, ReadEntry { digest: digest(&bytes), entry }, state),
                Outcome::Lost { read, .. } => target.take_winners(&read, entry.repository)?,
                Outcome::Spent => target.note_void(entry.number),
            }
        }
    }

    /// Whether a ref has to be changed for that.
    fn changes(&self, name: &str, goal: &Goal) -> bool {
        match goal {
            Goal::Here => true,
            Goal::At(commit) => self.at.get(name) != Some(commit),
            Goal::Gone => self.at.contains_key(name),
        }
    }

    /// Whether what was planned still holds.
    fn check(&mut self, refs: &[&(String, Goal)]) -> Result<()> {
        let target = self.target;
        for (name, _) in refs {
            let found = target.log().target(name).copied();
            let expected = self.at.get(name);
            if found.map(|found| found.commit).as_ref() != expected {
                let expected = expected.and_then(|commit| self.known.get(commit)).map(|target| target.time);
                let found = found.map(|found| found.time);
                return Err(StoreError::RefMoved { ref_name: name.clone(), expected, found });
            }
        }
        let head = target.log().head.number;
        let mut next = Some(head);
        while let Some(number) = next.filter(|number| *number > self.checked) {
            let entry = read_entry(&target.backend, number)?.entry;
            if !entry.packs_condemned.is_empty() {
                return Err(StoreError::BaseSwept);
            }
            next = entry.previous.map(|previous| previous.number);
        }
        self.checked = self.checked.max(head);
        let floor = target.log().state.floor;
        if self.packs.iter().any(|pack| pack.info.born < floor) {
            return Err(StoreError::BaseSwept);
        }
        Ok(())
    }

    /// Writes a root state and a merged index, if they are due.
    fn housekeeping(&mut self) -> Result<Option<State>> {
        let target = self.target;
        let uncovered: Vec<PackInfo> = {
            let log = target.log();
            let live = log.uncovered.iter().filter(|pack| !self.condemned.contains(&pack.name));
            live.copied().chain(self.packs.iter().map(|pack| pack.info)).collect()
        };
        let mut root_state = {
            let log = target.log();
            let since = |place: StatePlace| log.head.number.0.saturating_sub(place.covers.0);
            let is_due = log
                .place
                .is_none_or(|place| since(place) >= STATE_EVERY - 1 || self.condemned.contains(&place.pack));
            let is_crowded = !self.packs.is_empty() && uncovered.len() >= FAN_OUT;
            if !is_due && !is_crowded {
                return Ok(None);
            }
            log.state.clone()
        };
        if root_state.conditional_writes == ConditionalWrites::Untested {
            root_state.conditional_writes = verdict(&target.backend, &target.options)?;
        }
        let bytes = root_state.encode();
        let name = digest(&bytes);
        let born = target.log().head.number;
        let mut writer = PackWriter::begin(&target.backend, root_state.repository, born)?;
        let byte_len = bytes.len() as u64;
        let byte_offset = writer.put(name, BlobKind::Table, Codec::Raw, byte_len, None, &bytes)?;
        let (covers, pack) = (root_state.covers, writer.name());
        let (stored_len, decoded_len) = (byte_len, byte_len);
        let place = StatePlace {
            covers,
            pack,
            byte_offset,
            stored_len,
            decoded_len,
            codec: Codec::Raw,
            digest: name,
        };
        let merged = match uncovered.len() >= FAN_OUT {
            true => merge_indexes(&target.backend, &uncovered),
            false => None,
        };
        self.packs.push(writer.seal(merged, target.options.durable)?);
        Ok(Some((place, root_state.conditional_writes)))
    }

    fn entry(
        &self,
        step: &Step,
        refs: &[&(String, Goal)],
        write_id: WriteId,
        synced: Option<TimeId>,
        state: Option<State>,
    ) -> Result<RootEntry> {
        let target = self.target;
        let log = target.log();
        let mut entry = begin_entry(target, &log, write_id, synced, target.options.durable)?;
        entry.requirements.for_reading |= self.features;
        entry.state =
            state.map(|(place, _)| place).into_iter().chain(log.place).max_by_key(|place| place.covers);
        if let Some(version) = &step.version {
            let mut aliases = version.aliases.clone();
            let repository = self.source.log().state.repository;
            let own = (repository, version.number);
            if (log.state.repository, entry.number) != own && !aliases.contains(&own) {
                aliases.push(own);
            }
            entry.commits = vec![InlineCommit { bytes: version.sent.bytes.clone(), aliases }];
        }
        for (name, goal) in refs {
            let to = match goal {
                Goal::Here => RefMove::Inline(0),
                Goal::Gone => RefMove::Deleted,
                Goal::At(commit) => match self.known.get(commit) {
                    Some(target) => RefMove::Existing(*target),
                    // A version that could not be sent.
                    None => continue,
                },
            };
            entry.refs.push(RefChange { name: name.clone(), to });
        }
        entry.packs_condemned = self.condemned.clone();
        entry.packs_added = self.packs.iter().map(|pack| pack.info).collect();
        let free: HashSet<_> = log.uncovered.iter().chain(&entry.packs_added).map(|pack| pack.name).collect();
        let segments = self.packs.iter().flat_map(|pack| &pack.segments);
        entry.segments_added = segments
            .filter(|segment| segment.covers.iter().all(|name| free.contains(name)))
            .cloned()
            .collect();
        Ok(entry)
    }

    /// The entry is there.
    fn adopt(&mut self, step: &Step, read: ReadEntry, state: Option<State>) -> Result<()> {
        let target = self.target;
        target.take(&read)?;
        self.condemned.clear();
        {
            let mut index = target.index();
            for pack in self.packs.drain(..) {
                index.learn(pack.info.name, &pack.rows);
            }
        }
        let number = read.entry.number;
        self.checked = number;
        if let Some(version) = &step.version {
            let (commit, manifest) = (version.sent.digest, version.sent.manifest);
            self.known.insert(commit, RefTarget { commit, time: number, manifest });
        }
        for change in &read.entry.refs {
            let commit = match (change.to, &step.version) {
                (RefMove::Inline(_), Some(version)) => Some(version.sent.digest),
                (RefMove::Existing(target), _) => Some(target.commit),
                _ => None,
            };
            match commit {
                Some(commit) => self.at.insert(change.name.clone(), commit),
                None => self.at.remove(&change.name),
            };
            if !self.moved.contains(&change.name) {
                self.moved.push(change.name.clone());
            }
        }
        if let Some((_, verdict)) = state {
            target.note_verdict(verdict);
            // Best effort: it is never trusted.
            let _ = target.backend.relaxed().replace(HINT, Bytes::from(format!("{number}\n")));
        }
        Ok(())
    }
}

fn is_live(target: &Inner, pack: &SealedPack) -> bool {
    target.log().state.packs.iter().any(|live| live.name == pack.info.name)
}
