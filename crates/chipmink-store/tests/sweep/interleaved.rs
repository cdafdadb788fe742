//! Writers and sweepers at the same time, one acting at any step of the other.

use crate::support::{Saver, last, open, options, packs};
use chipmink_store::local::{Input, LocalDisk, Output, Stat, Syscalls};
use chipmink_store::{Backend, Place, Publication, Store, StoreError, StoreOptions, SweepRequest};
use chipmink_testkit::toy::{self, Namespace, REF};
use chipmink_testkit::{CrashDisk, Random};
use chipmink_types::TimeId;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

const HOUR: Duration = Duration::from_secs(3600);

/// A sweep of all but the newest that leaves what it condemned for an hour.
fn patient() -> SweepRequest {
    SweepRequest { grace: HOUR, ..last(1) }
}

type Act = Box<dyn FnOnce() + Send>;

/// System calls, before one of which somebody else acts.
#[derive(Clone)]
struct Interrupted {
    calls: Arc<dyn Syscalls>,
    /// After so many calls.
    act: Arc<Mutex<Option<(u64, Act)>>>,
}

impl std::fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Interrupted")
    }
}

impl Interrupted {
    fn step(&self) {
        let mut act = self.act.lock().unwrap();
        let due = match &mut *act {
            Some((0, _)) => act.take(),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        };
        drop(act);
        if let Some((_, act)) = due {
            // It is another process, so to say.
            std::thread::spawn(act).join().unwrap();
        }
    }
}

impl Syscalls for Interrupted {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        self.step();
        self.calls.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Input>> {
        self.step();
        self.calls.open(path)
    }

    fn open_file(&self, path: &Path) -> io::Result<File> {
        self.calls.open_file(path)
    }

    fn fsync(&self, path: &Path) -> io::Result<()> {
        self.calls.fsync(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step();
        self.calls.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step();
        self.calls.rename_new(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step();
        self.calls.link(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.step();
        self.calls.unlink(path)
    }

    fn mkdir(&self, path: &Path) -> io::Result<()> {
        self.calls.mkdir(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<(OsString, bool)>> {
        self.step();
        self.calls.read_dir(path)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.step();
        self.calls.stat(path)
    }

    fn boot(&self) -> Option<[u8; 16]> {
        self.calls.boot()
    }
}

/// What a save holds: something of the first version, which no later one has, and something new.
fn mixed(name: &str, seed: u64) -> Namespace {
    let old = Random::new(7).bytes(30_000);
    Namespace::from([("old".to_owned(), old), (name.to_owned(), Random::new(seed).bytes(1000))])
}

fn save_to(store: &Store, name: &str, seed: u64) -> Result<TimeId, StoreError> {
    let mut transaction = store.begin();
    let publication = toy::write(store, &mut transaction, &mixed(name, seed), "")?;
    let expected = store.head().refs.get(name).map(|target| target.time);
    transaction.publish(&Publication { ref_name: name.to_owned(), expected, ..publication })
}

/// A disk whose first version is still there, and is dropped by the next sweep.
fn world() -> CrashDisk {
    let disk = CrashDisk::new();
    let store = on(Arc::new(disk.clone()));
    toy::save(&store, &mixed("first", 1), "").unwrap();
    toy::save(&store, &Namespace::from([("second".to_owned(), vec![2; 500])]), "").unwrap();
    disk
}

fn on(calls: Arc<dyn Syscalls>) -> Store {
    let local = LocalDisk::new(PathBuf::from("/r"), calls, false);
    Store::open_or_create_in(Backend::local(local), options()).unwrap()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Actor {
    Writer(&'static str),
    Sweeper(Duration),
}

impl Actor {
    /// Acts; what it saved must be there, and a failure must be one that says that nothing was saved.
    fn act(self, store: &Store) -> Option<(TimeId, Namespace)> {
        match self {
            Actor::Writer(name) => match save_to(store, name, 9) {
                Ok(time) => Some((time, mixed(name, 9))),
                Err(StoreError::BaseSwept) => None,
                Err(error) => panic!("{name}: {error}"),
            },
            Actor::Sweeper(grace) => {
                store.sweep(&SweepRequest { grace, ..last(1) }).unwrap();
                None
            }
        }
    }
}

/// One acts; before its n-th call two others act, for every n. Returns how many saves found that what they build on is gone.
fn interleave(outer: Actor, inner: [Actor; 2]) -> u64 {
    let mut gone = 0;
    for calls in 0.. {
        let disk = world();
        let saved = Arc::new(Mutex::new(Vec::new()));
        let interrupted = Interrupted { calls: Arc::new(disk.clone()), act: Arc::default() };
        // All are open before anything happens.
        let store = on(Arc::new(interrupted.clone()));
        let others = [on(Arc::new(disk.clone())), on(Arc::new(disk.clone()))];
        let notes = Arc::clone(&saved);
        *interrupted.act.lock().unwrap() = Some((
            calls,
            Box::new(move || {
                for (actor, store) in inner.iter().zip(&others) {
                    notes.lock().unwrap().extend(actor.act(store));
                }
            }),
        ));
        let outcome = outer.act(&store);
        let was_interrupted = interrupted.act.lock().unwrap().is_none();
        let writers =
            [outer, inner[0], inner[1]].iter().filter(|actor| matches!(actor, Actor::Writer(_))).count();
        let mut saved = std::mem::take(&mut *saved.lock().unwrap());
        saved.extend(outcome);
        if was_interrupted {
            gone += (writers - saved.len()) as u64;
        }
        let fresh = on(Arc::new(disk));
        for (time, expected) in &saved {
            assert_eq!(&toy::load(&fresh, *time).unwrap(), expected, "{outer:?}, call {calls}");
        }
        let report = fresh.verify(true).unwrap();
        assert!(report.is_clean(), "{outer:?}, call {calls}: {report:?}");
        fresh.sweep(&last(1)).unwrap();
        for (time, expected) in saved {
            assert_eq!(toy::load(&fresh, time).unwrap(), expected, "{outer:?}, call {calls}");
        }
        assert!(fresh.verify(true).unwrap().is_clean());
        if !was_interrupted {
            assert!(calls > 10, "{outer:?} makes {calls} calls");
            return gone;
        }
    }
    gone
}

#[test]
fn a_sweep_at_any_step_of_a_save() {
    // Within the grace nothing is lost, so no save fails.
    let patient = Actor::Sweeper(HOUR);
    assert_eq!(interleave(Actor::Writer("a"), [patient, Actor::Writer("b")]), 0);
    assert_eq!(interleave(Actor::Writer("a"), [Actor::Writer("b"), patient]), 0);
    // Without grace it may fail, and says so.
    let hasty = Actor::Sweeper(Duration::ZERO);
    assert!(interleave(Actor::Writer("a"), [hasty, Actor::Writer("b")]) > 0);
    interleave(Actor::Writer("a"), [hasty, hasty]);
}

#[test]
fn saves_at_any_step_of_a_sweep() {
    for grace in [HOUR, Duration::ZERO] {
        interleave(Actor::Sweeper(grace), [Actor::Writer("a"), Actor::Writer("b")]);
    }
}

#[test]
fn sweeps_at_any_step_of_a_sweep() {
    let hasty = Actor::Sweeper(Duration::ZERO);
    interleave(hasty, [hasty, Actor::Writer("a")]);
    interleave(hasty, [Actor::Writer("a"), hasty]);
    interleave(hasty, [hasty, hasty]);
}

#[test]
fn blobs_of_a_condemned_pack_are_written_again_and_the_pack_is_not_named() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    toy::save(&store, &mixed("first", 1), "").unwrap();
    let old = store.entry(TimeId(1)).unwrap().packs_added[0];
    toy::save(&store, &Namespace::from([("second".to_owned(), vec![2; 500])]), "").unwrap();
    let mut transaction = store.begin();
    let publication = toy::write(&store, &mut transaction, &mixed("third", 3), "").unwrap();
    assert!(transaction.stats().blobs_known > 0);
    let report = open(directory.path()).sweep(&patient()).unwrap();
    assert_eq!(report.packs_condemned, 1);
    // It finds out by losing the race for the next number.
    let time = transaction.publish(&publication).unwrap();
    let entry = store.entry(time).unwrap();
    assert!(entry.packs_added.len() == 2 && entry.packs_added.iter().all(|pack| pack.name != old.name));
    std::fs::remove_file(directory.path().join(chipmink_format::pack_path(old.name))).unwrap();
    for store in [store, open(directory.path())] {
        assert_eq!(toy::load(&store, time).unwrap(), mixed("third", 3));
        assert!(store.verify(true).unwrap().is_clean());
    }
}

#[test]
fn a_save_whose_blobs_are_gone_fails_and_publishes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    toy::save(&store, &mixed("first", 1), "").unwrap();
    toy::save(&store, &Namespace::from([("second".to_owned(), vec![2; 500])]), "").unwrap();
    let mut transaction = store.begin();
    let publication = toy::write(&store, &mut transaction, &mixed("third", 3), "").unwrap();
    open(directory.path()).sweep(&last(1)).unwrap();
    let error = transaction.publish(&publication).unwrap_err();
    assert!(matches!(error, StoreError::BaseSwept), "{error}");
    drop(transaction);
    assert_eq!(store.head().number, TimeId(3));
    let time = toy::save(&store, &mixed("third", 3), "").unwrap();
    assert_eq!(toy::load(&store, time).unwrap(), mixed("third", 3));
    assert!(store.verify(true).unwrap().is_clean());
}

#[test]
fn chunks_whose_bases_were_condemned_are_not_taken_for_held() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut saver = Saver::new(3);
    saver.save_many(&store, 4);
    let weights = saver.current["weights"].clone();
    // The weights go, so do their bases; their last deltas stay in the pack of a variable that stays.
    saver.current.insert("weights".into(), vec![0; 10]);
    saver.save(&store);
    let mut transaction = store.begin();
    let back = Namespace::from([("weights".to_owned(), weights)]);
    let publication = toy::write(&store, &mut transaction, &back, "").unwrap();
    open(directory.path()).sweep(&patient()).unwrap();
    let time = transaction.publish(&publication).unwrap();
    assert_eq!(toy::load(&store, time).unwrap(), back);
    assert!(store.verify(true).unwrap().is_clean());
    // And once they are gone for good.
    store.sweep(&last(1)).unwrap();
    let fresh = open(directory.path());
    toy::save(&fresh, &Namespace::from([("x".to_owned(), vec![1; 10])]), "").unwrap();
    fresh.sweep(&last(1)).unwrap();
    let time = toy::save(&fresh, &back, "").unwrap();
    assert_eq!(toy::load(&open(directory.path()), time).unwrap(), back);
    assert!(fresh.verify(true).unwrap().is_clean());
}

#[test]
fn a_version_that_is_built_on_must_not_be_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut saver = Saver::new(4);
    saver.save_many(&store, 3);
    let mut transaction = store.begin();
    transaction.build_on(TimeId(2));
    let publication = toy::write(&store, &mut transaction, &saver.current, "").unwrap();
    open(directory.path()).sweep(&patient()).unwrap();
    assert!(matches!(transaction.publish(&publication), Err(StoreError::BaseSwept)));
    let mut transaction = store.begin();
    transaction.build_on(TimeId(3));
    let publication = toy::write(&store, &mut transaction, &saver.current, "").unwrap();
    transaction.publish(&publication).unwrap();
}

/// Lets all packs look as old as that.
fn age_packs(path: &Path, age: Duration) {
    for pack in std::fs::read_dir(path.join("packs")).unwrap() {
        let file = File::options().write(true).open(pack.unwrap().path()).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }
}

#[test]
fn packs_of_a_save_that_stalled_are_written_again_above_the_floor() {
    let directory = tempfile::tempdir().unwrap();
    let small = StoreOptions { pack_bytes: 10_000, ..options() };
    let store = Store::open_or_create(Place::Local(directory.path().to_owned()), small).unwrap();
    // So many entries that the next brings a root state, in a pack of its own save.
    let mut values = Namespace::new();
    for number in 0..63u8 {
        values.insert("x".into(), vec![number; 100]);
        toy::save(&store, &values, "").unwrap();
    }
    let mut random = Random::new(5);
    for name in 0..20 {
        values.insert(format!("v{name}"), random.bytes(3000));
    }
    let mut transaction = store.begin();
    let publication = toy::write(&store, &mut transaction, &values, "").unwrap();
    let before = packs(directory.path());
    age_packs(directory.path(), 2 * HOUR);
    let other = open(directory.path());
    let report = other.sweep(&SweepRequest { grace: HOUR, ..SweepRequest::default() }).unwrap();
    assert!(report.orphans_condemned > 3 && report.packs_deleted == 0, "{report:?}");
    assert_eq!(packs(directory.path()), before);
    let floor = other.entry(report.entry.unwrap()).unwrap().floor;
    assert_eq!(floor, TimeId(64));
    let time = transaction.publish(&publication).unwrap();
    let entry = store.entry(time).unwrap();
    assert!(entry.packs_added.len() > 3 && entry.packs_added.iter().all(|pack| pack.born >= floor));
    other.sweep(&SweepRequest { grace: Duration::ZERO, ..SweepRequest::default() }).unwrap();
    for store in [store, open(directory.path())] {
        assert_eq!(toy::load(&store, time).unwrap(), values);
        let report = store.verify(true).unwrap();
        assert!(report.is_clean() && report.orphan_packs == 0, "{report:?}");
    }
    // Young ones are let alone, and so is the floor.
    let mut transaction = other.begin();
    values.insert("late".into(), random.bytes(30_000));
    let publication = toy::write(&other, &mut transaction, &values, "").unwrap();
    let report =
        open(directory.path()).sweep(&SweepRequest { grace: HOUR, ..SweepRequest::default() }).unwrap();
    assert_eq!((report.orphans_condemned, report.entry), (0, None));
    transaction.publish(&publication).unwrap();
}

#[test]
fn threads_save_while_others_sweep() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    toy::save(&store, &mixed("first", 1), "").unwrap();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3u64)
            .map(|writer| {
                let path = directory.path();
                scope.spawn(move || {
                    let store = open(path);
                    let name = format!("writer{writer}");
                    let mut newest = None;
                    for step in 0..25 {
                        match save_to(&store, &name, 100 * writer + step) {
                            Ok(time) => newest = Some((time, mixed(&name, 100 * writer + step))),
                            Err(StoreError::BaseSwept) => {}
                            Err(error) => panic!("{name}: {error}"),
                        }
                    }
                    newest
                })
            })
            .collect();
        let sweeper = scope.spawn(|| {
            let store = open(directory.path());
            for round in 0..20u64 {
                let grace = if round % 2 == 0 { Duration::ZERO } else { HOUR };
                match store.sweep(&SweepRequest { grace, ..last(2) }) {
                    Ok(_) | Err(StoreError::Outrun { .. }) => {}
                    Err(error) => panic!("sweep {round}: {error}"),
                }
            }
        });
        sweeper.join().unwrap();
        for writer in writers {
            let (time, expected) = writer.join().unwrap().unwrap();
            assert_eq!(toy::load(&open(directory.path()), time).unwrap(), expected);
        }
    });
    let store = open(directory.path());
    let report = store.verify(true).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(store.head().refs.len(), 4);
    assert!(store.head().refs.contains_key(REF));
}
