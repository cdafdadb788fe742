//! Opening a repository that is far away: a few rounds of requests, however long its log.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use chipmink_format::read_manifest;
use chipmink_store::{Backend, Place, Store, StoreOptions, TransferOptions};
use chipmink_testkit::toy::{self, Namespace, REF};
use chipmink_testkit::{MeteredStore, Random};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use object_store::{ObjectStore, ObjectStoreExt};
use std::sync::Arc;
use std::time::Duration;

const VERSIONS: u64 = 10_000;
/// Longer than it takes to ask for sixty things.
const LATENCY: Duration = Duration::from_millis(150);

#[test]
fn ten_thousand_versions_take_five_rounds_and_a_mebibyte() {
    let objects = InMemory::new();
    let store =
        Store::create_in(Backend::remote(Arc::new(objects.clone()), "near://"), StoreOptions::default())
            .unwrap();
    let mut values: Namespace = (0..5).map(|name| (format!("v{name}"), vec![name; 200])).collect();
    for step in 0..VERSIONS {
        values.insert("v0".to_owned(), step.to_le_bytes().repeat(20));
        toy::save(&store, &values, "").unwrap();
    }
    let config = ThrottleConfig {
        wait_get_per_call: LATENCY,
        wait_list_per_call: LATENCY,
        ..ThrottleConfig::default()
    };
    for has_hint in [true, false] {
        if !has_hint {
            futures::executor::block_on(objects.delete(&Path::from("hint"))).unwrap();
        }
        let far = MeteredStore::new(Arc::new(ThrottledStore::new(objects.clone(), config)));
        let store = Store::open_in(Backend::remote(Arc::new(far.clone()), "far://"), StoreOptions::default())
            .unwrap();
        let newest = store.head().refs[REF];
        let commit = store.commit(newest.time).unwrap();
        let names: Vec<String> =
            read_manifest(commit.manifest, &store).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["v0", "v1", "v2", "v3", "v4"]);
        assert_eq!(newest.time.0, VERSIONS);
        assert!(far.rounds() <= 5, "{} rounds", far.rounds());
        assert!(far.bytes_read() <= 1 << 20, "{} bytes", far.bytes_read());
        far.reset(u64::MAX);
        assert_eq!(toy::load(&store, newest.time).unwrap(), values);
        assert!(far.requests() <= 64, "{} requests for a version", far.requests());
    }
    #[cfg(target_os = "linux")]
    on_disk_it_takes_no_time(&objects);
    the_log_streams(objects);
}

#[test]
fn what_is_looked_up_one_by_one_in_a_long_index_takes_few_requests() {
    let objects = InMemory::new();
    let store =
        Store::create_in(Backend::remote(Arc::new(objects.clone()), "near://"), StoreOptions::default())
            .unwrap();
    let values: Namespace = (0..6000u32)
        .map(|i| (format!("v{i}"), i.wrapping_mul(2_654_435_761).to_le_bytes().repeat(20)))
        .collect();
    toy::save(&store, &values, "").unwrap();
    let far = MeteredStore::new(Arc::new(objects));
    let store =
        Store::open_in(Backend::remote(Arc::new(far.clone()), "far://"), StoreOptions::default()).unwrap();
    far.reset(u64::MAX);
    for value in values.values() {
        assert!(store.contains(&chipmink_digest::digest(value)).unwrap());
    }
    assert!(far.requests() <= 20, "{} requests", far.requests());
}

/// What stands before its first chunk, index, tables and nodes, takes requests that nobody can send at once.
#[test]
fn a_large_version_takes_few_requests_beside_those_of_its_bytes() {
    let options = StoreOptions { durable: false, ..StoreOptions::default() };
    let objects = InMemory::new();
    let near =
        Store::create_in(Backend::remote(Arc::new(objects.clone()), "near://"), options.clone()).unwrap();
    // Its index is longer than what is read of one without a thought.
    let mebibytes = 200;
    let values = Namespace::from([("x".to_owned(), Random::new(4).bytes(mebibytes << 20))]);
    let time = toy::save(&near, &values, "").unwrap();
    let pieces = mebibytes as u64 / 8;
    let far = MeteredStore::new(Arc::new(objects));
    let open = || Store::open_in(Backend::remote(Arc::new(far.clone()), "far://"), options.clone()).unwrap();
    let store = open();
    far.reset(u64::MAX);
    assert!(toy::load(&store, time).unwrap() == values);
    assert!(far.requests() <= pieces + 5, "{} requests for {pieces} pieces", far.requests());
    let directory = tempfile::tempdir().unwrap();
    let here = Place::parse(directory.path().join("here").to_str().unwrap()).unwrap();
    let identity = StoreOptions { repository: Some(store.repository()), ..options.clone() };
    let (store, here) = (open(), Store::create(here, identity).unwrap());
    far.reset(u64::MAX);
    store.transfer(&here, &TransferOptions::default(), &mut |_| true).unwrap();
    assert!(toy::load(&here, time).unwrap() == values);
    // Each pack of the copy begins and ends inside a piece.
    assert!(far.requests() <= pieces + 20, "{} requests to pull {pieces} pieces", far.requests());
}

/// How long this thread has run; what else the machine does is not counted.
#[cfg(target_os = "linux")]
fn on_cpu() -> Duration {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(spent.split_whitespace().next().unwrap().parse().unwrap())
}

/// Fifty milliseconds to the names, of a repository that this process does not know.
#[cfg(target_os = "linux")]
fn on_disk_it_takes_no_time(objects: &InMemory) {
    let directory = tempfile::tempdir().unwrap();
    futures::executor::block_on(async {
        let mut all = objects.list(None);
        while let Some(meta) = all.try_next().await.unwrap() {
            let path = directory.path().join(meta.location.as_ref());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, objects.get(&meta.location).await.unwrap().bytes().await.unwrap()).unwrap();
        }
    });
    let names = || {
        let began = on_cpu();
        let store = Store::open(Place::Local(directory.path().to_owned()), StoreOptions::default()).unwrap();
        let commit = store.commit(store.head().refs[REF].time).unwrap();
        assert_eq!(read_manifest(commit.manifest, &store).unwrap().len(), 5);
        on_cpu() - began
    };
    let best = (0..5).map(|_| names()).min().unwrap();
    assert!(best <= Duration::from_millis(50), "{best:?}");
}

/// What is asked for the newest versions does not depend on how many there are, and all are read in batches.
fn the_log_streams(objects: InMemory) {
    let near = MeteredStore::new(Arc::new(objects));
    let store =
        Store::open_in(Backend::remote(Arc::new(near.clone()), "near://"), StoreOptions::default()).unwrap();
    near.reset(u64::MAX);
    let newest: Vec<u64> = store.entries().take(10).map(|entry| entry.unwrap().number.0).collect();
    assert_eq!(newest, (VERSIONS - 9..=VERSIONS).rev().collect::<Vec<_>>());
    assert!(near.requests() <= 16, "{} requests for ten versions", near.requests());
    near.reset(u64::MAX);
    let mut expected = (0..=VERSIONS).rev();
    for entry in store.entries() {
        assert_eq!(Some(entry.unwrap().number.0), expected.next());
    }
    assert_eq!(expected.next(), None);
    assert!(near.requests() <= VERSIONS + 64, "{} requests for all", near.requests());
}
