//! Opening a repository that is far away: a few rounds of requests, however long its log.

use chipmink_format::read_manifest;
use chipmink_store::{Backend, Store, StoreOptions};
use chipmink_testkit::MeteredStore;
use chipmink_testkit::toy::{self, Namespace, REF};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
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
    }
}
