//! A sweep that is cut off at any call leaves what is to be kept, and the next one finishes.

use crate::support::{Saver, last, on_crash_disk};
use chipmink_store::local::LocalDisk;
use chipmink_store::{Backend, Store, StoreOptions, SweepRequest};
use chipmink_testkit::{Call, CrashDisk, Fault, FaultDisk, Timing, toy};
use chipmink_types::TimeId;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A disk with versions of which a sweep of the last two moves blobs, condemns packs and deletes them.
fn prepared(durable: bool) -> (CrashDisk, Saver) {
    let disk = CrashDisk::new();
    let store = on_crash_disk(&disk, durable);
    let mut saver = Saver::new(1);
    saver.save_many(&store, 7);
    // What an earlier sweep condemned waits for this one.
    store.sweep(&SweepRequest { grace: Duration::from_secs(3600), ..last(4) }).unwrap();
    saver.save(&store);
    (disk, saver)
}

#[test]
fn a_power_cut_at_any_call_loses_nothing_that_stays() {
    for durable in [true, false] {
        let (disk, saver) = prepared(durable);
        let store = on_crash_disk(&disk, durable);
        let kept: Vec<TimeId> = saver.saved.keys().rev().take(2).copied().collect();
        disk.record();
        store.sweep(&last(2)).unwrap();
        let moments = disk.recorded();
        let mut images = 0;
        for (at, moment) in moments.iter().enumerate() {
            for image in moment.images(Path::new("/r/tmp"), 24, at as u64) {
                images += 1;
                let disk = image.disk;
                let store = on_crash_disk(&disk, true);
                if !durable && store.head().number < TimeId(9) {
                    // Saves that were not synced may be lost; not those that a sweep has built on.
                    assert!(at < moments.len() - 1, "the sweep returned, and what it builds on is lost");
                    let report = store.verify(true).unwrap();
                    assert!(report.is_clean(), "{}: {report:?}", moment.call);
                    continue;
                }
                for time in &kept {
                    let found = toy::load(&store, *time);
                    assert_eq!(found.unwrap(), saver.saved[time], "moment {at}, {}", moment.call);
                }
                let report = store.verify(true).unwrap();
                assert!(report.is_clean(), "moment {at}, {}: {report:?}", moment.call);
                let report = store.sweep(&last(2)).unwrap();
                assert_eq!(report.packs_waiting, 0);
                saver.check(&store);
                let left = disk.files().iter().filter(|path| path.starts_with("/r/packs")).count();
                let live = store.verify(false).unwrap();
                assert_eq!((left as u64, live.orphan_packs), (live.packs, 0), "moment {at}, {}", moment.call);
            }
        }
        assert!(images > 100, "{images} images");
    }
}

#[test]
fn a_sweep_that_fails_at_any_call_is_finished_by_the_next() {
    let mut failures = 0;
    for first in 0.. {
        let (disk, saver) = prepared(true);
        let faults = FaultDisk::new(Arc::new(disk.clone()));
        let local = LocalDisk::new(PathBuf::from("/r"), Arc::new(faults.clone()), true);
        let store = Store::open_in(Backend::local(local), StoreOptions::default()).unwrap();
        let timing = if first % 2 == 0 { Timing::Before } else { Timing::After };
        faults.set(Some(Fault { first, count: 1, errno: 5, timing, matches: |call| call != Call::Stat }));
        let swept = store.sweep(&last(2));
        if faults.failed() == 0 {
            swept.unwrap();
            break;
        }
        failures += u64::from(swept.is_err());
        faults.set(None);
        let fresh = on_crash_disk(&disk, true);
        let report = fresh.verify(true).unwrap();
        assert!(report.is_clean(), "call {first}: {report:?}");
        // The same handle goes on, too.
        store.sweep(&last(2)).unwrap();
        saver.check(&store);
        let report = store.verify(true).unwrap();
        assert_eq!((report.versions, report.orphan_packs), (2, 0), "call {first}: {report:?}");
    }
    assert!(failures > 20, "{failures} sweeps failed");
}
