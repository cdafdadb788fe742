//! [`Log`]: what the root log says, summed up to its newest entry.
//!
//! Invariants:
//! 1. The log is the chain of `previous` links from the newest sound entry. A number that stands outside it (a void
//!    entry, one that outlived a power cut without what it builds on) is spent: the next entry goes above it.
//! 2. An entry that was synced is believed. One that was not is believed only with all that it builds on, as far as
//!    [`Trust`] demands: the entries before it, and its packs.
//! 3. A place that is far away is asked in few rounds, however long the log: what stands there; the newest entry; those back to
//!    its root state, and that.

mod entries;

use crate::backend::Backend;
use crate::error::{Result, StoreError};
use crate::pack_check::check_pack;
use bytes::Bytes;
use chipmink_digest::digest;
use chipmink_format::{
    DroppedVersions, FormatError, LeaseChange, PackInfo, PackName, PreviousEntry, RefTarget, Requirements,
    RootEntry, RootState, SegmentInfo, StatePlace, decode_blob, expansion_max, pack_path, root_path,
};
use chipmink_types::{Digest, TimeId};
use entries::{Newest, Numbers, all_numbers};
use hashbrown::{HashMap, HashSet};

pub(crate) use entries::{decode_entry, read_entry};

/// File that remembers about how far the log goes. Best effort, never trusted.
pub(crate) const HINT: &str = "hint";

/// Bound on a root state, in bytes: sixteen million packs.
const STATE_LEN_MAX: u64 = 1 << 30;

/// What the log says up to its newest entry.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// Highest number under which anything was seen.
    pub(crate) highest: TimeId,
    /// The newest sound entry.
    pub(crate) head: PreviousEntry,
    /// What all entries up to the head add up to.
    pub(crate) state: RootState,
    /// Where the newest stored root state lies.
    pub(crate) place: Option<StatePlace>,
    pub(crate) requirements: Requirements,
    /// All entries up to this one, and their packs, are synced.
    pub(crate) synced_through: Option<TimeId>,
    /// Entries above that, as far as they were read, that were not synced for themselves.
    unsynced: Vec<TimeId>,
    /// Entries up to this one, which were not read, may not be synced.
    older_unsynced: Option<TimeId>,
    /// By which entry each pack that is not synced was added.
    unsynced_packs: HashMap<PackName, TimeId>,
    /// Live packs whose own index no merged segment covers, oldest first.
    pub(crate) uncovered: Vec<PackInfo>,
    /// Numbers that are spent without a sound entry.
    pub(crate) void: Vec<TimeId>,
    /// Versions that sweeps have dropped.
    pub(crate) dropped: DroppedVersions,
    /// The newest sound entry, unless it is what the root state ends with.
    pub(crate) newest: Option<RootEntry>,
}

/// How far what was not synced is believed: a power cut may have left it without its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trust {
    /// If its packs have their lengths. Enough for one who promises nothing about power cuts.
    Lengths,
    /// If every byte of its packs is right, or nothing can have happened to them since. Who promises durability promises
    /// it of all that a version builds on.
    Checked {
        /// Longest blob, in decoded bytes.
        blob_bytes_max: u64,
    },
}

/// Extension of an entry that was not synced: the boot in which it was written.
const BOOT: u64 = 2;

/// Notes in an entry that will not be synced in which boot it is written.
pub(crate) fn note_boot(entry: &mut RootEntry, backend: &Backend) {
    if let (false, Some(boot)) = (entry.is_synced, backend.boot()) {
        entry.extensions.set(BOOT, boot.to_vec());
    }
}

/// Whether an entry was written since the machine was started, so that no power cut can have touched it.
fn is_of_this_boot(entry: &RootEntry, backend: &Backend) -> bool {
    let noted = entry.extensions.iter().find(|(tag, _)| *tag == BOOT).map(|(_, bytes)| bytes);
    backend.boot().is_some_and(|boot| noted == Some(&boot[..]))
}

/// An entry with the digest of its bytes.
#[derive(Clone, Debug)]
pub(crate) struct ReadEntry {
    pub(crate) entry: RootEntry,
    pub(crate) digest: Digest,
}

impl Log {
    /// Reads the log of a repository, `None` if there is none.
    pub(crate) fn open(backend: &Backend, trust: Trust) -> Result<Option<Self>> {
        let Some(mut newest) = Newest::look(backend)? else { return Ok(None) };
        loop {
            let highest = newest.number;
            let opened = Log::open_from(backend, trust, newest);
            if opened.as_ref().is_ok_and(|log| log.void.is_empty()) {
                return opened.map(Some);
            }
            // A sweep may have deleted a pack that the newest entry of a moment ago still named.
            match Newest::look(backend)? {
                Some(newer) if newer.number > highest => newest = newer,
                _ => return opened.map(Some),
            }
        }
    }

    fn open_from(backend: &Backend, trust: Trust, newest: Newest) -> Result<Self> {
        let highest = newest.number;
        let mut numbers = Numbers::new(backend, newest);
        let mut void = Vec::new();
        let mut first_failure = None;
        let mut next = Some(highest);
        while let Some(number) = next {
            let mut opened = Log::open_at(backend, number, highest, &mut numbers, trust, false);
            if let Err(Unsound::Fatal(_)) = &opened
                && let Ok(log) = Log::open_at(backend, number, highest, &mut numbers, trust, true)
                && log.void.is_empty()
            {
                // The root state is damaged; what it sums up is all there. Were an entry missing, the packs that only it names
                // would look like those of nobody. Whoever publishes next writes another state.
                opened = Ok(Log { place: None, ..log });
            }
            if opened.as_ref().is_ok_and(|log| log.has_doubtful_state())
                && matches!(trust, Trust::Checked { .. })
            {
                // The state sums up entries that were not synced: they must be looked at themselves.
                opened = Log::open_at(backend, number, highest, &mut numbers, trust, true);
            }
            match opened {
                Ok(mut log) => {
                    log.void.append(&mut void);
                    log.void.sort_unstable();
                    return Ok(log);
                }
                Err(Unsound::Step { spent, failure }) => {
                    let lowest = spent.iter().copied().min().unwrap_or(number);
                    void.extend(spent);
                    first_failure.get_or_insert(*failure);
                    next = numbers.below(lowest)?;
                }
                Err(Unsound::Fatal(failure)) => return Err(*failure),
            }
        }
        let reason = first_failure.map_or_else(|| "there is none".to_owned(), |failure| failure.to_string());
        Err(StoreError::NoSoundEntry { place: backend.label().to_owned(), reason })
    }

    /// Reads the chain that ends at `number`.
    fn open_at(
        backend: &Backend,
        number: TimeId,
        highest: TimeId,
        numbers: &mut Numbers<'_>,
        trust: Trust,
        from_start: bool,
    ) -> std::result::Result<Self, Unsound> {
        let mut chain: Vec<ReadEntry> = Vec::new();
        let mut void = Vec::new();
        let mut next = number;
        // What the entry above says of the next one; not known behind a damaged one.
        let mut expected: Option<Digest> = None;
        let mut place = None;
        let mut stored_state = None;
        loop {
            let read = match numbers.entries.read(next) {
                Ok(read) if expected.is_none_or(|expected| expected == read.digest) => read,
                Ok(_) => return Err(Unsound::broken(&chain, next, not_linked(backend, next))?),
                Err(failure) if is_void(&failure) || failure.is_missing() => {
                    // Below an entry that was synced this is damage: the rest of the log is still worth reading.
                    let failure = Unsound::broken(&chain, next, failure);
                    if let Err(unsound @ Unsound::Step { .. }) = failure {
                        return Err(unsound);
                    }
                    void.push(next);
                    match numbers.below(next).map_err(Unsound::from)? {
                        Some(below) if place.is_none_or(|place: StatePlace| below > place.covers) => {
                            (next, expected) = (below, None);
                            continue;
                        }
                        _ => break,
                    }
                }
                Err(failure) => return Err(failure.into()),
            };
            if chain.is_empty() && !from_start {
                place = read.entry.state;
                stored_state = numbers.entries.fetch_back_to(number, place);
            }
            let previous = read.entry.previous;
            chain.push(read);
            match previous {
                Some(previous) if place.is_none_or(|place| previous.number > place.covers) => {
                    (next, expected) = (previous.number, Some(previous.digest));
                }
                _ => break,
            }
        }
        check_unsynced_packs(backend, &chain, trust)?;
        let newest = &chain[0];
        let state = match place {
            None => RootState::new(newest.entry.repository),
            Some(place) => read_state(backend, &place, stored_state).map_err(Unsound::from)?,
        };
        if state.repository != newest.entry.repository {
            let place = backend.label().to_owned();
            return Err(StoreError::Replaced { place }.into());
        }
        let older_unsynced =
            (newest.entry.synced_through < Some(state.covers) && place.is_some()).then_some(state.covers);
        let mut log = Log {
            highest,
            head: PreviousEntry { number: state.covers, digest: digest(&[]) },
            requirements: newest.entry.requirements,
            place,
            synced_through: None,
            unsynced: Vec::new(),
            older_unsynced,
            unsynced_packs: HashMap::new(),
            uncovered: Vec::new(),
            void,
            dropped: DroppedVersions::default(),
            newest: None,
            state: RootState::new(newest.entry.repository),
        };
        let object = || place.map_or_else(String::new, |place| pack_path(place.pack));
        log.set_state(state).map_err(|source| StoreError::Format {
            place: backend.label().to_owned(),
            object: object(),
            source,
        })?;
        for pack in log.state.packs.iter().filter(|pack| !pack.is_synced) {
            log.unsynced_packs.insert(pack.name, log.state.covers);
        }
        for read in chain.iter().rev() {
            log.apply(read).map_err(|source| {
                let object = root_path(read.entry.number);
                StoreError::Format { place: backend.label().to_owned(), object, source }
            })?;
        }
        log.highest = highest;
        Ok(log)
    }

    /// Takes a root state for what all entries up to the head add up to.
    pub(crate) fn set_state(&mut self, state: RootState) -> Result<(), FormatError> {
        self.dropped = state.dropped()?;
        self.uncovered = uncovered(&state);
        self.state = state;
        Ok(())
    }

    /// Takes the entry that follows the head.
    pub(crate) fn apply(&mut self, read: &ReadEntry) -> Result<(), FormatError> {
        let entry = &read.entry;
        let changes = entry.ref_changes()?;
        self.apply_sweep(entry)?;
        for (name, target) in changes {
            match target {
                Some(target) => self.state.refs.insert(name, target),
                None => self.state.refs.remove(&name),
            };
        }
        for pack in &entry.packs_added {
            if !pack.is_synced {
                self.unsynced_packs.insert(pack.name, entry.number);
            }
            self.state.packs.push(*pack);
            self.uncovered.push(*pack);
        }
        for segment in &entry.segments_added {
            let covers: HashSet<PackName> = segment.covers.iter().copied().collect();
            self.uncovered.retain(|pack| !covers.contains(&pack.name));
            if segment.level > 1 {
                let live = self.live();
                let is_replaced =
                    |other: &SegmentInfo| other.level < segment.level && is_within(other, &covers, &live);
                self.state.segments.retain(|other| !is_replaced(other));
            }
            self.state.segments.push(segment.clone());
        }
        if !entry.packs_condemned.is_empty() {
            self.state.packs.retain(|pack| !entry.packs_condemned.contains(&pack.name));
            self.state.segments.retain(|segment| !entry.packs_condemned.contains(&segment.pack));
            // The packs of a merge that went with its own pack stand for themselves again.
            self.uncovered = uncovered(&self.state);
            self.state.condemned.extend(entry.packs_condemned.iter().map(|name| (*name, entry.number)));
            entry.packs_condemned.iter().for_each(|name| {
                self.unsynced_packs.remove(name);
            });
        }
        for change in &entry.leases {
            let id = match change {
                LeaseChange::Taken(lease) => lease.id,
                LeaseChange::Released(id) => *id,
            };
            self.state.leases.retain(|lease| lease.id != id);
            if let LeaseChange::Taken(lease) = change {
                self.state.leases.push(*lease);
            }
        }
        self.state.floor = self.state.floor.max(entry.floor);
        self.state.covers = entry.number;
        self.requirements = self.requirements.joined(entry.requirements);
        if entry.state.is_some() {
            self.place = entry.state;
        }
        if entry.is_synced {
            // Nothing above the last one that was not synced is in doubt.
            if self.unsynced.is_empty() && self.older_unsynced.is_none() {
                self.synced_through = self.synced_through.max(Some(entry.number));
            }
        } else {
            self.unsynced.push(entry.number);
        }
        if entry.synced_through > self.synced_through {
            self.note_synced_through(entry.synced_through);
        }
        self.head = PreviousEntry { number: entry.number, digest: read.digest };
        self.newest = Some(entry.clone());
        self.highest = self.highest.max(entry.number);
        Ok(())
    }

    /// Takes what a sweep says beside the packs that it condemns.
    fn apply_sweep(&mut self, entry: &RootEntry) -> Result<(), FormatError> {
        let dropped = entry.dropped()?;
        if !dropped.is_empty() {
            dropped.into_iter().try_for_each(|range| self.dropped.insert(range))?;
            self.state.set_dropped(&self.dropped);
        }
        if let Some(through) = entry.deleted_through()? {
            self.state.condemned.retain(|(_, by)| *by > through);
        }
        Ok(())
    }

    fn note_synced_through(&mut self, through: Option<TimeId>) {
        self.synced_through = self.synced_through.max(through);
        self.unsynced.retain(|number| Some(*number) > through);
        self.older_unsynced = self.older_unsynced.filter(|older| Some(*older) > through);
        if self.unsynced_packs.is_empty() {
            return;
        }
        self.unsynced_packs.retain(|_, added| Some(*added) > through);
        for pack in self.state.packs.iter_mut().filter(|pack| !pack.is_synced) {
            pack.is_synced = !self.unsynced_packs.contains_key(&pack.name);
        }
    }

    /// Whether the root state sums up entries or packs that were not synced.
    fn has_doubtful_state(&self) -> bool {
        let covers = self.place.map(|place| place.covers);
        self.older_unsynced.is_some() || self.unsynced_packs.values().any(|added| Some(*added) <= covers)
    }

    /// Whether everything up to the head is known to be synced.
    pub(crate) fn is_synced(&self) -> bool {
        self.unsynced.is_empty() && self.older_unsynced.is_none() && self.unsynced_packs.is_empty()
    }

    /// Entries up to the head that are not known to be synced.
    pub(crate) fn unsynced_entries(&self, backend: &Backend) -> Result<Vec<TimeId>> {
        let mut all = self.unsynced.clone();
        if let Some(older) = self.older_unsynced {
            let is_in_doubt = |number: &TimeId| Some(*number) > self.synced_through && *number <= older;
            all.extend(all_numbers(backend)?.into_iter().filter(is_in_doubt));
        }
        Ok(all)
    }

    /// Packs that are not known to be synced.
    pub(crate) fn unsynced_packs(&self) -> Vec<PackInfo> {
        self.state.packs.iter().filter(|pack| self.unsynced_packs.contains_key(&pack.name)).copied().collect()
    }

    /// All up to `through` was synced now.
    pub(crate) fn note_synced(&mut self, through: TimeId) {
        self.note_synced_through(Some(through));
    }

    /// The number of the entry that comes next; `None`: the last one is spent.
    pub(crate) fn next_number(&self) -> Option<TimeId> {
        self.highest.0.checked_add(1).map(TimeId)
    }

    fn live(&self) -> HashSet<PackName> {
        self.state.packs.iter().map(|pack| pack.name).collect()
    }

    /// Whether a merged segment may be added: each pack that it covers is live, and is covered by none or by a segment that it
    /// replaces.
    pub(crate) fn takes(&self, segment: &SegmentInfo) -> bool {
        let live = self.live();
        let covers: HashSet<PackName> = segment.covers.iter().copied().collect();
        let stays = |other: &&SegmentInfo| other.level >= segment.level || !is_within(other, &covers, &live);
        let mut staying = self.state.segments.iter().filter(stays).flat_map(|other| &other.covers);
        covers.is_subset(&live) && !staying.any(|name| covers.contains(name))
    }

    pub(crate) fn target(&self, ref_name: &str) -> Option<&RefTarget> {
        self.state.refs.get(ref_name)
    }
}

/// Whether so many packs are all live ones that a segment covers.
fn is_within(segment: &SegmentInfo, packs: &HashSet<PackName>, live: &HashSet<PackName>) -> bool {
    segment.covers.iter().all(|name| packs.contains(name) || !live.contains(name))
}

/// Live packs whose own index no merged segment covers.
fn uncovered(state: &RootState) -> Vec<PackInfo> {
    let covered: HashSet<PackName> =
        state.segments.iter().flat_map(|segment| segment.covers.iter().copied()).collect();
    state.packs.iter().filter(|pack| !covered.contains(&pack.name)).copied().collect()
}

/// Why a chain cannot be the log.
enum Unsound {
    /// These numbers are spent; the log may end below them.
    Step { spent: Vec<TimeId>, failure: Box<StoreError> },
    /// The log cannot be read.
    Fatal(Box<StoreError>),
}

impl From<StoreError> for Unsound {
    fn from(failure: StoreError) -> Self {
        Unsound::Fatal(Box::new(failure))
    }
}

impl Unsound {
    /// The entry `broken` cannot be had. What stands above it is not to be believed, unless a part of that was synced,
    /// and with it all below: then it is damage (the failure is given back), not what a power cut leaves.
    fn broken(chain: &[ReadEntry], broken: TimeId, failure: StoreError) -> std::result::Result<Self, Self> {
        if chain.iter().any(|read| read.entry.is_synced || read.entry.synced_through >= Some(broken)) {
            return Ok(failure.into());
        }
        let spent = chain.iter().map(|read| read.entry.number).chain([broken]).collect();
        Err(Unsound::Step { spent, failure: Box::new(failure) })
    }
}

/// An entry that was not synced counts only with its packs.
fn check_unsynced_packs(
    backend: &Backend,
    chain: &[ReadEntry],
    trust: Trust,
) -> std::result::Result<(), Unsound> {
    let synced_through = chain.iter().map(|read| read.entry.synced_through).max().flatten();
    let condemned: HashSet<PackName> =
        chain.iter().flat_map(|read| read.entry.packs_condemned.iter().copied()).collect();
    for read in chain.iter().rev() {
        if read.entry.is_synced || Some(read.entry.number) <= synced_through {
            continue;
        }
        let trust = if is_of_this_boot(&read.entry, backend) { Trust::Lengths } else { trust };
        for pack in read.entry.packs_added.iter().filter(|pack| !condemned.contains(&pack.name)) {
            let found = backend.byte_len(&pack_path(pack.name)).map_err(Unsound::from)?;
            let failure = match (found, trust) {
                (Some(found), _) if found != pack.byte_len => {
                    lost_pack(backend, read.entry.number, pack, Some(found))
                }
                (None, _) => lost_pack(backend, read.entry.number, pack, None),
                (Some(_), Trust::Lengths) => continue,
                (Some(_), Trust::Checked { blob_bytes_max }) => {
                    match check_pack(backend, pack, blob_bytes_max) {
                        Ok(_) => continue,
                        Err(failure @ StoreError::Format { .. }) => failure,
                        Err(failure) => return Err(failure.into()),
                    }
                }
            };
            let spent = chain.iter().map(|read| read.entry.number);
            let spent = spent.filter(|number| *number >= read.entry.number).collect();
            return Err(Unsound::Step { spent, failure: Box::new(failure) });
        }
    }
    Ok(())
}

fn is_void(error: &StoreError) -> bool {
    matches!(error, StoreError::Format { source: FormatError::Void { .. }, .. })
}

fn not_linked(backend: &Backend, number: TimeId) -> StoreError {
    let reason = "it is not the one that the next entry follows".into();
    let source = FormatError::Damaged { what: "root entry".into(), byte_offset: 0, reason };
    StoreError::Format { place: backend.label().to_owned(), object: root_path(number), source }
}

fn lost_pack(backend: &Backend, number: TimeId, pack: &PackInfo, found: Option<u64>) -> StoreError {
    let found = found.map_or_else(|| "is missing".to_owned(), |len| format!("has {len} bytes"));
    let reason = format!("version {number} needs it with {} bytes, it {found}", pack.byte_len).into();
    let source = FormatError::Damaged { what: "pack".into(), byte_offset: 0, reason };
    StoreError::Format { place: backend.label().to_owned(), object: pack_path(pack.name), source }
}

/// Whether a root state can be had where an entry says that it lies.
pub(crate) fn check_state(backend: &Backend, place: &StatePlace) -> Result<()> {
    read_state(backend, place, None).map(drop)
}

/// Reads a root state from its pack, unless its bytes are there already.
fn read_state(backend: &Backend, place: &StatePlace, stored: Option<Bytes>) -> Result<RootState> {
    let path = pack_path(place.pack);
    let stored = match stored {
        Some(stored) => stored,
        None => entries::stored_state(backend, place)?,
    };
    let decode = || {
        let bytes = decode_blob(
            stored,
            place.codec,
            place.decoded_len,
            STATE_LEN_MAX.min(expansion_max(place.stored_len)),
        )?;
        if digest(&bytes) != place.digest {
            let reason = "its digest is not the one that the root entry states".into();
            return Err(FormatError::Damaged {
                what: "root state".into(),
                byte_offset: place.byte_offset,
                reason,
            });
        }
        let state = RootState::decode(&bytes)?;
        if state.covers != place.covers {
            let reason = format!("it covers {}, the root entry says {}", state.covers, place.covers).into();
            return Err(FormatError::Damaged {
                what: "root state".into(),
                byte_offset: place.byte_offset,
                reason,
            });
        }
        Ok(state)
    };
    decode().map_err(|source| StoreError::Format { place: backend.label().to_owned(), object: path, source })
}
