//! [`Health`]: which variables can be loaded although something is damaged.

use super::LostVersion;
use crate::generations::DigestSet;
use bytes::Bytes;
use chipmink_digest::{Grid, NodeKind, visit_tree};
use chipmink_format::{
    CovariableRef, FormatError, GROUP_DEPTH_MAX, ManifestRow, ManifestValue, PodRow, Tree, manifest_name,
};
use chipmink_types::{BlobError, BlobSource, Digest, TimeId};
use hashbrown::HashMap;
use std::ops::ControlFlow;

/// What is known of co-variables and groups.
pub(crate) struct Health<'a> {
    source: &'a dyn BlobSource,
    /// Blobs that cannot be had.
    bad: &'a DigestSet,
    known: HashMap<Digest, bool>,
}

impl<'a> Health<'a> {
    pub(crate) fn new(source: &'a dyn BlobSource, bad: &'a DigestSet) -> Self {
        Health { source, bad, known: HashMap::new() }
    }

    /// What a version has lost; `None`: nothing.
    pub(crate) fn of(&mut self, time: TimeId, manifest: Digest) -> Option<LostVersion> {
        let mut rows: Vec<(Vec<u8>, Bytes)> = Vec::new();
        let scanned = Tree::open(manifest).scan(&[], self.source, &mut |key, value| {
            rows.push((key.to_vec(), value.clone()));
            Ok(ControlFlow::Continue(()))
        });
        let is_whole = scanned.is_err();
        let mut variables = Vec::new();
        for (key, value) in rows {
            let is_well = match ManifestRow::decode(&value) {
                Ok(ManifestRow { value: ManifestValue::Covariable(covariable), .. }) => {
                    self.is_well(&covariable, 0)
                }
                Ok(_) => true,
                Err(_) => false,
            };
            if !is_well {
                let name = manifest_name(&key);
                variables.push(name.unwrap_or_else(|_| String::from_utf8_lossy(&key).into_owned()));
            }
        }
        (is_whole || !variables.is_empty()).then_some(LostVersion { time, variables, is_whole })
    }

    fn is_well(&mut self, covariable: &CovariableRef, depth: usize) -> bool {
        let name = covariable.digest();
        if let Some(known) = self.known.get(&name) {
            return *known;
        }
        let is_well = self.check(covariable, depth).is_ok_and(|is_well| is_well);
        self.known.insert(name, is_well);
        is_well
    }

    fn check(&mut self, covariable: &CovariableRef, depth: usize) -> Result<bool, FormatError> {
        if let CovariableRef::Stored(name) = covariable
            && self.bad.contains(name)
        {
            return Ok(false);
        }
        let covariable = covariable.load(self.source)?;
        if depth == GROUP_DEPTH_MAX && !covariable.groups.is_empty() {
            return Ok(false);
        }
        for group in &covariable.groups {
            if !self.is_well(&CovariableRef::Stored(*group), depth + 1) {
                return Ok(false);
            }
        }
        let (source, bad) = (self.source, self.bad);
        let mut is_well = true;
        covariable.table.scan(&[], source, &mut |_, row| {
            is_well = check_row(&PodRow::decode(row, source)?, source, bad);
            Ok(if is_well { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(is_well)
    }
}

fn check_row(row: &PodRow, source: &dyn BlobSource, bad: &DigestSet) -> bool {
    let is_bad = |digest: &Digest| bad.contains(digest);
    if is_bad(&row.digest)
        || row.globals.iter().chain(&row.side).any(is_bad)
        || row.shapes.iter().any(|shape| is_bad(&shape.names))
    {
        return false;
    }
    row.regions.iter().all(|region| {
        let Ok(grid) = Grid::of(region) else { return false };
        let mut get = |digest: &Digest| source.get(digest);
        let visited =
            visit_tree(NodeKind::Region, region.root, grid.chunk_count(), &mut get, &mut |chunk| match bad
                .contains(&chunk)
            {
                true => Err(BlobError::Missing { digest: chunk }),
                false => Ok(()),
            });
        visited.is_ok()
    })
}
