//! What every place of a repository has to do, on every backend and behind every wrapper.

use chipmink_store::{
    Backend, Cancel, Publication, Retention, Store, StoreError, StoreOptions, SweepRequest, TransferOptions,
};
use chipmink_testkit::Random;
use chipmink_testkit::toy::{self, Namespace, REF};
use chipmink_types::TimeId;
use std::time::Duration;

/// Opens the same repository each time, as another process would, or makes it.
pub(crate) type Open<'a> = &'a dyn Fn() -> Store;

/// Tries it all; `sweeps`: whether the repository is swept where it is.
pub(crate) fn conforms(open: Open<'_>, sweeps: bool) {
    versions_come_back(open);
    writers_race(open);
    what_is_given_up_is_not_there(open);
    threads_publish_in_turn(open);
    refs_move_and_go(open);
    a_copy_is_the_same(open);
    if sweeps {
        what_is_dropped_gives_its_room_back(open);
    }
    let report = open().verify(true).unwrap();
    assert!(report.is_clean(), "{report:?}");
}

/// Some small variables, and a large one.
pub(crate) fn values(seed: u64, large: usize) -> Namespace {
    let mut random = Random::new(seed);
    let mut values: Namespace = (0..5).map(|name| (format!("v{name}"), random.bytes(400))).collect();
    values.insert("large".to_owned(), random.bytes(large));
    values
}

/// Versions of one writer.
pub(crate) fn versions_come_back(open: Open<'_>) {
    let store = open();
    let mut current = values(1, 700_000);
    let mut saved = Vec::new();
    for step in 0..40u8 {
        current.insert(format!("v{}", step % 5), vec![step; 300]);
        current.get_mut("large").unwrap()[usize::from(step) * 10_000] ^= 1;
        saved.push((toy::save(&store, &current, &format!("step {step}")).unwrap(), current.clone()));
    }
    let other = open();
    for (time, expected) in saved.iter().step_by(7) {
        assert_eq!(&toy::load(&store, *time).unwrap(), expected);
        assert_eq!(&toy::load(&other, *time).unwrap(), expected);
    }
    // More than one part of an upload.
    current.insert("large".to_owned(), Random::new(2).bytes(20 << 20));
    let time = toy::save(&store, &current, "").unwrap();
    assert_eq!(toy::load(&open(), time).unwrap(), current);
    assert_eq!(open().head(), store.head());
}

fn writers_race(open: Open<'_>) {
    let (first, second) = (open(), open());
    let newer = toy::save(&first, &values(3, 100), "").unwrap();
    let mut transaction = second.begin();
    let publication = toy::write(&second, &mut transaction, &values(4, 100), "").unwrap();
    let error = transaction.publish(&publication).unwrap_err();
    assert!(matches!(error, StoreError::RefMoved { found: Some(found), .. } if found == newer), "{error}");
    let time = transaction.publish(&Publication { expected: Some(newer), ..publication }).unwrap();
    first.refresh().unwrap();
    assert_eq!(toy::load(&first, time).unwrap(), values(4, 100));
}

fn what_is_given_up_is_not_there(open: Open<'_>) {
    let store = open();
    let before = store.head();
    let mut transaction = store.begin();
    toy::write(&store, &mut transaction, &values(5, 9 << 20), "").unwrap();
    transaction.abandon();
    let (mut transaction, cancel) = (store.begin(), Cancel::default());
    transaction.cancel_by(cancel.clone());
    let publication = toy::write(&store, &mut transaction, &values(6, 100), "").unwrap();
    cancel.cancel();
    assert!(matches!(transaction.publish(&publication), Err(StoreError::Cancelled)));
    drop(transaction);
    assert_eq!(open().head(), before);
    assert_eq!(open().verify(false).unwrap().orphan_packs, 0);
}

fn threads_publish_in_turn(open: Open<'_>) {
    let (shared, other) = (open(), open());
    let first = shared.head().number.0 + 1;
    let save = |writer: u64| {
        let store = if writer.is_multiple_of(2) { shared.clone() } else { other.clone() };
        let mut expected = None;
        let mut saved = Vec::new();
        for step in 0..5 {
            let mut transaction = store.begin();
            let values = values(100 * writer + step, 100);
            let publication = toy::write(&store, &mut transaction, &values, "").unwrap();
            let publication = Publication { ref_name: format!("w{writer}"), expected, ..publication };
            let time = transaction.publish(&publication).unwrap();
            expected = Some(time);
            saved.push((time, values));
        }
        saved
    };
    let saved: Vec<(TimeId, Namespace)> = std::thread::scope(|scope| {
        let save = &save;
        let threads: Vec<_> = (1..5).map(|writer| scope.spawn(move || save(writer))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut numbers: Vec<u64> = saved.iter().map(|(time, _)| time.0).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (first..first + 20).collect::<Vec<u64>>());
    let reopened = open();
    for (time, values) in &saved {
        assert_eq!(&toy::load(&reopened, *time).unwrap(), values);
    }
}

fn refs_move_and_go(open: Open<'_>) {
    let store = open();
    let target = store.head().refs[REF];
    store.begin().move_ref("tag/one", None, Some(target)).unwrap();
    assert_eq!(open().head().refs["tag/one"], target);
    let error = store.begin().move_ref("tag/one", None, Some(target)).unwrap_err();
    assert!(matches!(error, StoreError::RefMoved { .. }), "{error}");
    for writer in 1..5 {
        let name = format!("w{writer}");
        let time = store.head().refs[&name].time;
        store.begin().move_ref(&name, Some(time), None).unwrap();
    }
    assert_eq!(open().head().refs.keys().collect::<Vec<_>>(), [REF, "tag/one"]);
}

fn a_copy_is_the_same(open: Open<'_>) {
    let store = open();
    let options = StoreOptions { repository: Some(store.repository()), ..StoreOptions::default() };
    let copy = Store::create_in(Backend::memory(1 << 30, StoreOptions::default().gather), options).unwrap();
    store.transfer(&copy, &TransferOptions::default(), &mut |_| true).unwrap();
    assert_eq!(copy.head().refs, open().head().refs);
    let newest = copy.head().refs[REF].time;
    assert_eq!(toy::load(&copy, newest).unwrap(), toy::load(&store, newest).unwrap());
    assert!(copy.verify(true).unwrap().is_clean());
    store.begin().move_ref("tag/one", Some(store.head().refs["tag/one"].time), None).unwrap();
}

/// A sweep of all but the newest version.
pub(crate) fn what_is_dropped_gives_its_room_back(open: Open<'_>) {
    let store = open();
    let kept = toy::load(&store, store.head().refs[REF].time).unwrap();
    let retention = Retention { keep_last: Some(1), ..Retention::default() };
    let request = SweepRequest { retention, grace: Duration::ZERO, dry_run: false };
    let report = store.sweep(&request).unwrap();
    assert_eq!(report.versions_kept, 1);
    assert!(report.freed_bytes > 20 << 20, "{report:?}");
    let reopened = open();
    assert_eq!(toy::load(&reopened, reopened.head().refs[REF].time).unwrap(), kept);
    assert!(toy::load(&reopened, TimeId(1)).is_err());
    let mut later = kept;
    later.insert("later".to_owned(), vec![1; 500]);
    assert_eq!(toy::load(&open(), toy::save(&store, &later, "").unwrap()).unwrap(), later);
}
