//! Damage is found wherever it is, costs what it must and no more, and what is whole somewhere comes back.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use chipmink_store::{Place, Store, StoreError, StoreOptions, TransferOptions};
use chipmink_testkit::Random;
use chipmink_testkit::toy::{self, Namespace};
use chipmink_types::{BlobError, TimeId};
use std::path::{Path, PathBuf};

fn options(durable: bool) -> StoreOptions {
    StoreOptions { durable, ..StoreOptions::default() }
}

fn place(path: &Path) -> Place {
    Place::parse(path.to_str().unwrap()).unwrap()
}

fn open(path: &Path) -> Store {
    Store::open(place(path), options(true)).unwrap()
}

fn fill(path: &Path, durable: bool, versions: usize, large: usize) -> Vec<(TimeId, Namespace)> {
    let store = Store::open_or_create(place(path), options(durable)).unwrap();
    let mut random = Random::new(1);
    let mut values: Namespace = (0..4).map(|i| (format!("v{i}"), random.bytes(300))).collect();
    values.insert("large".to_owned(), random.bytes(large));
    (0..versions)
        .map(|step| {
            values.insert(format!("v{}", step % 4), random.bytes(200));
            (toy::save(&store, &values, "").unwrap(), values.clone())
        })
        .collect()
}

fn assert_holds(store: &Store, versions: &[(TimeId, Namespace)]) {
    for (time, values) in versions {
        assert_eq!(&toy::load(store, *time).unwrap(), values, "version {time}");
    }
}

fn files(path: &Path) -> Vec<PathBuf> {
    let under = |name| std::fs::read_dir(path.join(name)).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = under("packs").chain(under("root")).collect();
    all.sort();
    all
}

fn copy(from: &Path, to: &Path) {
    for name in ["packs", "root"] {
        std::fs::create_dir_all(to.join(name)).unwrap();
        for entry in std::fs::read_dir(from.join(name)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.join(name).join(entry.file_name())).unwrap();
        }
    }
}

fn flip(path: &Path, at: usize, bit: u8) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1 << bit;
    std::fs::write(path, bytes).unwrap();
}

/// Each byte of each object, padding and headers included, synced or not.
#[test]
fn a_flip_of_any_byte_is_found() {
    for durable in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        fill(directory.path(), durable, 1, 66_000);
        let mut checked = 0;
        // What differs between the two is how entries are believed.
        let is_tried = |file: &PathBuf| durable || file.parent().unwrap().ends_with("root");
        for file in files(directory.path()).into_iter().filter(is_tried) {
            let bytes = std::fs::read(&file).unwrap();
            // The content of the large one is the same everywhere: some of its bytes are enough.
            let step = |at: usize| if (4_200..69_500).contains(&at) { 977 } else { 1 };
            let mut at = 0;
            while at < bytes.len() {
                flip(&file, at, (at % 8) as u8);
                let found = match Store::open(place(directory.path()), options(durable)) {
                    Ok(store) => store.verify(true).map_or(true, |report| !report.is_clean()),
                    Err(_) => true,
                };
                assert!(found, "byte {at} of {} (durable: {durable})", file.display());
                std::fs::write(&file, &bytes).unwrap();
                checked += 1;
                at += step(at);
            }
        }
        assert!(checked > 300, "{checked}");
        assert!(open(directory.path()).verify(true).unwrap().is_clean());
    }
}

#[test]
fn what_is_lost_is_named_and_the_rest_loads() {
    let directory = tempfile::tempdir().unwrap();
    let versions = fill(directory.path(), true, 3, 200_000);
    let pack = files(directory.path()).into_iter().max_by_key(|file| file.metadata().unwrap().len()).unwrap();
    let middle = pack.metadata().unwrap().len() as usize / 2;
    flip(&pack, middle, 3);
    let store = open(directory.path());
    let report = store.verify(true).unwrap();
    let name = pack.file_name().unwrap().to_str().unwrap();
    assert!(report.problems.iter().any(|problem| problem.object.contains(name)), "{report:?}");
    let lost: Vec<(u64, Vec<String>, bool)> =
        report.lost.iter().map(|lost| (lost.time.0, lost.variables.clone(), lost.is_whole)).collect();
    let large = || vec!["large".to_owned()];
    assert_eq!(lost, [(3, large(), false), (2, large(), false), (1, large(), false)]);
    assert_eq!((report.versions, report.lost_count), (3, 3));
    // Without a mirror nothing is given up.
    let repaired = store.repair(None, &mut |_| true).unwrap();
    assert!(!repaired.after.is_clean());
    assert_eq!((repaired.packs_replaced, repaired.after.lost), (0, report.lost));
    assert!(toy::load(&open(directory.path()), versions[0].0).is_err());
}

#[test]
fn a_mirror_makes_everything_whole_again() {
    let directory = tempfile::tempdir().unwrap();
    let (whole, broken) = (directory.path().join("whole"), directory.path().join("broken"));
    let versions = fill(&whole, true, 4, 200_000);
    let mirror = open(&whole);
    // The newest sorts first among the entries, which come after the packs.
    let newest = files(&whole).iter().position(|file| file.parent().unwrap().ends_with("root")).unwrap();
    for (at, file) in files(&whole).into_iter().enumerate() {
        let name = file.strip_prefix(&whole).unwrap().to_owned();
        for harm in ["flip", "cut", "remove", "empty"] {
            let _ = std::fs::remove_dir_all(&broken);
            copy(&whole, &broken);
            let hurt = broken.join(&name);
            let len = std::fs::read(&hurt).unwrap().len();
            match harm {
                "flip" => flip(&hurt, len / 3, 0),
                "cut" => std::fs::write(&hurt, &std::fs::read(&hurt).unwrap()[..len / 2]).unwrap(),
                "empty" => std::fs::write(&hurt, b"").unwrap(),
                _ => std::fs::remove_file(&hurt).unwrap(),
            }
            let is_entry = name.starts_with("root");
            if is_entry && at == newest && ["remove", "empty"].contains(&harm) {
                // Nothing says that it was ever there, as after a power cut before it was.
                continue;
            }
            let before: Vec<(PathBuf, Vec<u8>)> =
                files(&broken).into_iter().map(|file| (file.clone(), std::fs::read(file).unwrap())).collect();
            let store = open(&broken);
            let report = store.repair(Some(&mirror), &mut |_| true).unwrap();
            for (file, bytes) in before {
                assert_eq!(std::fs::read(&file).unwrap(), bytes, "{} was changed", file.display());
            }
            let again = open(&broken);
            let context = format!("{harm} of file {at}, {}: {report:?}", name.display());
            if !is_entry {
                assert!(!report.before.is_clean() && report.after.is_clean(), "{context}");
                for (time, values) in &versions {
                    assert_eq!(&toy::load(&again, *time).unwrap(), values, "{context}");
                }
                assert!(toy::save(&again, &versions[0].1, "").unwrap().0 > 4);
                continue;
            }
            // The number of a damaged entry is spent; what it published comes back under another one.
            let has_version = at + 1 < files(&whole).len();
            assert!(report.after.is_clean() || !has_version, "{context}");
            let numbers: Vec<TimeId> = again
                .entries()
                .filter_map(Result::ok)
                .filter(|entry| !entry.commits.is_empty())
                .map(|entry| entry.number)
                .collect();
            for (_, values) in &versions {
                let is_there = numbers
                    .iter()
                    .any(|number| toy::load(&again, *number).is_ok_and(|found| &found == values));
                assert!(is_there, "{context}");
            }
        }
    }
}

#[test]
fn swapped_packs_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let (whole, broken) = (directory.path().join("whole"), directory.path().join("broken"));
    let versions = fill(&whole, true, 3, 1_000);
    copy(&whole, &broken);
    let packs: Vec<PathBuf> =
        files(&broken).into_iter().filter(|file| file.parent().unwrap().ends_with("packs")).collect();
    let (a, b) = (std::fs::read(&packs[0]).unwrap(), std::fs::read(&packs[1]).unwrap());
    std::fs::write(&packs[0], b).unwrap();
    std::fs::write(&packs[1], a).unwrap();
    let store = open(&broken);
    let report = store.verify(true).unwrap();
    for pack in &packs[..2] {
        let name = pack.file_name().unwrap().to_str().unwrap();
        assert!(report.problems.iter().any(|problem| problem.object.contains(name)), "{report:?}");
    }
    assert!(!store.verify(false).unwrap().is_clean());
    assert!(store.repair(Some(&open(&whole)), &mut |_| true).unwrap().after.is_clean());
    for (time, values) in &versions {
        assert_eq!(&toy::load(&open(&broken), *time).unwrap(), values);
    }
}

#[test]
fn what_a_push_left_behind_helps_too() {
    let directory = tempfile::tempdir().unwrap();
    let (source, broken) = (directory.path().join("source"), directory.path().join("broken"));
    let versions = fill(&source, true, 2, 200_000);
    copy(&source, &broken);
    // A copy of a pack under a name that nobody knows, as it lies in a place that was mended by hand.
    let store = open(&source);
    let copied = Store::create(place(&directory.path().join("copy")), options(true)).unwrap();
    store.transfer(&copied, &TransferOptions::default(), &mut |_| true).unwrap();
    for file in files(&directory.path().join("copy")) {
        if file.parent().unwrap().ends_with("packs") {
            std::fs::copy(&file, broken.join("packs").join(file.file_name().unwrap())).unwrap();
        }
    }
    let pack =
        files(&broken).into_iter().find(|file| source.join("packs").join(file.file_name().unwrap()).exists());
    std::fs::remove_file(pack.unwrap()).unwrap();
    let report = open(&broken).repair(None, &mut |_| true).unwrap();
    assert!(report.after.is_clean() && report.blobs_salvaged > 0, "{report:?}");
    for (time, values) in &versions {
        assert_eq!(&toy::load(&open(&broken), *time).unwrap(), values);
    }
}

#[test]
fn nothing_is_repaired_where_nothing_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), true, 2, 1_000);
    let before = files(directory.path());
    let report = open(directory.path()).repair(None, &mut |_| true).unwrap();
    assert!(report.before.is_clean() && report.after.is_clean());
    assert_eq!(files(directory.path()), before);
}

#[test]
fn usage_tells_own_from_shared() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), true, 3, 300_000);
    let store = open(directory.path());
    let stats = store.stats().unwrap();
    assert_eq!((stats.versions, stats.entries, stats.orphan_packs), (3, 4, 0));
    assert!(stats.stored_bytes > 300_000 && stats.pack_bytes > stats.stored_bytes);
    let of = |name: &str| {
        let all = store.variable_usage(TimeId(3)).unwrap();
        all.into_iter().find(|usage| usage.what == [name]).unwrap()
    };
    assert!(of("large").own_bytes >= 300_000 && of("v1").bytes < 1_000);
    let versions = store.version_usage().unwrap();
    assert_eq!(versions.iter().map(|usage| usage.what.0).collect::<Vec<_>>(), [3, 2, 1]);
    assert!(versions.iter().all(|usage| usage.bytes > 300_000 && usage.own_bytes < 10_000), "{versions:?}");
}

/// The newest entry says where the newest root state lies; a false word of it went unnoticed.
#[test]
fn a_false_place_of_the_root_state_is_told_and_mended() {
    let directory = tempfile::tempdir().unwrap();
    let versions = fill(directory.path(), true, 70, 1000);
    let path = {
        let store = open(directory.path());
        let newest = store.head().number;
        let mut entry = store.entry(newest).unwrap();
        entry.state.as_mut().unwrap().byte_offset += 1;
        let path = directory.path().join(chipmink_format::root_path(newest));
        std::fs::write(&path, entry.encode()).unwrap();
        path
    };
    let store = open(directory.path());
    for is_full in [true, false] {
        let report = store.verify(is_full).unwrap();
        let told = report.problems.iter().map(|problem| directory.path().join(&problem.object));
        assert_eq!((told.collect::<Vec<_>>(), report.lost_count), (vec![path.clone()], 0), "{report:?}");
    }
    assert_holds(&store, &versions);
    // The next save makes it good, and so does a repair.
    let saved = tempfile::tempdir().unwrap();
    copy(directory.path(), saved.path());
    let other = Store::open(place(saved.path()), options(true)).unwrap();
    toy::save(&other, &versions[0].1, "").unwrap();
    assert!(open(saved.path()).verify(true).unwrap().is_clean());
    let report = store.repair(None, &mut |_| true).unwrap();
    assert!(!report.before.is_clean() && report.after.is_clean(), "{report:?}");
    assert_holds(&open(directory.path()), &versions);
}

#[test]
fn a_pack_that_is_gone_is_damage_that_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let versions = fill(directory.path(), true, 3, 200_000);
    let store = open(directory.path());
    let (time, _) = versions[0];
    let lost = chipmink_format::pack_path(store.entry(time).unwrap().packs_added[0].name);
    std::fs::remove_file(directory.path().join(&lost)).unwrap();
    let warm = toy::load(&store, time).unwrap_err();
    for error in [warm, toy::load(&open(directory.path()), time).unwrap_err()] {
        let text = error.to_string();
        assert!(matches!(error, StoreError::Blob(BlobError::Damaged { .. })), "{error:?}");
        assert!(text.contains(&lost) && text.contains("repair --from"), "{text}");
    }
}
