//! Mutants: with any one kind of sync left out, the power-cut test must fail. So every sync is needed, and the test sees
//! it.

use crate::check::{ROOT, check_images, disk, open_or_create, save_next};
use chipmink_testkit::{CrashDisk, SyncCall};
use std::collections::HashMap;
use std::path::Path;

/// The kinds of sync that the store asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// The bytes of a pack, under its temporary name.
    NewPack,
    /// The bytes of a root entry, under its temporary name.
    NewEntry,
    /// The names of packs.
    PacksDirectory,
    /// The names of root entries.
    RootDirectory,
    /// The bytes of a pack that an earlier save left unsynced.
    OldPack,
    /// The bytes of a root entry that an earlier save left unsynced.
    OldEntry,
    /// The folder of the repository.
    Repository,
    /// The folder above, which is new too.
    Above,
    /// The folder in which the first new one was made.
    FirstOld,
}

const KINDS: [Kind; 9] = [
    Kind::NewPack,
    Kind::NewEntry,
    Kind::PacksDirectory,
    Kind::RootDirectory,
    Kind::OldPack,
    Kind::OldEntry,
    Kind::Repository,
    Kind::Above,
    Kind::FirstOld,
];

fn kind(call: &SyncCall<'_>) -> Option<Kind> {
    let root = Path::new(ROOT);
    if call.is_directory {
        return match call.path {
            path if path == root.join("packs") => Some(Kind::PacksDirectory),
            path if path == root.join("root") => Some(Kind::RootDirectory),
            path if path == root => Some(Kind::Repository),
            path if path == root.parent()? => Some(Kind::Above),
            path if path == root.parent()?.parent()? => Some(Kind::FirstOld),
            _ => None,
        };
    }
    let is_new = call.path.starts_with(root.join("tmp"));
    match (call.bytes.get(..8)?, is_new) {
        (b"chmkpack", true) => Some(Kind::NewPack),
        (b"chmkpack", false) => Some(Kind::OldPack),
        (b"chmkroot", true) => Some(Kind::NewEntry),
        (b"chmkroot", false) => Some(Kind::OldEntry),
        _ => None,
    }
}

/// Saves, durably from the first on or after two saves that were not, and looks at what a power cut then leaves.
fn survives(disk: &CrashDisk, relaxed_first: bool) -> Result<(), String> {
    disk.record();
    if relaxed_first {
        let relaxed = open_or_create(disk, false);
        for _ in 0..2 {
            save_next(&relaxed).unwrap();
        }
    }
    let store = open_or_create(disk, true);
    for _ in 0..2 {
        disk.note(save_next(&store).unwrap().0);
    }
    let mut seen = HashMap::new();
    let moments = disk.recorded();
    let mut promised = moments.iter().filter(|moment| moment.note > 0);
    promised.try_for_each(|moment| check_images(moment, moment.note, !relaxed_first, 1, &mut seen))
}

#[test]
fn without_any_one_sync_a_power_cut_does_harm() {
    for relaxed_first in [false, true] {
        survives(&disk(), relaxed_first).unwrap();
    }
    for mutant in KINDS {
        let harm = [false, true].into_iter().find_map(|relaxed_first| {
            let disk = disk();
            disk.ignore_syncs(move |call| kind(call) == Some(mutant));
            survives(&disk, relaxed_first).err()
        });
        assert!(harm.is_some(), "without {mutant:?} no harm was seen");
    }
}

#[test]
fn every_sync_is_of_a_known_kind() {
    use std::sync::{Arc, Mutex};
    let unknown = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&unknown);
    let disk = disk();
    disk.ignore_syncs(move |call| {
        // Syncs above the first old folder are made where it is not known what is new.
        if kind(call).is_none() && call.path != Path::new("/") {
            seen.lock().unwrap().push(call.path.to_owned());
        }
        false
    });
    survives(&disk, true).unwrap();
    assert_eq!(*unknown.lock().unwrap(), Vec::<std::path::PathBuf>::new());
}
