//! Many blobs that each go to a place of their own.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use chipmink_digest::digest;
use chipmink_format::Commit;
use chipmink_store::{Compression, OpenPacks, Place, Publication, Store, StoreOptions};
use chipmink_testkit::Random;
use chipmink_types::{BlobError, BlobKind, BlobSink, Digest};
use std::path::Path;
use std::sync::Mutex;

/// A store with chunks of all kinds: many that lie raw and together, small ones, and compressed ones.
fn filled(place: Place, options: StoreOptions, random: &mut Random) -> (Store, Vec<Vec<u8>>) {
    let store = Store::create(place, options).unwrap();
    let mut transaction = store.begin();
    let mut chunks = Vec::new();
    for i in 0..300 {
        chunks.push(match i % 17 {
            3 => vec![i as u8; 60_000],
            5 => random.bytes(100),
            _ => random.bytes(65_536),
        });
    }
    for chunk in &chunks {
        transaction.put(BlobKind::Chunk, digest(chunk), chunk).unwrap();
    }
    let commit = Commit {
        parents: Vec::new(),
        manifest: digest(&chunks[0]),
        saved_at: 0,
        message: chipmink_format::Text::store("", &mut transaction).unwrap(),
        author: String::new(),
        code: None,
        statistics: Default::default(),
        extensions: Default::default(),
    };
    transaction.publish(&Publication { ref_name: "main".to_owned(), expected: None, commit }).unwrap();
    (store, chunks)
}

fn names(chunks: &[Vec<u8>]) -> Vec<(Digest, u64)> {
    chunks.iter().map(|chunk| (digest(chunk), chunk.len() as u64)).collect()
}

/// Reads blobs from where they lie.
fn read_each(
    store: &Store,
    blobs: &[(Digest, u64)],
    take: &(dyn Fn(usize, &[u8]) + Sync),
) -> Result<(), BlobError> {
    let places = store.raw_places(blobs, &mut OpenPacks::default())?;
    store.read_each(blobs, &places, take)
}

fn options() -> StoreOptions {
    StoreOptions { durable: false, ..StoreOptions::default() }
}

fn damage(folder: &Path) {
    let pack = std::fs::read_dir(folder.join("packs")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 70_000].fill(7);
    std::fs::write(&pack, bytes).unwrap();
}

#[test]
fn each_blob_comes_once_and_whole() {
    let directory = tempfile::tempdir().unwrap();
    let local = Place::Local(directory.path().join("local"));
    for (place, compression) in [
        (local, Compression::Automatic),
        (Place::Local(directory.path().join("zstd")), Compression::Zstd),
        (Place::Memory, Compression::Automatic),
    ] {
        let (store, chunks) = filled(place, StoreOptions { compression, ..options() }, &mut Random::new(1));
        // In another order than they lie, and some twice.
        let mut wanted = chunks.clone();
        wanted.reverse();
        wanted.extend_from_slice(&chunks[..50]);
        let seen = Mutex::new(vec![0; wanted.len()]);
        read_each(&store, &names(&wanted), &|at, bytes| {
            assert!(bytes == wanted[at]);
            seen.lock().unwrap()[at] += 1;
        })
        .unwrap();
        assert!(seen.into_inner().unwrap().iter().all(|count| *count == 1));
    }
}

#[test]
fn damaged_blobs_are_never_handed_on() {
    let directory = tempfile::tempdir().unwrap();
    let (store, chunks) = filled(Place::Local(directory.path().to_owned()), options(), &mut Random::new(2));
    damage(directory.path());
    let result = read_each(&store, &names(&chunks), &|at, bytes| assert!(bytes == chunks[at]));
    assert!(matches!(result, Err(BlobError::Damaged { .. })), "{result:?}");
}

#[test]
fn blobs_of_another_length_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (store, chunks) = filled(Place::Local(directory.path().to_owned()), options(), &mut Random::new(3));
    for wrong in [0, 65_535, 65_537, 1 << 40] {
        let mut wanted = names(&chunks);
        wanted[10].1 = wrong;
        let result = read_each(&store, &wanted, &|at, bytes| assert!(bytes == chunks[at]));
        assert!(matches!(result, Err(BlobError::Damaged { .. })), "{wrong}: {result:?}");
    }
    let unknown = (digest(b"nobody has put this"), 3);
    let result = read_each(&store, &[unknown], &|_, _| panic!("there is nothing"));
    assert!(matches!(result, Err(BlobError::Missing { .. })), "{result:?}");
}
