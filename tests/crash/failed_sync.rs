//! A sync that fails loses the bytes that it should have synced. What is promised after it must survive all the same.

use crate::check::{backend, check_images, disk, open_or_create, options, save_next};
use chipmink_store::{Store, StoreError};
use std::collections::HashMap;
use std::sync::Arc;

#[test]
fn after_any_one_failed_sync_promises_hold() {
    let count = {
        let disk = disk();
        let store = open_or_create(&disk, true);
        for _ in 0..3 {
            save_next(&store).unwrap();
        }
        disk.syncs()
    };
    let mut promised_in_spite = 0;
    for failing in 0..count {
        let disk = disk();
        disk.fail_sync(failing);
        let made = Store::open_or_create_in(backend(Arc::new(disk.clone()), true), options(true));
        let Ok(store) = made else {
            // The folders could not be made durable, and the caller knows.
            continue;
        };
        let mut promised = 0;
        for _ in 0..3 {
            match save_next(&store) {
                Ok(time) => promised = time.0,
                Err(StoreError::OutcomeUnknown { .. } | StoreError::Storage { .. }) => {}
                Err(other) => panic!("sync {failing}: {other}"),
            }
            store.refresh().unwrap();
        }
        promised_in_spite += usize::from(promised == 3);
        disk.record();
        for moment in disk.recorded() {
            if let Err(reason) = check_images(&moment, promised, true, failing, &mut HashMap::new()) {
                panic!("sync {failing} of {count} failed: {reason}");
            }
        }
    }
    assert!(promised_in_spite > 5, "most failed syncs are made good: {promised_in_spite} of {count}");
}

#[test]
fn a_failed_sync_of_earlier_saves_is_made_good_or_told() {
    for failing in 0..12 {
        let disk = disk();
        let relaxed = open_or_create(&disk, false);
        for _ in 0..3 {
            save_next(&relaxed).unwrap();
        }
        let store = open_or_create(&disk, true);
        disk.fail_sync(failing);
        let promised = match save_next(&store) {
            Ok(time) => time.0,
            Err(StoreError::OutcomeUnknown { .. } | StoreError::Storage { .. }) => 0,
            Err(other) => panic!("sync {failing}: {other}"),
        };
        disk.record();
        for moment in disk.recorded() {
            if let Err(reason) = check_images(&moment, promised, promised > 0, failing, &mut HashMap::new()) {
                panic!("sync {failing} failed: {reason}");
            }
        }
    }
}
