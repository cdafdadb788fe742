//! Which versions stay, and what becomes of the others.

use crate::support::{Saver, dropped, last, open, options, pack_bytes, packs, tidy};
use chipmink_store::{KeepEvery, Place, Publication, Retention, Store, StoreError, SweepRequest};
use chipmink_testkit::toy;
use chipmink_types::TimeId;
use std::time::Duration;

#[test]
fn dropped_versions_go_and_the_others_stay() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut saver = Saver::new(1);
    saver.save_many(&store, 30);
    let before = pack_bytes(directory.path());
    let report = store.sweep(&last(3)).unwrap();
    assert_eq!(dropped(&report), (1..=27).collect::<Vec<_>>());
    assert_eq!(report.versions_kept, 3);
    assert!(report.packs_deleted > 10 && report.packs_waiting == 0, "{report:?}");
    assert_eq!(report.freed_bytes, report.condemned_bytes);
    assert!(pack_bytes(directory.path()) < before / 2, "{before} and {}", pack_bytes(directory.path()));
    saver.check(&store);
    saver.check(&open(directory.path()));
    let error = toy::load(&store, TimeId(7)).unwrap_err();
    assert!(matches!(error, StoreError::Dropped { time: TimeId(7), .. }), "{error}");
    assert!(error.to_string().contains("was dropped by a sweep on 20"), "{error}");
    let left: Vec<u64> = store.entries().map(|entry| entry.unwrap().number.0).collect();
    assert_eq!(left, [31, 30, 29, 28, 0]);
    // Another has nothing to do, and says nothing.
    let again = store.sweep(&last(3)).unwrap();
    assert_eq!((again.versions_dropped.len(), again.packs_condemned), (0, 0), "{again:?}");
    saver.save_many(&store, 5);
    store.sweep(&last(2)).unwrap();
    saver.check(&store);
    saver.check(&open(directory.path()));
    assert_eq!(store.dropped().ranges().len(), 2);
}

#[test]
fn a_sweep_without_rules_drops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut saver = Saver::new(2);
    saver.save_many(&store, 10);
    let report = store.sweep(&tidy()).unwrap();
    assert_eq!((report.versions_kept, report.entry), (10, None), "{report:?}");
    assert_eq!(report.kept_bytes, pack_bytes(directory.path()));
    saver.check(&store);
}

#[test]
fn a_dry_run_says_what_is_then_done_and_does_nothing() {
    for grace in [Duration::ZERO, Duration::from_secs(3600)] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let mut saver = Saver::new(3);
        saver.save_many(&store, 40);
        let before = pack_bytes(directory.path());
        let real = SweepRequest { grace, ..last(4) };
        let said = store.sweep(&SweepRequest { dry_run: true, ..real.clone() }).unwrap();
        assert!(said.is_dry_run && said.entry.is_none());
        assert_eq!((store.head().number, pack_bytes(directory.path())), (TimeId(40), before));
        let mut done = store.sweep(&real).unwrap();
        assert_eq!(done.entry.take(), Some(TimeId(41)));
        done.is_dry_run = true;
        assert_eq!(said, done);
        saver.check(&store);
    }
}

#[test]
fn nothing_is_deleted_before_the_grace_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let reader = open(directory.path());
    let mut saver = Saver::new(4);
    saver.save_many(&store, 12);
    reader.refresh().unwrap();
    let (count, request) =
        (packs(directory.path()), SweepRequest { grace: Duration::from_secs(3600), ..last(1) });
    let report = store.sweep(&request).unwrap();
    assert_eq!((report.packs_deleted, report.freed_bytes), (0, 0));
    assert!(report.packs_waiting > 0 && report.waiting_bytes == report.condemned_bytes);
    assert!(packs(directory.path()) >= count);
    // Who has not looked since still reads what is condemned.
    assert_eq!(toy::load(&reader, TimeId(3)).unwrap(), saver.saved[&TimeId(3)]);
    let waiting = store.sweep(&request).unwrap();
    assert_eq!((waiting.packs_deleted, waiting.packs_waiting), (0, report.packs_waiting));
    // A later one deletes what this one condemned.
    let late = store.sweep(&tidy()).unwrap();
    assert_eq!((late.packs_deleted, late.freed_bytes), (report.packs_condemned, report.condemned_bytes));
    assert!(packs(directory.path()) < count);
    saver.check(&store);
    // Once that is published, nobody keeps account of it.
    let entry = store.entry(late.entry.unwrap()).unwrap();
    assert_eq!(entry.deleted_through().unwrap(), report.entry);
    assert_eq!(store.sweep(&tidy()).unwrap().entry, None);
}

#[test]
fn branches_and_tags_keep_their_versions() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut saver = Saver::new(5);
    saver.save_many(&store, 10);
    let target = |time: u64| {
        let commit = store.commit(TimeId(time)).unwrap();
        chipmink_format::RefTarget { commit: commit.digest(), time: TimeId(time), manifest: commit.manifest }
    };
    store.begin().move_ref("tag/v2", None, Some(target(2))).unwrap();
    store.begin().move_ref("other", None, Some(target(5))).unwrap();
    // A branch of its own goes on from version 5.
    for _ in 0..3 {
        saver.change();
        let mut transaction = store.begin();
        let publication = toy::write(&store, &mut transaction, &saver.current, "").unwrap();
        let head = store.head().refs["other"];
        let mut commit = publication.commit;
        commit.parents = vec![head.commit];
        let publication = Publication { ref_name: "other".into(), expected: Some(head.time), commit };
        let time = transaction.publish(&publication).unwrap();
        saver.saved.insert(time, saver.current.clone());
    }
    // main: 1 to 10, other: 5, 13, 14, 15 and what 5 follows.
    let report = store.sweep(&last(4)).unwrap();
    assert_eq!(dropped(&report), [1, 3, 4, 6]);
    saver.check(&store);
    let report = store.sweep(&last(1)).unwrap();
    assert_eq!(dropped(&report), [5, 7, 8, 9, 13, 14]);
    let mut request = last(1);
    request.retention.keep_tagged = false;
    let report = store.sweep(&request).unwrap();
    assert_eq!((dropped(&report), report.refs_deleted), (vec![2], vec!["tag/v2".to_owned()]));
    assert!(!store.head().refs.contains_key("tag/v2"));
    saver.check(&store);
    saver.check(&open(directory.path()));
    // No ref can point at what is gone.
    let error = store.begin().move_ref(
        "tag/late",
        None,
        Some(chipmink_format::RefTarget { time: TimeId(3), ..store.head().refs["main"] }),
    );
    assert!(matches!(error, Err(StoreError::Dropped { time: TimeId(3), .. })), "{error:?}");
}

#[test]
fn versions_of_a_deleted_branch_go() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut saver = Saver::new(6);
    saver.save_many(&store, 3);
    let mut transaction = store.begin();
    saver.change();
    let publication = toy::write(&store, &mut transaction, &saver.current, "").unwrap();
    let publication = Publication { ref_name: "trial".into(), expected: None, ..publication };
    let time = transaction.publish(&publication).unwrap();
    saver.saved.insert(time, saver.current.clone());
    assert_eq!(store.sweep(&last(9)).unwrap().versions_dropped, []);
    store.begin().move_ref("trial", Some(time), None).unwrap();
    assert_eq!(store.sweep(&tidy()).unwrap().versions_dropped, [], "without a rule nothing goes");
    assert_eq!(store.sweep(&last(9)).unwrap().versions_dropped, [time]);
    saver.check(&store);
}

#[test]
fn rules_of_periods_and_age_join() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let day = 86_400_000_000i64;
    let now = i64::try_from(
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros(),
    )
    .unwrap();
    let today = now - now % day;
    let mut saver = Saver::new(7);
    // Three a day, for five days; the last day is today.
    for step in 0..15i64 {
        saver.change();
        let mut transaction = store.begin();
        let mut publication = toy::write(&store, &mut transaction, &saver.current, "").unwrap();
        publication.commit.saved_at = today - (4 - step / 3) * day + (step % 3) * 60_000_000;
        let time = transaction.publish(&publication).unwrap();
        saver.saved.insert(time, saver.current.clone());
    }
    let dry = |retention: Retention| {
        let request = SweepRequest { retention, dry_run: true, grace: Duration::ZERO };
        dropped(&store.sweep(&request).unwrap())
    };
    let daily =
        Retention { keep_every: Some(KeepEvery::Time(Duration::from_secs(86_400))), ..Retention::default() };
    assert_eq!(dry(daily.clone()), [1, 2, 4, 5, 7, 8, 10, 11, 13, 14]);
    let numbers = Retention { keep_every: Some(KeepEvery::Numbers(5)), ..Retention::default() };
    assert_eq!(dry(numbers), [1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13]);
    let age = Duration::from_micros((now - today + day) as u64) + Duration::from_secs(3600);
    let young = Retention { older_than: Some(age), ..Retention::default() };
    assert_eq!(dry(young.clone()), (1..=9).collect::<Vec<_>>());
    assert_eq!(dry(Retention { keep_last: Some(7), ..young.clone() }), (1..=8).collect::<Vec<_>>());
    let both = Retention { older_than: young.older_than, ..daily };
    assert_eq!(dry(both.clone()), [1, 2, 4, 5, 7, 8]);
    store.sweep(&SweepRequest { retention: both, ..tidy() }).unwrap();
    saver.check(&store);
}

#[test]
fn what_is_named_goes_whatever_keeps_it_but_for_branches() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut saver = Saver::new(11);
    saver.save_many(&store, 6);
    let drop = [2, 3, 6, 99].map(TimeId).into();
    let retention = Retention { drop, ..Retention::default() };
    let report = store.sweep(&SweepRequest { retention, ..tidy() }).unwrap();
    assert_eq!(dropped(&report), [2, 3]);
    let retention = Retention { keep_last: Some(2), drop: [TimeId(5)].into(), ..Retention::default() };
    let report = store.sweep(&SweepRequest { retention, ..tidy() }).unwrap();
    assert_eq!(dropped(&report), [1, 4, 5]);
    saver.check(&store);
}

#[test]
fn a_bound_of_bytes_keeps_the_newest_that_fit() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut saver = Saver::new(8);
    saver.save_many(&store, 60);
    let all = pack_bytes(directory.path());
    let max = all / 2;
    let retention = Retention { max_bytes: Some(max), ..Retention::default() };
    let report = store.sweep(&SweepRequest { retention, ..tidy() }).unwrap();
    let kept = report.versions_kept;
    assert!((5..60).contains(&kept), "{report:?}");
    assert_eq!(dropped(&report), (1..=60 - kept).collect::<Vec<_>>());
    assert!(report.kept_bytes <= max, "{report:?}");
    saver.check(&store);
    // What is always kept is kept, however little room there is.
    let retention = Retention { max_bytes: Some(1), ..Retention::default() };
    let report = store.sweep(&SweepRequest { retention, ..tidy() }).unwrap();
    assert_eq!(report.versions_kept, 1);
    saver.check(&store);
}

#[test]
fn a_lease_keeps_its_version_until_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut saver = Saver::new(9);
    saver.save_many(&store, 6);
    let held = store.take_lease(TimeId(2), Duration::from_secs(3600)).unwrap();
    let short = store.take_lease(TimeId(3), Duration::ZERO).unwrap();
    let other = open(directory.path());
    assert_eq!(dropped(&other.sweep(&last(1)).unwrap()), [1, 3, 4, 5]);
    saver.check(&other);
    store.refresh().unwrap();
    assert!(matches!(store.take_lease(TimeId(1), Duration::from_secs(1)), Err(StoreError::Dropped { .. })));
    store.release_lease(held).unwrap();
    store.release_lease(short).unwrap();
    assert_eq!(dropped(&other.sweep(&last(1)).unwrap()), [2]);
    saver.check(&other);
}

#[test]
fn memory_sweeps_too() {
    let store = Store::open_or_create(Place::Memory, options()).unwrap();
    let mut saver = Saver::new(10);
    saver.save_many(&store, 20);
    let report = store.sweep(&last(2)).unwrap();
    assert!(report.freed_bytes > 0 && report.packs_waiting == 0);
    saver.check(&store);
    // The room is there again.
    let small = StoreOptions { memory_bytes: 2_000_000, ..options() };
    let store = Store::open_or_create(Place::Memory, small).unwrap();
    let mut saver = Saver::new(11);
    for _ in 0..200 {
        saver.save(&store);
        saver.saved.clear();
        store.sweep(&last(1)).unwrap();
    }
}

use chipmink_store::StoreOptions;

#[test]
fn what_cannot_be_read_is_not_swept() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut saver = Saver::new(12);
    saver.save_many(&store, 3);
    let pack = store.entry(TimeId(3)).unwrap().packs_added[0];
    let path = directory.path().join(chipmink_format::pack_path(pack.name));
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
    let mut damaged = bytes.clone();
    damaged[pack.index.byte_offset as usize + 40] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let store = open(directory.path());
    store.sweep(&last(1)).unwrap_err();
    assert_eq!(packs(directory.path()), 3);
    std::fs::write(&path, &bytes).unwrap();
    let store = open(directory.path());
    store.sweep(&last(1)).unwrap();
    saver.check(&store);
}
