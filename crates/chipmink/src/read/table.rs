//! Tables of one version, read as far as they are needed.

use crate::error::{Error, Result};
use bytes::Bytes;
use chipmink_format::{Covariable, CovariableRef, PodRow, parse_slot_key, slot_key};
use chipmink_types::{BlobSource, Digest, Slot, TimeId};
use hashbrown::HashMap;

/// Rows that are looked up one by one at least, and the share of a table up to which more are: a look-up decodes a leaf
/// of some forty rows.
const LOOKUPS_MIN: u64 = 64;
const LOOKUPS_SHARE: u64 = 16;

/// One table of a version, with the rows that were asked for.
#[derive(Debug)]
pub(crate) struct TableReader {
    pub(crate) header: Covariable,
    /// The rows that were asked for, as they were asked for.
    pub(crate) rows: Vec<(Slot, PodRow)>,
    places: Places,
    /// Tables of the groups that the header names, where they were needed.
    groups: Vec<Option<usize>>,
    /// Look-ups after which the whole table is read.
    lookups_max: u64,
    is_group: bool,
}

/// Which of the rows each slot is.
#[derive(Debug)]
enum Places {
    /// Of rows that were looked up one by one.
    Few(HashMap<Slot, usize>),
    /// Of the whole table, by slot: encoded row, and its place among the decoded ones.
    Whole(Vec<(Slot, Bytes, Option<u32>)>),
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

    pub(crate) fn all_mut(&mut self) -> &mut [TableReader] {
        &mut self.all
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
        let reader = &self.all[table];
        let known = reader.groups.get(ordinal as usize).copied().flatten();
        if let Some(group) = known {
            return Ok(group);
        }
        let Some(digest) = reader.header.groups.get(ordinal as usize).copied() else {
            return Err(
                self.damaged(format!("a row names definition group {ordinal}, which its table lacks"))
            );
        };
        let group = self.group_table(digest)?;
        self.all[table].groups[ordinal as usize] = Some(group);
        Ok(group)
    }

    /// The ordinal of the table of a definition group.
    pub(crate) fn group_table(&mut self, digest: Digest) -> Result<usize> {
        let source = self.source;
        self.open(digest, || Covariable::load(&digest, source), true)
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
        let groups = vec![None; header.groups.len()];
        let places = Places::Few(HashMap::new());
        let lookups_max = LOOKUPS_MIN;
        self.all.push(TableReader { header, rows: Vec::new(), places, groups, lookups_max, is_group });
        self.by_digest.insert(digest, self.all.len() - 1);
        Ok(self.all.len() - 1)
    }

    /// Reads all rows of a table at once.
    pub(crate) fn read_whole(&mut self, table: usize) -> Result<()> {
        let reader = &mut self.all[table];
        let Places::Few(few) = &reader.places else { return Ok(()) };
        let mut whole = Vec::new();
        for (key, value) in reader.header.table.rows(self.source)? {
            let slot = parse_slot_key(&key)?;
            whole.push((slot, value, few.get(&slot).map(|at| *at as u32)));
        }
        reader.rows.reserve(whole.len() - few.len().min(whole.len()));
        reader.places = Places::Whole(whole);
        Ok(())
    }

    /// The place of a pod's row among the table's rows, and whether it was asked for the first time.
    pub(crate) fn row(&mut self, table: usize, slot: Slot) -> Result<(usize, bool)> {
        if self.all[table].wants_whole(slot) {
            let max = self.all[table].header.table.row_count(self.source)? / LOOKUPS_SHARE;
            self.all[table].lookups_max = max.max(LOOKUPS_MIN);
            if self.all[table].wants_whole(slot) {
                self.read_whole(table)?;
            }
        }
        let TableReader { header, rows, places, .. } = &mut self.all[table];
        let next = rows.len();
        match places {
            Places::Few(few) => {
                if let Some(at) = few.get(&slot) {
                    return Ok((*at, false));
                }
                let Some(bytes) = header.table.get(&slot_key(slot), self.source)? else {
                    return Err(self.no_row(slot));
                };
                rows.push((slot, PodRow::decode(&bytes, self.source)?));
                few.insert(slot, next);
            }
            Places::Whole(whole) => {
                // Slots are mostly dense, so that a slot stands where its number says.
                let at = match whole.get(slot.0 as usize) {
                    Some((found, ..)) if *found == slot => Some(slot.0 as usize),
                    _ => whole.binary_search_by_key(&slot, |(slot, ..)| *slot).ok(),
                };
                let Some((_, bytes, place)) = at.map(|at| &mut whole[at]) else {
                    return Err(self.no_row(slot));
                };
                if let Some(place) = place {
                    return Ok((*place as usize, false));
                }
                rows.push((slot, PodRow::decode(bytes, self.source)?));
                // A table has at most 2^32 rows. The encoded row is not needed again.
                (*bytes, *place) = (Bytes::new(), Some(next as u32));
            }
        }
        Ok((next, true))
    }

    fn no_row(&self, slot: Slot) -> Error {
        self.damaged(format!("a table has no row for slot {}, which another names", slot.0))
    }

    /// The ordinal of a table that was opened.
    pub(crate) fn opened(&self, digest: &Digest) -> Option<usize> {
        self.by_digest.get(digest).copied()
    }
}

impl TableReader {
    /// Whether so many rows were looked up that another look-up costs more than the whole table.
    fn wants_whole(&self, slot: Slot) -> bool {
        match &self.places {
            Places::Few(few) => few.len() as u64 >= self.lookups_max && !few.contains_key(&slot),
            Places::Whole(_) => false,
        }
    }

    pub(crate) const fn is_group(&self) -> bool {
        self.is_group
    }
}
