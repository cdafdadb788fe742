//! A pool in front of a repository: what is staged becomes durable once, whole, and in order.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use chipmink_format::{pack_path, parse_pack_path, root_path};
use chipmink_shm::pool::Pool;
use chipmink_store::local::{LocalDisk, System};
use chipmink_store::{
    Backend, Persisted, Place, Retention, StagedState, Staging, Store, StoreError, StoreOptions, SweepRequest,
};
use chipmink_testkit::Random;
use chipmink_testkit::toy::{self, Namespace, REF};
use chipmink_types::{SharedPool, TimeId};
use object_store::memory::InMemory;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// A pool of its own, which goes when the test ends.
struct Temporary {
    name: String,
    pool: Arc<Pool>,
}

impl Temporary {
    fn new(byte_len: u64) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("chipmink-staging-test-{}-{count}", std::process::id());
        let pool = Arc::new(Pool::create(&name, byte_len, [1; 16]).unwrap());
        Temporary { name, pool }
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        let object = self.pool.find(name).unwrap().unwrap();
        let mut bytes = vec![0; object.byte_len as usize];
        self.pool.read_at(&object, 0, &mut bytes).unwrap();
        bytes
    }

    /// Puts an object there as if it had been put there just now.
    fn put(&self, name: &str, bytes: &[u8]) {
        self.pool.remove(name).unwrap();
        let mut writer = self.pool.begin(name, true).unwrap();
        writer.write(bytes).unwrap();
        writer.finish().unwrap();
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = Pool::unlink(&self.name);
    }
}

struct Fixture {
    directory: TempDir,
    temporary: Temporary,
    random: Random,
}

impl Fixture {
    fn new(byte_len: u64) -> Self {
        let fixture = Fixture {
            directory: tempfile::tempdir().unwrap(),
            temporary: Temporary::new(byte_len),
            random: Random::new(5),
        };
        let lower = fixture.lower();
        fixture.temporary.pool.bind(lower.repository().0).unwrap();
        fixture
    }

    fn lower(&self) -> Store {
        let place = Place::Local(self.directory.path().to_owned());
        Store::open_or_create(place, StoreOptions::default()).unwrap()
    }

    fn staging(&self) -> Staging {
        Staging::new(self.temporary.pool.clone(), self.lower())
    }

    fn namespace(&mut self, byte_len: usize) -> Namespace {
        (0..3).map(|name| (format!("v{name}"), self.random.bytes(byte_len))).collect()
    }
}

fn persist_all(staging: &Staging) -> Vec<Persisted> {
    std::iter::from_fn(|| staging.persist_next(&mut |_| {}).unwrap()).collect()
}

#[test]
fn versions_are_staged_and_become_durable_as_they_are() {
    let mut fixture = Fixture::new(16 << 20);
    let staging = fixture.staging();
    let staged = staging.open(StoreOptions::default()).unwrap();
    let mut saved = Vec::new();
    for _ in 0..20 {
        let namespace = fixture.namespace(20_000);
        let time = toy::save(&staged, &namespace, "").unwrap();
        saved.push((time, namespace));
    }
    assert_eq!(staging.state().unwrap().entries, 20);
    assert_eq!(staging.state().unwrap().newest, Some(TimeId(20)));
    assert_eq!(fixture.lower().head().number, TimeId(0), "nothing is below yet");
    for (time, namespace) in &saved {
        assert_eq!(&toy::load(&staged, *time).unwrap(), namespace);
    }
    // Another process finds them, too.
    let other = fixture.staging().open(StoreOptions::default()).unwrap();
    assert_eq!(&toy::load(&other, TimeId(20)).unwrap(), &saved[19].1);
    let persisted = persist_all(&staging);
    assert_eq!(persisted.len(), 20);
    assert!(persisted.iter().all(|one| one.time == one.staged_as && one.moved_to.is_none()));
    assert_eq!(staging.state().unwrap(), StagedState::default());
    let lower = fixture.lower();
    assert!(lower.verify(true).unwrap().is_clean());
    for (time, namespace) in &saved {
        assert!(staging.is_durable(*time).unwrap());
        assert_eq!(&toy::load(&lower, *time).unwrap(), namespace);
        assert_eq!(&toy::load(&staged, *time).unwrap(), namespace);
        assert_eq!(staged.entry(*time).unwrap(), lower.entry(*time).unwrap());
    }
    // And it goes on.
    let namespace = fixture.namespace(20_000);
    let time = toy::save(&staged, &namespace, "").unwrap();
    assert_eq!(time, TimeId(21));
    persist_all(&staging);
    assert_eq!(toy::load(&fixture.lower(), time).unwrap(), namespace);
}

#[test]
fn a_persister_that_was_killed_between_any_two_steps_publishes_nothing_twice() {
    let mut fixture = Fixture::new(16 << 20);
    let staging = fixture.staging();
    let staged = staging.open(StoreOptions::default()).unwrap();
    let namespace = fixture.namespace(20_000);
    let time = toy::save(&staged, &namespace, "").unwrap();
    // Killed after the entry was created below and before anything was settled: as if it were staged again.
    let entry = staged.entry(time).unwrap();
    let objects: Vec<(String, Vec<u8>)> = std::iter::once(root_path(time))
        .chain(entry.packs_added.iter().map(|pack| pack_path(pack.name)))
        .map(|path| (path.clone(), fixture.temporary.bytes(&path)))
        .collect();
    persist_all(&staging);
    for (path, bytes) in &objects {
        fixture.temporary.put(path, bytes);
    }
    let persisted = persist_all(&fixture.staging());
    assert_eq!((persisted.len(), persisted[0].time), (1, time));
    let lower = fixture.lower();
    assert_eq!(lower.head().number, time);
    assert_eq!(toy::load(&lower, time).unwrap(), namespace);
    // Several at once.
    for _ in 0..10 {
        let namespace = fixture.namespace(5_000);
        toy::save(&staged, &namespace, "").unwrap();
    }
    let stagings: Vec<Staging> = (0..4).map(|_| fixture.staging()).collect();
    std::thread::scope(|scope| {
        for staging in &stagings {
            scope.spawn(move || {
                while staging.state().unwrap().entries > 0 {
                    let _ = staging.persist_next(&mut |_| {});
                }
            });
        }
    });
    let lower = fixture.lower();
    assert_eq!(lower.head().number, TimeId(11));
    assert_eq!(lower.entries().count(), 12);
    assert!(lower.verify(true).unwrap().is_clean());
}

#[test]
fn what_others_publish_below_meanwhile_loses_nothing_that_is_staged() {
    let mut fixture = Fixture::new(16 << 20);
    let staging = fixture.staging();
    let staged = staging.open(StoreOptions::default()).unwrap();
    let first = fixture.namespace(2_000);
    toy::save(&staged, &first, "").unwrap();
    persist_all(&staging);
    let mine = [fixture.namespace(2_000), fixture.namespace(3_000)];
    for namespace in &mine {
        toy::save(&staged, namespace, "").unwrap();
    }
    let theirs = fixture.namespace(2_000);
    let lower = fixture.lower();
    toy::save(&lower, &theirs, "theirs").unwrap();
    let persisted = persist_all(&staging);
    let times: Vec<TimeId> = persisted.iter().map(|one| one.time).collect();
    assert_eq!(times, [TimeId(3), TimeId(4)]);
    let side = persisted[0].moved_to.clone().unwrap();
    assert!(side.starts_with(&format!("{REF}@staged-")), "{side}");
    assert_eq!(persisted[1].moved_to.as_ref(), Some(&side), "the later one continues the earlier");
    let lower = fixture.lower();
    let refs = lower.head().refs;
    assert_eq!((refs[REF].time, refs[&side].time), (TimeId(2), TimeId(4)));
    assert_eq!(toy::load(&lower, TimeId(2)).unwrap(), theirs);
    assert_eq!(toy::load(&lower, TimeId(3)).unwrap(), mine[0]);
    assert_eq!(toy::load(&lower, TimeId(4)).unwrap(), mine[1]);
    let alias = &lower.entry(TimeId(4)).unwrap().commits[0].aliases;
    assert_eq!(alias, &[(lower.repository(), TimeId(3))]);
    assert!(lower.verify(true).unwrap().is_clean());
    // Who opens it now reads what is below.
    let again = fixture.staging().open(StoreOptions::default()).unwrap();
    assert_eq!(toy::load(&again, TimeId(2)).unwrap(), theirs);
    // The one that was open does not go on as if nothing had happened.
    assert!(toy::save(&staged, &first, "").is_err());
}

#[test]
fn a_save_that_finds_no_room_waits_until_older_ones_are_durable() {
    let mut fixture = Fixture::new(2 << 20);
    let staging = fixture.staging();
    let staged = staging.open(StoreOptions::default()).unwrap();
    let namespaces: Vec<Namespace> = (0..12).map(|_| fixture.namespace(200_000)).collect();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) || staging.state().unwrap().entries > 0 {
                staging.persist_next(&mut |_| {}).unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        for (at, namespace) in namespaces.iter().enumerate() {
            assert_eq!(toy::save(&staged, namespace, "").unwrap(), TimeId(at as u64 + 1));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let lower = fixture.lower();
    for (at, namespace) in namespaces.iter().enumerate() {
        assert_eq!(&toy::load(&lower, TimeId(at as u64 + 1)).unwrap(), namespace);
    }
}

#[test]
fn a_save_that_can_never_fit_fails_at_once_and_says_so() {
    let mut fixture = Fixture::new(1 << 20);
    let staged = fixture.staging().open(StoreOptions::default()).unwrap();
    let large = fixture.namespace(800_000);
    let error = toy::save(&staged, &large, "").unwrap_err();
    assert!(error.to_string().contains("is full"), "{error}");
    let small = fixture.namespace(1_000);
    toy::save(&staged, &small, "").unwrap();
    // If nothing can be made durable, waiting ends with the reason.
    let staging = fixture.staging();
    let staged = staging.open(StoreOptions::default()).unwrap();
    staging.note_failure(Some("the disk is full".to_owned()));
    let error = toy::save(&staged, &large, "").unwrap_err();
    assert!(error.to_string().contains("the disk is full"), "{error}");
}

#[test]
fn damage_in_the_pool_never_goes_below() {
    for seed in 0..40 {
        let mut fixture = Fixture::new(1 << 20);
        let staging = fixture.staging();
        let staged = staging.open(StoreOptions::default()).unwrap();
        let good = fixture.namespace(3_000);
        toy::save(&staged, &good, "").unwrap();
        persist_all(&staging);
        let bad = fixture.namespace(3_000);
        let time = toy::save(&staged, &bad, "").unwrap();
        let names: Vec<String> = {
            let all = fixture.temporary.pool.list().unwrap();
            all.into_iter().filter(|object| !object.is_settled).map(|object| object.name).collect()
        };
        // One byte of one object is another, with a digest that fits, as only a hostile writer can make it.
        let name = &names[seed % names.len()];
        let mut bytes = fixture.temporary.bytes(name);
        let at = fixture.random.below(bytes.len());
        bytes[at] ^= 1 << (seed % 8);
        fixture.temporary.put(name, &bytes);
        let fresh = fixture.staging();
        let result = fresh.persist_next(&mut |_| {});
        let lower = fixture.lower();
        assert!(lower.verify(true).unwrap().is_clean(), "seed {seed}");
        assert_eq!(toy::load(&lower, TimeId(1)).unwrap(), good);
        assert!(result.is_err(), "seed {seed}: {result:?}");
        assert!(matches!(lower.entry(time), Err(StoreError::UnknownVersion { .. })), "seed {seed}");
    }
}

#[test]
fn what_a_dead_saver_left_without_a_version_is_removed() {
    let mut fixture = Fixture::new(4 << 20);
    let staging = fixture.staging();
    let staged = staging.open(StoreOptions::default()).unwrap();
    let namespace = fixture.namespace(3_000);
    toy::save(&staged, &namespace, "").unwrap();
    fixture.temporary.put("packs/00000000000000000000000000000001", b"orphan");
    // Its writer lives.
    assert_eq!(staging.clean().unwrap(), 0);
    let packs = fixture.temporary.pool.list().unwrap();
    assert_eq!(packs.iter().filter(|object| parse_pack_path(&object.name).is_some()).count(), 2);
    assert_eq!(persist_all(&staging).len(), 1);
}

#[test]
fn a_store_without_files_can_be_below() {
    let temporary = Temporary::new(4 << 20);
    let objects = Arc::new(InMemory::new());
    let options = StoreOptions::default;
    let lower = Store::create_in(Backend::remote(objects.clone(), "remote"), options()).unwrap();
    temporary.pool.bind(lower.repository().0).unwrap();
    let staging = Staging::new(temporary.pool.clone(), lower);
    let staged = staging.open(options()).unwrap();
    let namespace: Namespace = [("a".to_owned(), vec![1; 100_000])].into_iter().collect();
    let time = toy::save(&staged, &namespace, "").unwrap();
    assert_eq!(persist_all(&staging).len(), 1);
    let again = Store::open_in(Backend::remote(objects, "remote"), options()).unwrap();
    assert_eq!(toy::load(&again, time).unwrap(), namespace);
}

#[test]
fn a_disk_that_is_lost_leaves_the_version_staged() {
    let mut fixture = Fixture::new(4 << 20);
    let staging = fixture.staging();
    let staged = staging.open(StoreOptions::default()).unwrap();
    let namespace = fixture.namespace(3_000);
    toy::save(&staged, &namespace, "").unwrap();
    let packs = fixture.directory.path().join("packs");
    std::fs::remove_dir_all(&packs).unwrap();
    std::fs::write(&packs, b"no folder").unwrap();
    staging.persist_next(&mut |_| {}).unwrap_err();
    assert_eq!(staging.state().unwrap().entries, 1);
    std::fs::remove_file(&packs).unwrap();
    std::fs::create_dir(&packs).unwrap();
    assert_eq!(persist_all(&staging).len(), 1);
    let disk = LocalDisk::new(fixture.directory.path().to_owned(), Arc::new(System), true);
    let lower = Store::open_in(Backend::local(disk), StoreOptions::default()).unwrap();
    assert_eq!(toy::load(&lower, TimeId(1)).unwrap(), namespace);
}

#[test]
fn what_a_sweep_below_has_condemned_is_written_again() {
    let mut fixture = Fixture::new(16 << 20);
    let lower = fixture.lower();
    let old = fixture.namespace(20_000);
    toy::save(&lower, &old, "").unwrap();
    toy::save(&lower, &fixture.namespace(100), "").unwrap();
    let staging = fixture.staging();
    let staged = staging.open(StoreOptions::default()).unwrap();
    // It finds all of the first version held.
    let mut mixed = old.clone();
    mixed.insert("new".into(), vec![1; 5000]);
    toy::save(&staged, &mixed, "").unwrap();
    let retention = Retention { keep_last: Some(1), ..Retention::default() };
    let request = SweepRequest { retention, ..SweepRequest::default() };
    let report = lower.sweep(&request).unwrap();
    assert_eq!((report.versions_dropped, report.packs_condemned), (vec![TimeId(1)], 1));
    assert!(staged.sweep(&request).is_err(), "it stands in front of another");
    let persisted = persist_all(&staging);
    assert_eq!(persisted[0].time, TimeId(4));
    // Without what was condemned.
    lower.sweep(&SweepRequest { grace: Duration::ZERO, ..request }).unwrap();
    let fresh = fixture.lower();
    assert_eq!(toy::load(&fresh, TimeId(4)).unwrap(), mixed);
    let report = fresh.verify(true).unwrap();
    assert!(report.is_clean() && report.orphan_packs == 0, "{report:?}");
}
