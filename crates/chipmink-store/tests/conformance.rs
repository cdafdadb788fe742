//! The conformance suite on every backend that needs no server, and behind every wrapper.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod suite;

use chipmink_shm::pool::Pool;
use chipmink_store::local::{LocalDisk, System};
use chipmink_store::{Backend, Staging, Store, StoreOptions};
use chipmink_testkit::toy::{self, REF};
use chipmink_testkit::{FarStore, FaultDisk, MeteredStore, UnrulyStore};
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use suite::conforms;

fn opens(backend: impl Fn() -> Backend, options: &StoreOptions) -> impl Fn() -> Store {
    move || Store::open_or_create_in(backend(), options.clone()).unwrap()
}

fn on_disk(path: &Path, durable: bool) -> Backend {
    Backend::local(LocalDisk::new(path.to_owned(), Arc::new(System), durable))
}

#[test]
fn a_folder() {
    for durable in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let options = StoreOptions { durable, ..StoreOptions::default() };
        conforms(&opens(|| on_disk(directory.path(), durable), &options), true);
    }
}

#[test]
fn a_folder_behind_faults_that_do_not_come() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FaultDisk::new(Arc::new(System));
    let backend =
        || Backend::local(LocalDisk::new(directory.path().to_owned(), Arc::new(disk.clone()), true));
    conforms(&opens(backend, &StoreOptions::default()), true);
}

#[test]
fn memory() {
    let place = Backend::memory(1 << 30, StoreOptions::default().gather);
    conforms(&opens(|| place.clone(), &StoreOptions::default()), true);
}

/// A pool that goes when the test ends.
struct Temporary(String, Arc<Pool>);

impl Temporary {
    fn new(name: &str) -> Self {
        let name = format!("chipmink-conformance-{name}-{}", std::process::id());
        let pool = Arc::new(Pool::create(&name, 512 << 20, [1; 16]).unwrap());
        Temporary(name, pool)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = Pool::unlink(&self.0);
    }
}

#[test]
fn shared_memory() {
    let temporary = Temporary::new("pool");
    conforms(&opens(|| Backend::pool(temporary.1.clone()), &StoreOptions::default()), true);
}

#[test]
fn shared_memory_in_front_of_a_folder() {
    let (directory, temporary) = (tempfile::tempdir().unwrap(), Temporary::new("staging"));
    let lower = opens(|| on_disk(directory.path(), true), &StoreOptions::default())();
    let staging = Staging::new(temporary.1.clone(), lower);
    // Such a repository is swept below.
    conforms(&|| staging.open(StoreOptions::default()).unwrap(), false);
    while staging.persist_next(&mut |_| {}).unwrap().is_some() {}
    let store = opens(|| on_disk(directory.path(), true), &StoreOptions::default())();
    assert!(store.verify(true).unwrap().is_clean());
}

#[test]
fn an_object_store() {
    let objects = InMemory::new();
    let backend = || Backend::remote(Arc::new(objects.clone()), "far://");
    conforms(&opens(backend, &StoreOptions::default()), true);
}

#[test]
fn an_object_store_that_is_counted_slow_and_lists_backwards() {
    let config = ThrottleConfig {
        wait_get_per_call: Duration::from_millis(1),
        wait_put_per_call: Duration::from_millis(1),
        ..ThrottleConfig::default()
    };
    let objects = MeteredStore::new(Arc::new(ThrottledStore::new(InMemory::new(), config)));
    let unruly = Arc::new(UnrulyStore::new(Arc::new(objects)).listing_backwards());
    conforms(&opens(|| Backend::remote(unruly.clone(), "far://"), &StoreOptions::default()), true);
}

#[test]
fn an_object_store_at_the_end_of_a_wire() {
    let far = FarStore::new(Arc::new(InMemory::new()), Duration::from_millis(2), 1e9);
    conforms(&opens(|| Backend::remote(Arc::new(far.clone()), "far://"), &StoreOptions::default()), true);
}

#[test]
fn an_object_store_behind_a_cache() {
    let (objects, directory) = (InMemory::new(), tempfile::tempdir().unwrap());
    for byte_len_max in [1 << 30, 1 << 20] {
        let backend = || {
            let backend = Backend::remote(Arc::new(objects.clone()), "far://");
            backend.cached_in(directory.path(), byte_len_max).unwrap()
        };
        if byte_len_max == 1 << 30 {
            conforms(&opens(backend, &StoreOptions::default()), true);
        } else {
            // Too small for what is read.
            let store = opens(backend, &StoreOptions::default())();
            let newest = store.head().refs[REF].time;
            assert!(toy::load(&store, newest).unwrap().contains_key("later"));
        }
    }
}
