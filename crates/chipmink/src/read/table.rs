//! Tables of one version, read as far as they are needed.

use crate::error::{Error, Result};
use bytes::Bytes;
use chipmink_format::{Covariable, CovariableRef, PodRow, parse_slot_key, slot_key};
use chipmink_types::{BlobSource, Digest, Slot, TimeId};
use hashbrown::HashMap;
use std::sync::Arc;

/// Rows looked up one by one before the whole table is read: a look-up decodes a leaf of some forty rows.
const LOOKUPS_MAX: usize = 64;

/// One table of a version, with the rows that were asked for.
#[derive(Debug)]
pub(crate) struct TableReader {
    pub(crate) header: Covariable,
    rows: HashMap<Slot, Arc<PodRow>>,
    /// All rows, by slot, once they were read.
    whole: Option<Vec<(Slot, Bytes)>>,
    lookups: usize,
    is_group: bool,
}

/// The tables of one version; each is read once, whoever names it.
pub(crate) struct Tables<'a> {
    time: TimeId,
    source: &'a dyn BlobSource,
    by_digest: HashMap<Digest, usize>,
    all: Vec<TableReader>,
}

impl<'a> Tables<'a> {
    pub(crate) fn new(time: TimeId, source: &'a dyn BlobSource) -> Self {
        Tables { time, source, by_digest: HashMap::new(), all: Vec::new() }
    }

    pub(crate) fn all(&self) -> &[TableReader] {
        &self.all
    }

    pub(crate) fn damaged(&self, reason: String) -> Error {
        Error::DamagedVersion { time: self.time, reason }
    }

    /// The ordinal of a co-variable's table.
    pub(crate) fn covariable(&mut self, reference: &CovariableRef) -> Result<usize> {
        let source = self.source;
        self.open(reference.digest(), || reference.load(source), false)
    }

    /// The ordinal of the table of the group that `table` calls by `ordinal`.
    pub(crate) fn group(&mut self, table: usize, ordinal: u32) -> Result<usize> {
        let Some(digest) = self.all[table].header.groups.get(ordinal as usize).copied() else {
            return Err(
                self.damaged(format!("a row names definition group {ordinal}, which its table lacks"))
            );
        };
        self.group_table(digest)
    }

    /// The ordinal of the table of a definition group.
    pub(crate) fn group_table(&mut self, digest: Digest) -> Result<usize> {
        let source = self.source;
        self.open(digest, || Covariable::load(&digest, source), true)
    }

    /// The ordinal of a table that was opened.
    pub(crate) fn opened(&self, digest: &Digest) -> Option<usize> {
        self.by_digest.get(digest).copied()
    }

    fn open(
        &mut self,
        digest: Digest,
        load: impl FnOnce() -> chipmink_format::Result<Covariable>,
        is_group: bool,
    ) -> Result<usize> {
        if let Some(at) = self.by_digest.get(&digest) {
            return Ok(*at);
        }
        let header = load()?;
        self.all.push(TableReader { header, rows: HashMap::new(), whole: None, lookups: 0, is_group });
        self.by_digest.insert(digest, self.all.len() - 1);
        Ok(self.all.len() - 1)
    }

    /// Reads all rows of a table at once.
    pub(crate) fn read_whole(&mut self, table: usize) -> Result<()> {
        let reader = &mut self.all[table];
        if reader.whole.is_none() {
            let rows = reader.header.table.rows(self.source)?;
            let rows = rows.into_iter().map(|(key, value)| Ok((parse_slot_key(&key)?, value)));
            reader.whole = Some(rows.collect::<chipmink_format::Result<_>>()?);
        }
        Ok(())
    }

    /// The row of a pod.
    pub(crate) fn row(&mut self, table: usize, slot: Slot) -> Result<Arc<PodRow>> {
        if let Some(row) = self.all[table].rows.get(&slot) {
            return Ok(Arc::clone(row));
        }
        if self.all[table].whole.is_none() {
            self.all[table].lookups += 1;
            if self.all[table].lookups > LOOKUPS_MAX {
                self.read_whole(table)?;
            }
        }
        let reader = &mut self.all[table];
        let bytes = match &reader.whole {
            None => reader.header.table.get(&slot_key(slot), self.source)?,
            // Slots are mostly dense, so that a slot stands where its number says.
            Some(whole) => match whole.get(slot.0 as usize) {
                Some((found, bytes)) if *found == slot => Some(bytes.clone()),
                _ => {
                    let at = whole.binary_search_by_key(&slot, |(slot, _)| *slot);
                    at.ok().map(|at| whole[at].1.clone())
                }
            },
        };
        let Some(bytes) = bytes else {
            return Err(self.damaged(format!("a table has no row for slot {}, which another names", slot.0)));
        };
        let row = Arc::new(PodRow::decode(&bytes, self.source)?);
        reader.rows.insert(slot, Arc::clone(&row));
        Ok(row)
    }
}

impl TableReader {
    pub(crate) const fn is_group(&self) -> bool {
        self.is_group
    }

    /// The rows that were asked for so far.
    pub(crate) fn read_rows(&self) -> impl Iterator<Item = (Slot, &Arc<PodRow>)> {
        self.rows.iter().map(|(slot, row)| (*slot, row))
    }
}
