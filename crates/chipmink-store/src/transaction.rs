//! [`PackTransaction`]: one save, from its first blob to its root entry.
//!
//! Invariants:
//! 1. Nothing that a transaction wrote is known to anybody before its entry exists; then all of it is, at once.
//! 2. A lost race changes the entry only. The packs stay as they are, also for another try after `RefMoved`.
//! 3. The bytes for a number never change until an entry has been read there.
//! 4. An entry is published only on top of one in which everything that its version needs and does not bring is in a live
//!    pack: [`rebase`].
//! 5. What can be sent before its turn comes is: several saves of one process send their packs at once, and only their
//!    entries follow each other ([`crate::turn`]).

pub(crate) mod rebase;

use crate::cancel::Cancel;
use crate::compression::{Chooser, PlaceKind};
use crate::creation::verdict;
use crate::entry_creation::{Outcome, begin_entry, create_entry};
use crate::error::{Result, StoreError};
use crate::generations::DigestSet;
use crate::inner::{Chain, Inner};
use crate::log::{HINT, ReadEntry};
use crate::merge::{FAN_OUT, merge_all, segments_due};
use crate::pack_writer::{Merged, PackWriter, SealedPack};
use crate::random;
use crate::region::{RegionHistory, RegionSave};
use crate::turn::{Claim, Held};
use bytes::Bytes;
use chipmink_digest::digest;
use chipmink_format::{
    Codec, Commit, ConditionalWrites, DELTA_CHAIN_MAX, InlineCommit, RefChange, RefMove, RefTarget,
    RootEntry, STATE_EVERY, StatePlace, pack_path,
};
use chipmink_types::{BlobError, BlobKind, BlobSink, Digest, RegionForecast, RegionOutline, TimeId, WriteId};
use hashbrown::HashMap;
use std::sync::Arc;

/// Small blobs kept for the cache, in bytes: the next save reads the tables of this one.
const FRESH_BYTES: usize = 4 << 20;

/// What a transaction publishes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Publication {
    /// The ref to move.
    pub ref_name: String,
    /// The version that it points at now; `None`: there is no such ref yet.
    pub expected: Option<TimeId>,
    /// The commit to move it to.
    pub commit: Commit,
}

/// A ref, and what it is to be moved to.
struct Move<'a> {
    ref_name: &'a str,
    expected: Option<TimeId>,
    to: Target<'a>,
}

/// What a ref is moved to.
enum Target<'a> {
    /// A commit that the entry brings.
    Commit(&'a Bytes),
    /// One that is there; `None`: the ref goes away.
    Existing(Option<RefTarget>),
}

/// Figures of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TransactionStats {
    /// Blobs that were new.
    pub blobs_new: u64,
    /// Blobs that the repository held already.
    pub blobs_known: u64,
    /// Decoded bytes of the new blobs.
    pub blob_bytes: u64,
    /// Bytes of packs and entry, as they stand in the store.
    pub bytes_written: u64,
}

/// One save. Given up when dropped before it is published.
#[derive(Debug)]
pub struct PackTransaction {
    inner: Arc<Inner>,
    /// The versions from which blobs are taken over without being put.
    bases: Vec<TimeId>,
    writer: Option<PackWriter>,
    sealed: Vec<SealedPack>,
    own: DigestSet,
    /// Blobs of others that this save will name, by the pack that each was found in.
    relied_on: HashMap<u32, Vec<Digest>>,
    /// `None` once it went back.
    chooser: Option<Chooser>,
    region: Option<RegionSave>,
    /// What the regions of this save have taught, by their roots.
    regions: Vec<(Digest, RegionHistory)>,
    /// Feature bits of the codecs used.
    features: u64,
    fresh: Vec<(Digest, Bytes)>,
    fresh_bytes: usize,
    state: Option<(StatePlace, ConditionalWrites)>,
    stats: TransactionStats,
    failure: Option<String>,
    cancel: Option<Cancel>,
    is_over: bool,
    /// A forked child must not remove its parent's packs.
    process: u32,
}

impl PackTransaction {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        let chooser = Some(inner.take_chooser());
        PackTransaction {
            inner,
            bases: Vec::new(),
            writer: None,
            sealed: Vec::new(),
            own: DigestSet::default(),
            relied_on: HashMap::new(),
            chooser,
            region: None,
            regions: Vec::new(),
            features: 0,
            fresh: Vec::new(),
            fresh_bytes: 0,
            state: None,
            stats: TransactionStats::default(),
            failure: None,
            cancel: None,
            is_over: false,
            process: std::process::id(),
        }
    }

    /// Says that what a version reaches may be named without being put. It must then be there still when this save is
    /// published; everything else is to be put, or asked for with [`BlobSink::holds`], blob by blob. It may be said of several.
    pub fn build_on(&mut self, version: TimeId) {
        self.bases.push(version);
    }

    /// Lets the save be cancelled until its entry is created. After that nothing of it is there.
    pub fn cancel_by(&mut self, cancel: Cancel) {
        self.cancel = Some(cancel);
    }

    /// Figures so far.
    pub fn stats(&self) -> TransactionStats {
        self.stats
    }

    /// Gives the save up; what it wrote is removed.
    pub fn abandon(mut self) {
        self.clean_up();
    }

    fn clean_up(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        if let Some(chooser) = self.chooser.take() {
            self.inner.give_chooser_back(chooser);
        }
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        self.writer = None;
        for pack in self.sealed.drain(..) {
            // What cannot be removed now is an orphan, which a sweep removes.
            let _ = self.inner.backend.delete(&pack_path(pack.info.name));
        }
    }

    fn check(&self) -> Result<()> {
        if self.cancel.as_ref().is_some_and(Cancel::is_cancelled) {
            return Err(StoreError::Cancelled);
        }
        match &self.failure {
            Some(reason) => Err(StoreError::Spent { reason: reason.clone() }),
            None if self.is_over => Err(StoreError::Spent { reason: "it is published".to_owned() }),
            None => Ok(()),
        }
    }

    fn fail<T>(&mut self, error: StoreError) -> Result<T> {
        self.failure = Some(error.to_string());
        Err(error)
    }

    fn is_held(&mut self, digest: &Digest) -> bool {
        if self.own.contains(digest) {
            return true;
        }
        // An index that cannot be read, or a base that was swept, costs a duplicate, no error.
        let found = self.inner.index().find(digest).ok().flatten();
        match found {
            Some(found) if found.base.is_none() => {
                self.relied_on.entry(found.location.pack).or_default().push(*digest);
                true
            }
            Some(_) => {
                self.inner.chain(digest, DELTA_CHAIN_MAX + 1).map(|chain| self.rely_on(chain)).is_some()
            }
            None => false,
        }
    }

    fn rely_on(&mut self, chain: Chain) {
        for (digest, pack) in chain {
            self.relied_on.entry(pack).or_default().push(digest);
        }
    }

    /// The pack to write to.
    fn writer(&mut self) -> Result<()> {
        if self.writer.as_ref().is_some_and(|writer| writer.byte_len() >= self.inner.options.pack_bytes) {
            self.seal(None)?;
        }
        if self.writer.is_none() {
            let (repository, born) = {
                let log = self.inner.log();
                (log.state.repository, log.head.number)
            };
            self.writer = Some(PackWriter::begin(&self.inner.backend, repository, born)?);
        }
        Ok(())
    }

    /// Writes a blob as the chooser says; returns where it begins, and its codec and stored length.
    fn write(&mut self, kind: BlobKind, name: Digest, bytes: &[u8]) -> Result<(u64, Codec, u64)> {
        self.writer()?;
        let PackTransaction { writer, chooser, region, .. } = self;
        let (Some(writer), Some(chooser)) = (writer, chooser) else { return Err(spent()) };
        let (codec, stored) = match region {
            Some(region) if kind == BlobKind::Chunk => {
                let (codec, stored) = chooser.encode_chunk(bytes, region.compression());
                region.note_compressed(codec != Codec::Raw);
                writer.align_chunk(codec, stored.len(), region.expected())?;
                (codec, stored)
            }
            _ => {
                let (codec, stored) = chooser.encode(kind, bytes);
                if kind == BlobKind::Chunk {
                    writer.align_chunk(codec, stored.len(), 0)?;
                }
                (codec, stored)
            }
        };
        let byte_offset = writer.put(name, kind, codec, bytes.len() as u64, None, stored)?;
        self.features |= codec.features();
        Ok((byte_offset, codec, stored.len() as u64))
    }

    /// Writes a chunk as a delta against its previous version, if there is one and that pays.
    fn write_delta(&mut self, ordinal: u64, name: Digest, bytes: &[u8]) -> Result<bool> {
        let inner = Arc::clone(&self.inner);
        let has_deltas = self.chooser.as_ref().is_some_and(Chooser::has_deltas);
        let Some(region) = self.region.as_mut().filter(|_| has_deltas) else { return Ok(false) };
        let Some(base) = region.base_for(ordinal, &inner) else { return Ok(false) };
        self.writer()?;
        let PackTransaction { writer, chooser, region, .. } = self;
        let (Some(writer), Some(chooser), Some(region)) = (writer, chooser, region) else {
            return Err(spent());
        };
        let delta = chooser.encode_delta(bytes, &base.bytes, region.is_compressible());
        region.note_delta(delta.is_some());
        let Some((codec, stored)) = delta else { return Ok(false) };
        writer.put(name, BlobKind::Chunk, codec, bytes.len() as u64, Some(base.digest), stored)?;
        self.features |= codec.features();
        self.rely_on(base.chain);
        Ok(true)
    }

    fn note_written(&mut self, digest: Digest, byte_len: usize) {
        self.own.insert(digest);
        self.stats.blobs_new += 1;
        self.stats.blob_bytes += byte_len as u64;
    }

    /// Puts the open pack in its place.
    fn seal(&mut self, merged: Option<Merged>) -> Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let path = pack_path(writer.name());
        let sealed = writer.seal(merged, self.inner.options.durable).inspect_err(|_| {
            // It may have got its name before it failed. Nothing names it, and nobody else will use that name, but for the
            // process from which this one was forked.
            if self.process == std::process::id() {
                let _ = self.inner.backend.delete(&path);
            }
        })?;
        self.stats.bytes_written += sealed.info.byte_len;
        self.sealed.push(sealed);
        Ok(())
    }

    /// Whether a root state is due by the time that so many other entries have come before this one's.
    fn lacks_state(&self, others: u64) -> bool {
        let log = self.inner.log();
        let since = |place: StatePlace| log.head.number.0.saturating_sub(place.covers.0);
        self.state.is_none()
            && log.place.is_none_or(|place| since(place).saturating_add(others) >= STATE_EVERY - 1)
    }

    /// Writes the root state into the pack.
    fn write_state(&mut self) -> Result<()> {
        let mut state = self.inner.log().state.clone();
        if state.conditional_writes == ConditionalWrites::Untested {
            state.conditional_writes = verdict(&self.inner.backend, &self.inner.options)?;
        }
        let bytes = state.encode();
        let name = digest(&bytes);
        self.writer()?;
        // Readers of the newest entry need it before any index, so it is not compressed in ways of later versions.
        let stored = self.chooser.as_mut().and_then(|chooser| chooser.encode_state(&bytes));
        let (codec, stored) = stored.map_or((Codec::Raw, &bytes[..]), |frame| (Codec::Zstd, frame));
        let Some(writer) = &mut self.writer else { return Err(spent()) };
        let (decoded_len, stored_len) = (bytes.len() as u64, stored.len() as u64);
        let byte_offset = writer.put(name, BlobKind::Table, codec, decoded_len, None, stored)?;
        let (covers, pack) = (state.covers, writer.name());
        let place = StatePlace { covers, pack, byte_offset, stored_len, decoded_len, codec, digest: name };
        self.state = Some((place, state.conditional_writes));
        Ok(())
    }

    /// Publishes the version. After `RefMoved` the transaction can publish again, on another base or ref.
    ///
    /// # Errors
    /// [`StoreError::RefMoved`] when the ref is not where it was expected; [`StoreError::OutcomeUnknown`] when it could
    /// not be found out whether the entry exists; else when the place fails, and then nothing was published.
    pub fn publish(&mut self, publication: &Publication) -> Result<TimeId> {
        let commit = Bytes::from(publication.commit.encode());
        let Publication { ref_name, expected, .. } = publication;
        self.publish_move(&Move { ref_name, expected: *expected, to: Target::Commit(&commit) })
    }

    /// Moves a ref to a version that is there, or deletes it. Returns the number of the entry that did it.
    ///
    /// # Errors
    /// As [`PackTransaction::publish`].
    pub fn move_ref(
        &mut self,
        ref_name: &str,
        expected: Option<TimeId>,
        to: Option<RefTarget>,
    ) -> Result<TimeId> {
        self.publish_move(&Move { ref_name, expected, to: Target::Existing(to) })
    }

    fn publish_move(&mut self, publication: &Move<'_>) -> Result<TimeId> {
        self.check()?;
        let inner = Arc::clone(&self.inner);
        match self.send_and_publish(&inner, publication) {
            Ok(time) => Ok(time),
            Err(error @ StoreError::RefMoved { .. }) => Err(error),
            Err(error @ StoreError::OutcomeUnknown { .. }) => {
                // The packs may be needed: they stay.
                self.is_over = true;
                self.fail(error)
            }
            Err(error) => self.fail(error),
        }
    }

    fn send_and_publish(&mut self, inner: &Inner, publication: &Move<'_>) -> Result<TimeId> {
        inner.catch_up();
        inner.check_writable()?;
        if self.moved(inner, publication).is_some() {
            inner.refresh()?;
            if let Some(error) = self.moved(inner, publication) {
                return Err(error);
            }
        }
        // Far away that takes as long as to send the packs, which are removed again if it fails.
        let is_far = inner.backend.kind() == PlaceKind::Remote;
        if !is_far {
            inner.check_head()?;
        }
        let coming = inner.backend.turn().come();
        let check = || if is_far { inner.check_head() } else { Ok(()) };
        let (checked, claims) = inner.backend.both(check, || self.send(inner, coming.others()));
        checked?;
        let claims = claims?;
        let number = self.publish_in_turn(inner, publication, &mut inner.publishing())?;
        drop(claims);
        if let Some((_, verdict)) = self.state {
            inner.note_verdict(verdict);
            // Best effort: it is never trusted.
            let _ = inner.backend.relaxed().replace(HINT, Bytes::from(format!("{number}\n")));
        }
        Ok(number)
    }

    /// Sends what is left of the packs, with the root state and the merged index if they are due and no other save of this
    /// process brings them. Until what this returns is dropped, no other will.
    fn send<'a>(&mut self, inner: &'a Inner, others: u64) -> Result<[Option<Claim<'a>>; 2]> {
        let turn = inner.backend.turn();
        let state = if self.lacks_state(others) { turn.state.claim() } else { None };
        if state.is_some() {
            self.write_state()?;
        }
        let is_merge_due = self.writer.is_some() && inner.log().uncovered.len() >= FAN_OUT;
        let merge = if is_merge_due { turn.merge.claim() } else { None };
        let merged = merge.as_ref().and_then(|_| {
            let (packs, segments, live) = {
                let log = inner.log();
                let live = log.state.packs.iter().map(|pack| pack.name).collect();
                (log.uncovered.clone(), segments_due(&log), live)
            };
            // What cannot be read is left as it is.
            merge_all(&inner.backend, &packs, &segments, &live)
        });
        self.seal(merged)?;
        Ok([state, merge])
    }

    fn publish_in_turn(
        &mut self,
        inner: &Inner,
        publication: &Move<'_>,
        turn: &mut Held<'_>,
    ) -> Result<TimeId> {
        if let Some(error) = self.moved(inner, publication) {
            return Err(error);
        }
        if self.lacks_state(0) {
            // The save that was to bring it is behind this one, or failed.
            self.write_state()?;
            self.seal(None)?;
        }
        let write_id = WriteId(random::bytes());
        loop {
            self.rebase(inner, publication)?;
            let synced = if inner.options.durable { Some(inner.sync_all()?) } else { None };
            let entry = self.entry(inner, publication, write_id, synced)?;
            let bytes = Bytes::from(entry.encode());
            self.check()?;
            let verdict = self.state.map_or(inner.log().state.conditional_writes, |(_, verdict)| verdict);
            match create_entry(inner, turn, &entry, &bytes, verdict)? {
                Outcome::Won => {
                    // From here on the packs are not this transaction's to remove.
                    self.is_over = true;
                    self.stats.bytes_written += bytes.len() as u64;
                    let number = entry.number;
                    self.adopt(inner, &ReadEntry { entry, digest: digest(&bytes) })?;
                    return Ok(number);
                }
                Outcome::Lost { read, is_newest } => {
                    inner.take_winners(&read, entry.repository)?;
                    if !is_newest {
                        inner.refresh()?;
                    }
                }
                Outcome::Spent => inner.note_void(entry.number),
            }
            if let Some(error) = self.moved(inner, publication) {
                return Err(error);
            }
        }
    }

    /// The error if the ref is not where it is expected.
    fn moved(&self, inner: &Inner, publication: &Move<'_>) -> Option<StoreError> {
        let found = inner.log().target(publication.ref_name).map(|target| target.time);
        (found != publication.expected).then(|| StoreError::RefMoved {
            ref_name: publication.ref_name.to_owned(),
            expected: publication.expected,
            found,
        })
    }

    fn entry(
        &self,
        inner: &Inner,
        publication: &Move<'_>,
        write_id: WriteId,
        synced: Option<TimeId>,
    ) -> Result<RootEntry> {
        let log = inner.log();
        let mut entry = begin_entry(inner, &log, write_id, synced, inner.options.durable)?;
        entry.requirements.for_reading |= self.features;
        // Somebody may have written a newer one since.
        entry.state =
            self.state.map(|(place, _)| place).into_iter().chain(log.place).max_by_key(|place| place.covers);
        let to = match publication.to {
            Target::Commit(bytes) => {
                entry.commits = vec![InlineCommit { bytes: bytes.clone(), aliases: Vec::new() }];
                RefMove::Inline(0)
            }
            Target::Existing(Some(target)) => RefMove::Existing(target),
            Target::Existing(None) => RefMove::Deleted,
        };
        entry.refs = vec![RefChange { name: publication.ref_name.to_owned(), to }];
        entry.packs_added = self.sealed.iter().map(|pack| pack.info).collect();
        // A merge of packs of which one is covered or gone by now would name blobs twice or in vain.
        let segments = self.sealed.iter().flat_map(|pack| &pack.segments);
        entry.segments_added = segments.filter(|segment| log.takes(segment)).cloned().collect();
        Ok(entry)
    }

    /// The entry exists: what it names is known from now on.
    fn adopt(&mut self, inner: &Inner, read: &ReadEntry) -> Result<()> {
        inner.take(read)?;
        {
            let mut index = inner.index();
            for pack in self.sealed.drain(..) {
                index.learn(pack.info.name, &pack.rows);
            }
        }
        for (digest, bytes) in self.fresh.drain(..) {
            inner.cache_blob(digest, &bytes);
        }
        for (root, history) in self.regions.drain(..) {
            inner.note_region(root, history);
        }
        Ok(())
    }
}

impl BlobSink for PackTransaction {
    fn put(&mut self, kind: BlobKind, digest: Digest, bytes: &[u8]) -> Result<bool, BlobError> {
        self.check()?;
        if self.is_held(&digest) {
            self.stats.blobs_known += 1;
            return Ok(false);
        }
        if let Err(error) = self.write(kind, digest, bytes) {
            return self.fail(error).map_err(BlobError::from);
        }
        self.note_written(digest, bytes.len());
        let is_table = matches!(kind, BlobKind::Table | BlobKind::Descriptor | BlobKind::DigestNode);
        if is_table && self.inner.caches(bytes.len()) && self.fresh_bytes + bytes.len() <= FRESH_BYTES {
            self.fresh_bytes += bytes.len();
            self.fresh.push((digest, Bytes::copy_from_slice(bytes)));
        }
        Ok(true)
    }

    fn holds(&mut self, digest: &Digest) -> bool {
        self.failure.is_none() && self.is_held(digest)
    }

    fn check_wanted(&mut self) -> Result<(), BlobError> {
        Ok(self.check()?)
    }

    fn would_wait(&mut self, digest: &Digest, byte_len: usize) -> bool {
        if self.inner.backend.kind() != PlaceKind::Remote || self.own.contains(digest) {
            return false;
        }
        match (self.inner.holds_unread(digest), &self.writer) {
            (None, _) => true,
            (Some(false), Some(writer)) => {
                let is_full = writer.byte_len() >= self.inner.options.pack_bytes;
                is_full || writer.would_wait(byte_len)
            }
            (Some(_), _) => false,
        }
    }

    fn begin_region(&mut self, outline: &RegionOutline) -> RegionForecast {
        let Some(chooser) = &self.chooser else { return RegionForecast::default() };
        if let Some(writer) = &mut self.writer {
            writer.begin_region();
        }
        self.region.insert(RegionSave::new(outline, &self.inner, chooser)).forecast()
    }

    fn expect_chunks(&mut self, byte_len: u64) {
        if let Some(region) = &mut self.region {
            region.expect(byte_len);
        }
    }

    fn put_chunk(&mut self, ordinal: u64, digest: Digest, bytes: &[u8]) -> Result<bool, BlobError> {
        self.check()?;
        if self.is_held(&digest) {
            self.stats.blobs_known += 1;
            return Ok(false);
        }
        let written = match self.write_delta(ordinal, digest, bytes) {
            Ok(false) => self.write(BlobKind::Chunk, digest, bytes).map(drop),
            other => other.map(drop),
        };
        if let Err(error) = written {
            return self.fail(error).map_err(BlobError::from);
        }
        if let Some(region) = &mut self.region {
            region.note_new(bytes.len() as u64);
        }
        self.note_written(digest, bytes.len());
        Ok(true)
    }

    fn end_region(&mut self, root: Digest) {
        if let (Some(region), Some(chooser)) = (self.region.take(), &mut self.chooser) {
            self.regions.push((root, region.end(chooser)));
        }
    }
}

/// The chooser went back: the transaction is over.
fn spent() -> StoreError {
    StoreError::Spent { reason: "it is over".to_owned() }
}

impl Drop for PackTransaction {
    fn drop(&mut self) {
        self.clean_up();
    }
}
