//! Push and pull: every version arrives, nothing is sent twice, and an interruption costs nothing but time.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use chipmink_store::local::{LocalDisk, System};
use chipmink_store::{
    Backend, Place, Publication, RefSpec, Retention, Since, Store, StoreError, StoreOptions, SweepRequest,
    TransferOptions, TransferReport,
};
use chipmink_testkit::toy::{self, Namespace, REF};
use chipmink_testkit::{Fault, FaultDisk, MeteredStore, Random, Timing};
use chipmink_types::TimeId;
use object_store::memory::InMemory;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn options() -> StoreOptions {
    StoreOptions { durable: false, ..StoreOptions::default() }
}

fn place(path: &Path) -> Place {
    Place::parse(path.to_str().unwrap()).unwrap()
}

fn metered() -> (MeteredStore, Backend) {
    let objects = MeteredStore::new(Arc::new(InMemory::new()));
    (objects.clone(), Backend::remote(Arc::new(objects), "far://away"))
}

fn copy_of(source: &Store, backend: Backend) -> Store {
    let options = StoreOptions { repository: Some(source.repository()), ..options() };
    Store::open_or_create_in(backend, options).unwrap()
}

fn memory() -> Store {
    Store::create_in(Backend::memory(1 << 30, StoreOptions::default().gather), options()).unwrap()
}

fn push(source: &Store, target: &Store) -> Result<TransferReport, StoreError> {
    source.transfer(target, &TransferOptions::default(), &mut |_| true)
}

fn refs(names: &[&str]) -> TransferOptions {
    let refs = names.iter().map(|name| RefSpec::parse(name).unwrap()).collect();
    TransferOptions { refs, ..TransferOptions::default() }
}

fn save_to(store: &Store, ref_name: &str, values: &Namespace) -> TimeId {
    let mut transaction = store.begin();
    let publication = toy::write(store, &mut transaction, values, "").unwrap();
    let head = store.head();
    let target = head.refs.get(ref_name);
    let mut commit = publication.commit.clone();
    if let Some(target) = target {
        commit.parents = vec![target.commit];
    }
    let expected = target.map(|target| target.time);
    let publication = Publication { ref_name: ref_name.to_owned(), expected, commit };
    transaction.publish(&publication).unwrap()
}

/// Versions with small and large variables, of which little changes from one to the next.
fn fill(store: &Store, random: &mut Random, versions: usize) -> Vec<(TimeId, Namespace)> {
    let mut values = match store.head().refs.get(REF) {
        Some(target) => toy::load(store, target.time).unwrap(),
        None => {
            (0..8).map(|i| (format!("v{i}"), random.bytes(if i < 2 { 400_000 } else { 2_000 }))).collect()
        }
    };
    (0..versions)
        .map(|_| {
            values.insert(format!("v{}", 2 + random.below(8)), random.bytes(1_500));
            let large = values.get_mut("v0").unwrap();
            large[random.below(400_000)] ^= 1;
            (toy::save(store, &values, "").unwrap(), values.clone())
        })
        .collect()
}

fn assert_holds(store: &Store, versions: &[(TimeId, Namespace)]) {
    for (time, values) in versions {
        assert_eq!(&toy::load(store, *time).unwrap(), values, "version {time}");
    }
    let report = store.verify(true).unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[test]
fn a_new_destination_becomes_a_copy_with_the_same_numbers() {
    let directory = tempfile::tempdir().unwrap();
    let source = Store::create(place(&directory.path().join("a")), options()).unwrap();
    let mut random = Random::new(1);
    let mut versions = fill(&source, &mut random, 5);
    let tag = source.head().refs[REF];
    source.begin().move_ref("tag/five", None, Some(tag)).unwrap();
    versions.extend(fill(&source, &mut random, 70));
    let options = StoreOptions { repository: Some(source.repository()), ..options() };
    let target = Store::create(place(&directory.path().join("b")), options.clone()).unwrap();
    let report = push(&source, &target).unwrap();
    assert_eq!((report.versions, target.repository()), (75, source.repository()));
    assert_eq!(target.head(), source.head());
    assert_holds(&target, &versions);
    // And again, from wherever it is.
    let again = push(&source, &target).unwrap();
    assert_eq!((again.versions, again.blobs, again.packs, again.refs.len()), (0, 0, 0, 0));
    versions.extend(fill(&source, &mut random, 3));
    assert_eq!(push(&source, &target).unwrap().versions, 3);
    assert_eq!(target.head(), source.head());
    let reopened = Store::open(place(&directory.path().join("b")), options).unwrap();
    assert_holds(&reopened, &versions);
    assert!(toy::save(&reopened, &versions[0].1, "").unwrap() > versions.last().unwrap().0);
}

#[test]
fn another_repository_gives_new_numbers_and_keeps_the_old_as_aliases() {
    let (source, target) = (memory(), memory());
    let mut random = Random::new(2);
    save_to(&target, "own", &BTreeMap::from([("x".to_owned(), random.bytes(100))]));
    let versions = fill(&source, &mut random, 4);
    let report = push(&source, &target).unwrap();
    assert_eq!((report.versions, report.refs), (4, vec![REF.to_owned()]));
    let moved: Vec<(TimeId, Namespace)> =
        versions.iter().map(|(time, values)| (TimeId(time.0 + 1), values.clone())).collect();
    assert_holds(&target, &moved);
    for (time, _) in &versions {
        let entry = target.entry(TimeId(time.0 + 1)).unwrap();
        assert_eq!(entry.commits[0].aliases, [(source.repository(), *time)]);
        assert_eq!(entry.commits[0].bytes, source.entry(*time).unwrap().commits[0].bytes);
    }
    // What came from there is known there.
    let back = target.transfer(&source, &refs(&[REF]), &mut |_| true).unwrap();
    assert_eq!((back.versions, back.blobs), (0, 0));
    let (newest, values) = fill(&target, &mut random, 1).remove(0);
    let back = target.transfer(&source, &refs(&[REF]), &mut |_| true).unwrap();
    assert_eq!(back.versions, 1);
    assert_eq!(source.head().refs[REF].time, TimeId(5));
    assert_eq!(source.entry(TimeId(5)).unwrap().commits[0].aliases, [(target.repository(), newest)]);
    assert_holds(&source, &[(TimeId(5), values)]);
}

#[test]
fn what_went_another_way_is_refused_and_can_have_another_name() {
    let (source, target) = (memory(), memory());
    let mut random = Random::new(3);
    let shared = fill(&source, &mut random, 2);
    push(&source, &target).unwrap();
    fill(&source, &mut random, 1);
    fill(&target, &mut random, 1);
    let before = target.head();
    let error = push(&source, &target).unwrap_err();
    assert!(matches!(&error, StoreError::Diverged { refs, .. } if refs == &[REF]), "{error}");
    assert!(error.to_string().contains("--ref main:theirs"), "{error}");
    assert_eq!(target.head(), before);
    source.transfer(&target, &refs(&["main:theirs"]), &mut |_| true).unwrap();
    assert_eq!(target.head().refs[REF], before.refs[REF]);
    assert_eq!(target.head().refs["theirs"].commit, source.head().refs[REF].commit);
    // A mirror is what its source is.
    let mirror = TransferOptions { mirror: true, ..TransferOptions::default() };
    source.transfer(&target, &mirror, &mut |_| true).unwrap();
    assert_eq!(target.head().refs.keys().collect::<Vec<_>>(), [REF]);
    assert_eq!(target.head().refs[REF].commit, source.head().refs[REF].commit);
    assert_holds(&target, &shared[..0]);
}

#[test]
fn who_is_ahead_stays_ahead() {
    let (source, target) = (memory(), memory());
    let mut random = Random::new(4);
    fill(&source, &mut random, 2);
    push(&source, &target).unwrap();
    fill(&target, &mut random, 100);
    let report = push(&source, &target).unwrap();
    assert_eq!((report.ahead, report.versions, report.blobs), (vec![REF.to_owned()], 0, 0));
}

#[test]
fn branches_arrive_on_the_lines_that_they_were_saved_to() {
    let (source, target) = (memory(), memory());
    let mut random = Random::new(5);
    fill(&source, &mut random, 3);
    let fork = source.head().refs[REF];
    source.begin().move_ref("experiment", None, Some(fork)).unwrap();
    let values = toy::load(&source, fork.time).unwrap();
    let mut other = values.clone();
    other.insert("mine".to_owned(), random.bytes(10));
    save_to(&source, "experiment", &other);
    fill(&source, &mut random, 2);
    source.begin().move_ref("tag/fork", None, Some(fork)).unwrap();
    let report = push(&source, &target).unwrap();
    assert_eq!(report.versions, 6);
    let commits = |store: &Store| -> BTreeMap<String, _> {
        store.head().refs.iter().map(|(name, target)| (name.clone(), target.commit)).collect()
    };
    assert_eq!(commits(&source), commits(&target));
    let moved = |number| target.entry(TimeId(number)).unwrap().refs[0].name.clone();
    assert_eq!((1..=6).map(moved).collect::<Vec<_>>(), [REF, REF, REF, "experiment", REF, REF]);
    assert!(target.verify(true).unwrap().is_clean());
    // One of them alone, elsewhere.
    let one = memory();
    let report = source.transfer(&one, &refs(&["experiment"]), &mut |_| true).unwrap();
    assert_eq!((report.versions, one.head().refs.len()), (4, 1));
    assert_eq!(toy::load(&one, one.head().refs["experiment"].time).unwrap(), other);
    let error = source.transfer(&one, &refs(&["no"]), &mut |_| true).unwrap_err();
    assert!(matches!(error, StoreError::UnknownRef { .. }), "{error}");
}

#[test]
fn old_versions_can_be_left_out() {
    let source = memory();
    let mut random = Random::new(6);
    let versions = fill(&source, &mut random, 6);
    let target = memory();
    let since = Some(Since::Version(TimeId(4)));
    let options = TransferOptions { since, ..TransferOptions::default() };
    assert_eq!(source.transfer(&target, &options, &mut |_| true).unwrap().versions, 3);
    let moved: Vec<_> =
        versions[3..].iter().map(|(time, values)| (TimeId(time.0 - 3), values.clone())).collect();
    assert_holds(&target, &moved);
    fill(&source, &mut random, 1);
    assert_eq!(push(&source, &target).unwrap().versions, 1);
}

#[test]
fn some_variables_can_be_had_alone_and_again() {
    let (source, target) = (memory(), memory());
    let mut random = Random::new(7);
    let versions = fill(&source, &mut random, 3);
    let names = Some(vec!["v1".to_owned(), "v3".to_owned()]);
    let options = TransferOptions { names, ..TransferOptions::default() };
    let report = source.transfer(&target, &options, &mut |_| true).unwrap();
    assert_eq!(report.versions, 3);
    assert!(report.bytes < 420_000, "v0 stays where it is: {} bytes", report.bytes);
    let some = |values: &Namespace| -> Namespace {
        values.iter().filter(|(name, _)| ["v1", "v3"].contains(&name.as_str())).map(own).collect()
    };
    let part: Vec<_> = versions.iter().map(|(time, values)| (*time, some(values))).collect();
    assert_holds(&target, &part);
    let again = source.transfer(&target, &options, &mut |_| true).unwrap();
    assert_eq!((again.versions, again.blobs), (0, 0));
    let (time, values) = fill(&source, &mut random, 1).remove(0);
    let more = source.transfer(&target, &options, &mut |_| true).unwrap();
    assert_eq!(more.versions, 1);
    assert!(more.bytes < 10_000, "{} bytes", more.bytes);
    assert_holds(&target, &[(time, some(&values))]);
    let error = push(&source, &target).unwrap_err();
    assert!(matches!(error, StoreError::Diverged { .. }), "{error}");
    let names = Some(vec!["nobody".to_owned()]);
    let error = source
        .transfer(&memory(), &TransferOptions { names, ..TransferOptions::default() }, &mut |_| true)
        .unwrap_err();
    assert!(matches!(error, StoreError::UnknownName { .. }), "{error}");
}

fn own((name, value): (&String, &Vec<u8>)) -> (String, Vec<u8>) {
    (name.clone(), value.clone())
}

#[test]
fn a_second_push_moves_what_changed() {
    let source = memory();
    let mut random = Random::new(8);
    let mut values: Namespace = BTreeMap::from([("state".to_owned(), random.bytes(40 << 20))]);
    toy::save(&source, &values, "").unwrap();
    let (meter, backend) = metered();
    let target = copy_of(&source, backend);
    push(&source, &target).unwrap();
    let first = meter.bytes_written();
    assert!(first > 40 << 20);
    let state = values.get_mut("state").unwrap();
    let (len, at) = (state.len() / 100, 7 * 65_536 + 11);
    state[at..at + len].copy_from_slice(&random.bytes(len));
    toy::save(&source, &values, "").unwrap();
    meter.reset(u64::MAX);
    let report = push(&source, &target).unwrap();
    assert!(meter.bytes_written() * 1000 <= first * 12, "{} of {first} bytes", meter.bytes_written());
    assert!(meter.bytes_read() * 1000 <= first * 13, "{} of {first} bytes", meter.bytes_read());
    assert!(report.bytes * 1000 <= first * 12);
    assert_eq!(toy::load(&target, TimeId(2)).unwrap(), values);
}

/// Every request of a push is the last in turn; the next push goes on, and sends no pack again.
#[test]
fn whatever_interrupts_a_push_the_next_one_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let source = Store::create(place(directory.path()), options()).unwrap();
    let mut random = Random::new(9);
    let mut values: Namespace = (0..3).map(|i| (format!("v{i}"), random.bytes(6 << 20))).collect();
    let mut versions = Vec::new();
    for i in 0..3 {
        values.insert("small".to_owned(), vec![i]);
        versions.push((toy::save(&source, &values, "").unwrap(), values.clone()));
    }
    let total = {
        let (meter, backend) = metered();
        let target = copy_of(&source, backend);
        meter.reset(u64::MAX);
        push(&source, &target).unwrap();
        (meter.requests(), meter.bytes_written())
    };
    assert!(total.0 > 20, "{total:?}");
    let mut resumed = 0;
    for lives in 0..total.0 {
        let (meter, backend) = metered();
        let target = copy_of(&source, backend.clone());
        meter.reset(lives);
        let before = match push(&source, &target) {
            Err(_) => meter.bytes_written(),
            // Threads ask in another order each time.
            Ok(_) => continue,
        };
        meter.reset(u64::MAX);
        let target = copy_of(&source, backend);
        let report = push(&source, &target).unwrap();
        resumed += report.packs_resumed;
        assert_holds(&target, &versions);
        assert_eq!(target.head(), source.head());
        // At most one pack of each thread was under way.
        assert!(before + meter.bytes_written() < 2 * total.1, "{lives}");
    }
    assert!(resumed > 0);
}

/// The same with a folder, where every system call is the last in turn, with or without its effect.
#[test]
fn whatever_call_fails_on_a_disk_the_next_push_goes_on() {
    let source = memory();
    let versions = fill(&source, &mut Random::new(14), 2);
    let disk_at = |root: &Path, calls: &FaultDisk| {
        let disk = LocalDisk::new(root.to_owned(), Arc::new(calls.clone()), true);
        let options = StoreOptions { repository: Some(source.repository()), ..StoreOptions::default() };
        Store::open_or_create_in(Backend::local(disk), options)
    };
    let mut first = 0;
    loop {
        let directory = tempfile::tempdir().unwrap();
        let calls = FaultDisk::new(Arc::new(System));
        let target = disk_at(directory.path(), &calls).unwrap();
        let timing = if first % 2 == 0 { Timing::Before } else { Timing::After };
        calls.set(Some(Fault { first, count: u64::MAX, errno: 5, timing, matches: |_| true }));
        let result = push(&source, &target);
        if calls.failed() == 0 {
            result.unwrap();
            break;
        }
        // What fails at the very end may go unnoticed: the hint is best effort.
        calls.set(None);
        let target = disk_at(directory.path(), &calls).unwrap();
        push(&source, &target).unwrap();
        assert_eq!(target.head().refs, source.head().refs, "{first}");
        assert_holds(&target, &versions);
        first += 1;
    }
    assert!(first > 30, "{first}");
}

#[test]
fn what_a_disk_has_garbled_is_found_before_it_is_visible() {
    let source = memory();
    let values = Namespace::from([("large".to_owned(), Random::new(16).bytes(8 << 20))]);
    let time = toy::save(&source, &values, "").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let calls = FaultDisk::new(Arc::new(System));
    let disk = LocalDisk::new(directory.path().to_owned(), Arc::new(calls.clone()), true);
    let target = copy_of(&source, Backend::local(disk));
    calls.garble(true);
    let error = push(&source, &target).unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
    assert!(target.head().refs.is_empty());
    calls.garble(false);
    push(&source, &target).unwrap();
    assert_holds(&target, &[(time, values)]);
}

#[test]
fn two_transfers_at_once_do_no_harm() {
    let source = memory();
    let mut random = Random::new(10);
    let versions = fill(&source, &mut random, 12);
    let (_, backend) = metered();
    copy_of(&source, backend.clone());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let target = copy_of(&source, backend.clone());
                loop {
                    match push(&source, &target) {
                        Ok(_) => break,
                        Err(StoreError::RefMoved { .. } | StoreError::Diverged { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let target = copy_of(&source, backend);
    assert_eq!(target.head().refs[REF].commit, source.head().refs[REF].commit);
    let newest = target.head().refs[REF].time;
    assert_eq!(toy::load(&target, newest).unwrap(), versions.last().unwrap().1);
    assert!(target.verify(true).unwrap().is_clean());
}

#[test]
fn a_damaged_source_is_found_before_it_is_copied() {
    let directory = tempfile::tempdir().unwrap();
    let source = Store::create(place(directory.path()), options()).unwrap();
    fill(&source, &mut Random::new(11), 1);
    let pack = std::fs::read_dir(directory.path().join("packs")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    let target = memory();
    let error = push(&source, &target).unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
    assert_eq!(target.head().number, TimeId(0));
    assert!(target.head().refs.is_empty());
}

#[test]
fn deltas_arrive_and_those_without_a_base_as_a_whole() {
    let directory = tempfile::tempdir().unwrap();
    let source = Store::create(place(directory.path()), options()).unwrap();
    let mut random = Random::new(12);
    let versions = fill(&source, &mut random, 12);
    let chunks = |store: &Store| store.transfer(&memory(), &TransferOptions::default(), &mut |_| true);
    let all = chunks(&source).unwrap();
    assert!(all.bytes < 1_100_000, "twelve versions of 800 kB as deltas: {}", all.bytes);
    let target = memory();
    let since = Some(Since::Version(TimeId(10)));
    let options = TransferOptions { since, ..TransferOptions::default() };
    source.transfer(&target, &options, &mut |_| true).unwrap();
    let moved: Vec<_> =
        versions[9..].iter().map(|(time, values)| (TimeId(time.0 - 9), values.clone())).collect();
    assert_holds(&target, &moved);
}

#[test]
fn a_caller_can_stop_it_and_sees_how_far_it_is() {
    let source = memory();
    fill(&source, &mut Random::new(13), 2);
    let target = memory();
    let mut told = Vec::new();
    let error = source
        .transfer(&target, &TransferOptions::default(), &mut |progress| {
            told.push(*progress);
            told.len() < 2
        })
        .unwrap_err();
    assert!(matches!(error, StoreError::Stopped), "{error}");
    assert!(target.head().refs.is_empty());
    told.clear();
    let options = TransferOptions { limit: Some(4_000_000), ..TransferOptions::default() };
    let began = std::time::Instant::now();
    let mut watch = |progress: &_| {
        told.push(*progress);
        true
    };
    let report = source.transfer(&target, &options, &mut watch).unwrap();
    assert!(report.bytes > 800_000);
    let last = told.last().unwrap();
    assert_eq!((last.phase.name(), last.done, last.total), ("publishing", 2, 2));
    assert!(began.elapsed().as_secs() < 60);
}

#[test]
fn a_source_whose_packs_were_written_anew_sends_what_is_new() {
    let directory = tempfile::tempdir().unwrap();
    let source = Store::create(place(&directory.path().join("a")), options()).unwrap();
    let mut random = Random::new(31);
    // What goes shares its pack with what stays, so a sweep moves the rest.
    let mut values = Namespace::from([
        ("large".to_owned(), random.bytes(900_000)),
        ("kept".to_owned(), random.bytes(300_000)),
    ]);
    toy::save(&source, &values, "").unwrap();
    values.insert("large".to_owned(), random.bytes(100));
    let before = toy::save(&source, &values, "").unwrap();
    let (meter, backend) = metered();
    let target = copy_of(&source, backend);
    push(&source, &target).unwrap();
    let request = SweepRequest {
        retention: Retention { keep_last: Some(1), ..Retention::default() },
        grace: Duration::ZERO,
        dry_run: false,
    };
    let swept = source.sweep(&request).unwrap();
    assert!(swept.moved_bytes > 300_000 && swept.freed_bytes > 900_000, "{swept:?}");
    values.insert("new".to_owned(), random.bytes(3_000));
    let after = toy::save(&source, &values, "").unwrap();
    meter.reset(u64::MAX);
    let report = push(&source, &target).unwrap();
    assert_eq!((report.versions, report.swept), (1, 0));
    // Some 12 kB: the variable, its tables, an index, a root state and entries.
    assert!(meter.bytes_written() < 15_000, "{} bytes were sent", meter.bytes_written());
    let newest = target.head().refs[REF].time;
    assert_holds(&target, &[(newest, values.clone())]);
    assert_eq!(toy::load(&source, after).unwrap(), values);
    values.remove("new");
    assert_eq!(
        toy::load(&target, before).unwrap(),
        values,
        "a backup keeps what the source has dropped later"
    );
}
