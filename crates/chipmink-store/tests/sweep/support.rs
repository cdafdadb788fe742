//! What the tests of sweeps have in common.

use chipmink_store::local::LocalDisk;
use chipmink_store::{Backend, Place, Retention, Store, StoreOptions, SweepReport, SweepRequest};
use chipmink_testkit::toy::{self, Namespace};
use chipmink_testkit::{CrashDisk, Random};
use chipmink_types::TimeId;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(crate) fn options() -> StoreOptions {
    StoreOptions { durable: false, ..StoreOptions::default() }
}

pub(crate) fn open(path: &Path) -> Store {
    Store::open_or_create(Place::Local(path.to_owned()), options()).unwrap()
}

pub(crate) fn on_crash_disk(disk: &CrashDisk, durable: bool) -> Store {
    let local = LocalDisk::new(PathBuf::from("/r"), Arc::new(disk.clone()), durable);
    Store::open_or_create_in(Backend::local(local), StoreOptions { durable, ..StoreOptions::default() })
        .unwrap()
}

/// A sweep without grace that keeps so many versions.
pub(crate) fn last(count: u64) -> SweepRequest {
    let retention = Retention { keep_last: Some(count), ..Retention::default() };
    SweepRequest { retention, grace: Duration::ZERO, dry_run: false }
}

/// A sweep without grace that drops nothing.
pub(crate) fn tidy() -> SweepRequest {
    SweepRequest { grace: Duration::ZERO, ..SweepRequest::default() }
}

/// Versions of several variables, of which each save changes one; some are regions, of which a few bytes change.
pub(crate) struct Saver {
    random: Random,
    pub(crate) current: Namespace,
    pub(crate) saved: BTreeMap<TimeId, Namespace>,
}

impl Saver {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut current = Namespace::new();
        for name in 0..6 {
            current.insert(format!("v{name}"), random.bytes(2000));
        }
        current.insert("weights".into(), random.bytes(150_000));
        Saver { random, current, saved: BTreeMap::new() }
    }

    pub(crate) fn change(&mut self) {
        let name = format!("v{}", self.random.below(6));
        let bytes = self.random.bytes(2000);
        self.current.insert(name, bytes);
        let weights = self.current.get_mut("weights").unwrap();
        for _ in 0..20 {
            let at = self.random.below(weights.len());
            weights[at] ^= 1;
        }
    }

    pub(crate) fn save(&mut self, store: &Store) -> TimeId {
        self.change();
        let time = toy::save(store, &self.current, "").unwrap();
        self.saved.insert(time, self.current.clone());
        time
    }

    pub(crate) fn save_many(&mut self, store: &Store, count: usize) {
        for _ in 0..count {
            self.save(store);
        }
    }

    /// Every version that was not dropped loads as it was saved, and nothing is damaged.
    pub(crate) fn check(&self, store: &Store) {
        let dropped = store.dropped();
        for (time, expected) in &self.saved {
            match dropped.range_of(*time) {
                None => assert_eq!(&toy::load(store, *time).unwrap(), expected, "version {time}"),
                Some(_) => assert!(toy::load(store, *time).is_err(), "version {time} was dropped"),
            }
        }
        let report = store.verify(true).unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}

pub(crate) fn packs(path: &Path) -> usize {
    std::fs::read_dir(path.join("packs")).unwrap().count()
}

pub(crate) fn pack_bytes(path: &Path) -> u64 {
    std::fs::read_dir(path.join("packs")).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

pub(crate) fn dropped(report: &SweepReport) -> Vec<u64> {
    report.versions_dropped.iter().map(|time| time.0).collect()
}
