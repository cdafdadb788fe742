//! What a save writes and a load reads is a function of what changed and of what is asked for.

use crate::compare::check;
use crate::graph::{Node, Root, ToySource, World};
use crate::random_saves::open;
use chipmink::{OpenOptions, Repository, SaveRequest};
use chipmink_store::Backend;
use chipmink_store::local::{Input, LocalDisk, Output, Stat, Syscalls, System};
use chipmink_testkit::Random;
use chipmink_types::PodSource;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn request(accessed: Option<&[&str]>) -> SaveRequest {
    let accessed = accessed.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
    SaveRequest { accessed, ..SaveRequest::default() }
}

/// `count` names, each with a tree of its own; every third shares a definition.
fn wide(count: usize) -> World {
    let mut world = World::default();
    let class = world.add(Node { content: 9, is_definition: true, ..Node::default() });
    for at in 0..count {
        let child = world.add(Node { content: at as u64, ..Node::default() });
        let children = if at % 3 == 0 { vec![child, class] } else { vec![child] };
        let root = world.add(Node { content: at as u64, children, ..Node::default() });
        world.bind(&format!("v{at}"), Root::Node(root));
    }
    world
}

#[test]
fn nothing_changed_writes_the_entry_only() {
    let directory = tempfile::tempdir().unwrap();
    let repository = open(directory.path());
    let mut source = ToySource::new(wide(300));
    let first = repository.save(&mut source, &SaveRequest::default()).unwrap();
    assert!(first.report.rows_written >= 600 && first.report.tables_written == 301);
    let manifest = repository.version(first.time).unwrap().manifest;
    for (accessed, is_terse) in
        [(None, true), (Some(&[][..]), true), (Some(&[][..]), false), (Some(&["v3"][..]), true)]
    {
        source.is_terse = is_terse;
        let saved = repository.save(&mut source, &request(accessed)).unwrap();
        assert_eq!(repository.version(saved.time).unwrap().manifest, manifest);
        assert_eq!((saved.report.rows_written, saved.report.tables_written), (0, 0), "accessed {accessed:?}");
        assert_eq!(saved.report.blobs_new, 0);
        assert!(saved.report.bytes_written < 700, "{} bytes", saved.report.bytes_written);
    }
}

#[test]
fn a_session_that_starts_anew_writes_the_same_tables() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random::new(5);
    let mut world = wide(40);
    (0..60).for_each(|_| drop(world.mutate(&mut random)));
    let mut source = ToySource::new(world);
    let first = open(directory.path()).save(&mut source, &SaveRequest::default()).unwrap();
    let repository = open(directory.path());
    let mut source = ToySource::new(source.world);
    let again = repository.save(&mut source, &SaveRequest::default()).unwrap();
    let manifest = |time| repository.version(time).unwrap().manifest;
    assert_eq!(manifest(first.time), manifest(again.time));
    assert_eq!(again.report.blobs_new, 0);
    assert!(repository.diff(first.time, again.time).unwrap().is_empty());
}

#[test]
fn one_changed_pod_of_many_costs_a_leaf_and_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let repository = open(directory.path());
    let mut world = wide(2_000);
    // All of it one co-variable of 4,001 pods.
    let children = (0..2_000).map(|at| match world.root(&format!("v{at}")) {
        Some(Root::Node(id)) => *id,
        other => panic!("{other:?}"),
    });
    let all = Node { content: 0, children: children.collect(), ..Node::default() };
    let all = world.add(all);
    world.names.clear();
    world.bind("all", Root::Node(all));
    let mut source = ToySource::new(world);
    repository.save(&mut source, &SaveRequest::default()).unwrap();
    let some = *source.world.reached("all").last().unwrap();
    source.world.nodes.get_mut(&some).unwrap().content = 4_000;
    let saved = repository.save(&mut source, &SaveRequest::default()).unwrap();
    assert_eq!((saved.report.rows_written, saved.report.tables_written), (1, 1));
    assert!(saved.report.bytes_written < 16_000, "{} bytes", saved.report.bytes_written);
    check(&repository, saved.time, &source.world, &source.order(), None);
}

#[test]
fn a_changed_definition_changes_headers_and_no_rows_of_its_users() {
    let directory = tempfile::tempdir().unwrap();
    let repository = open(directory.path());
    let mut source = ToySource::new(wide(30));
    let before = repository.save(&mut source, &SaveRequest::default()).unwrap();
    let class =
        source.world.reached("v0").into_iter().find(|id| source.world.nodes[id].is_definition).unwrap();
    source.world.nodes.get_mut(&class).unwrap().content = 77;
    let after = repository.save(&mut source, &SaveRequest::default()).unwrap();
    assert_eq!(after.report.tables_written, 11, "the group and ten users");
    let diff = repository.diff(before.time, after.time).unwrap();
    assert_eq!(diff.changed.len(), 10);
    assert!(diff.added.is_empty() && diff.removed.is_empty());
    check(&repository, after.time, &source.world, &source.order(), None);
    check(
        &repository,
        before.time,
        &{
            let mut world = source.world.clone();
            world.nodes.get_mut(&class).unwrap().content = 9;
            world
        },
        &source.order(),
        None,
    );
}

#[test]
fn merged_co_variables_continue_the_larger_table() {
    let directory = tempfile::tempdir().unwrap();
    let repository = open(directory.path());
    let mut world = World::default();
    let chain = |world: &mut World, len: u64| {
        let mut child = None;
        for content in 0..len {
            child =
                Some(world.add(Node { content, children: child.into_iter().collect(), ..Node::default() }));
        }
        child.unwrap()
    };
    let (small, large) = (chain(&mut world, 5), chain(&mut world, 500));
    world.bind("small", Root::Node(small));
    world.bind("large", Root::Node(large));
    let mut source = ToySource::new(world);
    repository.save(&mut source, &SaveRequest::default()).unwrap();
    source.world.nodes.get_mut(&small).unwrap().children.push(large);
    let merged = repository.save(&mut source, &SaveRequest::default()).unwrap();
    assert_eq!(merged.report.rows_written, 5, "the rows of the smaller table");
    check(&repository, merged.time, &source.world, &source.order(), None);
    source.world.nodes.get_mut(&small).unwrap().children.pop();
    let split = repository.save(&mut source, &SaveRequest::default()).unwrap();
    assert_eq!(split.report.rows_written, 5);
    check(&repository, split.time, &source.world, &source.order(), None);
}

/// Counts the bytes that are read.
#[derive(Debug)]
struct Counting {
    calls: System,
    bytes: Arc<AtomicU64>,
}

#[derive(Debug)]
struct CountingInput(Box<dyn Input>, Arc<AtomicU64>);

impl Input for CountingInput {
    fn read_at(&self, buffer: &mut [u8], byte_offset: u64) -> io::Result<usize> {
        let read = self.0.read_at(buffer, byte_offset)?;
        self.1.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }

    fn stat(&self) -> io::Result<Stat> {
        self.0.stat()
    }
}

impl Syscalls for Counting {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        self.calls.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Input>> {
        Ok(Box::new(CountingInput(self.calls.open(path)?, Arc::clone(&self.bytes))))
    }

    fn open_file(&self, path: &Path) -> io::Result<std::fs::File> {
        self.calls.open_file(path)
    }

    fn fsync(&self, path: &Path) -> io::Result<()> {
        self.calls.fsync(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.calls.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.calls.rename_new(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.calls.link(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.calls.unlink(path)
    }

    fn mkdir(&self, path: &Path) -> io::Result<()> {
        self.calls.mkdir(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<(OsString, bool)>> {
        self.calls.read_dir(path)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.calls.stat(path)
    }

    fn boot(&self) -> Option<[u8; 16]> {
        self.calls.boot()
    }
}

#[test]
fn a_small_variable_of_a_large_version_reads_little() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random::new(8);
    let mut world = wide(200);
    for at in 0..60 {
        let id = world.add(Node { content: at, region: random.bytes(1 << 20), ..Node::default() });
        world.bind(&format!("large{at}"), Root::Node(id));
    }
    let mut source = ToySource::new(world);
    let saved = open(directory.path()).save(&mut source, &SaveRequest::default()).unwrap();
    assert!(saved.report.bytes_written > 60 << 20);

    let bytes = Arc::new(AtomicU64::new(0));
    let calls = Counting { calls: System, bytes: Arc::clone(&bytes) };
    let disk = LocalDisk::new(directory.path().to_owned(), Arc::new(calls), false);
    let options = OpenOptions { create: false, ..OpenOptions::default() };
    let repository = Repository::open_in(Backend::local(disk), options).unwrap();
    let opened = bytes.swap(0, Ordering::Relaxed);
    assert!(opened > 0, "reads are counted");
    let plan = repository.plan(saved.time, Some(&["v7".to_owned()])).unwrap();
    let mut pods = repository.pods(&plan);
    let wanted: usize = (0..plan.pods.len()).map(|at| pods.pod(at).unwrap().len()).sum();
    assert_eq!(plan.pods.len(), 2);
    let read = bytes.load(Ordering::Relaxed);
    assert!(read <= wanted as u64 + (64 << 10), "{read} bytes read for {wanted}, {opened} to open");
}
