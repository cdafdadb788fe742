//! Marking: every blob that versions reach.
//!
//! Invariants:
//! 1. What is read to find the others is reached itself: the reading goes through [`Recorder`].
//! 2. A part that was walked is not walked again, but only in the same part it plays: equal bytes may be a node of a
//!    manifest here and a text there.
//! 3. What cannot be read ends the marking: nothing is deleted on the word of a damaged table.

use super::history::{ListedVersion, versions_of};
use crate::error::{Result, StoreError};
use crate::generations::DigestSet;
use crate::inner::Inner;
use bytes::Bytes;
use chipmink_digest::{Grid, NodeKind, TreeError, visit_tree};
use chipmink_format::{
    CovariableRef, FormatError, GROUP_DEPTH_MAX, ManifestRow, ManifestValue, PodRow, RootEntry, Tree,
};
use chipmink_types::{BlobError, BlobSource, Digest, RegionRecord, TimeId};
use std::cell::RefCell;
use std::ops::ControlFlow;

/// Blobs that were met.
#[derive(Debug, Default)]
struct Met {
    live: DigestSet,
    /// Those that were met since they were last asked for.
    new: Vec<Digest>,
}

impl Met {
    fn add(&mut self, digest: Digest) {
        if self.live.insert(digest) {
            self.new.push(digest);
        }
    }
}

/// Reads, and marks what it reads.
struct Recorder<'a> {
    source: &'a Inner,
    met: RefCell<Met>,
}

impl Recorder<'_> {
    fn mark(&self, digest: Digest) {
        self.met.borrow_mut().add(digest);
    }
}

impl BlobSource for Recorder<'_> {
    fn get(&self, digest: &Digest) -> Result<Bytes, BlobError> {
        self.mark(*digest);
        self.source.get(digest)
    }

    fn get_many(&self, digests: &[Digest]) -> Result<Vec<Bytes>, BlobError> {
        digests.iter().for_each(|digest| self.mark(*digest));
        self.source.get_many(digests)
    }
}

/// What was reached so far.
pub(super) struct Marker<'a> {
    recorder: Recorder<'a>,
    manifests: DigestSet,
    covariables: DigestSet,
    tables: DigestSet,
    regions: DigestSet,
}

impl<'a> Marker<'a> {
    pub(super) fn new(source: &'a Inner) -> Self {
        Marker {
            recorder: Recorder { source, met: RefCell::default() },
            manifests: DigestSet::default(),
            covariables: DigestSet::default(),
            tables: DigestSet::default(),
            regions: DigestSet::default(),
        }
    }

    /// Marks one more blob; whether it was new.
    pub(super) fn add(&mut self, digest: Digest) -> bool {
        let met = self.recorder.met.get_mut();
        let before = met.new.len();
        met.add(digest);
        met.new.len() > before
    }

    /// All blobs that were reached.
    pub(super) fn live(&mut self) -> &DigestSet {
        &self.recorder.met.get_mut().live
    }

    /// The blobs that were reached since the last call.
    pub(super) fn take_new(&mut self) -> Vec<Digest> {
        std::mem::take(&mut self.recorder.met.get_mut().new)
    }

    /// Marks what a version reaches.
    pub(super) fn version(&mut self, version: &ListedVersion) -> Result<()> {
        version.texts.iter().for_each(|text| self.recorder.mark(*text));
        self.manifest(version.manifest).map_err(|error| unreadable(self.recorder.source, version.time, error))
    }

    fn manifest(&mut self, root: Digest) -> Result<(), FormatError> {
        let mut rows: Vec<Bytes> = Vec::new();
        let manifests = &mut self.manifests;
        Tree::open(root).scan_nodes(
            &self.recorder,
            &mut |node| manifests.insert(*node),
            &mut |_, value| {
                rows.push(value.clone());
                Ok(ControlFlow::Continue(()))
            },
        )?;
        for row in rows {
            if let ManifestValue::Covariable(covariable) = ManifestRow::decode(&row)?.value {
                self.covariable(&covariable, 0)?;
            }
        }
        Ok(())
    }

    fn covariable(&mut self, reference: &CovariableRef, depth: usize) -> Result<(), FormatError> {
        if !self.covariables.insert(reference.digest()) {
            return Ok(());
        }
        let covariable = reference.load(&self.recorder)?;
        if depth == GROUP_DEPTH_MAX && !covariable.groups.is_empty() {
            return Err(FormatError::Damaged {
                what: "co-variable".into(),
                byte_offset: 0,
                reason: "definition groups name each other too deeply".into(),
            });
        }
        for group in &covariable.groups {
            self.covariable(&CovariableRef::Stored(*group), depth + 1)?;
        }
        let Marker { recorder, tables, regions, .. } = self;
        covariable.table.scan_nodes(&*recorder, &mut |node| tables.insert(*node), &mut |_, value| {
            let row = PodRow::decode(value, &*recorder)?;
            recorder.mark(row.digest);
            row.globals.iter().chain(&row.side).for_each(|digest| recorder.mark(*digest));
            row.shapes.iter().for_each(|shape| recorder.mark(shape.names));
            for region in &row.regions {
                if regions.insert(region.root) {
                    mark_region(recorder, region)?;
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }
}

fn mark_region(recorder: &Recorder<'_>, region: &RegionRecord) -> Result<(), FormatError> {
    let damaged = |reason: String| FormatError::Damaged {
        what: format!("region {}", region.root).into(),
        byte_offset: 0,
        reason: reason.into(),
    };
    let grid = Grid::of(region).map_err(|error| damaged(error.to_string()))?;
    let mut get = |digest: &Digest| recorder.get(digest);
    visit_tree(NodeKind::Region, region.root, grid.chunk_count(), &mut get, &mut |chunk| {
        recorder.mark(chunk);
        Ok(())
    })
    .map_err(|error| match error {
        TreeError::Caller(error) => FormatError::Blob(error),
        other => damaged(other.to_string()),
    })
}

/// The blobs that the versions of an entry reach, with the bases of deltas not counted.
pub(crate) fn reached(source: &Inner, entry: &RootEntry) -> Result<Vec<Digest>> {
    let damaged = |source_error| unreadable(source, entry.number, source_error);
    let mut marker = Marker::new(source);
    for version in versions_of(entry).map_err(damaged)? {
        marker.version(&version)?;
    }
    Ok(marker.take_new())
}

/// The error of a version that cannot be read in full.
pub(super) fn unreadable(inner: &Inner, time: TimeId, reason: impl ToString) -> StoreError {
    StoreError::Unsweepable {
        place: inner.backend.label().to_owned(),
        reason: format!("version {time} cannot be read in full ({})", reason.to_string()),
    }
}
