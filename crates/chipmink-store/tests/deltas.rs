//! Chunks that are stored as what differs from their previous version.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use chipmink_digest::{Grid, digest_region};
use chipmink_format::{
    Codec, DELTA_CHAIN_MAX, FEATURE_CHUNK_DELTA, IndexRow, PackInfo, Requirements, decode_segment, pack_path,
};
use chipmink_store::{Compression, Place, Store, StoreOptions};
use chipmink_testkit::Random;
use chipmink_testkit::toy::{self, Namespace};
use chipmink_types::{BlobSink, Digest, RegionOutline, TimeId};
use std::collections::HashMap;
use std::path::Path;

fn options() -> StoreOptions {
    StoreOptions { durable: false, ..StoreOptions::default() }
}

fn open(path: &Path, options: StoreOptions) -> Store {
    Store::open_or_create(Place::Local(path.to_owned()), options).unwrap()
}

/// The rows of a version's own packs.
fn rows(store: &Store, path: &Path, time: TimeId) -> Vec<IndexRow> {
    let read = |pack: &PackInfo| {
        let bytes = std::fs::read(path.join(pack_path(pack.name))).unwrap();
        let (start, end) = (pack.index.byte_offset, pack.index.byte_offset + pack.index.byte_len);
        decode_segment(&bytes[start as usize..end as usize]).unwrap().1
    };
    store.entry(time).unwrap().packs_added.iter().flat_map(read).collect()
}

fn deltas(rows: &[IndexRow]) -> usize {
    rows.iter().filter(|row| row.codec.is_delta()).count()
}

fn change(bytes: &mut [u8], random: &mut Random, count: usize) {
    for _ in 0..count {
        let at = random.below(bytes.len());
        bytes[at] ^= 1 << random.below(8);
    }
}

#[test]
fn chains_are_bounded_and_every_version_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut random = Random::new(1);
    let mut weights = random.bytes(300_000);
    let mut store = open(path, options());
    let mut saved = Vec::new();
    let mut whole = 0;
    let mut depths: HashMap<Digest, usize> = HashMap::new();
    for step in 0..40 {
        let namespace = Namespace::from([("weights".to_owned(), weights.clone())]);
        let time = toy::save(&store, &namespace, "").unwrap();
        for row in rows(&store, path, time) {
            let depth = row.base.map_or(0, |base| depths[&base] + 1);
            assert!(depth <= DELTA_CHAIN_MAX / 2, "a chain of {depth}");
            depths.insert(row.digest, depth);
            whole += usize::from(row.codec == Codec::Raw && row.decoded_len > 30_000);
        }
        saved.push((time, weights.clone()));
        // Now and then it grows, shrinks, or changes altogether.
        match step {
            13 => weights.extend(random.bytes(100_000)),
            17 => weights.truncate(250_000),
            23 => weights = random.bytes(250_000),
            _ => change(&mut weights, &mut random, 200),
        }
        if step % 9 == 8 {
            store = open(path, options());
        }
    }
    assert!(whole < 60, "{whole} chunks stand whole");
    assert!(depths.values().filter(|depth| **depth > 0).count() > 100);
    for fresh in [store, open(path, StoreOptions { thesaurus_bytes: 0, cache_bytes: 0, ..options() })] {
        for (time, weights) in &saved {
            assert_eq!(&toy::load(&fresh, *time).unwrap()["weights"], weights);
        }
        for full in [false, true] {
            let report = fresh.verify(full).unwrap();
            assert!(report.is_clean(), "{report:?}");
        }
    }
}

#[test]
fn a_reader_must_know_deltas_only_once_there_is_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), options());
    let mut random = Random::new(2);
    let mut namespace = Namespace::from([("w".to_owned(), random.bytes(100_000))]);
    let first = toy::save(&store, &namespace, "").unwrap();
    assert_eq!(store.entry(first).unwrap().requirements, Requirements::default());
    change(namespace.get_mut("w").unwrap(), &mut random, 9);
    let second = toy::save(&store, &namespace, "").unwrap();
    let needs = |time| store.entry(time).unwrap().requirements.for_reading;
    assert_eq!(needs(second), FEATURE_CHUNK_DELTA);
    let third = toy::save(&store, &namespace, "").unwrap();
    assert_eq!(needs(third), FEATURE_CHUNK_DELTA, "it never gets less");
}

#[test]
fn without_compression_there_are_no_deltas() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), StoreOptions { compression: Compression::None, ..options() });
    let mut namespace = Namespace::from([("w".to_owned(), vec![3; 200_000])]);
    for step in 0..3 {
        let time = toy::save(&store, &namespace, "").unwrap();
        assert!(rows(&store, directory.path(), time).iter().all(|row| row.codec == Codec::Raw));
        namespace.get_mut("w").unwrap()[step] = 9;
    }
    assert_eq!(store.entry(store.head().number).unwrap().requirements, Requirements::default());
}

#[test]
fn a_missing_or_damaged_base_makes_the_chunk_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut random = Random::new(3);
    let mut namespace = Namespace::from([("w".to_owned(), random.bytes(150_000))]);
    let store = open(path, options());
    let first = toy::save(&store, &namespace, "").unwrap();
    let pack = path.join(pack_path(store.entry(first).unwrap().packs_added[0].name));
    let mut bytes = std::fs::read(&pack).unwrap();
    // Within the first chunk, which begins at the first page.
    bytes[5000] ^= 1;
    std::fs::remove_file(&pack).unwrap();
    std::fs::write(&pack, bytes).unwrap();
    change(namespace.get_mut("w").unwrap(), &mut random, 300);
    let store = open(path, options());
    let second = toy::save(&store, &namespace, "").unwrap();
    let found = rows(&store, path, second);
    assert_eq!(deltas(&found), 2, "the chunks whose bases are sound");
    assert!(found.iter().any(|row| row.codec == Codec::Raw && row.decoded_len == 65_536));
    assert_eq!(toy::load(&store, second).unwrap(), namespace);
    // A hint may be any digest.
    let mut transaction = store.begin();
    let bytes = namespace["w"].iter().map(|byte| byte ^ 0x55).collect::<Vec<u8>>();
    let grid = Grid::run(bytes.len() as u64);
    digest_region(&bytes, &grid, Some((Digest::xxh3([7; 16]), 3)), &mut transaction).unwrap();
    digest_region(&bytes[1..], &Grid::run(149_999), Some((found[0].digest, 3)), &mut transaction).unwrap();
    transaction.abandon();
}

#[test]
fn verify_follows_bases() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut random = Random::new(4);
    let mut namespace = Namespace::from([("w".to_owned(), random.bytes(150_000))]);
    let store = open(path, options());
    let first = toy::save(&store, &namespace, "").unwrap();
    let before = store.verify(false).unwrap().blobs;
    change(namespace.get_mut("w").unwrap(), &mut random, 300);
    let second = toy::save(&store, &namespace, "").unwrap();
    assert_eq!(deltas(&rows(&store, path, second)), 3);
    let after = store.verify(false).unwrap().blobs;
    assert_eq!(after - before, 3, "the newest version needs the three chunks of the first as bases");
    let pack = path.join(pack_path(store.entry(first).unwrap().packs_added[0].name));
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[5000] ^= 1;
    std::fs::remove_file(&pack).unwrap();
    std::fs::write(&pack, bytes).unwrap();
    let report = store.verify(true).unwrap();
    let named: Vec<&str> = report.problems.iter().map(|problem| problem.object.as_str()).collect();
    assert!(
        named.iter().filter(|object| object.starts_with("blob")).count() >= 2,
        "delta and base: {named:?}"
    );
}

#[test]
fn a_region_that_is_always_new_is_streamed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), options());
    let mut random = Random::new(5);
    let grid = Grid::run(20 * 65_536);
    let mut previous = None;
    for step in 0..6 {
        let mut transaction = store.begin();
        let outline = RegionOutline { chunk_count: grid.chunk_count(), previous };
        let forecast = transaction.begin_region(&outline);
        assert_eq!(forecast.is_always_dirty, step > 2, "step {step}");
        let bytes = random.bytes(20 * 65_536);
        let root = digest_region(&bytes, &grid, previous, &mut transaction).unwrap();
        let publication = toy::write(&store, &mut transaction, &Namespace::new(), "").unwrap();
        let time = transaction.publish(&publication).unwrap();
        assert_eq!(deltas(&rows(&store, directory.path(), time)), 0);
        previous = Some((root, grid.chunk_count()));
    }
    // What was learned is forgotten once a chunk stays.
    let mut transaction = store.begin();
    let root = previous.map(|(root, _)| root).unwrap();
    transaction.begin_region(&RegionOutline { chunk_count: grid.chunk_count(), previous });
    transaction.end_region(root);
    transaction.publish(&toy::write(&store, &mut store.begin(), &Namespace::new(), "").unwrap()).unwrap();
    let outline = RegionOutline { chunk_count: grid.chunk_count(), previous };
    assert!(!store.begin().begin_region(&outline).is_always_dirty);
}

#[test]
fn what_a_save_that_failed_has_learned_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), options());
    let mut random = Random::new(6);
    let grid = Grid::run(2 * 65_536);
    let mut previous = None;
    for _ in 0..5 {
        let mut transaction = store.begin();
        let outline = RegionOutline { chunk_count: grid.chunk_count(), previous };
        assert!(!transaction.begin_region(&outline).is_always_dirty);
        let root = digest_region(&random.bytes(2 * 65_536), &grid, previous, &mut transaction).unwrap();
        previous = Some((root, grid.chunk_count()));
        transaction.abandon();
    }
}
