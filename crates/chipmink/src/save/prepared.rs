//! A save in its three steps: walked, published, told to the source.

use super::{Delta, Written, write_version};
use crate::base::{Base, BaseRegions, Place};
use crate::error::Result;
use crate::options::{OnConflict, SaveRequest};
use crate::refs::check_branch;
use crate::shared::{Held, Shared};
use chipmink_format::{Commit, Extensions, Text};
use chipmink_store::{PackTransaction, Publication, StoreError, TransactionStats};
use chipmink_types::{
    BlobSink, DeviceError, DeviceMemory, DeviceSpan, GraphSource, SkippedVariable, TimeId, VariableRoot,
    WalkError, WalkOutcome, WalkRequest, WalkStats,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// How often a save meets another writer before it fails: each time that one was faster.
const CONFLICTS_MAX: usize = 100;

/// Figures of a save.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// What the walk did.
    pub walk: WalkStats,
    /// Blobs that were new to the repository.
    pub blobs_new: u64,
    /// Decoded bytes of the new blobs.
    pub blob_bytes: u64,
    /// Bytes of packs and root entry, as they stand in the store.
    pub bytes_written: u64,
    /// Rows of pod tables that were written.
    pub rows_written: u64,
    /// Co-variables and definition groups that are not the same as before.
    pub tables_written: u64,
}

/// A version that was saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Saved {
    /// Its number.
    pub time: TimeId,
    /// Figures of the save.
    pub report: Report,
}

/// A walk whose version is not published yet. Dropped, it gives the save up.
///
/// It holds the ref: another save to it is refused until this one is over.
#[derive(Debug)]
pub struct Prepared {
    shared: Arc<Shared>,
    held: Held,
    outcome: WalkOutcome,
    transaction: PackTransaction,
    request: SaveRequest,
}

/// A save that holds its ref and has walked nothing yet.
///
/// It is a step of its own because it may ask the place, which may be far away, and needs nothing of the source.
#[derive(Debug)]
pub struct Begun {
    shared: Arc<Shared>,
    held: Held,
    request: SaveRequest,
}

impl Begun {
    pub(crate) fn new(shared: &Arc<Shared>, request: &SaveRequest) -> Result<Self> {
        check_branch(&request.ref_name)?;
        shared.store.check_writable()?;
        let mut held = Shared::hold(shared, &request.ref_name)?;
        held.forget_dropped();
        Ok(Begun { shared: Arc::clone(shared), held, request: request.clone() })
    }

    /// Lets memory of devices be taken as known where all of it is stored in what the save builds on, as that of a program which was just
    /// restored. Returns the bytes of which that is so. The save is given up.
    ///
    /// # Errors
    /// When the device fails.
    pub fn recognise(mut self, memory: &mut dyn DeviceMemory, spans: &[DeviceSpan]) -> Result<u64> {
        let mut transaction = self.shared.store.begin();
        if let Some(place) = self.held.base_mut().place {
            transaction.build_on(place.time);
        }
        let recognised = memory.recognise(spans, &mut |digest| transaction.holds(digest));
        recognised.map_err(|error| match error {
            DeviceError::Blob(error) => WalkError::Blob(error).into(),
            other => WalkError::Source(other.to_string()).into(),
        })
    }

    /// Walks `source`, whose lock the caller holds.
    ///
    /// # Errors
    /// When the walk fails.
    pub fn walk(self, source: &mut dyn GraphSource) -> Result<Prepared> {
        let Begun { shared, mut held, request } = self;
        shared.align_source(&mut held, source);
        let mut transaction = shared.store.begin();
        if let Some(cancel) = &request.cancel {
            transaction.cancel_by(cancel.clone());
        }
        if let Some(place) = held.base_mut().place {
            transaction.build_on(place.time);
        }
        let earlier = BaseRegions { base: held.base_mut(), store: &shared.store };
        let walk = WalkRequest { accessed: request.accessed.as_deref(), earlier: Some(&earlier) };
        match source.walk(&walk, &mut transaction) {
            Ok(outcome) => Ok(Prepared { shared, held, outcome, transaction, request }),
            Err(error) => {
                shared.source_is_at(&held);
                abandon(transaction, source);
                Err(error.into())
            }
        }
    }
}

impl Prepared {
    /// What the walk found.
    pub fn outcome(&self) -> &WalkOutcome {
        &self.outcome
    }

    /// Variables that other threads went on changing while they were walked.
    pub fn unsteady(&self) -> &[String] {
        &self.outcome.unsteady
    }

    pub(super) fn parts(&mut self) -> (&Shared, &Base, &WalkOutcome) {
        (&self.shared, self.held.base_mut(), &self.outcome)
    }

    /// Variables that are not in the version, and why.
    pub fn skipped(&self) -> impl Iterator<Item = (&str, &SkippedVariable)> {
        self.outcome.variables.iter().filter_map(|(name, root)| match root {
            VariableRoot::Skipped(skipped) => Some((name.as_str(), skipped)),
            _ => None,
        })
    }

    /// Objects inside saved variables that are placeholders in the version: variable, and why.
    pub fn stubs(&self) -> &[(String, SkippedVariable)] {
        &self.outcome.stubs
    }

    /// Writes tables and commit and makes the version visible. It touches no live object.
    ///
    /// The result must be handed to the source by [`Published::finish`], also when it is a failure.
    pub fn publish(self) -> Published {
        let Prepared { shared, mut held, outcome, mut transaction, request } = self;
        let result = publish(&shared, held.base_mut(), &outcome, &mut transaction, &request);
        let mut ref_name = request.ref_name;
        let result = result.map(|(saved, moved)| {
            if moved != ref_name {
                held.rename(&moved);
                ref_name = moved;
            }
            held.keep();
            if let Some(stager) = &shared.stager {
                stager.wake();
            }
            saved
        });
        drop(held);
        // What a failed save wrote is removed here.
        drop(transaction);
        Published { shared, outcome, ref_name, result }
    }

    /// Gives the save up.
    pub fn discard(self, source: &mut dyn GraphSource) {
        let Prepared { shared, held, outcome, transaction, .. } = self;
        source.discard(outcome);
        shared.source_is_at(&held);
        abandon(transaction, source);
    }
}

/// Removes what a save has written, which may take its time.
fn abandon(transaction: PackTransaction, source: &dyn GraphSource) {
    let mut transaction = Some(transaction);
    source.aside(&mut || drop(transaction.take()));
}

fn publish(
    shared: &Shared,
    base: &mut Base,
    outcome: &WalkOutcome,
    transaction: &mut PackTransaction,
    request: &SaveRequest,
) -> Result<(Saved, String)> {
    let Written { manifest, delta, rows, tables } = write_version(base, outcome, &shared.store, transaction)?;
    let commit = Commit {
        parents: base.place.iter().map(|place| place.commit).collect(),
        manifest,
        saved_at: now_micros(),
        message: Text::store(&request.message, transaction)?,
        author: request.author.clone(),
        code: match request.code.is_empty() {
            true => None,
            false => Some(Text::store(&request.code, transaction)?),
        },
        statistics: statistics(&outcome.stats),
        extensions: Extensions::default(),
    };
    let mut publication = Publication { ref_name: request.ref_name.clone(), expected: base.expected, commit };
    let time = publish_somewhere(shared, transaction, &mut publication, request.on_conflict)?;
    let place = Place { time, commit: publication.commit.digest(), manifest };
    Delta::apply(delta, base, place);
    shared.note_place(place);
    let TransactionStats { blobs_new, blob_bytes, bytes_written, .. } = transaction.stats();
    let report = Report {
        walk: outcome.stats,
        blobs_new,
        blob_bytes,
        bytes_written,
        rows_written: rows,
        tables_written: tables,
    };
    Ok((Saved { time, report }, publication.ref_name))
}

/// Publishes, and does what is asked for when the ref has moved: the packs stay, only the entry is another one.
fn publish_somewhere(
    shared: &Shared,
    transaction: &mut PackTransaction,
    publication: &mut Publication,
    on_conflict: OnConflict,
) -> Result<TimeId> {
    let ref_name = publication.ref_name.clone();
    for _ in 0..CONFLICTS_MAX {
        match (transaction.publish(publication), on_conflict) {
            (Err(StoreError::RefMoved { .. }), OnConflict::Retry) => {
                let newest = shared.store.head().refs.get(&ref_name).copied();
                publication.expected = newest.map(|newest| newest.time);
                if let Some(newest) = newest {
                    publication.commit.parents = vec![newest.commit];
                }
            }
            (Err(StoreError::RefMoved { .. }), OnConflict::Branch) => {
                let refs = shared.store.head().refs;
                let names = (2u64..).map(|number| format!("{ref_name}-{number}"));
                publication.ref_name =
                    names.into_iter().find(|name| !refs.contains_key(name)).unwrap_or_default();
                publication.expected = None;
            }
            (outcome, _) => return Ok(outcome?),
        }
    }
    Ok(transaction.publish(publication)?)
}

/// What a commit says of its walk; zeros are left out.
fn statistics(stats: &WalkStats) -> BTreeMap<String, String> {
    let all = [
        ("objects", stats.objects),
        ("pods_dirty", stats.pods_dirty),
        ("pods_clean", stats.pods_clean),
        ("region_bytes", stats.region_bytes),
    ];
    let named = all.into_iter().filter(|(_, value)| *value != 0);
    named.map(|(name, value)| (name.to_owned(), value.to_string())).collect()
}

pub(crate) fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// A save that is over, of which the source does not know yet.
///
/// Dropped without [`Published::finish`], the source is made to start anew by the next save.
#[derive(Debug)]
#[must_use = "the source must be told by `finish`"]
pub struct Published {
    shared: Arc<Shared>,
    outcome: WalkOutcome,
    ref_name: String,
    result: Result<Saved>,
}

impl Published {
    /// The version, if there is one.
    pub fn saved(&self) -> Option<&Saved> {
        self.result.as_ref().ok()
    }

    /// The ref that was moved: another than was asked for after [`OnConflict::Branch`].
    pub fn ref_name(&self) -> &str {
        &self.ref_name
    }

    /// Tells the source, under the caller's lock, whether what it learned has become known.
    ///
    /// # Errors
    /// The failure of [`Prepared::publish`]. Nothing was published then, unless it says that the outcome is unknown.
    pub fn finish(self, source: &mut dyn GraphSource) -> Result<Saved> {
        match &self.result {
            Ok(saved) => {
                source.adopt(self.outcome);
                self.shared.source_adopted(&self.ref_name, saved.time);
            }
            Err(_) => {
                source.discard(self.outcome);
                self.shared.source_discarded(&self.ref_name);
            }
        }
        self.result
    }
}
