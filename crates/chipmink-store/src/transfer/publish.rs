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
use crate::creation::{now_micros, verdict};
use crate::entry_creation::{Outcome, create_entry};
use crate::error::{Result, StoreError};
use crate::inner::Inner;
use crate::log::{HINT, ReadEntry, note_boot, read_entry};
use crate::pack_writer::{Merged, PackWriter, SealedPack};
use crate::random;
use bytes::Bytes;
use chipmink_digest::digest;
use chipmink_format::{
    Codec, ConditionalWrites, InlineCommit, MergePart, PackInfo, PackName, RefChange, RefMove, RefTarget,
    RootEntry, STATE_EVERY, StatePlace, decode_segment, merge_segments, pack_path, root_path,
};
use chipmink_types::{BlobKind, Digest, TimeId, WriteId};
use hashbrown::HashSet;

/// Packs whose indexes are merged into one segment.
const FAN_OUT: usize = 16;

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
            && TimeId(target.log().highest.0 + 1) < number
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
        let _turn = target.publishing();
        let refs: Vec<&(String, Goal)> =
            step.refs.iter().filter(|(name, goal)| self.changes(name, goal)).collect();
        if !always && step.version.is_none() && refs.is_empty() && self.packs.is_empty() {
            return Ok(());
        }
        let mut state: Option<State> = None;
        let write_id = WriteId(random::bytes());
        loop {
            target.refresh()?;
            self.check(&refs)?;
            self.packs.retain(|pack| !is_live(target, pack));
            if state.is_none() {
                state = self.housekeeping()?;
            }
            let synced = if target.options.durable { Some(target.sync_all()?) } else { None };
            let entry = self.entry(step, &refs, write_id, synced, state)?;
            let bytes = Bytes::from(entry.encode());
            let verdict = state.map_or(target.log().state.conditional_writes, |(_, verdict)| verdict);
            match create_entry(target, &entry, &bytes, verdict)? {
                Outcome::Won => return self.adopt(step, ReadEntry { digest: digest(&bytes), entry }, state),
                Outcome::Lost(read) => target.take_foreign(&read, entry.repository)?,
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
        let merged = if uncovered.len() >= FAN_OUT { merged(target, &uncovered) } else { None };
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
        let place = || target.backend.label().to_owned();
        log.requirements.check_write("repository").map_err(|source| StoreError::Format {
            place: place(),
            object: root_path(log.head.number),
            source,
        })?;
        let Some(number) = log.highest.0.checked_add(1).map(TimeId) else {
            let reason = "its last number is spent".to_owned();
            return Err(StoreError::ReadOnly { place: place(), reason });
        };
        let mut entry = RootEntry::new(number, log.state.repository, write_id);
        entry.requirements = log.requirements;
        entry.requirements.for_reading |= self.features;
        entry.published_at = now_micros();
        entry.floor = log.state.floor;
        entry.is_synced = target.options.durable;
        note_boot(&mut entry, &target.backend);
        entry.synced_through = synced.max(log.synced_through);
        entry.previous = Some(log.head);
        entry.state =
            state.map(|(place, _)| place).into_iter().chain(log.place).max_by_key(|place| place.covers);
        if let Some(version) = &step.version {
            let mut aliases = version.aliases.clone();
            let repository = self.source.log().state.repository;
            let own = (repository, version.number);
            if (log.state.repository, number) != own && !aliases.contains(&own) {
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

/// The merged index of these packs. What cannot be read is left as it is.
fn merged(target: &Inner, packs: &[PackInfo]) -> Option<Merged> {
    let read = |pack: &PackInfo| {
        let range = pack.index.byte_offset..pack.index.byte_offset + pack.index.byte_len;
        let bytes = target.backend.get_range(&pack_path(pack.name), range).ok()?;
        decode_segment(&bytes).ok()
    };
    let decoded: Vec<_> =
        packs.iter().filter_map(|pack| read(pack).map(|parts| (pack.name, parts))).collect();
    let parts: Vec<MergePart<'_>> =
        decoded.iter().map(|(name, (head, rows))| MergePart { head, rows, stands_in: *name }).collect();
    let covers = decoded.iter().map(|(name, _)| *name).collect();
    (decoded.len() > 1).then(|| Merged { segment: merge_segments(&parts), covers })
}
