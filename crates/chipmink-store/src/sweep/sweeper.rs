//! One sweep, from the look at the log to the last deletion.

use super::catalog::Catalog;
use super::clock::Clock;
use super::entry::{Content, entry};
use super::history::History;
use super::mark::{Marker, unreadable};
use super::orphans::{self, Listing, Orphans};
use super::plan::{Plan, Situation};
use super::report::{SweepReport, SweepRequest};
use super::rewrite::{self, OwnPacks};
use crate::entry_creation::{Outcome, create_entry};
use crate::error::{Result, StoreError};
use crate::generations::DigestSet;
use crate::inner::Inner;
use crate::log::{Log, ReadEntry};
use bytes::Bytes;
use chipmink_digest::digest;
use chipmink_format::{PackName, root_path};
use chipmink_types::TimeId;
use hashbrown::{HashMap, HashSet};
use std::collections::BTreeSet;

/// How often others may publish while a sweep is being prepared before it gives up.
const ATTEMPTS: usize = 100;
/// A root state is written anew, so that its pack can go, if that gives back so many times its bytes.
const STATE_WORTH: u64 = 16;

/// Sweeps; see [`super`].
pub(crate) fn sweep(inner: &Inner, request: &SweepRequest) -> Result<SweepReport> {
    if inner.backend.is_staged() {
        let reason = "it stands in front of another place; sweep that one".to_owned();
        return Err(StoreError::Unsweepable { place: inner.backend.label().to_owned(), reason });
    }
    inner.refresh_checked()?;
    if !request.dry_run {
        inner.check_writable()?;
        check_may_write(inner)?;
    }
    let mut sweeper = Sweeper {
        inner,
        request,
        clock: if request.dry_run { Clock::of_this_machine() } else { Clock::read(inner)? },
        history: History::default(),
        catalog: Catalog::default(),
        marker: Marker::new(inner),
        marked: BTreeSet::new(),
        newest: DigestSet::default(),
        own: OwnPacks::default(),
        wrote: false,
    };
    let swept = sweeper.run();
    if swept.is_err() {
        // Packs that were published are named by now; the others are nobody's.
        let named = inner.log().state.packs.iter().map(|pack| pack.name).collect();
        if !matches!(swept, Err(StoreError::OutcomeUnknown { .. })) {
            sweeper.own.remove_without(inner, &named);
        }
    }
    swept
}

fn check_may_write(inner: &Inner) -> Result<()> {
    let log = inner.log();
    log.requirements.check_write("repository").map_err(|source| StoreError::Format {
        place: inner.backend.label().to_owned(),
        object: root_path(log.head.number),
        source,
    })
}

struct Sweeper<'a> {
    inner: &'a Inner,
    request: &'a SweepRequest,
    clock: Clock,
    history: History,
    catalog: Catalog,
    marker: Marker<'a>,
    /// Versions that were marked.
    marked: BTreeSet<TimeId>,
    /// Blobs of the newest version.
    newest: DigestSet,
    own: OwnPacks,
    /// Own packs were written, or there was no need: nothing is moved any more.
    wrote: bool,
}

/// What is to be published on top of one entry.
struct Draft {
    log: Log,
    plan: Plan,
    content: Content,
    versions_dropped: Vec<TimeId>,
    versions_kept: u64,
}

/// What was condemned and may be deleted.
#[derive(Default)]
struct Due {
    packs: Vec<PackName>,
    /// Everything that entries up to this one condemned is among them.
    through: Option<TimeId>,
}

impl Sweeper<'_> {
    fn run(&mut self) -> Result<SweepReport> {
        let mut listing = orphans::list(self.inner)?;
        let mut report = SweepReport { is_dry_run: self.request.dry_run, ..SweepReport::default() };
        let log = self.inner.log().clone();
        let due = self.due(&log)?;
        if !self.request.dry_run {
            // What an earlier sweep condemned was published by an entry that may not be durable yet.
            self.inner.sync_all()?;
        }
        self.delete(&due.packs, &mut listing, &mut report)?;
        for _ in 0..ATTEMPTS {
            let head = self.inner.log().head.number;
            let draft = match self.prepare(&listing, due.through) {
                Ok(draft) => draft,
                Err(error) => {
                    self.inner.refresh()?;
                    if self.inner.log().head.number == head {
                        return Err(error);
                    }
                    // Another sweep may have taken what was being read. What was marked by then is not whole.
                    self.marker = Marker::new(self.inner);
                    self.marked.clear();
                    continue;
                }
            };
            if self.request.dry_run {
                self.tell(&draft, &listing, &mut report);
                let condemned = draft.condemned();
                if self.request.grace.is_zero() {
                    self.delete(&condemned, &mut listing, &mut report)?;
                }
                self.tell_waiting(&draft.log, &condemned, &listing, &mut report);
                return Ok(report);
            }
            let published = match draft.content.is_due(&draft.plan) {
                true => self.publish(&draft)?,
                false => Some(None),
            };
            let Some(entry) = published else { continue };
            report.entry = entry;
            let named = self.inner.log().state.packs.iter().map(|pack| pack.name).collect();
            self.own.remove_without(self.inner, &named);
            self.tell(&draft, &listing, &mut report);
            let condemned = if entry.is_some() { draft.condemned() } else { Vec::new() };
            if self.request.grace.is_zero() && !condemned.is_empty() {
                self.inner.sync_all()?;
                self.delete(&condemned, &mut listing, &mut report)?;
            }
            self.tell_waiting(&draft.log, &condemned, &listing, &mut report);
            return Ok(report);
        }
        Err(StoreError::Outrun { place: self.inner.backend.label().to_owned(), attempts: ATTEMPTS })
    }

    /// Plans, and writes own packs if blobs must be moved.
    fn prepare(&mut self, listing: &Listing, deleted_through: Option<TimeId>) -> Result<Draft> {
        self.drop_old_packs();
        let draft = self.draft(listing, deleted_through)?;
        if self.wrote || self.request.dry_run {
            return Ok(draft);
        }
        let has_written = self.write_own(&draft)?;
        self.wrote = true;
        if !has_written {
            return Ok(draft);
        }
        // The plan of what is left to do, now that blobs lie elsewhere too. They count from where they were planned on: what
        // others publish meanwhile is found out when this is to be published.
        self.draft_on(draft.log, listing, deleted_through)
    }

    /// Gives up own packs if one was begun below the floor: another sweep may have condemned it.
    fn drop_old_packs(&mut self) {
        let floor = self.inner.log().state.floor;
        if self.own.sealed.iter().any(|pack| pack.info.born < floor) {
            self.own.remove_without(self.inner, &HashSet::new());
            self.catalog.forget(&self.own.names());
            self.own = OwnPacks::default();
            self.wrote = false;
        }
    }

    /// What was condemned so long ago that it may be deleted.
    fn due(&self, log: &Log) -> Result<Due> {
        let mut by_entry: HashMap<TimeId, Vec<PackName>> = HashMap::new();
        for (name, by) in &log.state.condemned {
            by_entry.entry(*by).or_default().push(*name);
        }
        let mut entries: Vec<TimeId> = by_entry.keys().copied().collect();
        entries.sort_unstable();
        let (mut due, mut all) = (Due::default(), true);
        for by in entries {
            let modified_at = self.inner.backend.modified_at(&root_path(by))?;
            // An entry that is gone was deleted from outside; what it condemned stays condemned.
            let is_due = modified_at.is_none_or(|then| self.clock.is_past(then, self.request.grace));
            all &= is_due;
            if is_due {
                due.packs.extend(by_entry.remove(&by).unwrap_or_default());
            }
            if all {
                due.through = Some(by);
            }
        }
        Ok(due)
    }

    /// Deletes packs that are there, or says that it would.
    fn delete(&self, packs: &[PackName], listing: &mut Listing, report: &mut SweepReport) -> Result<()> {
        let mut paths = Vec::new();
        for object in packs.iter().filter_map(|name| listing.remove(name)) {
            report.packs_deleted += 1;
            report.freed_bytes += object.byte_len;
            paths.push(object.path);
        }
        if self.request.dry_run { Ok(()) } else { self.inner.backend.delete_all(&paths) }
    }

    /// Looks at the log as it is now, and plans what is to be published on top of it.
    fn draft(&mut self, listing: &Listing, deleted_through: Option<TimeId>) -> Result<Draft> {
        let log = self.inner.log().clone();
        self.draft_on(log, listing, deleted_through)
    }

    fn draft_on(&mut self, log: Log, listing: &Listing, deleted_through: Option<TimeId>) -> Result<Draft> {
        self.history.update(self.inner, &log)?;
        self.catalog.update(self.inner, &log)?;
        let now = self.clock.now();
        let held = log.state.leases.iter().filter(|lease| lease.expires_at > now).map(|lease| lease.holds);
        let held: Vec<TimeId> = held.collect();
        let retention = &self.request.retention;
        let decision = retention.decide(&self.history, &log.state.refs, &held, now);
        let kept = match retention.max_bytes {
            Some(max) => self.fitting(&log, &decision.always, decision.kept, max)?,
            None => decision.kept,
        };
        self.mark(&kept)?;
        let packs: Vec<PackName> = log.state.packs.iter().map(|pack| pack.name).collect();
        let own = self.own.names();
        let mut needed = HashSet::new();
        let place = log.place.filter(|place| self.own.state.is_none_or(|own| own.covers < place.covers));
        // Until a newer root state is written, the pack of this one stays.
        needed.extend(place.map(|place| place.pack));
        if let Some(worth) = place.filter(|_| !self.wrote)
            && let Some(pack) = self.catalog.pack(&worth.pack)
            && pack.info.byte_len / STATE_WORTH > worth.stored_len
        {
            needed.clear();
        }
        let situation = Situation {
            catalog: &self.catalog,
            live: self.marker.live(),
            packs: &packs,
            own: &own,
            needed: &needed,
            newest: &self.newest,
            max_bytes: retention.max_bytes,
            can_move: !self.wrote,
        };
        let mut plan = situation.plan();
        if let Some(missing) = plan.missing {
            let newest = log.head.number;
            return Err(unreadable(
                self.inner,
                newest,
                format!("or one before it: no pack holds blob {missing}"),
            ));
        }
        // A state that others read from here on needs its pack, whatever else is in it.
        if let Some(own) = self.own.state.filter(|own| place.is_none_or(|place| own.covers >= place.covers))
            && !plan.used.contains(&own.pack)
        {
            plan.used.push(own.pack);
        }
        let Orphans { condemned: orphans, floor } =
            orphans::find(self.inner, &log, listing, &own, &self.clock, self.request.grace)?;
        let (dropped, versions_dropped) = self.history.ranges_without(&kept);
        let gone: HashSet<TimeId> = versions_dropped.iter().copied().collect();
        let refs = log.state.refs.iter().filter(|(_, target)| gone.contains(&target.time));
        let clears = |through: &TimeId| log.state.condemned.iter().any(|(_, by)| by <= through);
        let expired = log.state.leases.iter().filter(|lease| lease.expires_at <= now);
        let content = Content {
            orphans,
            floor,
            dropped,
            refs: refs.map(|(name, _)| name.clone()).collect(),
            leases: expired.map(|lease| lease.id).collect(),
            deleted_through: deleted_through.filter(clears),
        };
        let versions_kept = (self.history.versions().count() - versions_dropped.len()) as u64;
        Ok(Draft { log, plan, content, versions_dropped, versions_kept })
    }

    /// Marks versions, the newest first.
    fn mark(&mut self, kept: &BTreeSet<TimeId>) -> Result<()> {
        if !self.marked.is_subset(kept) {
            // Another sweep has dropped what was marked: nobody keeps its blobs any more.
            self.marker = Marker::new(self.inner);
            self.marked.clear();
        }
        for version in self.history.versions().rev().filter(|version| kept.contains(&version.time)) {
            if !self.marked.insert(version.time) {
                continue;
            }
            self.marker.version(version)?;
            if self.marked.len() == 1 {
                self.newest = self.marker.live().clone();
            }
        }
        self.catalog.mark_bases(&mut self.marker);
        Ok(())
    }

    /// Of the versions that the rules keep, the newest that fit into so many bytes.
    fn fitting(
        &self,
        log: &Log,
        always: &BTreeSet<TimeId>,
        kept: BTreeSet<TimeId>,
        max_bytes: u64,
    ) -> Result<BTreeSet<TimeId>> {
        let packs: Vec<PackName> = log.state.packs.iter().map(|pack| pack.name).collect();
        let lens = self.catalog.stored_lens(&packs);
        // A marker of its own: what does not fit must not stay marked.
        let mut marker = Marker::new(self.inner);
        let mut total = 0u64;
        let mut fitting = always.clone();
        let versions: Vec<_> = self.history.versions().collect();
        let first = versions.iter().filter(|version| always.contains(&version.time));
        let then = versions.iter().rev();
        let then = then.filter(|version| kept.contains(&version.time) && !always.contains(&version.time));
        for (is_free, version) in
            first.map(|version| (false, version)).chain(then.map(|version| (true, version)))
        {
            marker.version(version)?;
            self.catalog.mark_bases(&mut marker);
            let new = marker.take_new();
            total += new.iter().map(|digest| lens.get(digest).copied().unwrap_or(0)).sum::<u64>();
            if is_free {
                if total > max_bytes {
                    break;
                }
                fitting.insert(version.time);
            }
        }
        Ok(fitting)
    }

    /// Writes own packs if the plan wants that; whether it did.
    fn write_own(&mut self, draft: &Draft) -> Result<bool> {
        let Draft { log, plan, .. } = draft;
        let goes = |name: &PackName| {
            plan.condemned.contains(name) || plan.moved.iter().any(|(moved, _)| moved == name)
        };
        let with_state = log.place.is_some_and(|place| goes(&place.pack));
        self.own = rewrite::write(self.inner, log, &self.catalog, plan, with_state)?;
        for pack in &self.own.sealed {
            self.catalog.add_own(pack.info, &pack.rows);
        }
        Ok(!self.own.sealed.is_empty())
    }

    /// Publishes a draft. `None`: somebody else has published meanwhile.
    fn publish(&mut self, draft: &Draft) -> Result<Option<Option<TimeId>>> {
        let inner = self.inner;
        let mut turn = inner.publishing();
        loop {
            inner.refresh_checked()?;
            if inner.log().head != draft.log.head {
                return Ok(None);
            }
            // Deletion builds on what is published here, so nothing before it may be lost in a power cut.
            let synced = inner.sync_all()?;
            let log = inner.log().clone();
            let entry = entry(inner, &log, &draft.plan, &draft.content, &self.own, synced)?;
            let bytes = Bytes::from(entry.encode());
            match create_entry(inner, &mut turn, &entry, &bytes, log.state.conditional_writes)? {
                Outcome::Won => {
                    let number = entry.number;
                    inner.take(&ReadEntry { entry, digest: digest(&bytes) })?;
                    return Ok(Some(Some(number)));
                }
                Outcome::Lost { read, .. } => {
                    inner.take_winners(&read, entry.repository)?;
                    return Ok(None);
                }
                Outcome::Spent => inner.note_void(entry.number),
            }
        }
    }

    /// Says what a draft does.
    fn tell(&self, draft: &Draft, listing: &Listing, report: &mut SweepReport) {
        let bytes = |names: &[PackName]| -> u64 {
            names.iter().filter_map(|name| listing.get(name)).map(|object| object.byte_len).sum()
        };
        let Draft { plan, content, .. } = draft;
        let condemned = draft.condemned();
        report.versions_dropped.clone_from(&draft.versions_dropped);
        report.versions_kept = draft.versions_kept;
        report.refs_deleted.clone_from(&content.refs);
        report.orphans_condemned = content.orphans.len() as u64;
        report.packs_condemned = condemned.len() as u64 - report.orphans_condemned;
        report.condemned_bytes = bytes(&condemned);
        report.moved_bytes = plan.moved_bytes;
        report.kept_bytes = plan.kept_bytes;
    }

    fn tell_waiting(&self, log: &Log, condemned: &[PackName], listing: &Listing, report: &mut SweepReport) {
        let earlier = log.state.condemned.iter().map(|(name, _)| name);
        // What was deleted has left the listing.
        for object in earlier.chain(condemned).filter_map(|name| listing.get(name)) {
            report.packs_waiting += 1;
            report.waiting_bytes += object.byte_len;
        }
    }
}

impl Draft {
    /// All packs that go.
    fn condemned(&self) -> Vec<PackName> {
        let moved = self.plan.moved.iter().map(|(name, _)| name);
        self.plan.condemned.iter().chain(moved).chain(&self.content.orphans).copied().collect()
    }
}
