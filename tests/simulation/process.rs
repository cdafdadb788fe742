//! [`Process`]: one process at work. It saves, branches, tags, loads, verifies, sweeps, reopens, and dies.

use crate::books::{Books, Saved, Told, told};
use chipmink::{Error, OpenOptions, Repository};
use chipmink_store::{
    Backend, PackTransaction, Publication, Retention, StoreError, StoreOptions, SweepRequest,
};
use chipmink_testkit::toy::{self, Namespace, REF};
use chipmink_testkit::{Link, Network, Random};
use chipmink_types::TimeId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What became of the things a process did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) published: u64,
    pub(crate) failed: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
    pub(crate) deaths: u64,
    pub(crate) silent_creates: u64,
    pub(crate) loads: u64,
    pub(crate) dropped: u64,
    pub(crate) packs_deleted: u64,
}

pub(crate) struct Process {
    name: usize,
    network: Network,
    link: Link,
    options: StoreOptions,
    books: Arc<Mutex<Books>>,
    random: Random,
    repository: Option<Repository>,
    /// What this process believes that a ref holds.
    known: HashMap<String, Namespace>,
    /// A ref that only this process saves to.
    own_ref: String,
    made: u64,
    /// Whether it sweeps now and then.
    sweeps: bool,
    counts: Counts,
}

impl Process {
    pub(crate) fn new(
        name: usize,
        network: &Network,
        sweeps: bool,
        options: StoreOptions,
        books: &Arc<Mutex<Books>>,
        seed: u64,
    ) -> Self {
        Process {
            name,
            network: network.clone(),
            link: network.link(),
            options,
            books: Arc::clone(books),
            random: Random::new(seed),
            repository: None,
            known: HashMap::new(),
            own_ref: format!("own-{name}"),
            made: 0,
            sweeps,
            counts: Counts::default(),
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    /// Does so many things.
    pub(crate) fn work(mut self, steps: usize) -> Counts {
        for _ in 0..steps {
            let before = self.link.troubles();
            let what = self.step();
            let after = self.link.troubles();
            self.counts.silent_creates += after.silent_creates - before.silent_creates;
            if self.link.is_dead() {
                self.counts.deaths += 1;
                self.repository = None;
                self.link = self.network.link();
            } else if let (Err(problem), true) = (what, before.all == after.all) {
                self.books().problem(format!("process {} met no trouble, and {problem}", self.name));
            }
        }
        self.counts
    }

    /// Does something. What went wrong must have a cause.
    fn step(&mut self) -> Result<(), String> {
        let Some(repository) = self.repository.clone() else { return self.open() };
        match self.random.below(if self.sweeps { 23 } else { 20 }) {
            0..10 => self.save(&repository),
            10..12 => self.make_ref(&repository),
            12 => self.delete_ref(&repository),
            13..16 => self.load(&repository),
            16 => {
                repository.store().refresh().map_err(|error| format!("looking for entries failed: {error}"))
            }
            17 => self.verify(&repository),
            18 => {
                repository.store().clear_caches();
                Ok(())
            }
            19 => {
                self.repository = None;
                self.open()
            }
            _ => self.sweep(&repository),
        }
    }

    fn open(&mut self) -> Result<(), String> {
        let backend = Backend::remote(Arc::new(self.link.clone()), "sim://place");
        let options = OpenOptions { store: self.options.clone(), ..OpenOptions::default() };
        let opened =
            Repository::open_in(backend, options).map_err(|error| format!("opening failed: {error}"))?;
        self.repository = Some(opened);
        Ok(())
    }

    fn value(&mut self) -> Vec<u8> {
        match self.random.below(8) {
            // Few enough that the same content comes again, in another version or from another process.
            0..4 => {
                let which = self.random.below(6) as u64;
                Random::new(which).bytes(300)
            }
            4..7 => self.random.bytes(200),
            _ => {
                let which = self.random.below(3) as u64;
                let mut bytes = Random::new(100 + which).bytes(66_000);
                bytes[self.random.below(66_000)] ^= 1;
                bytes
            }
        }
    }

    fn change(&mut self, namespace: &mut Namespace) {
        for _ in 0..1 + self.random.below(3) {
            let name = format!("v{}", self.random.below(5));
            if self.random.below(6) == 0 {
                namespace.remove(&name);
            } else {
                let value = self.value();
                namespace.insert(name, value);
            }
        }
    }

    fn save(&mut self, repository: &Repository) -> Result<(), String> {
        let ref_name = if self.random.below(3) == 0 { self.own_ref.clone() } else { REF.to_owned() };
        let mut namespace = self.known.get(&ref_name).cloned().unwrap_or_default();
        self.change(&mut namespace);
        self.made += 1;
        let message = format!("{}-{}", self.name, self.made);
        let store = repository.store();
        let mut transaction = store.begin();
        let written = toy::write(store, &mut transaction, &namespace, &message);
        let saved = Saved { namespace: namespace.clone(), ref_name: ref_name.clone(), told: Told::Unknown };
        self.books().saved.insert(message.clone(), saved);
        let publication = match written {
            Ok(publication) => publication,
            Err(error) => return self.failed(&message, &error),
        };
        let publication = aimed(repository, publication, &ref_name);
        let published = self.publish(repository, &mut transaction, publication, &message);
        match published {
            Ok((time, ref_name)) => {
                self.counts.published += 1;
                let mut books = self.books();
                let saved = books.saved.get_mut(&message).unwrap();
                saved.told = Told::Published(time);
                saved.ref_name = ref_name.clone();
                drop(books);
                self.known.insert(ref_name, namespace);
                Ok(())
            }
            Err(error) => self.failed(&message, &error),
        }
    }

    /// Publishes; a ref that has moved is followed, or left alone.
    fn publish(
        &mut self,
        repository: &Repository,
        transaction: &mut PackTransaction,
        publication: Publication,
        message: &str,
    ) -> Result<(TimeId, String), StoreError> {
        let error = match transaction.publish(&publication) {
            Ok(time) => return Ok((time, publication.ref_name)),
            Err(error @ StoreError::RefMoved { .. }) => error,
            Err(error) => return Err(error),
        };
        self.counts.refused += 1;
        let again = match self.random.below(3) {
            0 => return Err(error),
            1 => aimed(repository, publication, REF),
            _ => Publication { ref_name: format!("beside-{message}"), expected: None, ..publication },
        };
        transaction.publish(&again).map(|time| (time, again.ref_name))
    }

    fn failed(&mut self, message: &str, error: &StoreError) -> Result<(), String> {
        let told = if self.link.is_dead() { Told::Unknown } else { told(error) };
        match told {
            Told::Unknown if !self.link.is_dead() => self.counts.unknown += 1,
            _ => self.counts.failed += 1,
        }
        self.books().saved.get_mut(message).unwrap().told = told;
        match error {
            StoreError::RefMoved { .. } => Ok(()),
            StoreError::BaseSwept if self.sweeps => Ok(()),
            error => Err(format!("a save failed: {error}")),
        }
    }

    /// A version that somebody was told of.
    fn some_version(&mut self) -> Option<(TimeId, Saved)> {
        let choice = self.random.next_u64() as usize;
        let books = self.books();
        let published = books.published();
        let (time, saved) = *published.get(choice.checked_rem(published.len())?)?;
        Some((time, saved.clone()))
    }

    fn make_ref(&mut self, repository: &Repository) -> Result<(), String> {
        let Some((time, _)) = self.some_version() else { return Ok(()) };
        self.made += 1;
        let kind = if self.random.below(2) == 0 { "tag/" } else { "" };
        let name = format!("{kind}ref-{}-{}", self.name, self.made);
        self.books().refs.insert(name.clone(), (time, Told::Unknown));
        let before = self.link.troubles();
        let made = repository.create_ref(&name, time);
        let after = self.link.troubles();
        let told = match &made {
            _ if self.link.is_dead() => Told::Unknown,
            Ok(()) => Told::Published(time),
            Err(Error::Store(error)) => told(error),
            Err(_) => Told::Failed,
        };
        if told == Told::Unknown && !self.link.is_dead() {
            self.counts.unknown += 1;
            assert!(after.silent_creates > before.silent_creates, "an outcome is unknown without a cause");
        }
        self.books().refs.insert(name, (time, told));
        match made {
            Err(_) if is_dropped(repository, time) => Ok(()),
            made => made.map_err(|error| format!("making a ref failed: {error}")),
        }
    }

    fn delete_ref(&mut self, repository: &Repository) -> Result<(), String> {
        let names: Vec<String> =
            repository.store().head().refs.into_keys().filter(|name| name.contains("ref-")).collect();
        if names.is_empty() {
            return Ok(());
        }
        let name = &names[self.random.below(names.len())];
        self.books().deleted.insert(name.clone());
        match repository.delete_ref(name) {
            // Somebody else was faster.
            Err(Error::UnknownRef { .. } | Error::Store(StoreError::RefMoved { .. })) | Ok(()) => Ok(()),
            Err(error) => {
                let is_unknown = matches!(&error, Error::Store(error) if told(error) == Told::Unknown);
                self.counts.unknown += u64::from(is_unknown && !self.link.is_dead());
                Err(format!("deleting a ref failed: {error}"))
            }
        }
    }

    fn load(&mut self, repository: &Repository) -> Result<(), String> {
        let Some((time, saved)) = self.some_version() else { return Ok(()) };
        repository.store().refresh().map_err(|error| format!("looking for entries failed: {error}"))?;
        let loaded = toy::load(repository.store(), time);
        self.counts.loads += u64::from(loaded.is_ok());
        match loaded {
            Ok(loaded) if loaded == saved.namespace => Ok(()),
            Ok(_) => {
                self.books().problem(format!("wrong: version {time} was loaded as another"));
                Ok(())
            }
            Err(_) if is_dropped(repository, time) => Ok(()),
            Err(error) => Err(format!("loading version {time} failed: {error}")),
        }
    }

    fn sweep(&mut self, repository: &Repository) -> Result<(), String> {
        if self.random.below(3) == 0 {
            let seconds = self.random.below(4000) as i64;
            self.network.wait(seconds);
        }
        let keep_last = [None, Some(1), Some(2), Some(5)][self.random.below(4)];
        let keep_tagged = self.random.below(2) == 0;
        let retention = Retention { keep_last, keep_tagged, ..Retention::default() };
        let grace = Duration::from_secs([0, 0, 60, 3600][self.random.below(4)]);
        let dry_run = self.random.below(8) == 0;
        self.books().sweeps_begun += 1;
        let swept = repository.store().sweep(&SweepRequest { retention, grace, dry_run });
        let mut books = self.books.lock().unwrap();
        books.sweeps_ended += 1;
        match swept {
            Ok(report) if report.is_dry_run => Ok(()),
            Ok(report) => {
                self.counts.dropped += report.versions_dropped.len() as u64;
                self.counts.packs_deleted += report.packs_deleted;
                // Tags that go with their versions.
                books.deleted.extend(report.refs_deleted);
                Ok(())
            }
            Err(error) => {
                // It may have taken tags away before it failed.
                if !keep_tagged {
                    books.has_unclear_tags = true;
                }
                let is_unknown = told(&error) == Told::Unknown && !self.link.is_dead();
                self.counts.unknown += u64::from(is_unknown);
                Err(format!("a sweep failed: {error}"))
            }
        }
    }

    fn verify(&mut self, repository: &Repository) -> Result<(), String> {
        let full = self.random.below(2) == 0;
        let sweeps = |books: MutexGuard<'_, Books>| (books.sweeps_begun, books.sweeps_ended);
        let before = sweeps(self.books());
        let verified = repository.store().verify(full);
        let is_quiet = before.0 == before.1 && sweeps(self.books()) == before;
        match verified {
            Ok(report) if report.is_clean() => Ok(()),
            // It looks at the packs of one moment.
            Ok(_) if !is_quiet => Ok(()),
            Ok(report) => Err(format!("a check found {:?}", report.problems)),
            Err(error) => Err(format!("a check failed: {error}")),
        }
    }
}

/// Whether a sweep has dropped a version.
fn is_dropped(repository: &Repository, time: TimeId) -> bool {
    let store = repository.store();
    store.refresh().is_ok() && store.dropped().range_of(time).is_some()
}

/// A publication that follows what the ref points at now, as far as the process has looked.
fn aimed(repository: &Repository, mut publication: Publication, ref_name: &str) -> Publication {
    let target = repository.store().head().refs.get(ref_name).copied();
    publication.ref_name = ref_name.to_owned();
    publication.expected = target.map(|target| target.time);
    publication.commit.parents = target.map(|target| target.commit).into_iter().collect();
    publication
}
