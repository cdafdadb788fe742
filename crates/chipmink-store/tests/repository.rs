//! A repository on disk and in memory: what is saved comes back, at any number, in any process.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use chipmink_store::{
    Backend, Place, Publication, Retention, Store, StoreError, StoreOptions, SweepRequest, TransferOptions,
};
use chipmink_testkit::toy::{self, Namespace, REF};
use chipmink_testkit::{Misdeed, Random, UnrulyStore};
use chipmink_types::{BlobSource, TimeId};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn options() -> StoreOptions {
    StoreOptions { durable: false, ..StoreOptions::default() }
}

fn place(path: &Path) -> Place {
    Place::parse(path.to_str().unwrap()).unwrap()
}

fn namespace(random: &mut Random, names: usize) -> Namespace {
    let value = |random: &mut Random| match random.below(10) {
        0 => random.bytes(200_000),
        1..4 => random.text(5_000),
        _ => random.bytes(300),
    };
    (0..names).map(|name| (format!("v{name}"), value(random))).collect()
}

fn count(path: &Path) -> usize {
    std::fs::read_dir(path).unwrap().count()
}

#[test]
fn every_version_comes_back_also_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let place = place(&directory.path().join("some/where"));
    let mut random = Random::new(1);
    let mut saved = Vec::new();
    let mut store = Store::open_or_create(place.clone(), options()).unwrap();
    let mut current = namespace(&mut random, 12);
    for step in 0..150 {
        let name = format!("v{}", random.below(12));
        current.insert(name, random.bytes(100));
        let time = toy::save(&store, &current, &format!("step {step}")).unwrap();
        assert_eq!(time, TimeId(step + 1));
        saved.push((time, current.clone()));
        if step % 40 == 39 {
            store = Store::open(place.clone(), options()).unwrap();
            assert_eq!(store.head().number, time);
        }
    }
    for (time, expected) in &saved {
        assert_eq!(&toy::load(&store, *time).unwrap(), expected);
    }
    let report = store.verify(true).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.versions, 150);
    assert_eq!((report.orphan_packs, report.void_entries.len()), (0, 0));
    assert!(store.verify(false).unwrap().is_clean());
    assert_eq!(count(&directory.path().join("some/where/tmp")), 0);
    assert_eq!(
        store.entries().map(|entry| entry.unwrap().number.0).collect::<Vec<_>>(),
        (0..=150).rev().collect::<Vec<_>>()
    );
}

#[test]
fn nothing_new_is_one_entry_and_no_pack() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(place(directory.path()), options()).unwrap();
    let current = namespace(&mut Random::new(2), 5);
    toy::save(&store, &current, "").unwrap();
    let packs = count(&directory.path().join("packs"));
    let time = toy::save(&store, &current, "").unwrap();
    assert_eq!(count(&directory.path().join("packs")), packs);
    let entry = store.entry(time).unwrap();
    assert!(entry.packs_added.is_empty());
    assert!(entry.encode().len() < 600, "{} bytes", entry.encode().len());
}

#[test]
fn a_second_writer_is_told_that_the_ref_moved_and_harms_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let first = Store::create(place(directory.path()), options()).unwrap();
    let mut random = Random::new(3);
    let start = namespace(&mut random, 4);
    toy::save(&first, &start, "").unwrap();
    let second = Store::open(place(directory.path()), options()).unwrap();
    let mine = namespace(&mut random, 4);
    toy::save(&first, &mine, "").unwrap();
    let theirs = namespace(&mut random, 4);
    let mut transaction = second.begin();
    let publication = toy::write(&second, &mut transaction, &theirs, "").unwrap();
    let error = transaction.publish(&publication).unwrap_err();
    assert!(
        matches!(error, StoreError::RefMoved { expected: Some(TimeId(1)), found: Some(TimeId(2)), .. }),
        "{error}"
    );
    // Nothing is lost: the same packs can be published on the new base, or under another ref.
    let retry = Publication { expected: Some(TimeId(2)), ..publication };
    let time = transaction.publish(&retry).unwrap();
    assert_eq!(toy::load(&second, time).unwrap(), theirs);
    first.refresh().unwrap();
    assert_eq!(toy::load(&first, time).unwrap(), theirs);
    assert_eq!(toy::load(&first, TimeId(2)).unwrap(), mine);
    assert!(first.verify(true).unwrap().is_clean());
}

#[test]
fn a_lost_race_on_another_ref_is_rebased() {
    let directory = tempfile::tempdir().unwrap();
    let first = Store::create(place(directory.path()), options()).unwrap();
    let second = Store::open(place(directory.path()), options()).unwrap();
    let mut random = Random::new(4);
    toy::save(&first, &namespace(&mut random, 3), "").unwrap();
    let theirs = namespace(&mut random, 3);
    let mut transaction = second.begin();
    let publication = toy::write(&second, &mut transaction, &theirs, "").unwrap();
    let publication = Publication { ref_name: "other".into(), expected: None, ..publication };
    let time = transaction.publish(&publication).unwrap();
    assert_eq!(time, TimeId(2));
    assert_eq!(second.head().refs.len(), 2);
    assert_eq!(toy::load(&second, time).unwrap(), theirs);
    assert!(second.verify(true).unwrap().is_clean());
}

#[test]
fn threads_and_handles_save_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(place(directory.path()), options()).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..4u64 {
            let path = place(directory.path());
            let shared = store.clone();
            scope.spawn(move || {
                let mut random = Random::new(10 + worker);
                // Two share a handle, two have their own.
                let store = if worker < 2 { shared } else { Store::open(path, options()).unwrap() };
                let name = format!("worker{worker}");
                let mut expected = None;
                for _ in 0..25 {
                    let values = namespace(&mut random, 3);
                    let mut transaction = store.begin();
                    let publication = toy::write(&store, &mut transaction, &values, "").unwrap();
                    let publication = Publication { ref_name: name.clone(), expected, ..publication };
                    let time = transaction.publish(&publication).unwrap();
                    expected = Some(time);
                    assert_eq!(toy::load(&store, time).unwrap(), values);
                }
            });
        }
    });
    store.refresh().unwrap();
    assert_eq!(store.head().number, TimeId(100));
    let report = store.verify(true).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.versions, 100);
}

#[test]
fn creating_twice_and_opening_nothing_are_clear_errors() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = place(&directory.path().join("nowhere"));
    assert!(matches!(Store::open(nowhere.clone(), options()), Err(StoreError::NoRepository { .. })));
    assert!(!directory.path().join("nowhere").exists());
    Store::create(nowhere.clone(), options()).unwrap();
    assert!(matches!(Store::create(nowhere.clone(), options()), Err(StoreError::AlreadyThere { .. })));
    Store::open_or_create(nowhere, options()).unwrap();
}

#[test]
fn a_folder_that_was_emptied_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let place = place(&directory.path().join("r"));
    let store = Store::create(place.clone(), options()).unwrap();
    let values = namespace(&mut Random::new(5), 3);
    toy::save(&store, &values, "").unwrap();
    std::fs::remove_dir_all(directory.path().join("r")).unwrap();
    Store::create(place, options()).unwrap();
    let error = toy::save(&store, &namespace(&mut Random::new(6), 3), "").unwrap_err();
    assert!(matches!(error, StoreError::Replaced { .. }), "{error}");
}

/// What publishes an entry in the first of two repositories.
type Publish = fn(&Store, &Store) -> Result<(), StoreError>;

const PUBLISHERS: [(&str, Publish); 5] = [
    ("save", |store, _| toy::save(store, &namespace(&mut Random::new(6), 3), "").map(drop)),
    ("move_ref", |store, _| {
        let expected = store.head().refs.get(REF).map(|target| target.time);
        store.begin().move_ref(REF, expected, None).map(drop)
    }),
    ("take_lease", |store, _| store.take_lease(TimeId(2), Duration::from_secs(60)).map(drop)),
    ("sweep", |store, _| {
        let retention = Retention { keep_last: Some(1), ..Retention::default() };
        store.sweep(&SweepRequest { retention, grace: Duration::ZERO, dry_run: false }).map(drop)
    }),
    ("transfer", |store, other| other.transfer(store, &TransferOptions::default(), &mut |_| true).map(drop)),
];

/// The number that an old handle would take is free in the new repository, too: its entry would stand there, answered by
/// success, and no version of either.
#[test]
fn a_repository_made_anew_with_an_equally_long_log_takes_nothing_of_the_old_ones_handles() {
    let directory = tempfile::tempdir().unwrap();
    let save_some = |store: &Store, seed: u64| {
        for step in 0..3 {
            toy::save(store, &namespace(&mut Random::new(seed + step), 3), "").unwrap();
        }
    };
    for (what, publish) in PUBLISHERS {
        for is_far in [false, true] {
            let (path, objects) = (directory.path().join(what), Arc::new(InMemory::new()));
            let create = || match is_far {
                true => Store::create_in(Backend::remote(objects.clone(), "memory"), options()).unwrap(),
                false => Store::create(place(&path), options()).unwrap(),
            };
            let old = create();
            save_some(&old, 10);
            let identity = StoreOptions { repository: Some(old.repository()), ..options() };
            let other =
                Store::create_in(Backend::remote(Arc::new(InMemory::new()), "other"), identity).unwrap();
            if what == "transfer" {
                old.transfer(&other, &TransferOptions::default(), &mut |_| true).unwrap();
                toy::save(&other, &namespace(&mut Random::new(30), 3), "").unwrap();
            }
            match is_far {
                true => {
                    let listed = futures::executor::block_on_stream(objects.list(None));
                    let listed: Vec<_> = listed.map(|meta| meta.unwrap().location).collect();
                    for location in listed {
                        futures::executor::block_on(objects.delete(&location)).unwrap();
                    }
                }
                false => std::fs::remove_dir_all(&path).unwrap(),
            }
            let new = create();
            save_some(&new, 20);
            let error = publish(&old, &other).unwrap_err();
            assert!(matches!(error, StoreError::Replaced { .. }), "{what}, far: {is_far}: {error}");
            // As if nothing had happened.
            toy::save(&new, &namespace(&mut Random::new(24), 3), "").unwrap();
            assert!(new.void_entries().is_empty(), "{what}, far: {is_far}");
            let report = new.verify(true).unwrap();
            assert!(report.is_clean() && report.versions == 4, "{what}, far: {is_far}: {report:?}");
        }
    }
}

fn unruly() -> (UnrulyStore, Store) {
    let objects = UnrulyStore::new(Arc::new(InMemory::new()));
    let store = Store::create_in(Backend::remote(Arc::new(objects.clone()), "memory"), options()).unwrap();
    toy::save(&store, &namespace(&mut Random::new(7), 3), "").unwrap();
    (objects, store)
}

#[test]
fn answers_that_are_lost_are_found_out() {
    let (objects, store) = unruly();
    let mut random = Random::new(8);
    let mut number = 1;
    for misdeeds in [
        &[Misdeed::StoresAndFails][..],
        &[Misdeed::Fails],
        &[Misdeed::Fails, Misdeed::Fails, Misdeed::StoresAndFails],
    ] {
        objects.next(misdeeds);
        let values = namespace(&mut random, 3);
        number += 1;
        assert_eq!(toy::save(&store, &values, "").unwrap(), TimeId(number));
        assert_eq!(toy::load(&store, TimeId(number)).unwrap(), values);
    }
    assert!(store.verify(true).unwrap().is_clean());
}

#[test]
fn what_cannot_be_found_out_is_called_unknown_and_never_failed() {
    for misdeeds in [&[Misdeed::FailsAndGoesDeaf][..], &[Misdeed::Fails; 4]] {
        let (objects, store) = unruly();
        objects.next(misdeeds);
        let values = namespace(&mut Random::new(9), 3);
        let error = toy::save(&store, &values, "").unwrap_err();
        assert!(matches!(error, StoreError::OutcomeUnknown { number: TimeId(2), .. }), "{error}");
        objects.next(&[]);
        assert_eq!(toy::save(&store, &values, "").unwrap(), TimeId(2));
        assert!(store.verify(true).unwrap().is_clean());
    }
}

#[test]
fn a_store_without_conditional_writes_is_refused() {
    let objects = UnrulyStore::new(Arc::new(InMemory::new())).always(Misdeed::Replaces);
    let error = Store::create_in(Backend::remote(Arc::new(objects), "memory"), options()).unwrap_err();
    assert!(matches!(error, StoreError::Unconditional { winners: 16, .. }), "{error}");
    assert!(error.to_string().contains("single_writer"), "{error}");
}

#[test]
fn a_store_whose_writers_did_not_meet_in_one_race_is_found_out_in_the_next() {
    let objects = UnrulyStore::new(Arc::new(InMemory::new()));
    objects.next(&[[Misdeed::Behaves; 16], [Misdeed::Replaces; 16]].concat());
    let error = Store::create_in(Backend::remote(Arc::new(objects), "memory"), options()).unwrap_err();
    assert!(matches!(error, StoreError::Unconditional { winners: 16, .. }), "{error}");
}

#[test]
fn a_store_without_conditional_writes_can_be_used_by_one_writer() {
    let objects = Arc::new(UnrulyStore::new(Arc::new(InMemory::new())).always(Misdeed::Replaces));
    let backend = || Backend::remote(objects.clone(), "memory");
    let alone = StoreOptions { single_writer: true, ..options() };
    let store = Store::create_in(backend(), alone.clone()).unwrap();
    let mut random = Random::new(10);
    let first = namespace(&mut random, 3);
    toy::save(&store, &first, "").unwrap();
    // The verdict is in the root state: who does not vouch for being alone is told without another race.
    let other = Store::open_in(backend(), options()).unwrap();
    assert_eq!(toy::load(&other, TimeId(1)).unwrap(), first);
    let error = toy::save(&other, &first, "").unwrap_err();
    assert!(
        matches!(error, StoreError::ReadOnly { .. }) && error.to_string().contains("single_writer"),
        "{error}"
    );
    let again = Store::open_in(backend(), alone).unwrap();
    for number in 2..70 {
        let values = namespace(&mut random, 3);
        assert_eq!(toy::save(&again, &values, "").unwrap(), TimeId(number));
        assert_eq!(toy::load(&again, TimeId(number)).unwrap(), values);
    }
    assert!(again.verify(true).unwrap().is_clean());
    // It looks before it writes, so that a second writer is found out if it is not too near.
    let error = toy::save(&store, &first, "").unwrap_err();
    assert!(matches!(error, StoreError::RefMoved { .. }), "{error}");
}

#[test]
fn a_place_that_honours_conditional_writes_is_used_with_them_by_one_writer_too() {
    let objects = UnrulyStore::new(Arc::new(InMemory::new()));
    let alone = StoreOptions { single_writer: true, ..options() };
    let store = Store::create_in(Backend::remote(Arc::new(objects.clone()), "memory"), alone).unwrap();
    toy::save(&store, &namespace(&mut Random::new(11), 3), "").unwrap();
    // A create that is refused shows that creates are asked for.
    objects.next(&[Misdeed::FailsAndGoesDeaf]);
    let error = toy::save(&store, &namespace(&mut Random::new(12), 3), "").unwrap_err();
    assert!(matches!(error, StoreError::OutcomeUnknown { .. }), "{error}");
}

#[test]
fn an_abandoned_save_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let options = StoreOptions { pack_bytes: 10_000, ..options() };
    let store = Store::create(place(directory.path()), options).unwrap();
    let mut transaction = store.begin();
    toy::write(&store, &mut transaction, &namespace(&mut Random::new(11), 20), "").unwrap();
    assert!(count(&directory.path().join("packs")) > 0, "several packs were filled");
    transaction.abandon();
    assert_eq!(count(&directory.path().join("packs")), 0);
    assert_eq!(count(&directory.path().join("tmp")), 0);
}

#[test]
fn small_caches_and_packs_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let options = StoreOptions { pack_bytes: 10_000, thesaurus_bytes: 1000, cache_bytes: 1000, ..options() };
    let store = Store::create(place(directory.path()), options).unwrap();
    let mut random = Random::new(12);
    let mut saved = Vec::new();
    for _ in 0..30 {
        let values = namespace(&mut random, 15);
        saved.push((toy::save(&store, &values, &"long ".repeat(200)).unwrap(), values));
    }
    for (time, expected) in &saved {
        assert_eq!(&toy::load(&store, *time).unwrap(), expected);
    }
    assert!(store.verify(true).unwrap().is_clean());
    let Ok(chipmink_format::Text::Stored { digest, .. }) =
        store.commit(TimeId(3)).map(|commit| commit.message)
    else {
        panic!("a long message is a blob");
    };
    assert_eq!(store.get(&digest).unwrap().len(), 1000);
    assert_eq!(store.head().refs[REF].time, TimeId(30));
}

#[test]
fn the_newest_entry_is_found_in_a_store_that_lists_in_any_order() {
    let objects = Arc::new(UnrulyStore::new(Arc::new(InMemory::new())).listing_backwards());
    let backend = || Backend::remote(objects.clone(), "memory");
    let store = Store::create_in(backend(), options()).unwrap();
    let mut values = Namespace::new();
    for number in 1..=150u64 {
        values.insert("x".into(), number.to_le_bytes().to_vec());
        assert_eq!(toy::save(&store, &values, "").unwrap(), TimeId(number));
        if number % 37 == 0 {
            let store = Store::open_in(backend(), options()).unwrap();
            assert_eq!(store.head().number, TimeId(number));
            assert_eq!(toy::load(&store, TimeId(number)).unwrap(), values);
        }
    }
}

#[test]
fn what_this_process_wrote_is_found_without_reading_an_index() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(place(directory.path()), options()).unwrap();
    let mut random = Random::new(13);
    let mut first = None;
    for _ in 0..40 {
        let values = namespace(&mut random, 3);
        let time = toy::save(&store, &values, "").unwrap();
        first.get_or_insert((time, values));
    }
    // With every pack unreadable, known blobs are still known and new ones still new: also behind two merges.
    for pack in std::fs::read_dir(directory.path().join("packs")).unwrap() {
        std::fs::remove_file(pack.unwrap().path()).unwrap();
    }
    let (_, values) = first.unwrap();
    let mut transaction = store.begin();
    toy::write(&store, &mut transaction, &values, "").unwrap();
    assert_eq!(transaction.stats().blobs_new, 0);
    let new = random.bytes(1000);
    assert!(!store.contains(&chipmink_digest::digest(&new)).unwrap());
}
