//! The regions of the base, for walks that meet objects anew.

use super::{Base, Holding, Value};
use crate::error::Result;
use chipmink_format::{CovariableRef, PodRow};
use chipmink_store::Store;
use chipmink_types::{EarlierRegions, RegionRecord};

/// The regions of the version that a save builds on. Tables that the session has not saved are read when they are asked for.
#[derive(Debug)]
pub(crate) struct BaseRegions<'a> {
    pub(crate) base: &'a Base,
    pub(crate) store: &'a Store,
}

impl BaseRegions<'_> {
    fn read(&self, reference: &CovariableRef) -> Result<Vec<RegionRecord>> {
        let covariable = reference.load(self.store)?;
        let mut rows = Vec::new();
        for (_, bytes) in covariable.table.rows(self.store)? {
            let row = PodRow::decode(&bytes, self.store)?;
            if !row.regions.is_empty() {
                rows.push((row.rank, row.regions));
            }
        }
        rows.sort_by_key(|(rank, _)| *rank);
        Ok(rows.into_iter().flat_map(|(_, regions)| regions).collect())
    }
}

impl EarlierRegions for BaseRegions<'_> {
    fn covariable_of(&self, variable: &str) -> Option<u32> {
        let variables = &self.base.variables;
        match variables.all()[variables.find(variable, 0)?].value {
            Value::Covariable(index) => Some(index),
            _ => None,
        }
    }

    fn regions_of(&self, covariable: u32) -> Vec<RegionRecord> {
        match self.base.covariable(covariable) {
            Some(Holding::Known(table)) => {
                table.pods[..table.walked].iter().flat_map(|pod| pod.record.regions.iter().cloned()).collect()
            }
            // What cannot be read is no reason for a save to fail: it is only a hint here.
            Some(Holding::Unread { reference, .. }) => self.read(reference).unwrap_or_default(),
            None => Vec::new(),
        }
    }

    fn would_wait(&self, covariable: u32) -> bool {
        let is_unread = matches!(self.base.covariable(covariable), Some(Holding::Unread { .. }));
        is_unread && self.store.is_far()
    }
}
