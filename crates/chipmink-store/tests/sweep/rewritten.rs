//! Packs that are mostly dead, or very many, are written anew; what they hold stays the same.

use crate::support::{Saver, last, open, options, packs, tidy};
use chipmink_store::{Place, Store, StoreOptions};
use chipmink_testkit::Random;
use chipmink_testkit::toy::{self, Namespace};
use chipmink_types::{BlobSource, TimeId};

#[test]
fn a_pack_that_is_mostly_dead_is_written_anew() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut random = Random::new(1);
    // The first version has a large variable that goes and a small one that stays.
    let mut values = Namespace::from([("large".to_owned(), random.bytes(500_000))]);
    values.insert("small".into(), random.bytes(3000));
    toy::save(&store, &values, "").unwrap();
    let first = store.entry(TimeId(1)).unwrap().packs_added[0];
    values.insert("large".into(), random.bytes(100));
    let time = toy::save(&store, &values, "").unwrap();
    let report = store.sweep(&last(1)).unwrap();
    assert!(report.moved_bytes > 0 && report.moved_bytes < 20_000, "{report:?}");
    assert!(report.freed_bytes > 500_000, "{report:?}");
    assert!(!directory.path().join(chipmink_format::pack_path(first.name)).exists());
    for store in [store, open(directory.path())] {
        assert_eq!(toy::load(&store, time).unwrap(), values);
        assert!(store.verify(true).unwrap().is_clean());
    }
}

#[test]
fn what_is_at_least_half_alive_stays_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut random = Random::new(2);
    let mut values =
        Namespace::from([("a".to_owned(), random.bytes(60_000)), ("b".into(), random.bytes(50_000))]);
    toy::save(&store, &values, "").unwrap();
    values.insert("b".into(), random.bytes(100));
    toy::save(&store, &values, "").unwrap();
    let report = store.sweep(&last(1)).unwrap();
    assert_eq!((report.moved_bytes, report.packs_condemned), (0, 0), "{report:?}");
    assert_eq!(report.versions_dropped, [TimeId(1)]);
    assert!(store.verify(true).unwrap().is_clean());
}

#[test]
fn bases_of_deltas_stay_as_long_as_a_delta_needs_them() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut saver = Saver::new(3);
    // The weights of the newest version are deltas against those before.
    saver.save_many(&store, 6);
    let report = store.sweep(&last(1)).unwrap();
    assert_eq!(report.versions_kept, 1);
    saver.check(&store);
    let fresh = Store::open(
        Place::Local(directory.path().to_owned()),
        StoreOptions { thesaurus_bytes: 0, cache_bytes: 0, ..options() },
    )
    .unwrap();
    saver.check(&fresh);
    for _ in 0..30 {
        saver.save(&fresh);
        fresh.sweep(&last(1)).unwrap();
        saver.check(&fresh);
    }
}

#[test]
fn the_packs_of_the_newest_version_are_gathered_when_they_are_very_many() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut random = Random::new(4);
    let mut values = Namespace::new();
    for name in 0..100 {
        values.insert(format!("v{name}"), random.bytes(500));
        toy::save(&store, &values, "").unwrap();
    }
    let before = packs(directory.path());
    let report = store.sweep(&tidy()).unwrap();
    assert!(report.moved_bytes > 0, "{report:?}");
    let after = packs(directory.path());
    assert!(before >= 100 && after < 70, "{before} packs became {after}");
    for time in [TimeId(1), TimeId(50), TimeId(100)] {
        assert_eq!(toy::load(&open(directory.path()), time).unwrap().len() as u64, time.0);
    }
    assert!(store.verify(true).unwrap().is_clean());
    // Once is enough.
    assert_eq!(store.sweep(&tidy()).unwrap().moved_bytes, 0);
}

#[test]
fn merged_indexes_and_root_states_may_go_with_their_packs() {
    let directory = tempfile::tempdir().unwrap();
    let small = StoreOptions { thesaurus_bytes: 0, cache_bytes: 0, ..options() };
    let open = || Store::open_or_create(Place::Local(directory.path().to_owned()), small.clone()).unwrap();
    let store = open();
    let mut saver = Saver::new(5);
    for round in 0..8 {
        saver.save_many(&store, 25);
        let report = store.sweep(&last(3)).unwrap();
        assert!(report.packs_condemned > 5, "{round}: {report:?}");
        saver.check(&store);
        saver.check(&open());
    }
    assert!(packs(directory.path()) < 30, "{} packs are left", packs(directory.path()));
}

#[test]
fn who_has_not_looked_finds_what_was_moved() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut random = Random::new(6);
    let mut values = Namespace::from([("large".to_owned(), random.bytes(400_000))]);
    values.insert("small".into(), random.bytes(3000));
    toy::save(&store, &values, "").unwrap();
    values.insert("large".into(), random.bytes(100));
    let time = toy::save(&store, &values, "").unwrap();
    let bare = StoreOptions { thesaurus_bytes: 0, cache_bytes: 0, ..options() };
    let readers =
        [open(directory.path()), Store::open(Place::Local(directory.path().to_owned()), bare).unwrap()];
    toy::load(&readers[0], time).unwrap();
    readers[0].clear_caches();
    store.sweep(&last(1)).unwrap();
    for reader in readers {
        assert_eq!(toy::load(&reader, time).unwrap(), values);
        let manifest = reader.commit(time).unwrap().manifest;
        reader.get_many(&[manifest, manifest]).unwrap();
    }
}
