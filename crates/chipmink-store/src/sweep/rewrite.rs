//! Own packs: what is moved out of packs that go, and what a repository needs once they are gone.
//!
//! Invariant: nothing is moved that was not compared with its digest (a delta: with its checksum), so damage stays where it
//! is found.

use super::catalog::Catalog;
use super::plan::Plan;
use crate::compression::Chooser;
use crate::error::{Result, StoreError};
use crate::generations::DigestSet;
use crate::inner::Inner;
use crate::log::Log;
use crate::merge::{FAN_OUT, merge_indexes};
use crate::pack_writer::{PackWriter, SealedPack};
use bytes::Bytes;
use chipmink_digest::digest;
use chipmink_format::{
    Codec, FormatError, IndexRow, PackInfo, PackName, RootState, StatePlace, check_delta, decode_blob,
    decode_segment, expansion_max, pack_path,
};
use chipmink_types::BlobKind;
use hashbrown::HashSet;

/// Bytes that are read at once.
const READ_LEN: u64 = 8 << 20;
/// Blobs that lie nearer to each other than this are read at once.
const GAP: u64 = 64 << 10;

/// The packs that a sweep has written.
#[derive(Debug, Default)]
pub(super) struct OwnPacks {
    pub(super) sealed: Vec<SealedPack>,
    pub(super) state: Option<StatePlace>,
}

impl OwnPacks {
    pub(super) fn names(&self) -> Vec<PackName> {
        self.sealed.iter().map(|pack| pack.info.name).collect()
    }

    /// Removes those that nobody names. Best effort: what stays is an orphan.
    pub(super) fn remove_without(&self, inner: &Inner, named: &HashSet<PackName>) {
        for name in self.names().iter().filter(|name| !named.contains(*name)) {
            let _ = inner.backend.delete(&pack_path(*name));
        }
    }
}

/// Writes the packs that a plan needs.
pub(super) fn write(
    inner: &Inner,
    log: &Log,
    catalog: &Catalog,
    plan: &Plan,
    with_state: bool,
) -> Result<OwnPacks> {
    let mut rewriter = Rewriter { inner, log, writer: None, own: OwnPacks::default() };
    match rewriter.run(catalog, plan, with_state) {
        Ok(()) => Ok(rewriter.own),
        Err(error) => {
            rewriter.writer = None;
            rewriter.own.remove_without(inner, &HashSet::new());
            Err(error)
        }
    }
}

struct Rewriter<'a> {
    inner: &'a Inner,
    log: &'a Log,
    writer: Option<PackWriter>,
    own: OwnPacks,
}

impl Rewriter<'_> {
    fn run(&mut self, catalog: &Catalog, plan: &Plan, with_state: bool) -> Result<()> {
        for (name, digests) in &plan.moved {
            if let Some(pack) = catalog.pack(name) {
                self.copy_blobs(&pack.info, digests)?;
            }
        }
        if with_state {
            self.write_state()?;
        }
        let gone: HashSet<PackName> =
            plan.condemned.iter().chain(plan.moved.iter().map(|(name, _)| name)).copied().collect();
        let loses_merge = self.log.state.segments.iter().any(|segment| gone.contains(&segment.pack));
        let uncovered = uncovered_without(self.log, &gone);
        let merged = match uncovered.len() >= FAN_OUT && (loses_merge || self.writer.is_some()) {
            true => merge_indexes(&self.inner.backend, &uncovered),
            false => None,
        };
        if merged.is_some() {
            self.writer()?;
        }
        self.seal(merged)
    }

    fn writer(&mut self) -> Result<&mut PackWriter> {
        if self.writer.as_ref().is_some_and(|writer| writer.byte_len() >= self.inner.options.pack_bytes) {
            self.seal(None)?;
        }
        if self.writer.is_none() {
            let (repository, born) = (self.log.state.repository, self.log.head.number);
            self.writer = Some(PackWriter::begin(&self.inner.backend, repository, born)?);
        }
        self.writer.as_mut().ok_or_else(|| StoreError::Spent { reason: "it has no pack".to_owned() })
    }

    fn seal(&mut self, merged: Option<crate::pack_writer::Merged>) -> Result<()> {
        if let Some(writer) = self.writer.take() {
            let sealed = writer.seal(merged, self.inner.options.durable)?;
            self.own.sealed.push(sealed);
        }
        Ok(())
    }

    /// Copies blobs of a pack as they are stored, in their order.
    fn copy_blobs(&mut self, pack: &PackInfo, digests: &DigestSet) -> Result<()> {
        let mut rows = read_rows(self.inner, pack)?;
        rows.retain(|row| digests.contains(&row.digest));
        let inner = self.inner;
        each_stored(inner, pack.name, rows, &mut |row, stored, run| {
            put_stored(self.writer()?, row, &stored, run)
        })
    }

    /// Writes a root state over all entries so far: the one in force lies in a pack that goes.
    fn write_state(&mut self) -> Result<()> {
        let state: RootState = self.log.state.clone();
        let bytes = state.encode();
        let name = digest(&bytes);
        let mut chooser = Chooser::new(self.inner.backend.kind(), self.inner.options.compression);
        let stored = chooser.encode_state(&bytes);
        let (codec, stored) = stored.map_or((Codec::Raw, &bytes[..]), |frame| (Codec::Zstd, frame));
        let (decoded_len, stored_len) = (bytes.len() as u64, stored.len() as u64);
        let covers = state.covers;
        let writer = self.writer()?;
        let byte_offset = writer.put(name, BlobKind::Table, codec, decoded_len, None, stored)?;
        let pack = writer.name();
        self.own.state =
            Some(StatePlace { covers, pack, byte_offset, stored_len, decoded_len, codec, digest: name });
        Ok(())
    }
}

/// The rows of a pack's own index.
fn read_rows(inner: &Inner, pack: &PackInfo) -> Result<Vec<IndexRow>> {
    let path = pack_path(pack.name);
    let range = pack.index.byte_offset..pack.index.byte_offset + pack.index.byte_len;
    let bytes = inner.backend.get_range(&path, range)?;
    let damage =
        |source| StoreError::Format { place: inner.backend.label().to_owned(), object: path, source };
    match decode_segment(&bytes) {
        Ok((_, rows)) => Ok(rows),
        Err(source) => Err(damage(source)),
    }
}

/// Takes a blob as it is stored; of the first of raw chunks that follow each other it is told the bytes of all of them.
type TakeStored<'a> = dyn FnMut(&IndexRow, Bytes, Option<u64>) -> Result<()> + 'a;

/// Reads blobs of a pack as they are stored, in their order, each once and checked.
pub(crate) fn each_stored(
    inner: &Inner,
    name: PackName,
    mut rows: Vec<IndexRow>,
    take: &mut TakeStored<'_>,
) -> Result<()> {
    let path = pack_path(name);
    let damage = |source: FormatError| StoreError::Format {
        place: inner.backend.label().to_owned(),
        object: path.clone(),
        source,
    };
    rows.sort_unstable_by_key(|row| row.byte_offset);
    rows.dedup_by_key(|row| row.digest);
    let runs = run_lens(&rows);
    let mut at = 0;
    while at < rows.len() {
        let count = near(&rows[at..]);
        let (start, last) = (rows[at].byte_offset, rows[at + count - 1]);
        let bytes = inner.backend.get_range(&path, start..last.byte_offset + last.stored_len)?;
        for (row, run) in rows[at..at + count].iter().zip(&runs[at..]) {
            let from = (row.byte_offset - start) as usize;
            let stored = bytes.slice(from..from + row.stored_len as usize);
            check(row, &stored, inner.options.blob_bytes_max).map_err(damage)?;
            take(row, stored, *run)?;
        }
        at += count;
    }
    Ok(())
}

/// Appends a blob to a pack as it is stored.
pub(crate) fn put_stored(
    writer: &mut PackWriter,
    row: &IndexRow,
    stored: &[u8],
    run: Option<u64>,
) -> Result<()> {
    let kind = row.kind.unwrap_or(BlobKind::Pod);
    if run.is_some() {
        writer.begin_region();
    }
    if kind == BlobKind::Chunk {
        writer.align_chunk(row.codec, stored.len(), run.unwrap_or(0))?;
    }
    writer.put(row.digest, kind, row.codec, row.decoded_len, row.base, stored).map(drop)
}

/// How many rows from the first on are read at once.
fn near(rows: &[IndexRow]) -> usize {
    let start = rows[0].byte_offset;
    let mut end = start + rows[0].stored_len;
    let mut count = 1;
    for row in &rows[1..] {
        let longer = end.max(row.byte_offset + row.stored_len);
        if row.byte_offset.saturating_sub(end) > GAP || longer - start > READ_LEN {
            break;
        }
        (end, count) = (longer, count + 1);
    }
    count
}

/// For the first of raw chunks that follow each other: the bytes of all of them.
fn run_lens(rows: &[IndexRow]) -> Vec<Option<u64>> {
    let is_raw_chunk = |row: &IndexRow| row.kind == Some(BlobKind::Chunk) && row.codec == Codec::Raw;
    let mut runs = vec![None; rows.len()];
    let mut open: Option<usize> = None;
    for (at, row) in rows.iter().enumerate() {
        let follows = at > 0 && rows[at - 1].byte_offset + rows[at - 1].stored_len == row.byte_offset;
        if !is_raw_chunk(row) {
            open = None;
            continue;
        }
        let first = open.filter(|_| follows).unwrap_or(at);
        open = Some(first);
        runs[first] = Some(runs[first].unwrap_or(0) + row.stored_len);
    }
    runs
}

/// Checks a blob as it is stored.
fn check(row: &IndexRow, stored: &Bytes, blob_bytes_max: u64) -> Result<(), FormatError> {
    let max = blob_bytes_max.min(expansion_max(row.stored_len));
    if row.codec.is_delta() {
        return check_delta(stored, row.codec, row.decoded_len, max)
            .map_err(|error| error.in_blob(&row.digest));
    }
    let decoded = decode_blob(stored.clone(), row.codec, row.decoded_len, max);
    let decoded = decoded.map_err(|error| error.in_blob(&row.digest))?;
    if digest(&decoded) == row.digest {
        return Ok(());
    }
    let reason = format!("blob {} does not have its digest", row.digest).into();
    Err(FormatError::Damaged { what: "pack".into(), byte_offset: row.byte_offset, reason })
}

/// The packs that no merged segment covers once others are gone.
fn uncovered_without(log: &Log, gone: &HashSet<PackName>) -> Vec<PackInfo> {
    let staying = log.state.segments.iter().filter(|segment| !gone.contains(&segment.pack));
    let covered: HashSet<PackName> = staying.flat_map(|segment| segment.covers.iter().copied()).collect();
    let is_free = |pack: &&PackInfo| !gone.contains(&pack.name) && !covered.contains(&pack.name);
    log.state.packs.iter().filter(is_free).copied().collect()
}
