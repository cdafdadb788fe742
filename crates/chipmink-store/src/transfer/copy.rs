//! Copying blobs: read where they lie side by side, decoded and checked, written into new packs by several pairs of threads, of
//! which one reads and one writes.
//!
//! Blobs keep the encoding that they have; a delta whose base the destination will not have is written out whole. Where
//! every byte takes its time, what lies raw is compressed if that pays.

use super::Watch;
use super::closure::{Missing, Origin};
use super::leftovers;
use super::options::{Phase, TransferOptions, TransferReport};
use super::pace::Pace;
use crate::compression::{Chooser, PlaceKind};
use crate::error::{Result, StoreError};
use crate::index::Found;
use crate::inner::Inner;
use crate::pack_check::check_pack;
use crate::pack_writer::{PackWriter, SealedPack};
use bytes::Bytes;
use chipmink_digest::digest;
use chipmink_format::{Codec, PackHeader, decode_blob, decode_delta, expansion_max};
use chipmink_types::{BlobError, BlobKind, Digest, RepositoryId, TimeId};
use hashbrown::HashMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::time::Duration;

/// Bytes of blobs that are read at once, as they are stored; from far away as many as two requests bring. Four times one request of 8 MiB
/// hardly fills a wire of 1 GB/s with 20 ms to the first byte: it was idle whenever a thread was late by 5 ms.
const WINDOW: u64 = 4 << 20;
const FAR_WINDOW: u64 = 16 << 20;
/// Bytes of a pack: what an interruption costs at most, for each thread.
const PACK_MAX: u64 = 64 << 20;
/// Below, another thread is not worth a pack more.
const PACK_MIN: u64 = 8 << 20;
/// Deltas above a whole chunk. Readers refuse more than twice as many.
const CHAIN_MAX: usize = 8;
/// Time between two words to the caller.
const TELL: Duration = Duration::from_millis(50);

/// What was copied.
pub(super) struct Copied {
    pub(super) packs: Vec<SealedPack>,
    /// Feature bits that readers of them need.
    pub(super) features: u64,
}

/// A blob that is to be copied.
struct Job {
    blob: Missing,
    /// As the delta that it is.
    is_delta: bool,
}

impl Job {
    fn found(&self) -> Option<&Found> {
        match &self.blob.origin {
            Origin::Stored(found) => Some(found),
            Origin::Made(_) => None,
        }
    }

    fn stored_len(&self) -> u64 {
        match &self.blob.origin {
            Origin::Stored(found) => found.location.stored_len,
            Origin::Made(bytes) => bytes.len() as u64,
        }
    }

    fn is_raw_chunk(&self) -> bool {
        self.blob.kind == BlobKind::Chunk
            && self.found().is_some_and(|found| found.location.codec == Codec::Raw)
    }
}

/// Copies what is missing; nobody sees it yet.
pub(super) fn copy(
    source: &Inner,
    target: &Inner,
    missing: Vec<Missing>,
    options: &TransferOptions,
    pace: &Pace,
    watch: &mut Watch<'_>,
    report: &mut TransferReport,
) -> Result<Copied> {
    let prefix = leftovers::prefix(source.log().state.repository, target.log().state.repository);
    let left = leftovers::adopt(target, &prefix, &missing, options.parallel)?;
    let mut adopted: HashMap<Digest, bool> = HashMap::new();
    let mut features = 0;
    for row in left.iter().flat_map(|pack| &pack.rows) {
        features |= row.codec.features();
        adopted.insert(row.digest, row.base.is_some());
    }
    let jobs = jobs(target, missing, &adopted);
    let units = units(&jobs, options.parallel.max(1) as u64);
    let total = jobs.iter().map(Job::stored_len).sum();
    pace.begin(Phase::Copying, 0, total);
    let born = target.log().head.number;
    let repository = target.log().state.repository;
    let work = Work { source, target, pace, repository, born, prefix, verify: options.verify };
    let results = work.run(&jobs, &units, options.parallel.max(1), watch);
    report.packs_resumed = left.len() as u64;
    report.bytes_resumed = left.iter().map(|pack| pack.info.byte_len).sum();
    let mut packs = left;
    let mut failure = None;
    for result in results {
        match result {
            Ok(pack) => packs.push(pack),
            Err(error) if matches!(failure, None | Some(StoreError::Stopped)) => failure = Some(error),
            Err(_) => {}
        }
    }
    if let Some(error) = failure {
        return Err(error);
    }
    pace.check()?;
    report.packs = packs.len() as u64 - report.packs_resumed;
    report.blobs = jobs.len() as u64;
    report.bytes = total;
    features |= packs.iter().flat_map(|pack| &pack.rows).fold(0, |bits, row| bits | row.codec.features());
    Ok(Copied { packs, features })
}

/// Bytes of the raw chunks that follow each other from each blob on.
fn runs_of(jobs: &[Job]) -> Vec<u64> {
    let mut runs = vec![0u64; jobs.len() + 1];
    for (at, job) in jobs.iter().enumerate().rev() {
        if job.is_raw_chunk() {
            runs[at] = runs[at + 1] + job.stored_len();
        }
    }
    runs
}

/// What is to be done for each blob, in the order in which they lie in the source. `adopted`: what is there already, and
/// whether as a delta.
fn jobs(target: &Inner, mut missing: Vec<Missing>, adopted: &HashMap<Digest, bool>) -> Vec<Job> {
    missing.retain(|blob| !adopted.contains_key(&blob.digest));
    missing.sort_by_key(|blob| match &blob.origin {
        Origin::Stored(found) => (found.location.pack, found.location.byte_offset),
        Origin::Made(_) => (u32::MAX, u64::MAX),
    });
    // Deltas above a whole blob, of those that are placed before.
    let mut depths: HashMap<Digest, usize> = HashMap::new();
    let mut jobs = Vec::with_capacity(missing.len());
    for blob in missing {
        let base = match &blob.origin {
            Origin::Stored(found) => found.base,
            Origin::Made(_) => None,
        };
        // A base must be placed before its delta, so that no two can be deltas of each other.
        let below = base.and_then(|base| match (depths.get(&base), adopted.get(&base)) {
            (Some(depth), _) => Some(*depth),
            (None, Some(is_delta)) => (!is_delta).then_some(0),
            (None, None) => target.chain(&base, CHAIN_MAX).map(|chain| chain.len() - 1),
        });
        let is_delta = below.is_some_and(|below| below < CHAIN_MAX);
        depths.insert(blob.digest, if is_delta { below.unwrap_or(0) + 1 } else { 0 });
        jobs.push(Job { blob, is_delta });
    }
    jobs
}

/// The blobs of each pack. Towards the end packs get smaller, so that the threads are done at about the same time.
fn units(jobs: &[Job], parallel: u64) -> Vec<Range<usize>> {
    let mut left: u64 = jobs.iter().map(Job::stored_len).sum();
    let limit = |left: u64| (left / parallel).clamp(PACK_MIN, PACK_MAX);
    let mut units = Vec::new();
    let (mut start, mut byte_len, mut unit_max) = (0, 0, limit(left));
    for (at, job) in jobs.iter().enumerate() {
        byte_len += job.stored_len();
        if byte_len >= unit_max || at + 1 == jobs.len() {
            units.push(start..at + 1);
            left -= byte_len;
            (start, byte_len, unit_max) = (at + 1, 0, limit(left));
        }
    }
    units
}

/// What the threads share.
struct Work<'a> {
    source: &'a Inner,
    target: &'a Inner,
    pace: &'a Pace,
    repository: RepositoryId,
    born: TimeId,
    prefix: leftovers::Prefix,
    verify: bool,
}

/// Blobs that were read at once, on their way to a pack.
struct Load {
    /// The pack's place among all, and those of the blobs.
    unit: usize,
    jobs: Range<usize>,
    /// Bytes as they are stored; `None` where they could not be had.
    stored: Vec<Option<Bytes>>,
    /// What those are based on that are deltas, in their order.
    bases: Vec<Bytes>,
}

/// A pack that is being written.
struct Pack {
    writer: PackWriter,
    chooser: Chooser,
    /// The chunk before lies raw in this pack.
    is_run: bool,
}

impl Work<'_> {
    /// Writes the packs; the first failure ends all.
    fn run(
        &self,
        jobs: &[Job],
        units: &[Range<usize>],
        threads: usize,
        watch: &mut Watch<'_>,
    ) -> Vec<Result<SealedPack>> {
        let next = AtomicUsize::new(0);
        let results = Mutex::new(Vec::with_capacity(units.len()));
        let (done, finished) = channel();
        std::thread::scope(|scope| {
            for _ in 0..threads.min(units.len()) {
                let (next, results, done) = (&next, &results, done.clone());
                // Where one waits for the source, the other goes on writing and checking, also from one pack to the next.
                let (give, loads) = sync_channel(0);
                scope.spawn(move || self.read(jobs, units, next, &give));
                scope.spawn(move || {
                    self.write(jobs, units, loads, &mut |result| {
                        if result.is_err() {
                            self.pace.stop();
                        }
                        results.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(result);
                        // Nobody listens any more only if this is over.
                        let _ = done.send(());
                    });
                });
            }
            drop(done);
            while !matches!(finished.recv_timeout(TELL), Err(RecvTimeoutError::Disconnected)) {
                // If the caller wants to end it, the threads see that.
                let _ = self.pace.tell(watch);
            }
        });
        results.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Reads what belongs into one pack after another, until nobody takes it.
    fn read(
        &self,
        jobs: &[Job],
        units: &[Range<usize>],
        next: &AtomicUsize,
        give: &SyncSender<Result<Load>>,
    ) {
        let is_far = self.source.backend.kind() == PlaceKind::Remote;
        let window = if is_far { FAR_WINDOW } else { WINDOW };
        loop {
            let unit = next.fetch_add(1, Ordering::Relaxed);
            let Some(range) = units.get(unit) else { return };
            let mut at = range.start;
            while at < range.end {
                let (start, mut byte_len) = (at, jobs[at].stored_len());
                at += 1;
                while at < range.end && byte_len + jobs[at].stored_len() <= window {
                    byte_len += jobs[at].stored_len();
                    at += 1;
                }
                let load = self.pace.take(byte_len).map(|()| self.load(jobs, unit, start..at));
                let is_over = load.is_err();
                if give.send(load).is_err() || is_over {
                    return;
                }
            }
        }
    }

    fn load(&self, jobs: &[Job], unit: usize, range: Range<usize>) -> Load {
        let found: Vec<Option<Found>> = jobs[range.clone()].iter().map(|job| job.found().copied()).collect();
        let stored = self.source.read_stored(&found);
        let bases: Vec<Digest> = found.iter().flatten().filter_map(|found| found.base).collect();
        // If one of them cannot be had, each delta is read by itself later.
        let bases = self.source.read_many(&bases).unwrap_or_default();
        Load { unit, jobs: range, stored, bases }
    }

    /// Writes one pack after another, and tells what became of each. A failure ends it.
    fn write(
        &self,
        jobs: &[Job],
        units: &[Range<usize>],
        loads: Receiver<Result<Load>>,
        tell: &mut dyn FnMut(Result<SealedPack>),
    ) {
        let mut pack: Option<Pack> = None;
        // Bytes of the chunks that follow each other in the pack, from each of its blobs on.
        let mut runs = Vec::new();
        for load in loads {
            let written = load.and_then(|load| {
                let unit = &units[load.unit];
                let mut now = match pack.take() {
                    Some(pack) => pack,
                    None => {
                        runs = runs_of(&jobs[unit.clone()]);
                        self.begin()?
                    }
                };
                let (is_last, own) = (load.jobs.end == unit.end, load.jobs.start - unit.start);
                self.put(jobs, &runs[own..], load, &mut now)?;
                if !is_last {
                    pack = Some(now);
                    return Ok(None);
                }
                self.seal(now.writer).map(Some)
            });
            let Some(result) = written.transpose() else { continue };
            let is_over = result.is_err();
            tell(result);
            if is_over {
                return;
            }
        }
    }

    fn begin(&self) -> Result<Pack> {
        let target = self.target;
        let header = PackHeader { name: self.prefix.name(), repository: self.repository, born: self.born };
        let writer = PackWriter::begin_as(&target.backend, header)?;
        let chooser = Chooser::new(target.backend.kind(), target.options.compression);
        Ok(Pack { writer, chooser, is_run: false })
    }

    fn seal(&self, writer: PackWriter) -> Result<SealedPack> {
        let target = self.target;
        let sealed = writer.seal(None, target.options.durable)?;
        if self.verify {
            self.pace.check()?;
            check_pack(&target.backend, &sealed.info, target.options.blob_bytes_max)?;
        }
        Ok(sealed)
    }

    /// Writes blobs that were read at once. `runs` begins with the first of them.
    fn put(&self, jobs: &[Job], runs: &[u64], load: Load, pack: &mut Pack) -> Result<()> {
        let Pack { writer, chooser, is_run } = pack;
        let mut bases = load.bases.into_iter();
        let is_far = self.target.backend.kind() == PlaceKind::Remote;
        let mut byte_len = 0;
        for ((job, stored), run) in jobs[load.jobs].iter().zip(load.stored).zip(runs) {
            byte_len += job.stored_len();
            let Missing { digest: name, kind, origin } = &job.blob;
            if !*is_run {
                writer.begin_region();
            }
            *is_run = *run > 0;
            let found = match origin {
                Origin::Stored(found) => found,
                Origin::Made(bytes) => {
                    let (codec, encoded) = chooser.encode(*kind, bytes);
                    writer.put(*name, *kind, codec, bytes.len() as u64, None, encoded)?;
                    continue;
                }
            };
            let base = found.base.map(|_| bases.next());
            let decoded = stored.as_ref().and_then(|stored| self.decode(name, found, stored, base));
            let location = found.location;
            match (decoded, stored) {
                (Some(_), Some(stored))
                    if location.codec != Codec::Raw && (job.is_delta || found.base.is_none()) =>
                {
                    let base = found.base.filter(|_| job.is_delta);
                    writer.put(*name, *kind, location.codec, location.decoded_len, base, &stored)?;
                }
                (Some(bytes), _) if location.codec == Codec::Raw && !is_far => {
                    writer.align_chunk(Codec::Raw, bytes.len(), *run)?;
                    writer.put(*name, *kind, Codec::Raw, bytes.len() as u64, None, &bytes)?;
                }
                (decoded, _) => {
                    let bytes = match decoded {
                        Some(bytes) => bytes,
                        // Perhaps another pack has it, too.
                        None => self.source.read_again(name)?,
                    };
                    let (codec, encoded) = chooser.encode(*kind, &bytes);
                    if *kind == BlobKind::Chunk {
                        writer.align_chunk(codec, encoded.len(), *run)?;
                    }
                    writer.put(*name, *kind, codec, bytes.len() as u64, None, encoded)?;
                }
            }
        }
        self.pace.add(byte_len);
        Ok(())
    }

    /// The blob, if it is what it should be. `base`: it is a delta, and this is its base if that could be had.
    fn decode(
        &self,
        name: &Digest,
        found: &Found,
        stored: &Bytes,
        base: Option<Option<Bytes>>,
    ) -> Option<Bytes> {
        let location = found.location;
        let max = self.source.options.blob_bytes_max.min(expansion_max(location.stored_len));
        let decoded = match base {
            None => decode_blob(stored.clone(), location.codec, location.decoded_len, max).ok()?,
            Some(base) => decode_delta(stored, location.codec, location.decoded_len, base?, max).ok()?,
        };
        (digest(&decoded) == *name).then_some(decoded)
    }
}

impl Inner {
    /// A blob from wherever it can be had.
    fn read_again(&self, name: &Digest) -> Result<Bytes, BlobError> {
        Ok(self.read_many(&[*name])?.swap_remove(0))
    }
}
