//! Saves that fail, and races that are lost: nothing is lost, and the next save works.

use crate::compare::check;
use crate::graph::{Node, Root, ToySource, World};
use crate::random_saves::open;
use chipmink::{Error, ErrorKind, OpenOptions, Repository, SaveRequest};
use chipmink_store::Backend;
use chipmink_store::local::{LocalDisk, System};
use chipmink_testkit::{Call, Fault, FaultDisk, Random, Timing};
use chipmink_types::{
    BlobError, BlobKind, BlobSink, Digest, GraphSource, WalkError, WalkOutcome, WalkRequest,
};
use std::sync::Arc;

/// `EIO` on Linux.
const EIO: i32 = 5;

fn faulty(path: &std::path::Path) -> (FaultDisk, Repository) {
    let faults = FaultDisk::new(Arc::new(System));
    let disk = LocalDisk::new(path.to_owned(), Arc::new(faults.clone()), true);
    let options = OpenOptions::default();
    (faults, Repository::open_in(Backend::local(disk), options).unwrap())
}

fn small_world(random: &mut Random) -> World {
    let mut world = World::default();
    for at in 0..4 {
        let id = world.tree(random, 0);
        world.bind(&format!("n{at}"), Root::Node(id));
    }
    world
}

#[test]
fn a_save_that_fails_at_any_call_leaves_everything_as_it_was() {
    let mut failures = 0;
    for first in 0..200 {
        let directory = tempfile::tempdir().unwrap();
        let mut random = Random::new(first % 5);
        let (faults, repository) = faulty(directory.path());
        let mut source = ToySource::new(small_world(&mut random));
        let before = repository.save(&mut source, &SaveRequest::default()).unwrap();
        let (world, order) = (source.world.clone(), source.order());
        (0..3).for_each(|_| drop(source.world.mutate(&mut random)));

        let timing = if first % 2 == 0 { Timing::Before } else { Timing::After };
        let any = |call: Call| !matches!(call, Call::Unlink);
        faults.set(Some(Fault { first: first / 2, count: 1, errno: EIO, timing, matches: any }));
        let result = repository.save(&mut source, &SaveRequest::default());
        let has_failed = faults.failed() > 0;
        faults.set(None);
        match &result {
            // An answer that was lost may still be found out, and a sync may be made good.
            Ok(saved) => check(&repository, saved.time, &source.world, &source.order(), None),
            Err(error) => {
                failures += 1;
                assert!(matches!(error.kind(), ErrorKind::Storage | ErrorKind::OutcomeUnknown), "{error}");
                assert_eq!(repository.base("main"), Some(before.time));
            }
        }
        if matches!(&result, Err(error) if error.kind() == ErrorKind::OutcomeUnknown) {
            // Looking settles it.
            let newest = repository.newest("main").unwrap();
            repository.set_base("main", newest).unwrap();
        }
        drop(source.world.mutate(&mut random));
        let after = repository.save(&mut source, &SaveRequest::default()).unwrap();
        check(&repository, after.time, &source.world, &source.order(), None);
        check(&repository, before.time, &world, &order, None);
        let reopened = open(directory.path());
        check(&reopened, after.time, &source.world, &source.order(), None);
        let report = reopened.verify(true).unwrap();
        assert!(report.is_clean(), "{report:?}");
        if !has_failed {
            assert!(first > 20, "a save makes more calls than {first}");
            break;
        }
    }
    assert!(failures > 5, "{failures} saves failed");
}

/// A sink that refuses the n-th blob.
struct Refusing<'a> {
    inner: &'a mut dyn BlobSink,
    left: &'a mut usize,
}

impl BlobSink for Refusing<'_> {
    fn put(&mut self, kind: BlobKind, digest: Digest, bytes: &[u8]) -> Result<bool, BlobError> {
        if *self.left == 0 {
            let source = Box::new(std::io::Error::other("refused"));
            return Err(BlobError::Storage { context: "putting a blob".into(), source });
        }
        *self.left -= 1;
        self.inner.put(kind, digest, bytes)
    }

    fn holds(&mut self, digest: &Digest) -> bool {
        self.inner.holds(digest)
    }
}

/// A source whose walk fails at the n-th blob.
struct Failing<'a> {
    source: &'a mut ToySource,
    left: usize,
}

impl GraphSource for Failing<'_> {
    fn walk(&mut self, request: &WalkRequest<'_>, sink: &mut dyn BlobSink) -> Result<WalkOutcome, WalkError> {
        self.source.walk(request, &mut Refusing { inner: sink, left: &mut self.left })
    }

    fn adopt(&mut self, outcome: WalkOutcome) {
        self.source.adopt(outcome);
    }

    fn discard(&mut self, outcome: WalkOutcome) {
        self.source.discard(outcome);
    }

    fn reset(&mut self) {
        self.source.reset();
    }
}

#[test]
fn a_walk_that_fails_at_any_blob_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let repository = open(directory.path());
    let mut random = Random::new(4);
    let mut source = ToySource::new(small_world(&mut random));
    let mut base = None;
    for left in 0..40 {
        drop(source.world.mutate(&mut random));
        let resets = source.resets;
        let result = repository.save(&mut Failing { source: &mut source, left }, &SaveRequest::default());
        match result {
            Ok(saved) => base = Some(saved.time),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Storage, "{error}"),
        }
        assert_eq!(repository.base("main"), base);
        let saved = repository.save(&mut source, &SaveRequest::default()).unwrap();
        assert!(left == 0 || source.resets == resets, "what the source knew is still known");
        check(&repository, saved.time, &source.world, &source.order(), None);
        base = Some(saved.time);
    }
}

#[test]
fn a_lost_race_is_an_error_until_the_other_version_is_the_base() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (open(directory.path()), open(directory.path()));
    let mut random = Random::new(6);
    let mut source = ToySource::new(small_world(&mut random));
    let mut other = ToySource::new(small_world(&mut random));
    let first = ours.save(&mut source, &SaveRequest::default()).unwrap();
    let second = theirs.save(&mut other, &SaveRequest::default()).unwrap();
    assert_eq!(theirs.version(second.time).unwrap().parents, [theirs.version(first.time).unwrap().commit]);

    drop(source.world.mutate(&mut random));
    for _ in 0..2 {
        let error = ours.save(&mut source, &SaveRequest::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RefMoved, "{error}");
        assert_eq!(ours.base("main"), Some(first.time));
    }
    // Another ref is free.
    let branch = SaveRequest { ref_name: "side".into(), ..SaveRequest::default() };
    let aside = ours.save(&mut source, &branch).unwrap();
    check(&ours, aside.time, &source.world, &source.order(), None);

    ours.set_base("main", second.time).unwrap();
    let rebased = ours.save(&mut source, &SaveRequest::default()).unwrap();
    check(&ours, rebased.time, &source.world, &source.order(), None);
    assert_eq!(ours.version(rebased.time).unwrap().parents, [ours.version(second.time).unwrap().commit]);
    let diff = ours.diff(aside.time, rebased.time).unwrap();
    assert!(diff.added.is_empty() && diff.removed.is_empty());
    let refs = theirs.refs().unwrap();
    assert_eq!((refs["main"], refs["side"]), (rebased.time, aside.time));
    let log: Vec<_> = theirs.log().unwrap().map(|version| version.unwrap().time).collect();
    assert_eq!(log, [rebased.time, aside.time, second.time, first.time]);
}

#[test]
fn a_ref_is_held_by_one_save_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let repository = open(directory.path());
    let mut source = ToySource::new(small_world(&mut Random::new(7)));
    let mut other = ToySource::new(World::default());
    let prepared = repository.prepare(&mut source, &SaveRequest::default()).unwrap();
    let busy = repository.save(&mut other, &SaveRequest::default()).unwrap_err();
    assert!(matches!(busy, Error::Busy { .. }));
    assert!(repository.set_base("main", chipmink_types::TimeId(1)).is_err());
    prepared.discard(&mut source);
    let saved = repository.save(&mut source, &SaveRequest::default()).unwrap();
    // A published save of which the source was never told lets it start anew.
    let published = repository.prepare(&mut source, &SaveRequest::default()).unwrap().publish();
    let second = published.saved().unwrap().time;
    drop(published);
    let resets = source.resets;
    let third = repository.save(&mut source, &SaveRequest::default()).unwrap();
    assert_eq!(source.resets, resets + 1);
    assert!(saved.time < second && second < third.time);
    check(&repository, third.time, &source.world, &source.order(), None);
}

#[test]
fn what_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let repository = open(directory.path());
    let mut source = ToySource::new(World::default());
    let id = source.world.add(Node::default());
    source.world.bind("x", Root::Node(id));
    let saved = repository.save(&mut source, &SaveRequest::default()).unwrap();
    let unknown = repository.plan(saved.time, Some(&["y".to_owned()])).unwrap_err();
    assert_eq!((unknown.kind(), unknown.to_string().contains("\"y\"")), (ErrorKind::NotFound, true));
    let unknown = repository.plan(chipmink_types::TimeId(99), None).unwrap_err();
    assert_eq!((unknown.kind(), unknown.to_string().contains("99")), (ErrorKind::NotFound, true));
    let unknown = repository.newest("nowhere").unwrap_err();
    assert_eq!((unknown.kind(), unknown.to_string().contains("nowhere")), (ErrorKind::NotFound, true));
}
