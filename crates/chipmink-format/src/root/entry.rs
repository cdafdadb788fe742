//! Root entries: the numbered, create-only objects whose newest one says what the repository is.
//!
//! ```text
//!  0   "chmkroot"
//!  8   varint min_reader, varint min_writer, varint bits for reading, for writing, optional      ── never changes
//!      varint number, repository id (16), write id (16)
//!      i64 published_at, varint floor, u8 flags
//!      previous entry   varint number, digest          if flags bit 0
//!      root state       its place                      if flags bit 1
//!      varint synced through                           if flags bit 2
//!      commits          varint count, (varint length, bytes, varint count of aliases, (id (16), varint number)…)…
//!      ref changes      varint count, (str name, u8 kind, …)…
//!      packs added      varint count, …
//!      segments added   varint count, …
//!      packs condemned  varint count, name (16)…
//!      lease changes    varint count, (u8 kind, …)…
//!      extensions
//! -8   checksum of everything before it                                                            ── never changes
//! ```
//!
//! Invariants:
//! 1. The magic, the requirements behind it and the checksum at the end stand where they are in every version, so that
//!    a reader of any version tells a void entry from one that needs a newer reader.
//! 2. An entry names its own number: under another name it is damaged.

use super::parts::{Lease, PackInfo, RefTarget, SegmentInfo, packs, put_packs};
use crate::codec::Codec;
use crate::commit::Commit;
use crate::error::{FormatError, Result};
use crate::extensions::Extensions;
use crate::names::PackName;
use crate::requirements::Requirements;
use crate::wire::{CHECKSUM_LEN, Input, checksum, put_bytes, put_digest, put_str, put_varint};
use bytes::Bytes;
use chipmink_digest::digest;
use chipmink_types::{Digest, RepositoryId, TimeId, WriteId};

/// First bytes of a root entry.
pub const ROOT_MAGIC: &[u8; 8] = b"chmkroot";
/// A root state is written at least once in so many entries.
pub const STATE_EVERY: u64 = 64;
/// Bound on an entry, in bytes: what does not fit is a blob.
pub const ROOT_ENTRY_LEN_MAX: u64 = 16 << 20;

const HAS_PREVIOUS: u8 = 1;
const HAS_STATE: u8 = 1 << 1;
const HAS_SYNCED: u8 = 1 << 2;
const IS_SYNCED: u8 = 1 << 3;

/// The entry before, over void ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PreviousEntry {
    /// Its number.
    pub number: TimeId,
    /// Digest of its bytes.
    pub digest: Digest,
}

/// Where a root state lies: it can be read without an index, which it is needed to find.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StatePlace {
    /// The last entry that it includes.
    pub covers: TimeId,
    /// The pack that holds it.
    pub pack: PackName,
    /// Where it begins there, in bytes.
    pub byte_offset: u64,
    /// Bytes that it takes there.
    pub stored_len: u64,
    /// Bytes that come out of the codec.
    pub decoded_len: u64,
    /// How it is stored: raw or zstd.
    pub codec: Codec,
    /// Its blob.
    pub digest: Digest,
}

/// A commit whose bytes stand in the entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InlineCommit {
    /// The encoded [`Commit`].
    pub bytes: Bytes,
    /// Numbers that it has in other repositories (or tiers), from which it came.
    pub aliases: Vec<(RepositoryId, TimeId)>,
}

/// What a ref is moved to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefMove {
    /// The ref is deleted.
    Deleted,
    /// The commit with this ordinal in the entry.
    Inline(u32),
    /// A commit of an earlier entry.
    Existing(RefTarget),
}

/// A change of a ref.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefChange {
    /// Its name.
    pub name: String,
    /// What it is moved to.
    pub to: RefMove,
}

/// A change of a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseChange {
    /// Taken, or prolonged if the id is known.
    Taken(Lease),
    /// Given back.
    Released([u8; 16]),
}

/// One entry of the root log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RootEntry {
    /// What readers and writers must know, from this entry on.
    pub requirements: Requirements,
    /// Its number, and the time id of what it publishes.
    pub number: TimeId,
    /// The repository.
    pub repository: RepositoryId,
    /// The attempt that wrote it.
    pub write_id: WriteId,
    /// When it was made, in microseconds since 1970-01-01 UTC, by the writer's clock.
    pub published_at: i64,
    /// Packs born below this number that no entry before it added may be condemned.
    pub floor: TimeId,
    /// Whether it was synced, with its directory, before it was published.
    pub is_synced: bool,
    /// Every entry up to this number, and every pack that they name, was synced before this entry was published.
    pub synced_through: Option<TimeId>,
    /// The entry before it; `None` for the first.
    pub previous: Option<PreviousEntry>,
    /// The newest root state.
    pub state: Option<StatePlace>,
    /// Commits that it publishes.
    pub commits: Vec<InlineCommit>,
    /// Refs that it moves.
    pub refs: Vec<RefChange>,
    /// Packs that it adds.
    pub packs_added: Vec<PackInfo>,
    /// Merged index segments that it adds.
    pub segments_added: Vec<SegmentInfo>,
    /// Packs that are condemned, for good.
    pub packs_condemned: Vec<PackName>,
    /// Leases that change.
    pub leases: Vec<LeaseChange>,
    /// What later versions add.
    pub extensions: Extensions,
}

impl RootEntry {
    /// An entry that changes nothing yet.
    pub fn new(number: TimeId, repository: RepositoryId, write_id: WriteId) -> Self {
        RootEntry {
            requirements: Requirements::default(),
            number,
            repository,
            write_id,
            published_at: 0,
            floor: TimeId(0),
            is_synced: false,
            synced_through: None,
            previous: None,
            state: None,
            commits: Vec::new(),
            refs: Vec::new(),
            packs_added: Vec::new(),
            segments_added: Vec::new(),
            packs_condemned: Vec::new(),
            leases: Vec::new(),
            extensions: Extensions::default(),
        }
    }

    /// The entry's bytes, whose digest the next entry states.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(ROOT_MAGIC);
        self.requirements.encode(&mut out);
        put_varint(&mut out, self.number.0);
        out.extend_from_slice(&self.repository.0);
        out.extend_from_slice(&self.write_id.0);
        out.extend_from_slice(&self.published_at.to_le_bytes());
        put_varint(&mut out, self.floor.0);
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        out.push(
            flag(self.previous.is_some(), HAS_PREVIOUS)
                | flag(self.state.is_some(), HAS_STATE)
                | flag(self.synced_through.is_some(), HAS_SYNCED)
                | flag(self.is_synced, IS_SYNCED),
        );
        if let Some(previous) = &self.previous {
            put_varint(&mut out, previous.number.0);
            put_digest(&mut out, &previous.digest);
        }
        if let Some(state) = &self.state {
            state.encode(&mut out);
        }
        if let Some(synced) = self.synced_through {
            put_varint(&mut out, synced.0);
        }
        put_all(&self.commits, &mut out, |commit, out| {
            put_bytes(out, &commit.bytes);
            put_all(&commit.aliases, out, |(repository, number), out| {
                out.extend_from_slice(&repository.0);
                put_varint(out, number.0);
            });
        });
        put_all(&self.refs, &mut out, RefChange::encode);
        put_all(&self.packs_added, &mut out, PackInfo::encode);
        put_all(&self.segments_added, &mut out, SegmentInfo::encode);
        put_packs(&self.packs_condemned, &mut out);
        put_all(&self.leases, &mut out, LeaseChange::encode);
        self.extensions.encode(&mut out);
        let sum = checksum(&out);
        out.extend_from_slice(&sum);
        out
    }

    /// Decodes the entry that was read under `number`.
    ///
    /// # Errors
    /// [`FormatError::Void`] when it is cut off, no entry at all, or its checksum fails: the number is spent.
    /// [`FormatError::UnsupportedForReading`] when this build may not read it. Else damage.
    pub fn decode(bytes: &[u8], number: TimeId) -> Result<Self> {
        let void = |reason: &'static str| Err(FormatError::Void { number: number.0, reason: reason.into() });
        let Some(body) = bytes.len().checked_sub(CHECKSUM_LEN).map(|end| &bytes[..end]) else {
            return void("it is too short to be one");
        };
        if !body.starts_with(ROOT_MAGIC) {
            return void("it does not begin as one");
        }
        if checksum(body) != bytes[body.len()..] {
            return void("its checksum fails");
        }
        let mut input = Input::new("root entry", body);
        input.take(ROOT_MAGIC.len())?;
        let requirements = Requirements::decode(&mut input)?;
        requirements.check_read("root entry")?;
        let found = TimeId(input.varint()?);
        if found != number {
            return Err(input.damaged(format!("it is entry {found}, read under the number {number}")));
        }
        let (repository, write_id) = (RepositoryId(input.array()?), WriteId(input.array()?));
        let published_at = input.i64()?;
        let floor = TimeId(input.varint()?);
        let flags = input.u8()?;
        if flags & !(HAS_PREVIOUS | HAS_STATE | HAS_SYNCED | IS_SYNCED) != 0 {
            return Err(input.unsupported(format!("flags {flags:#04x}")));
        }
        let previous = match flags & HAS_PREVIOUS {
            0 => None,
            _ => Some(PreviousEntry { number: TimeId(input.varint()?), digest: input.digest()? }),
        };
        if previous.is_some_and(|previous| previous.number >= number) {
            return Err(input.damaged("the entry before it has no lower number"));
        }
        let state = if flags & HAS_STATE != 0 { Some(StatePlace::decode(&mut input)?) } else { None };
        if state.is_some_and(|state| state.covers >= number) {
            return Err(input.damaged("its root state includes it or a later entry"));
        }
        let synced_through = if flags & HAS_SYNCED != 0 { Some(TimeId(input.varint()?)) } else { None };
        let commits = all(&mut input, 2, |input| {
            let bytes = Bytes::copy_from_slice(input.bytes()?);
            let aliases =
                all(input, 17, |input| Ok((RepositoryId(input.array()?), TimeId(input.varint()?))))?;
            Ok(InlineCommit { bytes, aliases })
        })?;
        let refs = all(&mut input, 2, |input| RefChange::decode(input, commits.len()))?;
        let packs_added = all(&mut input, PackInfo::LEN_MIN, PackInfo::decode)?;
        let segments_added = all(&mut input, SegmentInfo::LEN_MIN, SegmentInfo::decode)?;
        let packs_condemned = packs(&mut input)?;
        let leases = all(&mut input, 17, LeaseChange::decode)?;
        let extensions = input.extensions()?;
        input.end()?;
        Ok(RootEntry {
            requirements,
            number,
            repository,
            write_id,
            published_at,
            floor,
            is_synced: flags & IS_SYNCED != 0,
            synced_through,
            previous,
            state,
            commits,
            refs,
            packs_added,
            segments_added,
            packs_condemned,
            leases,
            extensions,
        })
    }

    /// The commit with this ordinal.
    ///
    /// # Errors
    /// When there is none, or its bytes are damaged.
    pub fn commit(&self, ordinal: u32) -> Result<Commit> {
        match self.commits.get(ordinal as usize) {
            Some(commit) => Commit::decode(&commit.bytes),
            None => Err(FormatError::Damaged {
                what: format!("root entry {}", self.number).into(),
                byte_offset: 0,
                reason: format!("it has no commit {ordinal}").into(),
            }),
        }
    }

    /// The refs that it moves, resolved: name, and target or `None` if it is deleted.
    ///
    /// # Errors
    /// When a commit is damaged.
    pub fn ref_changes(&self) -> Result<Vec<(String, Option<RefTarget>)>> {
        let resolve = |change: &RefChange| -> Result<_> {
            let target = match change.to {
                RefMove::Deleted => None,
                RefMove::Existing(target) => Some(target),
                RefMove::Inline(ordinal) => Some(self.target(ordinal)?),
            };
            Ok((change.name.clone(), target))
        };
        self.refs.iter().map(resolve).collect()
    }

    /// What a ref to the commit with this ordinal points at.
    ///
    /// # Errors
    /// When there is none, or its bytes are damaged.
    pub fn target(&self, ordinal: u32) -> Result<RefTarget> {
        let manifest = self.commit(ordinal)?.manifest;
        let commit = digest(&self.commits[ordinal as usize].bytes);
        Ok(RefTarget { commit, time: self.number, manifest })
    }
}

impl StatePlace {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.covers.0);
        out.extend_from_slice(&self.pack.0);
        put_varint(out, self.byte_offset);
        put_varint(out, self.stored_len);
        put_varint(out, self.decoded_len);
        out.push(self.codec as u8);
        put_digest(out, &self.digest);
    }

    fn decode(input: &mut Input<'_>) -> Result<Self> {
        let covers = TimeId(input.varint()?);
        let pack = PackName(input.array()?);
        let (byte_offset, stored_len, decoded_len) = (input.varint()?, input.varint()?, input.varint()?);
        if byte_offset.checked_add(stored_len).is_none() {
            return Err(input.damaged("the root state ends past 2^64"));
        }
        let number = input.u8()?;
        let codec = match Codec::from_number(number) {
            Some(codec @ (Codec::Raw | Codec::Zstd)) => codec,
            _ => return Err(input.unsupported(format!("codec {number} of the root state"))),
        };
        Ok(StatePlace { covers, pack, byte_offset, stored_len, decoded_len, codec, digest: input.digest()? })
    }
}

impl RefChange {
    fn encode(&self, out: &mut Vec<u8>) {
        put_str(out, &self.name);
        match &self.to {
            RefMove::Deleted => out.push(0),
            RefMove::Inline(ordinal) => {
                out.push(1);
                put_varint(out, (*ordinal).into());
            }
            RefMove::Existing(target) => {
                out.push(2);
                target.encode(out);
            }
        }
    }

    fn decode(input: &mut Input<'_>, commits: usize) -> Result<Self> {
        let name = input.string()?;
        let to = match input.u8()? {
            0 => RefMove::Deleted,
            1 => {
                let ordinal = input.varint_u32()?;
                if ordinal as usize >= commits {
                    return Err(input.damaged(format!("ref {name} moves to commit {ordinal} of {commits}")));
                }
                RefMove::Inline(ordinal)
            }
            2 => RefMove::Existing(RefTarget::decode(input)?),
            other => return Err(input.unsupported(format!("move {other} of a ref"))),
        };
        Ok(RefChange { name, to })
    }
}

impl LeaseChange {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            LeaseChange::Taken(lease) => {
                out.push(1);
                lease.encode(out);
            }
            LeaseChange::Released(id) => {
                out.push(0);
                out.extend_from_slice(id);
            }
        }
    }

    fn decode(input: &mut Input<'_>) -> Result<Self> {
        match input.u8()? {
            0 => Ok(LeaseChange::Released(input.array()?)),
            1 => Lease::decode(input).map(LeaseChange::Taken),
            other => Err(input.unsupported(format!("change {other} of a lease"))),
        }
    }
}

pub(super) fn put_all<T>(items: &[T], out: &mut Vec<u8>, encode: impl Fn(&T, &mut Vec<u8>)) {
    put_varint(out, items.len() as u64);
    items.iter().for_each(|item| encode(item, out));
}

pub(super) fn all<T>(
    input: &mut Input<'_>,
    item_len: usize,
    mut decode: impl FnMut(&mut Input<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let count = input.count(item_len)?;
    (0..count).map(|_| decode(input)).collect()
}
