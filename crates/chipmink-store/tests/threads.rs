//! Threads that share one open repository.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use chipmink_store::{Backend, Publication, Store, StoreError, StoreOptions};
use chipmink_testkit::toy::{self, Namespace};
use chipmink_testkit::{MeteredStore, Random, UnrulyStore};
use chipmink_types::TimeId;
use object_store::memory::InMemory;
use std::collections::HashSet;
use std::sync::Arc;

fn place() -> (UnrulyStore, Store) {
    let objects = UnrulyStore::new(Arc::new(InMemory::new()));
    let store = Store::create_in(backend(&objects), StoreOptions::default()).unwrap();
    (objects, store)
}

fn backend(objects: &UnrulyStore) -> Backend {
    Backend::remote(Arc::new(objects.clone()), "unruly://")
}

fn namespace(step: u8) -> Namespace {
    Namespace::from([
        ("a".to_owned(), vec![step; 200]),
        ("b".to_owned(), Random::new(step.into()).bytes(300)),
    ])
}

/// An entry counted twice when another thread had looked at the log while it was being published.
#[test]
fn an_entry_that_another_thread_has_seen_already_counts_once() {
    let (objects, store) = place();
    let looker = store.clone();
    objects.meanwhile(move || looker.refresh().unwrap());
    let time = toy::save(&store, &namespace(1), "").unwrap();
    assert_eq!(store.head().number, time);
    // A root state sums up the packs.
    for step in 2..70 {
        toy::save(&store, &namespace(step), "").unwrap();
    }
    let reopened = Store::open_in(backend(&objects), StoreOptions::default()).unwrap();
    let report = reopened.verify(true).unwrap();
    assert!(report.is_clean(), "{report:?}");
    let packs: Vec<_> =
        reopened.entries().flat_map(|entry| entry.unwrap().packs_added).map(|pack| pack.name).collect();
    assert_eq!(report.packs, packs.iter().collect::<HashSet<_>>().len() as u64);
}

/// The one that came second took the repository for another.
#[test]
fn two_threads_may_look_at_the_log_at_once() {
    let (objects, store) = place();
    let other = Store::open_in(backend(&objects), StoreOptions::default()).unwrap();
    let time = toy::save(&other, &namespace(1), "").unwrap();
    let looker = store.clone();
    objects.meanwhile(move || looker.refresh().unwrap());
    store.refresh().unwrap();
    assert_eq!(store.head().number, time);
    assert_eq!(toy::load(&store, time).unwrap(), namespace(1));
}

/// Saves to a line of its own.
fn save_to(store: &Store, ref_name: &str, expected: Option<TimeId>, step: u8) -> Result<TimeId, StoreError> {
    let mut transaction = store.begin();
    let publication = toy::write(store, &mut transaction, &namespace(step), "")?;
    transaction.publish(&Publication { ref_name: ref_name.to_owned(), expected, ..publication })
}

#[test]
fn repositories_of_one_place_hear_from_each_other_what_was_published() {
    let objects = MeteredStore::new(Arc::new(InMemory::new()));
    let place = Backend::remote(Arc::new(objects.clone()), "metered://");
    let first = Store::create_in(place.clone(), StoreOptions::default()).unwrap();
    let second = Store::open_in(place, StoreOptions::default()).unwrap();
    let mut expected = None;
    for step in 0..5 {
        expected = Some(save_to(&first, "first", expected, step).unwrap());
    }
    let mut transaction = second.begin();
    let publication = toy::write(&second, &mut transaction, &namespace(9), "").unwrap();
    let publication = Publication { ref_name: "second".to_owned(), expected: None, ..publication };
    objects.reset(u64::MAX);
    let time = transaction.publish(&publication).unwrap();
    // Whether its newest entry is still there, the pack, and the entry.
    assert_eq!(objects.requests(), 3);
    assert_eq!(Some(time.0), expected.map(|expected| expected.0 + 1));
    assert_eq!(toy::load(&second, expected.unwrap()).unwrap(), namespace(4));
    let moved = save_to(&second, "first", None, 10).unwrap_err();
    assert!(matches!(moved, StoreError::RefMoved { found, .. } if found == expected), "{moved}");
}

#[test]
fn many_threads_publish_in_turn() {
    let objects = Arc::new(InMemory::new());
    let place = Backend::remote(objects, "shared://");
    let store = Store::create_in(place.clone(), StoreOptions::default()).unwrap();
    let other = Store::open_in(place.clone(), StoreOptions::default()).unwrap();
    let work = |writer: u8| {
        let store = if writer.is_multiple_of(2) { store.clone() } else { other.clone() };
        let mut saved = Vec::new();
        for step in 0..30 {
            let expected = saved.last().map(|(time, _)| *time);
            let step = writer.wrapping_mul(30).wrapping_add(step);
            saved.push((save_to(&store, &format!("w{writer}"), expected, step).unwrap(), step));
        }
        saved
    };
    let saved: Vec<(TimeId, u8)> = std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..8).map(|writer| scope.spawn(move || work(writer))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let reopened = Store::open_in(place, StoreOptions::default()).unwrap();
    for (time, step) in &saved {
        assert_eq!(toy::load(&reopened, *time).unwrap(), namespace(*step));
    }
    let mut numbers: Vec<u64> = saved.iter().map(|(time, _)| time.0).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=240).collect::<Vec<u64>>());
    for entry in reopened.entries() {
        let entry = entry.unwrap();
        let covers = entry.state.map_or(0, |place| place.covers.0);
        assert!(entry.number.0 - covers <= 64, "no root state in {} entries", entry.number.0 - covers);
    }
    let report = reopened.verify(true).unwrap();
    assert!(report.is_clean(), "{report:?}");
}
