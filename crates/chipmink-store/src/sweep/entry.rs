//! The entry of a sweep.

use super::plan::Plan;
use super::rewrite::OwnPacks;
use crate::entry_creation::begin_entry;
use crate::error::Result;
use crate::inner::Inner;
use crate::log::Log;
use crate::random;
use chipmink_format::{FEATURE_SWEPT, LeaseChange, PackName, RefChange, RefMove, RootEntry};
use chipmink_types::{TimeId, WriteId};
use hashbrown::HashSet;

/// What the entry says, beside the packs of the plan.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) orphans: Vec<PackName>,
    pub(super) floor: TimeId,
    /// Versions to drop: first and last number of each range.
    pub(super) dropped: Vec<(TimeId, TimeId)>,
    /// Refs that go.
    pub(super) refs: Vec<String>,
    /// Leases that ran out.
    pub(super) leases: Vec<[u8; 16]>,
    /// Packs that entries up to here have condemned are gone.
    pub(super) deleted_through: Option<TimeId>,
}

impl Content {
    /// Whether there is anything to publish.
    pub(super) fn is_due(&self, plan: &Plan) -> bool {
        !plan.condemned.is_empty()
            || !self.orphans.is_empty()
            || !self.dropped.is_empty()
            || !self.refs.is_empty()
            || self.deleted_through.is_some()
    }
}

/// The entry that follows the head of `log`, which all before it were synced through.
pub(super) fn entry(
    inner: &Inner,
    log: &Log,
    plan: &Plan,
    content: &Content,
    own: &OwnPacks,
    synced: TimeId,
) -> Result<RootEntry> {
    let write_id = WriteId(random::bytes());
    let mut entry = begin_entry(inner, log, write_id, Some(synced), inner.options.durable)?;
    entry.requirements.for_writing |= FEATURE_SWEPT;
    entry.floor = content.floor.max(log.state.floor);
    let used: HashSet<PackName> = plan.used.iter().copied().collect();
    let own_state = own.state.filter(|state| used.contains(&state.pack));
    // Of equal ones the last, which is the own: another's pack may be among those that go.
    entry.state = log.place.into_iter().chain(own_state).max_by_key(|place| place.covers);
    entry.refs =
        content.refs.iter().map(|name| RefChange { name: name.clone(), to: RefMove::Deleted }).collect();
    let packs = || own.sealed.iter().filter(|pack| used.contains(&pack.info.name));
    entry.packs_added = packs().map(|pack| pack.info).collect();
    entry.packs_condemned = plan.condemned.iter().chain(&content.orphans).copied().collect();
    let gone: HashSet<PackName> = entry.packs_condemned.iter().copied().collect();
    // A merge of packs of which one is covered elsewhere or gone by now would name blobs twice or in vain.
    let staying = log.state.segments.iter().filter(|segment| !gone.contains(&segment.pack));
    let covered: HashSet<PackName> = staying.flat_map(|segment| segment.covers.iter().copied()).collect();
    let live: HashSet<PackName> = log.state.packs.iter().map(|pack| pack.name).collect();
    let is_free = |name: &PackName| live.contains(name) && !gone.contains(name) && !covered.contains(name);
    let segments = packs().flat_map(|pack| &pack.segments);
    entry.segments_added = segments.filter(|segment| segment.covers.iter().all(is_free)).cloned().collect();
    entry.leases = content.leases.iter().map(|id| LeaseChange::Released(*id)).collect();
    if !content.dropped.is_empty() {
        entry.set_dropped(&content.dropped);
    }
    if let Some(through) = content.deleted_through {
        entry.set_deleted_through(through);
    }
    Ok(entry)
}
