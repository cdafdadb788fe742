//! Threads that share one open repository.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use chipmink_store::{Backend, Store, StoreOptions};
use chipmink_testkit::toy::{self, Namespace};
use chipmink_testkit::{Random, UnrulyStore};
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
