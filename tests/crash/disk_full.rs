//! A full disk: a clear error, nothing lost, and the next save works.

use crate::check::{backend, disk, options, save_next};
use chipmink_store::{Store, StoreError};
use chipmink_test_crash::namespace;
use chipmink_testkit::toy;
use chipmink_testkit::{Call, Fault, FaultDisk, Timing};
use chipmink_types::TimeId;
use std::sync::Arc;

const ENOSPC: i32 = 28;

fn full(first: u64) -> Fault {
    Fault { first, count: u64::MAX, errno: ENOSPC, timing: Timing::Before, matches: Call::takes_room }
}

#[test]
fn a_disk_that_fills_at_any_call_loses_nothing() {
    for durable in [false, true] {
        let mut failing = 0;
        loop {
            let live = disk();
            let calls = FaultDisk::new(Arc::new(live.clone()));
            let store =
                Store::create_in(backend(Arc::new(calls.clone()), durable), options(durable)).unwrap();
            for _ in 0..2 {
                save_next(&store).unwrap();
            }
            let files = live.files();
            calls.set(Some(full(failing)));
            let saved = save_next(&store);
            let met = calls.failed();
            calls.set(None);
            let promised = match saved {
                Ok(time) => {
                    assert_eq!(time, TimeId(3));
                    3
                }
                Err(StoreError::DiskFull { .. }) => {
                    let left: Vec<_> = live.files().difference(&files).cloned().collect();
                    assert!(
                        left.is_empty(),
                        "call {failing} {durable}: the failed save left {left:?}: {saved:?}"
                    );
                    2
                }
                Err(StoreError::OutcomeUnknown { .. }) => 2,
                Err(other) => panic!("call {failing}: {other}"),
            };
            store.refresh().unwrap();
            let head = store.head().number.0;
            assert!(head >= promised);
            // There is room again: the same handle saves, and so does a new one.
            assert_eq!(save_next(&store).unwrap(), TimeId(head + 1), "call {failing}");
            let again = Store::open_in(backend(Arc::new(calls.clone()), durable), options(durable)).unwrap();
            assert_eq!(save_next(&again).unwrap(), TimeId(head + 2));
            for number in 1..=head + 2 {
                assert_eq!(toy::load(&again, TimeId(number)).unwrap(), namespace(number), "call {failing}");
            }
            let report = again.verify(true).unwrap();
            assert!(report.is_clean(), "call {failing}: {report:?}");
            if met == 0 {
                break;
            }
            failing += 1;
        }
        assert!(failing > 5, "only {failing} calls take room");
    }
}

#[test]
fn a_disk_that_is_full_from_the_start_says_so() {
    for first in 0..4 {
        let calls = FaultDisk::new(Arc::new(disk()));
        calls.set(Some(full(first)));
        let error = Store::create_in(backend(Arc::new(calls.clone()), true), options(true)).unwrap_err();
        assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
        calls.set(None);
        let store = Store::open_or_create_in(backend(Arc::new(calls), true), options(true)).unwrap();
        save_next(&store).unwrap();
    }
}

#[test]
fn any_call_that_fails_once_leaves_a_sound_repository() {
    const EIO: i32 = 5;
    for timing in [Timing::Before, Timing::After] {
        for failing in 0..60 {
            let live = disk();
            let calls = FaultDisk::new(Arc::new(live.clone()));
            let store = Store::create_in(backend(Arc::new(calls.clone()), true), options(true)).unwrap();
            save_next(&store).unwrap();
            calls.set(Some(Fault { first: failing, count: 1, errno: EIO, timing, matches: |_| true }));
            let saved = save_next(&store);
            calls.set(None);
            let again = Store::open_in(backend(Arc::new(calls.clone()), true), options(true)).unwrap();
            let head = again.head().number;
            match &saved {
                Ok(time) => assert_eq!((*time, head), (TimeId(2), TimeId(2))),
                Err(StoreError::OutcomeUnknown { .. }) => {}
                Err(_) => {
                    assert_eq!(head, TimeId(1), "call {failing} {timing:?}: {saved:?}, and yet it is there")
                }
            }
            store.refresh().unwrap();
            let next = save_next(&store).unwrap();
            assert_eq!(toy::load(&again, next).unwrap(), namespace(next.0));
            assert!(again.verify(true).unwrap().is_clean());
        }
    }
}

#[test]
fn a_file_system_without_links_is_refused_for_writing_and_can_be_read() {
    let live = disk();
    let store = Store::create_in(backend(Arc::new(live.clone()), true), options(true)).unwrap();
    save_next(&store).unwrap();
    live.without_links();
    let error = save_next(&store).unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
    let again = Store::open_in(backend(Arc::new(live), true), options(true)).unwrap();
    assert_eq!(toy::load(&again, TimeId(1)).unwrap(), namespace(1));
}
