//! Push and pull: versions of one repository, brought to another.
//!
//! ```text
//!  source log ──► commits to send ──walk of what changed──► missing blobs ──► packs ──► root entries
//!  destination log ──┘ (what both have)      (by digest)      (checked)   (nobody sees them)  (one for each version)
//! ```
//!
//! It refuses to touch the source, and to overwrite or remove anything in the destination.
//!
//! Invariants:
//! 1. Nothing is visible before all that it needs is there: packs first, then commits, parents before children.
//! 2. Each blob is decoded and compared with its digest before it is written; what was written is read back before an
//!    entry names it, unless the caller does without.
//! 3. Whatever ends a transfer, the next one goes on: blobs that are published are found by their digests, whole packs
//!    that are not by their names, and both are not sent again.
//! 4. What the destination holds is relied on only blob by blob, or below what its refs point at; if packs are condemned
//!    there meanwhile, everything is compared anew.
//! 5. Memory: some hundred bytes for each blob that is looked at, and a few windows of blobs for each thread.

mod closure;
mod copy;
mod history;
mod leftovers;
mod options;
mod pace;
mod partial;
mod publish;
mod steps;

pub use options::{Phase, RefSpec, Since, TransferOptions, TransferProgress, TransferReport};
pub(crate) use pace::Pace;
pub(crate) use publish::publish_packs;

use crate::error::{Result, StoreError};
use crate::inner::Inner;
use crate::store::Store;
use chipmink_format::RootEntry;
use chipmink_types::TimeId;
use closure::Closure;
use history::Selection;
use std::time::Instant;

/// How often a transfer is begun anew because packs were condemned in the destination.
const ATTEMPTS: usize = 4;

/// Is told of progress every now and then; `false` ends the transfer.
pub type Watch<'a> = dyn FnMut(&TransferProgress) -> bool + 'a;

impl Store {
    /// Whether a transfer can begin. Nothing is moved.
    ///
    /// # Errors
    /// Those with which [`Store::transfer`] would end before it moves anything.
    pub fn check_transfer(&self, to: &Store, options: &TransferOptions) -> Result<()> {
        to.inner.check_writable()?;
        self.inner.refresh()?;
        to.inner.refresh()?;
        history::select(&self.inner, &to.inner, options).map(drop)
    }

    /// Brings versions of this repository to another, which may be at any place.
    ///
    /// # Errors
    /// When a branch of the destination went its own way ([`StoreError::Diverged`]), a place fails, or the source is
    /// damaged. What was copied stays, and the next call goes on from there.
    pub fn transfer(
        &self,
        to: &Store,
        options: &TransferOptions,
        watch: &mut Watch<'_>,
    ) -> Result<TransferReport> {
        let began = Instant::now();
        let pace = Pace::new(options.limit);
        let mut attempt = 1;
        loop {
            match once(&self.inner, &to.inner, options, &pace, watch) {
                Err(StoreError::BaseSwept) if attempt < ATTEMPTS => attempt += 1,
                Ok(report) => return Ok(TransferReport { seconds: began.elapsed().as_secs_f64(), ..report }),
                Err(error) => return Err(error),
            }
        }
    }
}

fn once(
    source: &Inner,
    target: &Inner,
    options: &TransferOptions,
    pace: &Pace,
    watch: &mut Watch<'_>,
) -> Result<TransferReport> {
    pace.begin(Phase::Comparing, 0, 0);
    pace.tell(watch)?;
    target.check_writable()?;
    // What the newest versions are walked by is on its way while the logs are compared.
    let (selected, ()) = source.backend.both(
        || -> Result<(TimeId, Selection)> {
            source.refresh()?;
            target.refresh()?;
            let planned = target.log().head.number;
            Ok((planned, history::select(source, target, options)?))
        },
        || closure::fetch_ahead(source, target),
    );
    let (planned, selection) = selected?;
    carry(source, target, &selection, planned, options, pace, watch)
}

/// Brings the versions of some entries of the source, and then those that its refs reach. Returns how many.
pub(crate) fn bring_versions(
    source: &Inner,
    target: &Inner,
    entries: &[RootEntry],
    options: &TransferOptions,
    watch: &mut Watch<'_>,
) -> Result<u64> {
    let pace = Pace::new(options.limit);
    let planned = target.log().head.number;
    let selection = history::of_entries(source, entries)?;
    let alone = carry(source, target, &selection, planned, options, &pace, watch)?.versions;
    match once(source, target, options, &pace, watch) {
        Ok(report) => Ok(alone + report.versions),
        // Its refs went another way meanwhile.
        Err(StoreError::Diverged { .. }) => Ok(alone),
        Err(error) => Err(error),
    }
}

fn carry(
    source: &Inner,
    target: &Inner,
    selection: &Selection,
    planned: TimeId,
    options: &TransferOptions,
    pace: &Pace,
    watch: &mut Watch<'_>,
) -> Result<TransferReport> {
    let mut closure = Closure::new(source, target);
    let swept = closure.take_all(selection, options, &mut || pace.tell(watch))?;
    let steps = steps::plan(target, options, selection, &closure);
    let mut report = TransferReport { swept, ..TransferReport::default() };
    let packs = copy::copy(source, target, closure.into_missing(), options, pace, watch, &mut report)?;
    publish::publish(source, target, steps, packs, planned, pace, watch, &mut report)?;
    Ok(report)
}
