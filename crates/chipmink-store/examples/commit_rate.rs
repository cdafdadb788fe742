//! How many versions 32 writers publish per second on a store that takes 50 ms for each request: 20 at most, since each entry
//! follows the one before it.
//!
//! `cargo run --release -p chipmink-store --example commit_rate [SECONDS]`
//!
//! Each writer saves small versions to a ref of its own: once as 32 processes (a store opened for each, which race for
//! every number of the log), once as 32 repositories that one process has opened at that place, once as 32 threads with one.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program to look at figures")]

use chipmink_store::{Backend, Publication, Store, StoreError, StoreOptions};
use chipmink_testkit::Random;
use chipmink_testkit::toy::{self, Namespace};
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use std::sync::Arc;
use std::time::{Duration, Instant};

const WRITERS: usize = 32;
const LATENCY: Duration = Duration::from_millis(50);

fn slow() -> Arc<ThrottledStore<InMemory>> {
    let config = ThrottleConfig {
        wait_delete_per_call: LATENCY,
        wait_get_per_call: LATENCY,
        wait_list_per_call: LATENCY,
        wait_put_per_call: LATENCY,
        ..ThrottleConfig::default()
    };
    Arc::new(ThrottledStore::new(InMemory::new(), config))
}

/// Saves until the time is over; returns how many versions that were.
fn save(store: &Store, writer: usize, until: Instant) -> (u64, u64) {
    let (mut published, mut failed, mut random) = (0, 0, Random::new(writer as u64));
    let mut expected = None;
    while Instant::now() < until {
        let namespace = Namespace::from([("a".to_owned(), random.bytes(500))]);
        let mut transaction = store.begin();
        let publication = toy::write(store, &mut transaction, &namespace, "").unwrap();
        let publication = Publication { ref_name: format!("w{writer}"), expected, ..publication };
        match transaction.publish(&publication) {
            Ok(time) => {
                expected = Some(time);
                published += 1;
            }
            Err(StoreError::RefMoved { found, .. }) => expected = found,
            Err(_) => failed += 1,
        }
    }
    (published, failed)
}

fn measure(what: &str, seconds: u64, open: impl Fn() -> Store) {
    let stores: Vec<Store> = (0..WRITERS).map(|_| open()).collect();
    let start = Instant::now();
    let until = start + Duration::from_secs(seconds);
    let counts: Vec<(u64, u64)> = std::thread::scope(|scope| {
        let work = |(writer, store)| scope.spawn(move || save(store, writer, until));
        let working: Vec<_> = stores.iter().enumerate().map(work).collect();
        working.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let published: u64 = counts.iter().map(|(published, _)| published).sum();
    let failed: u64 = counts.iter().map(|(_, failed)| failed).sum();
    let least = counts.iter().map(|(published, _)| published).min().unwrap_or(&0);
    let rate = published as f64 / start.elapsed().as_secs_f64();
    println!(
        "{what}: {rate:.1} versions/s ({published} published, {failed} failed, {least} by the slowest writer)"
    );
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(20);
    let objects = slow();
    let backend = || Backend::remote(objects.clone(), "slow://");
    Store::create_in(backend(), StoreOptions::default()).unwrap();
    measure("32 processes", seconds, || Store::open_in(backend(), StoreOptions::default()).unwrap());
    let place = backend();
    measure("32 repositories of one process", seconds, || {
        Store::open_in(place.clone(), StoreOptions::default()).unwrap()
    });
    let shared = Store::open_in(backend(), StoreOptions::default()).unwrap();
    measure("32 threads with one repository", seconds, || shared.clone());
}
