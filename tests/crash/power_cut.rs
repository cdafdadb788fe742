//! Power cuts at every call that changes or syncs the disk, with every (small) or 1,000 random subsets of what was not
//! synced.

use crate::check::{check_images, disk, open, open_or_create, save_next};
use chipmink_testkit::{CrashDisk, Moment};
use std::collections::HashMap;

/// Checks all images of all moments; returns how many different ones there were.
fn check_all(moments: &[Moment], is_whole: bool) -> usize {
    let mut seen = HashMap::new();
    for (at, moment) in moments.iter().enumerate() {
        if let Err(reason) = check_images(moment, moment.note, is_whole, at as u64, &mut seen) {
            panic!("moment {at}: {reason}");
        }
    }
    seen.len()
}

fn save_and_note(disk: &CrashDisk, saves: usize) {
    let store = open_or_create(disk, true);
    for _ in 0..saves {
        disk.note(save_next(&store).unwrap().0);
    }
}

#[test]
fn durable_saves_survive_from_the_first_folder_on() {
    let disk = disk();
    disk.record();
    save_and_note(&disk, 4);
    let images = check_all(&disk.recorded(), true);
    assert!(images > 20, "{images} images");
}

#[test]
fn merges_of_indexes_and_root_states_survive() {
    let disk = disk();
    save_and_note(&disk, 62);
    disk.record();
    // Here the 64th entry brings a root state, and a merge falls due.
    save_and_note(&disk, 4);
    let images = check_all(&disk.recorded(), true);
    assert!(images > 20, "{images} images");
}

#[test]
fn a_durable_save_makes_durable_what_it_builds_on() {
    let disk = disk();
    disk.record();
    let relaxed = open_or_create(&disk, false);
    for _ in 0..3 {
        save_next(&relaxed).unwrap();
    }
    save_and_note(&disk, 2);
    for _ in 0..2 {
        relaxed.refresh().unwrap();
        save_next(&relaxed).unwrap();
    }
    let images = check_all(&disk.recorded(), false);
    assert!(images > 1000, "{images} images");
}

#[test]
fn many_saves_that_were_not_synced_are_made_durable_together() {
    let disk = disk();
    let relaxed = open_or_create(&disk, false);
    for _ in 0..70 {
        save_next(&relaxed).unwrap();
    }
    disk.record();
    save_and_note(&disk, 1);
    let moments = disk.recorded();
    // What a power cut leaves of 70 saves is any part of them; only the end is promised.
    let end = &moments[moments.len() - 1..];
    assert_eq!(end[0].note, 71);
    check_all(end, true);
    check_all(&moments[..1], false);
}

#[test]
fn saves_that_were_not_synced_may_vanish_and_harm_nothing() {
    let disk = disk();
    save_and_note(&disk, 3);
    disk.record();
    let relaxed = open(&disk, false).unwrap();
    for _ in 0..3 {
        save_next(&relaxed).unwrap();
    }
    let images = check_all(&disk.recorded(), false);
    assert!(images > 1000, "{images} images");
}
