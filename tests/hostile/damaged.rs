//! Every file of a repository cut off at many places and with many bits flipped.

use chipmink_store::local::LocalDisk;
use chipmink_store::{Backend, Store, StoreError, StoreOptions};
use chipmink_testkit::toy::{self, Namespace};
use chipmink_testkit::{CrashDisk, Random};
use chipmink_types::TimeId;
use std::path::Path;
use std::sync::Arc;

fn options() -> StoreOptions {
    StoreOptions { durable: true, thesaurus_bytes: 1 << 20, cache_bytes: 1 << 16, ..StoreOptions::default() }
}

fn backend(disk: &CrashDisk) -> Backend {
    Backend::local(LocalDisk::new("/r".into(), Arc::new(disk.clone()), true))
}

/// A repository with many small versions: merged indexes, a later root state, regions, compressed text.
fn repository(versions: u64) -> (CrashDisk, Vec<Namespace>) {
    let disk = CrashDisk::new();
    let store = Store::create_in(backend(&disk), options()).unwrap();
    let mut random = Random::new(1);
    let mut namespace = Namespace::new();
    namespace.insert("region".into(), random.bytes(70_000));
    namespace.insert("text".into(), random.text(3_000));
    let mut all = vec![Namespace::new()];
    for version in 1..=versions {
        namespace.insert(format!("v{}", version % 3), random.bytes(30));
        toy::save(&store, &namespace, "hello").unwrap();
        all.push(namespace.clone());
    }
    (disk, all)
}

/// Reads everything; what comes back must be right, and what does not must be named. Returns whether harm was noticed.
fn read_all(disk: &CrashDisk, expected: &[Namespace], what: &str) -> bool {
    let is_named = |error: &StoreError| {
        let text = error.to_string();
        ["packs/", "root/", "blob ", "version ", "root entry"].iter().any(|name| text.contains(name))
    };
    let store = match Store::open_in(backend(disk), options()) {
        Ok(store) => store,
        Err(error) => {
            assert!(is_named(&error), "{what}: {error}");
            return true;
        }
    };
    let head = store.head().number.0;
    let mut is_noticed = head + 1 < expected.len() as u64;
    for (number, expected) in expected.iter().enumerate().skip(1) {
        match toy::load(&store, TimeId(number as u64)) {
            Ok(loaded) => assert_eq!(&loaded, expected, "{what}: version {number} came back wrong"),
            Err(error) => {
                assert!(is_named(&error), "{what}: {error}");
                is_noticed = true;
            }
        }
    }
    let report = store.verify(true).unwrap();
    is_noticed | !report.is_clean() | !report.void_entries.is_empty()
}

fn check_damage(versions: u64, flips: usize, cuts: usize) {
    let (disk, expected) = repository(versions);
    assert!(!read_all(&disk, &expected, "undamaged"));
    let mut random = Random::new(2);
    for path in disk.files() {
        if path == Path::new("/r/hint") {
            continue;
        }
        let whole = disk.bytes(&path);
        for _ in 0..flips {
            let bit = random.below(whole.len() * 8);
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            disk.damage(&path, bytes);
            let what = format!("bit {bit} of {}", path.display());
            assert!(read_all(&disk, &expected, &what), "{what} was flipped and nobody noticed");
        }
        for cut in 0..cuts {
            let len = if cut < 2 { cut } else { random.below(whole.len()) };
            disk.damage(&path, whole[..len].to_vec());
            let what = format!("{} cut to {len} bytes", path.display());
            assert!(read_all(&disk, &expected, &what), "{what}, and nobody noticed");
        }
        let mut longer = whole.clone();
        longer.push(0);
        disk.damage(&path, longer);
        read_all(&disk, &expected, "a byte too many");
        disk.damage(&path, whole);
    }
}

#[test]
fn flips_and_cuts_of_a_small_repository_are_noticed() {
    check_damage(3, 60, 12);
}

#[test]
fn flips_and_cuts_behind_a_merge_and_a_root_state_are_noticed() {
    check_damage(70, 2, 2);
}

#[test]
fn one_damaged_version_does_not_take_the_others_with_it() {
    let (disk, expected) = repository(5);
    let entry = disk.files().into_iter().filter(|path| path.starts_with("/r/root")).nth(2).unwrap();
    let mut bytes = disk.bytes(&entry);
    bytes[30] ^= 1;
    disk.damage(&entry, bytes);
    // Names descend: the third is entry 3 of 0 to 5.
    let store = Store::open_in(backend(&disk), options()).unwrap();
    assert_eq!(store.void_entries(), [TimeId(3)]);
    for number in [1, 2] {
        assert_eq!(toy::load(&store, TimeId(number)).unwrap(), expected[number as usize]);
    }
    assert!(matches!(store.commit(TimeId(3)), Err(StoreError::UnknownVersion { time: TimeId(3), .. })));
    assert!(!store.verify(true).unwrap().is_clean());
    assert_eq!(toy::save(&store, &expected[1], "life goes on").unwrap(), TimeId(6));
    assert_eq!(toy::load(&store, TimeId(6)).unwrap(), expected[1]);
}

#[test]
fn the_hint_is_never_trusted() {
    let (disk, expected) = repository(3);
    for hint in ["", "x", "18446744073709551615", "99999999", "0", "-1"] {
        disk.damage(Path::new("/r/hint"), hint.as_bytes().to_vec());
        assert!(!read_all(&disk, &expected, hint), "hint {hint:?}");
    }
}
