//! [`reach`]: all blobs of a version, or of a co-variable, as far as they can be had.

use crate::generations::DigestSet;
use bytes::Bytes;
use chipmink_digest::{Grid, NodeKind, visit_tree};
use chipmink_format::{
    Commit, CovariableRef, FormatError, GROUP_DEPTH_MAX, ManifestRow, ManifestValue, PodRow, Text, Tree,
};
use chipmink_types::{BlobError, BlobKind, BlobSource, Digest};
use std::cell::RefCell;
use std::ops::ControlFlow;

/// What was reached.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    /// The blobs, each once, as they were met.
    pub(crate) blobs: Vec<(Digest, BlobKind)>,
    /// Blobs that could not be had; what is below them is not known.
    pub(crate) lost: DigestSet,
    seen: DigestSet,
    /// Manifests, co-variables, groups and regions that were walked.
    walked: DigestSet,
}

/// Reads blobs and notes them.
struct Noting<'a> {
    source: &'a dyn BlobSource,
    kind: BlobKind,
    met: &'a RefCell<Reached>,
}

impl Reached {
    fn note(&mut self, digest: Digest, kind: BlobKind) {
        if self.seen.insert(digest) {
            self.blobs.push((digest, kind));
        }
    }
}

impl BlobSource for Noting<'_> {
    fn get(&self, digest: &Digest) -> Result<Bytes, BlobError> {
        self.met.borrow_mut().note(*digest, self.kind);
        self.source.get(digest).inspect_err(|_| {
            self.met.borrow_mut().lost.insert(*digest);
        })
    }
}

/// Adds what a version reaches.
pub(crate) fn reach(source: &dyn BlobSource, commit: &Commit, met: &RefCell<Reached>) {
    {
        let mut met = met.borrow_mut();
        for text in [Some(&commit.message), commit.code.as_ref()].into_iter().flatten() {
            if let Text::Stored { digest, .. } = text {
                met.note(*digest, BlobKind::Text);
            }
        }
        if !met.walked.insert(commit.manifest) {
            return;
        }
    }
    let noting = Noting { source, kind: BlobKind::Table, met };
    let mut rows = Vec::new();
    // What cannot be read is noted as lost.
    let _ = Tree::open(commit.manifest).scan(&[], &noting, &mut |_, row| {
        rows.push(row.clone());
        Ok(ControlFlow::Continue(()))
    });
    for row in rows {
        if let Ok(ManifestRow { value: ManifestValue::Covariable(covariable), .. }) =
            ManifestRow::decode(&row)
        {
            let _ = walk(&noting, &covariable, 0);
        }
    }
}

/// The blobs of a co-variable, each once, with its own.
pub(crate) fn blobs_of(source: &dyn BlobSource, covariable: &CovariableRef) -> Vec<Digest> {
    let met = RefCell::new(Reached::default());
    let noting = Noting { source, kind: BlobKind::Table, met: &met };
    // What cannot be read counts for nothing.
    let _ = walk(&noting, covariable, 0);
    met.into_inner().blobs.into_iter().map(|(digest, _)| digest).collect()
}

fn walk(noting: &Noting<'_>, covariable: &CovariableRef, depth: usize) -> Result<(), FormatError> {
    if !noting.met.borrow_mut().walked.insert(covariable.digest()) {
        return Ok(());
    }
    let covariable = covariable.load(noting)?;
    if depth < GROUP_DEPTH_MAX {
        for group in &covariable.groups {
            let _ = walk(noting, &CovariableRef::Stored(*group), depth + 1);
        }
    }
    covariable.table.scan(&[], noting, &mut |_, row| {
        if let Ok(row) = PodRow::decode(row, noting) {
            note_row(noting, &row);
        }
        Ok(ControlFlow::Continue(()))
    })
}

fn note_row(noting: &Noting<'_>, row: &PodRow) {
    {
        let mut met = noting.met.borrow_mut();
        met.note(row.digest, BlobKind::Pod);
        let names = row.shapes.iter().map(|shape| &shape.names);
        row.globals.iter().chain(names).chain(&row.side).for_each(|digest| {
            met.note(*digest, BlobKind::Descriptor);
        });
    }
    for region in &row.regions {
        let is_new = noting.met.borrow_mut().walked.insert(region.root);
        let Some(grid) = Grid::of(region).ok().filter(|_| is_new) else { continue };
        let nodes = Noting { kind: BlobKind::DigestNode, ..*noting };
        let mut get = |digest: &Digest| nodes.get(digest);
        let mut visit = |chunk: Digest| {
            noting.met.borrow_mut().note(chunk, BlobKind::Chunk);
            Ok::<(), BlobError>(())
        };
        let _ = visit_tree(NodeKind::Region, region.root, grid.chunk_count(), &mut get, &mut visit);
    }
}
