//! A table that the session has not walked: its rows are recognised by the digests of their pods.

use crate::error::Result;
use chipmink_format::{Covariable, CovariableRef, PodRow, parse_slot_key};
use chipmink_types::{BlobSource, Digest, Slot};

/// What identifies and orders a row.
#[derive(Debug)]
pub(super) struct StoredRow {
    pub(super) slot: Slot,
    pub(super) rank: u64,
    pub(super) digest: Digest,
}

/// A table as it is stored.
#[derive(Debug)]
pub(super) struct StoredTable {
    pub(super) header: Covariable,
    /// In ascending order of rank.
    pub(super) rows: Vec<StoredRow>,
}

impl StoredTable {
    pub(super) fn load(reference: &CovariableRef, source: &dyn BlobSource) -> Result<Self> {
        let header = reference.load(source)?;
        let mut rows = Vec::new();
        for (key, value) in header.table.rows(source)? {
            let row = PodRow::decode(&value, source)?;
            rows.push(StoredRow { slot: parse_slot_key(&key)?, rank: row.rank, digest: row.digest });
        }
        rows.sort_by_key(|row| row.rank);
        Ok(StoredTable { header, rows })
    }
}
