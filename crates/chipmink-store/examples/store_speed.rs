//! How fast blobs go in and out: `cargo run --release -p chipmink-store --example store_speed [folder [part of a name]]`.
//!
//! Prints seconds and MB/s, best of five, beside a plain write and read of as many bytes in the same folder.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement may panic, and prints")]

use chipmink_digest::digest;
use chipmink_store::{Place, Publication, Store, StoreOptions};
use chipmink_testkit::Random;
use chipmink_testkit::toy::{self, Namespace};
use chipmink_types::{BlobKind, BlobSink, BlobSource, Digest};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

const ROUNDS: usize = 5;

fn best(mut work: impl FnMut() -> f64) -> f64 {
    (0..ROUNDS).map(|_| work()).fold(f64::MAX, f64::min)
}

fn show(what: &str, byte_len: usize, seconds: f64) {
    println!("{what:44} {:9.3} ms {:8.0} MB/s", seconds * 1e3, byte_len as f64 / seconds / 1e6);
}

fn fresh(root: &Path) -> Store {
    let _ = std::fs::remove_dir_all(root);
    let options = StoreOptions { durable: false, ..StoreOptions::default() };
    Store::create(Place::Local(root.to_owned()), options).unwrap()
}

fn blobs(root: &Path, only: &str, what: &str, kind: BlobKind, count: usize, len: usize, compressible: bool) {
    if !what.contains(only) {
        return;
    }
    let mut random = Random::new(1);
    let blobs: Vec<Vec<u8>> =
        (0..count).map(|_| if compressible { random.text(len) } else { random.bytes(len) }).collect();
    let digests: Vec<Digest> = blobs.iter().map(|blob| digest(blob)).collect();
    let total = count * len;
    let name = |part: &str| format!("{what}: {part}");
    let plain = root.join("plain");
    let seconds = best(|| {
        let _ = std::fs::remove_file(&plain);
        let start = Instant::now();
        let mut file = std::io::BufWriter::with_capacity(1 << 20, std::fs::File::create(&plain).unwrap());
        blobs.iter().for_each(|blob| file.write_all(blob).unwrap());
        file.flush().unwrap();
        start.elapsed().as_secs_f64()
    });
    show(&name("plain write"), total, seconds);
    let seconds = best(|| {
        let start = Instant::now();
        assert_eq!(std::fs::read(&plain).unwrap().len(), total);
        start.elapsed().as_secs_f64()
    });
    show(&name("plain read"), total, seconds);
    let seconds = best(|| {
        let start = Instant::now();
        blobs.iter().for_each(|blob| {
            std::hint::black_box(digest(blob));
        });
        start.elapsed().as_secs_f64()
    });
    show(&name("digest"), total, seconds);
    let repository = root.join("repository");
    let mut manifest = Namespace::new();
    manifest.insert("x".into(), vec![1]);
    let seconds = best(|| {
        let store = fresh(&repository);
        let mut transaction = store.begin();
        let publication = toy::write(&store, &mut transaction, &manifest, "").unwrap();
        let start = Instant::now();
        for (digest, blob) in digests.iter().zip(&blobs) {
            assert!(transaction.put(kind, *digest, blob).unwrap());
        }
        let put = start.elapsed().as_secs_f64();
        transaction.publish(&publication).unwrap();
        let all = start.elapsed().as_secs_f64();
        if std::env::var_os("VERBOSE").is_some() {
            println!("  put {put:.4} publish {:.4}", all - put);
        }
        all
    });
    show(&name("put and publish"), total, seconds);
    let options = StoreOptions { durable: false, ..StoreOptions::default() };
    let open = || Store::open(Place::Local(repository.clone()), options.clone()).unwrap();
    let read = |store: &Store| {
        let start = Instant::now();
        for window in digests.chunks((8 << 20) / len) {
            std::hint::black_box(store.get_many(window).unwrap());
        }
        start.elapsed().as_secs_f64()
    };
    show(&name("get_many after opening"), total, best(|| read(&open())));
    let store = open();
    read(&store);
    show(&name("get_many again"), total, best(|| read(&store)));
    let pairs: Vec<(Digest, u64)> = digests.iter().map(|digest| (*digest, len as u64)).collect();
    let mut into = vec![0; total];
    let seconds = best(|| {
        let start = Instant::now();
        store.read_into(&pairs, &mut into).unwrap();
        start.elapsed().as_secs_f64()
    });
    show(&name("read_into"), total, seconds);
    let seconds = best(|| {
        let mut transaction = store.begin();
        let start = Instant::now();
        for (digest, blob) in digests.iter().zip(&blobs) {
            assert!(!transaction.put(kind, *digest, blob).unwrap());
        }
        start.elapsed().as_secs_f64()
    });
    show(&name("put of what is known"), total, seconds);
}

fn empty_saves(root: &Path) {
    let store = fresh(&root.join("repository"));
    let mut namespace = Namespace::new();
    namespace.insert("x".into(), vec![1]);
    toy::save(&store, &namespace, "").unwrap();
    let mut transaction = store.begin();
    let mut publication = toy::write(&store, &mut transaction, &namespace, "").unwrap();
    drop(transaction);
    let saves = 500;
    let start = Instant::now();
    for _ in 0..saves {
        publication = Publication { expected: Some(store.head().number), ..publication };
        store.begin().publish(&publication).unwrap();
    }
    let save = start.elapsed().as_secs_f64() / f64::from(saves);
    let scratch = root.join("scratch");
    std::fs::create_dir_all(&scratch).unwrap();
    let start = Instant::now();
    for n in 0..2 * saves {
        std::fs::write(scratch.join("new"), [0; 1024]).unwrap();
        std::fs::rename(scratch.join("new"), scratch.join(n.to_string())).unwrap();
    }
    let two_files = start.elapsed().as_secs_f64() / f64::from(saves);
    println!(
        "empty save {:.1} us; two files created and renamed {:.1} us; ratio {:.2}",
        save * 1e6,
        two_files * 1e6,
        save / two_files
    );
}

fn main() {
    let root = std::env::args().nth(1).unwrap_or_else(|| "target/store_speed".into());
    let root = Path::new(&root);
    let only = std::env::args().nth(2).unwrap_or_default();
    let _ = std::fs::remove_dir_all(root);
    std::fs::create_dir_all(root).unwrap();
    blobs(root, &only, "100 pods of 1 MB", BlobKind::Pod, 100, 1 << 20, false);
    blobs(root, &only, "100 pods of 1 MB, text", BlobKind::Pod, 100, 1 << 20, true);
    blobs(root, &only, "10k pods of 6 KB", BlobKind::Pod, 10_000, 6_000, false);
    blobs(root, &only, "10k pods of 6 KB, text", BlobKind::Pod, 10_000, 6_000, true);
    blobs(root, &only, "100k pods of 200 B", BlobKind::Pod, 100_000, 200, false);
    blobs(root, &only, "16k chunks of 64 KiB", BlobKind::Chunk, 4_000, 64 << 10, false);
    empty_saves(root);
    let _ = std::fs::remove_dir_all(root);
}
