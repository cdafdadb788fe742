//! The second half of a capture: dirty chunks from the staging area to the caller, and what did not fit in it.

use super::begin::{bad_entry, first_entries, raw_digest};
use super::capture::{Capture, Found, Staged};
use super::fence::Patience;
use super::tables::{DIRTY_LEN, list_bytes, read_list, read_totals};
use super::{Inner, Stage};
use crate::driver::{Part, relax_capture};
use crate::{CudaError, Result};
use chipmink_digest::digest;
use chipmink_kernels::layout::{Dirty, RawDigest, STAGED_ALIGNMENT, Totals};
use chipmink_types::Digest;
use std::ops::Range;

/// Takes chunks that were staged.
type Take<'a, E> = dyn FnMut(Staged<'_>) -> Result<(), E> + 'a;

/// Entries of the list that are staged together: their numbers in the list, and where they begin and end in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    entries: Range<usize>,
    bytes: Range<u64>,
}

/// A step that waits for the device, while streams may be waiting for this one.
fn watched<T>(patience: Option<&Patience>, device: impl FnOnce() -> Result<T>) -> Result<T> {
    match patience {
        Some(patience) => patience.wait_for(device),
        None => device(),
    }
}

fn end_of(entry: &Dirty) -> u64 {
    entry.byte_offset + u64::from(entry.byte_len).next_multiple_of(STAGED_ALIGNMENT)
}

/// Cuts a part of the list into runs of at most so many bytes. Each entry alone is not longer.
fn runs_of(list: &[Dirty], part: Range<usize>, limit: u64) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for at in part {
        let (start, end) = (list[at].byte_offset, end_of(&list[at]));
        match runs.last_mut() {
            Some(run) if end - run.bytes.start <= limit => {
                run.entries.end = at + 1;
                run.bytes.end = end;
            }
            _ => runs.push(Run { entries: at..at + 1, bytes: start..end }),
        }
    }
    runs
}

impl Capture {
    /// Gives every dirty chunk to `take`, in the order of the regions, and waits for the device as it must. Fenced streams are
    /// released as soon as all is staged, if the capture is one of [`super::Release::WhenStaged`].
    ///
    /// # Errors
    /// The first error of `take`, or of the device. The capture is then good for nothing but to be dropped.
    pub fn take<E: From<CudaError>>(&mut self, take: &mut Take<'_, E>) -> Result<Found, E> {
        let inner = self.inner().clone();
        let _relaxed = relax_capture(&inner.context)?;
        let (totals, mut list) = self.read_report(&inner)?;
        let fitting = totals.fitting_count as usize;
        if fitting == list.len() {
            self.release_when_staged();
        }
        let found = Found {
            dirty_chunks: list.len() as u64,
            dirty_bytes: list.iter().map(|entry| u64::from(entry.byte_len)).sum(),
            late_chunks: (list.len() - fitting) as u64,
        };
        for (index, region) in self.plan().regions().to_vec().iter().enumerate() {
            let count = region.grid.chunk_count() as usize;
            self.digests[index].get_or_insert_with(|| vec![RawDigest::UNKNOWN; count]);
        }
        inner.host().was_late = found.late_chunks > 0;
        let patience = if found.late_chunks > 0 { self.patience() } else { None };
        self.drain(&inner, &list, 0..fitting, 0, 0, patience.as_ref(), take)?;
        let end = list.len();
        self.stage_late(&inner, &mut list, fitting..end, patience.as_ref(), take)?;
        self.release_when_staged();
        if self.digests.iter().flatten().flatten().any(|digest| *digest == RawDigest::UNKNOWN) {
            // A chunk that was never seen is dirty.
            return Err(bad_entry(inner.device()).into());
        }
        self.is_taken = true;
        Ok(found)
    }

    /// Gives chunks to `take` that need not be dirty, from live memory. They are named by region and ordinal.
    ///
    /// # Errors
    /// When the capture was released, or as [`Capture::take`].
    ///
    /// # Panics
    /// When there is no such chunk, or the capture has not been taken.
    pub fn fetch<E: From<CudaError>>(
        &mut self,
        chunks: &[(usize, u64)],
        take: &mut Take<'_, E>,
    ) -> Result<(), E> {
        assert!(self.is_taken, "chunks are fetched after the capture has been taken");
        let inner = self.inner().clone();
        self.refuse_released()?;
        let _relaxed = relax_capture(&inner.context)?;
        let capacity = inner.host().tables.capacity().max(1) as usize;
        for chunks in chunks.chunks(capacity) {
            let mut list = Vec::with_capacity(chunks.len());
            let mut byte_offset = 0;
            for (region, ordinal) in chunks {
                let grid = self.plan().regions()[*region].grid;
                let (_, byte_len) = grid.chunk(*ordinal).expect("the caller names a chunk of the region");
                let number = self.plan().number(*region, *ordinal);
                let entry =
                    Dirty { byte_offset, number, byte_len: byte_len as u32, digest: RawDigest::UNKNOWN };
                byte_offset = end_of(&entry);
                list.push(entry);
            }
            let totals = Totals { byte_len: byte_offset, dirty_count: list.len() as u32, fitting_count: 0 };
            let bytes = list_bytes(totals, &list);
            inner.host().tables.memory().write(inner.work.handle(), 0, &bytes)?;
            let end = list.len();
            self.stage_late(&inner, &mut list, 0..end, None, take)?;
        }
        Ok(())
    }

    /// The list of dirty chunks, checked against the plan: a device that fails may have written anything.
    fn read_report(&self, inner: &Inner) -> Result<(Totals, Vec<Dirty>)> {
        inner.listed.synchronize()?;
        let host = inner.host();
        let (report, at) = (host.tables.report(), host.tables.offsets());
        // SAFETY: the copy of the totals has been done, and no other was enqueued.
        let totals = read_totals(unsafe { report.bytes(at.totals..at.dirty) });
        let count = totals.dirty_count;
        if count > self.plan().chunk_count() || totals.fitting_count > count {
            return Err(bad_entry(inner.device()));
        }
        if count > first_entries() {
            let rest =
                at.dirty + u64::from(first_entries()) * DIRTY_LEN..at.dirty + u64::from(count) * DIRTY_LEN;
            let place = rest.start;
            host.tables.memory().read(inner.work.handle(), rest, report, place)?;
            inner.listed.record(inner.work.handle())?;
            inner.listed.synchronize()?;
        }
        // SAFETY: as above; the rest has come, too.
        let bytes = unsafe { report.bytes(at.dirty..at.dirty + u64::from(count) * DIRTY_LEN) };
        let list = read_list(bytes);
        let capacity = inner.stage_place().1;
        let mut byte_offset = 0;
        for (i, entry) in list.iter().enumerate() {
            let chunk = self.plan().place(entry.number);
            let chunk = chunk.and_then(|(region, ordinal)| self.plan().regions()[region].grid.chunk(ordinal));
            let is_sound = chunk.is_some_and(|(_, len)| len == u64::from(entry.byte_len))
                && entry.byte_offset == byte_offset
                && (i >= totals.fitting_count as usize || end_of(entry) <= capacity);
            if !is_sound {
                return Err(bad_entry(inner.device()));
            }
            byte_offset = end_of(entry);
        }
        Ok((totals, list))
    }

    /// Stages what did not fit, half a staging area at a time, while the other half goes on to the caller.
    fn stage_late<E: From<CudaError>>(
        &mut self,
        inner: &Inner,
        list: &mut [Dirty],
        part: Range<usize>,
        patience: Option<&Patience>,
        take: &mut Take<'_, E>,
    ) -> Result<(), E> {
        let half = (inner.stage_place().1 / 2) & !(STAGED_ALIGNMENT - 1);
        let runs = runs_of(list, part, half);
        for (i, run) in runs.iter().enumerate() {
            if i == 0 {
                watched(patience, || self.stage_run(inner, run, 0, half))?;
            }
            watched(patience, || inner.halves[i % 2].synchronize())?;
            self.read_digests(inner, list, run)?;
            match runs.get(i + 1) {
                // Its half was drained in the last turn.
                Some(next) => watched(patience, || self.stage_run(inner, next, i + 1, half))?,
                None => self.release_when_staged(),
            }
            let (entries, place) = (run.entries.clone(), (i as u64 % 2) * half);
            self.drain(inner, list, entries, run.bytes.start, place, patience, take)?;
        }
        Ok(())
    }

    /// Enqueues the copies of one run into its half, and what follows from them.
    fn stage_run(&self, inner: &Inner, run: &Run, turn: usize, half: u64) -> Result<()> {
        self.refuse_released()?;
        let host = inner.host();
        let (at, offsets) = (host.tables.addresses(), host.tables.offsets());
        let part = Part {
            chunks: at.chunks,
            dirty: at.dirty,
            totals: at.totals,
            first: run.entries.start as u32,
            byte_offset: run.bytes.start,
            staging: inner.stage_place().0 + (turn as u64 % 2) * half,
            capacity: run.bytes.end - run.bytes.start,
        };
        let work = inner.work.handle();
        // SAFETY: the capture is not released, so its memory can be read and nothing writes to it; the half is free.
        unsafe { inner.kernels.gather(work, part)? };
        if matches!(inner.stage, Stage::Scratch(_)) {
            // SAFETY: as above.
            unsafe { inner.kernels.confirm(work, part, at.digests)? };
            let entries = offsets.dirty + run.entries.start as u64 * DIRTY_LEN
                ..offsets.dirty + run.entries.end as u64 * DIRTY_LEN;
            let place = entries.start;
            host.tables.memory().read(work, entries, host.tables.report(), place)?;
        }
        inner.halves[turn % 2].record(work)
    }

    /// Takes over the digests of the copies of a run.
    fn read_digests(&self, inner: &Inner, list: &mut [Dirty], run: &Run) -> Result<()> {
        if matches!(inner.stage, Stage::Ring) {
            return Ok(());
        }
        let host = inner.host();
        let at = host.tables.offsets().dirty;
        let range = at + run.entries.start as u64 * DIRTY_LEN..at + run.entries.end as u64 * DIRTY_LEN;
        // SAFETY: the copy of these entries has been done; the other half's go elsewhere.
        let found = read_list(unsafe { host.tables.report().bytes(range) });
        for (entry, found) in list[run.entries.clone()].iter_mut().zip(found) {
            if (found.number, found.byte_len) != (entry.number, entry.byte_len) {
                return Err(bad_entry(inner.device()));
            }
            entry.digest = found.digest;
        }
        Ok(())
    }

    /// Gives entries that lie in the staging area to the caller. `base` is the byte offset of what lies at `place` in it.
    #[expect(clippy::too_many_arguments, reason = "it is one step of two others")]
    fn drain<E: From<CudaError>>(
        &mut self,
        inner: &Inner,
        list: &[Dirty],
        part: Range<usize>,
        base: u64,
        place: u64,
        patience: Option<&Patience>,
        take: &mut Take<'_, E>,
    ) -> Result<(), E> {
        let Stage::Scratch(scratch) = &inner.stage else {
            for entry in &list[part] {
                let start = place + entry.byte_offset - base;
                // SAFETY: the kernel that copied it here has come to its end, and the next into this place is enqueued later.
                let bytes = unsafe { inner.ring.bytes(start..start + u64::from(entry.byte_len)) };
                self.deliver(entry, digest(bytes), bytes, take)?;
            }
            return Ok(());
        };
        let runs = runs_of(list, part, inner.block_len);
        let blocks = inner.block_count as usize;
        let copy = |turn: usize| {
            let Some(run) = runs.get(turn) else { return Ok(()) };
            let block = turn % blocks;
            let from = place + run.bytes.start - base..place + run.bytes.end - base;
            scratch.read(inner.copy.handle(), from, &inner.ring, block as u64 * inner.block_len)?;
            inner.filled[block].record(inner.copy.handle())
        };
        watched(patience, || (0..blocks).try_for_each(copy))?;
        for (turn, run) in runs.iter().enumerate() {
            let block = turn % blocks;
            watched(patience, || inner.filled[block].synchronize())?;
            for entry in &list[run.entries.clone()] {
                let start = block as u64 * inner.block_len + entry.byte_offset - run.bytes.start;
                // SAFETY: the copy into this block has been done, and the next is enqueued below.
                let bytes = unsafe { inner.ring.bytes(start..start + u64::from(entry.byte_len)) };
                self.deliver(entry, Digest::xxh3(entry.digest.to_canonical()), bytes, take)?;
            }
            watched(patience, || copy(turn + blocks))?;
        }
        Ok(())
    }

    fn deliver<E: From<CudaError>>(
        &mut self,
        entry: &Dirty,
        digest: Digest,
        bytes: &[u8],
        take: &mut Take<'_, E>,
    ) -> Result<(), E> {
        let device = self.inner().device();
        let (region, ordinal) = self.plan().place(entry.number).ok_or_else(|| bad_entry(device))?;
        let raw = raw_digest(&digest);
        if let Some(slot) = self.digests[region].as_mut().and_then(|list| list.get_mut(ordinal as usize)) {
            // What is fetched has no digest in the list; the capture knows it.
            let expected = if entry.digest == RawDigest::UNKNOWN { *slot } else { entry.digest };
            if expected != raw {
                self.torn.insert(region);
            }
            *slot = raw;
        }
        take(Staged { region, ordinal, digest, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(lens: &[u32]) -> Vec<Dirty> {
        let mut byte_offset = 0;
        lens.iter()
            .map(|len| {
                let entry = Dirty { byte_offset, number: 0, byte_len: *len, digest: RawDigest::UNKNOWN };
                byte_offset = end_of(&entry);
                entry
            })
            .collect()
    }

    #[test]
    fn runs_hold_every_entry_once_and_are_not_too_long() {
        let list = list(&[10, 16, 1, 33, 16, 0, 64]);
        let runs = runs_of(&list, 1..7, 64);
        assert_eq!(runs.iter().flat_map(|run| run.entries.clone()).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        assert!(runs.iter().all(|run| run.bytes.end - run.bytes.start <= 64));
        assert_eq!(runs[0], Run { entries: 1..3, bytes: 16..48 });
        assert!(runs_of(&list, 3..3, 64).is_empty());
    }
}
