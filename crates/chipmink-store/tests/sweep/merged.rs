//! Indexes are merged level by level, also while versions are dropped: an old blob is found by few requests.

use crate::support::{Saver, last};
use chipmink_store::{Backend, Store, StoreOptions};
use chipmink_testkit::MeteredStore;
use chipmink_testkit::toy;
use object_store::memory::InMemory;
use std::sync::Arc;

#[test]
fn few_indexes_are_asked_however_many_versions_there_are() {
    let objects = MeteredStore::new(Arc::new(InMemory::new()));
    let open = || {
        let backend = Backend::remote(Arc::new(objects.clone()), "far://");
        Store::open_or_create_in(backend, StoreOptions::default()).unwrap()
    };
    let store = open();
    let mut saver = Saver::new(3);
    for round in 0..3 {
        saver.save_many(&store, 300);
        // 900 versions have some 60 segments of the first level, of which 48 are merged again.
        let fresh = open();
        for (time, values) in saver.saved.iter().take(1).chain(saver.saved.iter().rev().take(1)) {
            objects.reset(u64::MAX);
            assert_eq!(&toy::load(&fresh, *time).unwrap(), values);
            assert!(
                objects.requests() <= 64,
                "{} requests for version {time} in round {round}",
                objects.requests()
            );
        }
        assert!(fresh.verify(true).unwrap().is_clean());
        // The packs of some merges go with what they hold.
        let report = store.sweep(&last(100)).unwrap();
        assert!(report.packs_deleted > 50, "{report:?}");
        report.versions_dropped.iter().for_each(|time| drop(saver.saved.remove(time)));
        let fresh = open();
        for (time, values) in saver.saved.iter().step_by(17) {
            assert_eq!(&toy::load(&fresh, *time).unwrap(), values);
        }
        assert!(fresh.verify(true).unwrap().is_clean());
    }
}
