//! [`Repository`]: the versions under one place, and the way to make more.

use crate::describe::{Description, describe, read_buffer};
use crate::diff::{Diff, diff};
use crate::error::{Error, Result};
use crate::history::{Log, Version};
use crate::options::{OpenOptions, SaveRequest};
use crate::read::{MapCheck, Pieces, PlanPods, Planner, RegionMapper, names_of, read_difference, together};
use crate::save::{Begun, Prepared, Saved};
use crate::shared::Shared;
use crate::staging::{self, Status};
use bytes::Bytes;
use chipmink_store::{
    Backend, Place, RepairReport, Store, StoreStats, SweepReport, SweepRequest, Usage, VerifyReport, Watch,
};
use chipmink_types::{BlobSource, Digest, GraphSource, LoadPlan, RegionRecord, TimeId};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How often a save is made, if sweeps take what it builds on.
const SWEPT_MAX: usize = 3;

/// An open repository. Clones are the same repository object; threads may share it.
///
/// It keeps one *base* per ref: the version that it last saved to or checked out from that ref, on which the next save
/// builds. A ref without one is continued from its newest version.
#[derive(Clone, Debug)]
pub struct Repository {
    shared: Arc<Shared>,
}

impl Repository {
    /// Opens the repository at a path or URL (see [`Place::parse`]), and creates it if there is none and the options allow.
    ///
    /// # Errors
    /// When there is none and none is to be made, the place cannot be used, or this build cannot read it.
    pub fn open(place: &str, options: OpenOptions) -> Result<Self> {
        Repository::open_place(Place::parse(place)?, options)
    }

    /// As [`Repository::open`], at a place that is understood already.
    ///
    /// # Errors
    /// As [`Repository::open`].
    pub fn open_place(place: Place, options: OpenOptions) -> Result<Self> {
        if options.staging.is_some() {
            let (store, stager) = staging::open_staged(place, &options)?;
            return Ok(Repository { shared: Arc::new(Shared::new(store, Some(stager))) });
        }
        if let Place::Shared(name) = &place {
            let backend = staging::open_shared(name, &options)?;
            return Repository::open_in(backend, options);
        }
        let store = match options.create {
            true => Store::open_or_create(place, options.store)?,
            false => Store::open(place, options.store)?,
        };
        Ok(Repository::over(store))
    }

    /// As [`Repository::open`], on any backend.
    ///
    /// # Errors
    /// As [`Repository::open`].
    pub fn open_in(backend: Backend, options: OpenOptions) -> Result<Self> {
        let store = match options.create {
            true => Store::open_or_create_in(backend, options.store)?,
            false => Store::open_in(backend, options.store)?,
        };
        Ok(Repository::over(store))
    }

    /// The repository in a store that is open already.
    pub fn over(store: Store) -> Self {
        Repository { shared: Arc::new(Shared::new(store, None)) }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The store beneath.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// What errors call the place.
    pub fn place(&self) -> &str {
        self.shared.store.label()
    }

    /// Takes hold of a ref for a save. It may have to ask the place for the newest version.
    ///
    /// # Errors
    /// When another save to the ref is running, or its newest version cannot be read.
    pub fn begin(&self, request: &SaveRequest) -> Result<Begun> {
        Begun::new(&self.shared, request)
    }

    /// Begins a save and walks `source`, whose lock the caller holds.
    ///
    /// # Errors
    /// As [`Repository::begin`], or when the walk fails.
    pub fn prepare(&self, source: &mut dyn GraphSource, request: &SaveRequest) -> Result<Prepared> {
        self.begin(request)?.walk(source)
    }

    /// Saves what `source` holds: all steps in one.
    ///
    /// # Errors
    /// When a step fails; then nothing was published, unless the error says that the outcome is unknown.
    pub fn save(&self, source: &mut dyn GraphSource, request: &SaveRequest) -> Result<Saved> {
        for _ in 1..SWEPT_MAX {
            match self.prepare(source, request)?.publish().finish(source) {
                Err(error) if error.wants_new_walk() => {}
                other => return other,
            }
        }
        self.prepare(source, request)?.publish().finish(source)
    }

    /// What is needed to load all variables of a version, or those named and what their functions read.
    ///
    /// The variables asked for come first in the plan, in the order asked for (or of the namespace); those that are only
    /// read follow them.
    ///
    /// # Errors
    /// When the version or a name is unknown, or a table is missing or damaged.
    pub fn plan(&self, time: TimeId, names: Option<&[String]>) -> Result<LoadPlan> {
        let plan = || {
            let mut planner = self.planner(time)?;
            match names {
                None => planner.add_all()?,
                Some(names) => planner.add_named(names, true)?,
            }
            planner.finish(&self.shared.descriptors)
        };
        self.of_version(time, plan())
    }

    /// As [`Repository::plan`], of exactly the variables named.
    ///
    /// # Errors
    /// As [`Repository::plan`].
    pub fn plan_only(&self, time: TimeId, names: &[String]) -> Result<LoadPlan> {
        let plan = || {
            let mut planner = self.planner(time)?;
            planner.add_named(names, false)?;
            planner.finish(&self.shared.descriptors)
        };
        self.of_version(time, plan())
    }

    /// The names given, and then those that functions reached from them read, as far as the version has them.
    ///
    /// # Errors
    /// As [`Repository::plan`].
    pub fn reads(&self, time: TimeId, names: &[String]) -> Result<Vec<String>> {
        let reads = || {
            let mut planner = self.planner(time)?;
            planner.add_named(names, true)?;
            Ok(planner.names())
        };
        self.of_version(time, reads())
    }

    /// What was found out of a version; if that failed because a sweep has dropped it meanwhile, the error that says so.
    ///
    /// # Errors
    /// As found.
    pub fn of_version<T>(&self, time: TimeId, found: Result<T>) -> Result<T> {
        if found.is_err() {
            self.shared.store.check_retained(time)?;
        }
        found
    }

    fn planner(&self, time: TimeId) -> Result<Planner<'_>> {
        Ok(Planner::new(time, self.shared.manifest(time)?, &self.shared.store))
    }

    /// What of a region differs from bytes in memory whose chunks have the digests `live`: offsets and the region's bytes,
    /// checked. `None` if it is more than half of the region.
    ///
    /// # Errors
    /// When a chunk or node is missing or damaged.
    pub fn difference(&self, region: &RegionRecord, live: &[Digest]) -> Result<Option<Pieces>> {
        Ok(read_difference(&self.shared.store, region, live)?)
    }

    /// The bytes of a plan's pods and regions.
    pub fn pods(&self, plan: &LoadPlan) -> PlanPods {
        PlanPods::new(self.shared.store.clone(), plan)
    }

    /// Maps large regions of the load of a plan instead of reading them.
    pub fn mapper(&self, plan: &LoadPlan, check: MapCheck) -> RegionMapper {
        RegionMapper::new(self.shared.store.clone(), plan, check)
    }

    /// The names of a version, in the order of the namespace.
    ///
    /// # Errors
    /// When the version is unknown or its manifest is missing or damaged.
    pub fn names(&self, time: TimeId) -> Result<Vec<String>> {
        let names = self.shared.manifest(time).and_then(|root| names_of(root, &self.shared.store));
        self.of_version(time, names)
    }

    /// The variables that must be loaded at once with a variable, so that no object of theirs is made twice: those that
    /// may share objects, or by-value classes and functions, with it. Itself is one of them.
    ///
    /// # Errors
    /// When the version or the name is unknown, or a table is missing or damaged.
    pub fn together(&self, time: TimeId, name: &str) -> Result<Vec<String>> {
        let manifest = self.shared.manifest(time);
        self.of_version(time, manifest.and_then(|root| together(time, root, name, &self.shared.store)))
    }

    /// The versions, newest first, with those that others have published by now.
    ///
    /// # Errors
    /// When the place fails.
    pub fn log(&self) -> Result<Log> {
        self.shared.store.refresh()?;
        Ok(Log::new(self.shared.store.clone()))
    }

    /// A version, as its commit describes it.
    ///
    /// # Errors
    /// When there is no such version, or it is damaged.
    pub fn version(&self, time: TimeId) -> Result<Version> {
        let entry = self.shared.store.entry(time)?;
        let commit = self.shared.store.commit(time)?;
        let ref_name = entry.refs.first().map_or_else(String::new, |change| change.name.clone());
        Version::read(time, ref_name, commit, &self.shared.store)
    }

    /// The newest version of each ref, with those that others have published by now.
    ///
    /// # Errors
    /// When the place fails.
    pub fn refs(&self) -> Result<BTreeMap<String, TimeId>> {
        self.shared.store.refresh()?;
        let refs = self.shared.store.head().refs;
        Ok(refs.into_iter().map(|(name, target)| (name, target.time)).collect())
    }

    /// The newest version of a ref.
    ///
    /// # Errors
    /// When there is no such ref, or the place fails.
    pub fn newest(&self, ref_name: &str) -> Result<TimeId> {
        self.refs()?
            .get(ref_name)
            .copied()
            .ok_or_else(|| Error::UnknownRef { place: self.place().to_owned(), name: ref_name.to_owned() })
    }

    /// Which variables differ between two versions. Nothing is loaded.
    ///
    /// # Errors
    /// When a version is unknown, or a manifest is missing or damaged.
    pub fn diff(&self, before: TimeId, after: TimeId) -> Result<Diff> {
        let roots = self.shared.manifest(before).and_then(|root| Ok((root, self.shared.manifest(after)?)));
        let found = roots.and_then(|(before, after)| diff(before, after, &self.shared.store));
        self.of_version(before, self.of_version(after, found))
    }

    /// The version that the next save to a ref builds on, if this object saved it or checked it out.
    pub fn base(&self, ref_name: &str) -> Option<TimeId> {
        self.shared.base(ref_name)
    }

    /// Makes a version the base of a ref, after a checkout: the next save continues from it, wherever the ref points at
    /// this moment, and lets its source start anew if it knows another version. So it also resolves [`crate::ErrorKind::RefMoved`].
    ///
    /// # Errors
    /// When the version is unknown or damaged, or a save to the ref is running.
    pub fn set_base(&self, ref_name: &str, time: TimeId) -> Result<()> {
        self.shared.set_base(ref_name, time)
    }

    /// Any blob, checked against its digest.
    ///
    /// # Errors
    /// When it is missing or damaged.
    pub fn blob(&self, digest: &Digest) -> Result<Bytes> {
        Ok(self.shared.store.get(digest)?)
    }

    /// What a version holds, as its tables say, in the order of the namespace.
    ///
    /// # Errors
    /// When the version is unknown, or a table is missing or damaged.
    pub fn describe(&self, time: TimeId) -> Result<Vec<(String, Description)>> {
        let manifest = self.shared.manifest(time);
        self.of_version(time, manifest.and_then(|root| describe(root, &self.shared.store)))
    }

    /// Gives the bytes of a region to `take`, piece by piece. `root` is that of its digest tree.
    ///
    /// # Errors
    /// When it is no such root, a chunk is missing or damaged, or `take` fails.
    pub fn read_buffer(&self, root: Digest, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<()> {
        read_buffer(root, &self.shared.store, take)
    }

    /// What is staged and what is durable. Without a staging tier everything is durable.
    ///
    /// # Errors
    /// When the staging tier fails.
    pub fn status(&self) -> Result<Status> {
        match &self.shared.stager {
            Some(stager) => stager.status(),
            None => Ok(Status::durable(self.shared.store.head().number)),
        }
    }

    /// Waits until a version that this object staged is durable, at most so long; whether it is.
    ///
    /// # Errors
    /// When it cannot be made durable at this moment, or was published under another number or ref because others have
    /// published below.
    pub fn wait_durable(&self, time: TimeId, at_most: Duration) -> Result<bool> {
        let Some(stager) = &self.shared.stager else { return Ok(true) };
        Ok(stager.wait(time, at_most)?
            && stager.check(time, self.shared.place(time)?.commit).map(|()| true)?)
    }

    /// Waits until nothing is staged any more, at most so long; whether that is so.
    ///
    /// # Errors
    /// When something cannot be made durable at this moment.
    pub fn wait_all_durable(&self, at_most: Duration) -> Result<bool> {
        self.shared.stager.as_ref().map_or(Ok(true), |stager| stager.wait_all(at_most))
    }

    /// What has gone wrong in the background, each failure once.
    pub fn take_background_failure(&self) -> Option<Error> {
        self.shared.stager.as_ref()?.take_failure()
    }

    /// Ends the background work; what is staged stays staged.
    pub fn stop_staging(&self) {
        if let Some(stager) = &self.shared.stager {
            stager.stop();
        }
    }

    /// Drops versions and gives back the room of what nothing reaches any more, while others go on saving. With a staging
    /// tier it first waits until everything is durable, and saves of this object wait for it.
    ///
    /// # Errors
    /// When a version that is to stay cannot be read in full, the place fails, or others publish all the time.
    pub fn sweep(&self, request: &SweepRequest) -> Result<SweepReport> {
        match &self.shared.stager {
            Some(stager) => stager.sweep(&self.shared.store, request),
            None => Ok(self.shared.store.sweep(request)?),
        }
    }

    /// Checks the repository against itself: every byte that versions reach if `full`, else tables and whereabouts.
    ///
    /// # Errors
    /// When the root log cannot be read; other damage is in the report.
    pub fn verify(&self, full: bool) -> Result<VerifyReport> {
        Ok(self.shared.store.verify(full)?)
    }

    /// Replaces what is damaged by what is whole: from the place itself, or from a mirror that holds the same versions.
    ///
    /// # Errors
    /// When the root log cannot be read, or a place fails; what cannot be repaired is in the report.
    pub fn repair(&self, mirror: Option<&Repository>, watch: &mut Watch<'_>) -> Result<RepairReport> {
        Ok(self.shared.store.repair(mirror.map(Repository::store), watch)?)
    }

    /// How much there is.
    ///
    /// # Errors
    /// When the log, or the index of a pack, cannot be read.
    pub fn stats(&self) -> Result<StoreStats> {
        Ok(self.shared.store.stats()?)
    }

    /// What the variables of a version take, and how much of that is their own; those that share objects are one.
    ///
    /// # Errors
    /// When the version is unknown, or its manifest is missing or damaged.
    pub fn variable_usage(&self, time: TimeId) -> Result<Vec<Usage<Vec<String>>>> {
        Ok(self.shared.store.variable_usage(time)?)
    }

    /// What each version takes, and how much of that no other version needs, newest first.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn version_usage(&self) -> Result<Vec<Usage<TimeId>>> {
        Ok(self.shared.store.version_usage()?)
    }
}
