//! How fast large versions go to a bucket and come back, beside object_store alone with as many requests at once:
//!
//! `cargo run --release -p chipmink-store --example far_speed -- PLACE [MEBIBYTES [REPETITIONS]]`
//!
//! PLACE is a URL such as `s3://bucket/prefix?endpoint=http://127.0.0.1:5000` (with keys in the environment), or `far`: the
//! memory of this process behind a wire of 1 GB/s in each direction with 20 ms to the first byte. Prints a line of JSON for
//! each measurement: seconds of both sides, medians, and the most memory that ours had beside the bytes that are saved or
//! loaded.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement may panic, and prints")]

use bytes::Bytes;
use chipmink_store::{Backend, Place, Store, StoreOptions, TransferOptions};
use chipmink_testkit::toy::{self, Namespace};
use chipmink_testkit::{FarStore, Random};
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const MEBIBYTE: usize = 1 << 20;
/// Bytes of a part, and of a range: as the store under test sends and asks for.
const PART: usize = 8 * MEBIBYTE;
/// Bytes that are read at once of what was written.
const READ: usize = 256 << 10;
const PARTS_AT_ONCE: usize = 6;
const RANGES_AT_ONCE: usize = 8;
const LATENCY: Duration = Duration::from_millis(20);
const BYTES_PER_SECOND: f64 = 1e9;

/// A place for both sides.
struct Site {
    objects: Arc<dyn ObjectStore>,
    /// The place of a repository below it.
    backend: Box<dyn Fn(&str) -> Backend>,
    /// Its bytes are not in the memory of this process.
    is_elsewhere: bool,
}

fn site(place: &str) -> Site {
    if place == "far" {
        let objects: Arc<dyn ObjectStore> =
            Arc::new(FarStore::new(Arc::new(InMemory::new()), LATENCY, BYTES_PER_SECOND));
        let far = objects.clone();
        let backend = move |prefix: &str| {
            let below = object_store::prefix::PrefixStore::new(far.clone(), prefix);
            Backend::remote(Arc::new(below), prefix)
        };
        return Site { objects, backend: Box::new(backend), is_elsewhere: false };
    }
    let (base, options) = place.split_once('?').unwrap_or((place, ""));
    let (base, options) = (base.trim_end_matches('/').to_owned(), options.to_owned());
    let connect = move |prefix: &str| match Place::parse(&format!("{base}{prefix}?{options}")).unwrap() {
        Place::Remote(place) => place.connect().unwrap(),
        other => panic!("{other} is no bucket"),
    };
    let objects = connect("");
    let backend = move |prefix: &str| Backend::remote(connect(&format!("/{prefix}")), prefix);
    Site { objects, backend: Box::new(backend), is_elsewhere: true }
}

/// Bytes of this process in RAM that belong to no file.
fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Seconds that work takes, and how many bytes of memory more it had at its most.
fn measured<T>(work: impl FnOnce() -> T) -> (f64, u64, T) {
    let (most, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let before = anonymous_bytes();
    let (seconds, made) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                most.fetch_max(anonymous_bytes(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let start = Instant::now();
        let made = work();
        let seconds = start.elapsed().as_secs_f64();
        is_over.store(true, Ordering::Relaxed);
        (seconds, made)
    });
    (seconds, most.into_inner().saturating_sub(before), made)
}

fn upload(runtime: &Runtime, objects: &Arc<dyn ObjectStore>, to: &Path, bytes: &[u8]) {
    runtime.block_on(async {
        let mut upload = objects.put_multipart(to).await.unwrap();
        // What is sent is owned by who sends it, so a part is copied once.
        let parts = bytes.chunks(PART).map(|part| upload.put_part(Bytes::copy_from_slice(part).into()));
        let parts = futures::stream::iter(parts).map(|part| async { tokio::spawn(part).await.unwrap() });
        parts.buffered(PARTS_AT_ONCE).try_collect::<Vec<()>>().await.unwrap();
        upload.complete().await.unwrap();
    });
}

fn download(runtime: &Runtime, objects: &Arc<dyn ObjectStore>, from: &Path, byte_len: usize) -> Vec<u8> {
    let mut into = vec![0; byte_len];
    runtime.block_on(async {
        let starts = (0..byte_len as u64).step_by(PART);
        let range = |start: u64| {
            let (objects, from) = (objects.clone(), from.clone());
            let range = start..(start + PART as u64).min(byte_len as u64);
            async move { tokio::spawn(async move { objects.get_range(&from, range).await }).await.unwrap() }
        };
        let mut parts = futures::stream::iter(starts).map(range).buffered(RANGES_AT_ONCE);
        let mut rest = into.as_mut_slice();
        while let Some(part) = parts.next().await {
            let part = part.unwrap();
            let (now, later) = rest.split_at_mut(part.len());
            now.copy_from_slice(&part);
            rest = later;
        }
    });
    into
}

/// Downloads to a file, and reads what was written once more.
fn fetch(
    runtime: &Runtime,
    objects: &Arc<dyn ObjectStore>,
    from: &Path,
    byte_len: usize,
    to: &std::path::Path,
) {
    let file = Arc::new(File::options().read(true).write(true).create_new(true).open(to).unwrap());
    runtime.block_on(async {
        let part = |start: u64| {
            let (objects, from, file) = (objects.clone(), from.clone(), Arc::clone(&file));
            tokio::spawn(async move {
                let range = start..(start + PART as u64).min(byte_len as u64);
                let part = objects.get_range(&from, range).await.unwrap();
                tokio::task::spawn_blocking(move || file.write_all_at(&part, start).unwrap()).await.unwrap();
            })
        };
        let starts = (0..byte_len as u64).step_by(PART);
        let mut parts = futures::stream::iter(starts).map(part).buffer_unordered(RANGES_AT_ONCE);
        while let Some(written) = parts.next().await {
            written.unwrap();
        }
    });
    let mut buffer = vec![0; READ];
    for start in (0..byte_len).step_by(READ) {
        let piece = &mut buffer[..READ.min(byte_len - start)];
        file.read_exact_at(piece, start as u64).unwrap();
    }
}

/// What was measured of one thing, of each repetition.
struct Row {
    what: &'static str,
    ours: Vec<f64>,
    theirs: Vec<f64>,
    memory: u64,
}

impl Row {
    fn new(what: &'static str) -> Self {
        Row { what, ours: Vec::new(), theirs: Vec::new(), memory: 0 }
    }

    fn print(&mut self, has_memory: bool) {
        let median = |seconds: &mut Vec<f64>| {
            seconds.sort_by(f64::total_cmp);
            seconds[seconds.len() / 2]
        };
        let memory = if has_memory { self.memory.to_string() } else { "null".to_owned() };
        println!(
            "{{\"what\": \"{}\", \"ours\": {:.6}, \"theirs\": {:.6}, \"memory\": {memory}}}",
            self.what,
            median(&mut self.ours),
            median(&mut self.theirs)
        );
    }
}

fn local(path: &std::path::Path) -> Backend {
    let disk = chipmink_store::local::LocalDisk::new(
        path.to_owned(),
        Arc::new(chipmink_store::local::System),
        false,
    );
    Backend::local(disk)
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let place = arguments.next().expect("a place, or `far`");
    let byte_len = arguments.next().map_or(1024, |text| text.parse().unwrap()) * MEBIBYTE;
    let repetitions: usize = arguments.next().map_or(5, |text| text.parse().unwrap());
    let site = site(&place);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let namespace = Namespace::from([("x".to_owned(), Random::new(1).bytes(byte_len))]);
    let bytes = &namespace["x"];
    let options = StoreOptions { durable: false, ..StoreOptions::default() };
    let directory = tempfile::tempdir().unwrap();
    let source = Store::create_in(local(&directory.path().join("source")), options.clone()).unwrap();
    toy::save(&source, &namespace, "").unwrap();
    let mut rows = ["upload", "download", "push", "pull"].map(Row::new);
    for repetition in 0..repetitions {
        let plain = Path::from(format!("plain-{repetition}"));
        let (ours, pushed) = (format!("ours-{repetition}"), format!("pushed-{repetition}"));
        let [up, down, push, pull] = &mut rows;
        let their_upload = || measured(|| upload(&runtime, &site.objects, &plain, bytes)).0;
        let our_upload = || {
            let store = Store::create_in((site.backend)(&ours), options.clone()).unwrap();
            measured(|| toy::save(&store, &namespace, "").unwrap())
        };
        // Who goes first alternates.
        let (theirs, (seconds, memory, time)) = match repetition % 2 {
            0 => (their_upload(), our_upload()),
            _ => {
                let mine = our_upload();
                (their_upload(), mine)
            }
        };
        up.theirs.push(theirs);
        up.ours.push(seconds);
        up.memory = up.memory.max(memory);
        let their_download = || {
            let (seconds, _, loaded) = measured(|| download(&runtime, &site.objects, &plain, byte_len));
            assert!(loaded == *bytes);
            seconds
        };
        let our_download = || {
            // Knows nothing of what was written.
            let store = Store::open_in((site.backend)(&ours), options.clone()).unwrap();
            let (seconds, memory, loaded) = measured(|| toy::load(&store, time).unwrap());
            assert!(loaded == namespace);
            (seconds, memory.saturating_sub(byte_len as u64))
        };
        let (theirs, (seconds, memory)) = match repetition % 2 {
            0 => (their_download(), our_download()),
            _ => {
                let mine = our_download();
                (their_download(), mine)
            }
        };
        down.theirs.push(theirs);
        down.ours.push(seconds);
        down.memory = down.memory.max(memory);
        // A push reads what it has written once more.
        let identity = StoreOptions { repository: Some(source.repository()), ..options.clone() };
        let target = Store::create_in((site.backend)(&pushed), identity).unwrap();
        let everything = TransferOptions::default();
        let (seconds, memory, _) = measured(|| source.transfer(&target, &everything, &mut |_| true).unwrap());
        push.ours.push(seconds);
        push.theirs.push(up.theirs[repetition] + down.theirs[repetition]);
        push.memory = push.memory.max(memory);
        let back = directory.path().join("back");
        let identity = StoreOptions { repository: Some(source.repository()), ..options.clone() };
        let copy = Store::create_in(local(&back), identity).unwrap();
        let target = Store::open_in((site.backend)(&pushed), options.clone()).unwrap();
        let file = directory.path().join("file");
        let their_pull = || measured(|| fetch(&runtime, &site.objects, &plain, byte_len, &file)).0;
        let our_pull = || measured(|| target.transfer(&copy, &everything, &mut |_| true).unwrap());
        let (theirs, (seconds, memory, _)) = match repetition % 2 {
            0 => (their_pull(), our_pull()),
            _ => {
                let mine = our_pull();
                (their_pull(), mine)
            }
        };
        pull.theirs.push(theirs);
        pull.ours.push(seconds);
        pull.memory = pull.memory.max(memory);
        std::fs::remove_file(&file).unwrap();
        std::fs::remove_dir_all(&back).unwrap();
        // What stays takes the memory of the server, or of this process.
        runtime.block_on(async {
            let all = site.objects.list(None).map_ok(|meta| meta.location).boxed();
            site.objects.delete_stream(all).try_for_each(|_| async { Ok(()) }).await.unwrap();
        });
    }
    rows.iter_mut().for_each(|row| row.print(site.is_elsewhere));
}
