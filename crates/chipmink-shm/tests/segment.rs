//! Segments between processes: publishing, dying at any moment, and neighbours that mean no good.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use chipmink_shm::ShmError;
use chipmink_shm::segment::{ForeignSegment, MOST_SLOTS, Segment, SegmentLayout};
use proptest::prelude::*;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

const LAYOUT: SegmentLayout = SegmentLayout { slots: 3, slot_len: 300_000 };

/// Names the child in which this test binary runs as another process.
const CHILD: &str = "CHIPMINK_TEST_SEGMENT";

/// A name of the test's own, unlinked in the end.
struct Name(String);

impl Name {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Name(format!("chipmink-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    fn file(&self) -> File {
        File::options().read(true).write(true).open(format!("/dev/shm/{}", self.0)).unwrap()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // Some tests unlink it themselves.
        let _ = Segment::unlink(&self.0);
    }
}

fn content(seed: u64, byte_len: usize) -> Vec<u8> {
    (0..byte_len as u64).map(|i| (i.wrapping_mul(seed | 1) >> 5) as u8 ^ seed as u8).collect()
}

fn publish(segment: &Segment, bytes: &[u8]) -> u64 {
    let mut writer = segment.writer().unwrap();
    let mut open = writer.begin([7; 16]).unwrap();
    bytes.chunks(70_000).for_each(|part| open.write(part).unwrap());
    open.close().unwrap().number
}

fn read(segment: &Segment, number: u64) -> Result<Vec<u8>, ShmError> {
    let generations = segment.generations()?;
    let Some(found) = generations.iter().find(|generation| generation.number == number) else {
        return Ok(b"none".to_vec());
    };
    let mut bytes = Vec::new();
    segment.read(found, &mut |part| bytes.extend_from_slice(part))?;
    Ok(bytes)
}

#[test]
fn what_is_published_can_be_read_by_who_attaches() {
    let name = Name::new();
    let segment = Segment::create(&name.0, LAYOUT, [5; 16]).unwrap();
    assert!(segment.generations().unwrap().is_empty());
    for (i, byte_len) in [0, 1, 65_536, 300_000].into_iter().enumerate() {
        let number = publish(&segment, &content(i as u64, byte_len));
        assert_eq!(number, i as u64 + 1);
        let other = Segment::attach(&name.0).unwrap();
        assert_eq!((other.layout(), other.id()), (LAYOUT, [5; 16]));
        let newest = other.generations().unwrap()[0];
        assert_eq!((newest.number, newest.byte_len, newest.label), (number, byte_len as u64, [7; 16]));
        assert!(read(&other, number).unwrap() == content(i as u64, byte_len));
        let mut part = vec![0; byte_len / 2];
        other.read_at(&newest, byte_len as u64 / 3, &mut part).unwrap();
        assert!(part == content(i as u64, byte_len)[byte_len / 3..][..byte_len / 2]);
        assert!(other.read_at(&newest, byte_len as u64, &mut [0]).is_err());
        assert!(other.read_at(&newest, u64::MAX, &mut [0]).is_err());
    }
    let numbers: Vec<u64> = segment.generations().unwrap().iter().map(|found| found.number).collect();
    assert_eq!(numbers, [4, 3, 2]);
}

#[test]
fn a_generation_that_was_not_closed_is_nobody_s() {
    let name = Name::new();
    let segment = Segment::create(&name.0, LAYOUT, [5; 16]).unwrap();
    publish(&segment, b"first");
    for _ in 0..5 {
        let mut writer = segment.writer().unwrap();
        writer.begin([0; 16]).unwrap().write(b"given up").unwrap();
    }
    assert_eq!(segment.generations().unwrap().len(), 1);
    assert_eq!(read(&segment, 1).unwrap(), b"first");
    // Its number may be used again: it never meant anything.
    assert!(publish(&segment, b"second") > 1);
}

#[test]
fn more_than_a_slot_holds_is_refused() {
    let name = Name::new();
    let segment = Segment::create(&name.0, LAYOUT, [5; 16]).unwrap();
    let mut writer = segment.writer().unwrap();
    let mut open = writer.begin([0; 16]).unwrap();
    open.write(&[1; 300_000]).unwrap();
    assert!(open.write(&[1]).is_err());
    assert_eq!(open.close().unwrap().byte_len, 300_000);
}

#[test]
fn readers_see_when_what_they_read_was_overwritten() {
    let name = Name::new();
    let segment = Segment::create(&name.0, LAYOUT, [5; 16]).unwrap();
    publish(&segment, &content(1, 200_000));
    let first = segment.generations().unwrap()[0];
    let mut pieces = 0;
    let error = segment
        .read(&first, &mut |_| {
            pieces += 1;
            if pieces == 2 {
                for seed in 2..5 {
                    publish(&segment, &content(seed, 200_000));
                }
            }
        })
        .unwrap_err();
    assert!(matches!(error, ShmError::Overwritten { generation: 1, .. }), "{error}");
    assert!(matches!(segment.hold(&first), Err(ShmError::Overwritten { .. })));
}

#[test]
fn what_is_held_stays() {
    let name = Name::new();
    let segment = Segment::create(&name.0, LAYOUT, [5; 16]).unwrap();
    publish(&segment, b"held");
    let first = segment.generations().unwrap()[0];
    let lease = segment.hold(&first).unwrap();
    for _ in 0..7 {
        publish(&segment, b"later");
    }
    assert_eq!(read(&segment, 1).unwrap(), b"held");
    let second = segment.generations().unwrap()[1];
    let other = segment.hold(&second).unwrap();
    // Two held, and the newest must stay.
    let mut writer = segment.writer().unwrap();
    assert!(matches!(writer.begin([0; 16]), Err(ShmError::InUse { .. })));
    drop(lease);
    writer.begin([0; 16]).unwrap().close().unwrap();
    assert_eq!(read(&segment, 1).unwrap(), b"none");
    assert_eq!(read(&segment, second.number).unwrap(), b"later");
    drop(other);
}

#[test]
fn no_more_readers_hold_than_there_are_places() {
    let name = Name::new();
    let segment = Segment::create(&name.0, LAYOUT, [5; 16]).unwrap();
    publish(&segment, b"held");
    let first = segment.generations().unwrap()[0];
    let mut leases: Vec<_> = (0..63).map(|_| segment.hold(&first).unwrap()).collect();
    assert!(matches!(segment.hold(&first), Err(ShmError::InUse { .. })));
    leases.pop();
    leases.push(segment.hold(&first).unwrap());
}

#[test]
fn there_is_one_writer() {
    let name = Name::new();
    let segment = Segment::create(&name.0, LAYOUT, [5; 16]).unwrap();
    let writer = segment.writer().unwrap();
    let error = Segment::attach(&name.0).unwrap().writer().unwrap_err();
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    drop(writer);
    segment.writer().unwrap();
}

#[test]
fn names_and_layouts_that_cannot_be_are_refused() {
    let name = Name::new();
    let too_long = "x".repeat(201);
    for bad in ["", "/", "a/b", "..", ".", "a b", "\u{e9}", "a\0b", too_long.as_str()] {
        assert!(matches!(Segment::create(bad, LAYOUT, [0; 16]), Err(ShmError::Segment { .. })), "{bad:?}");
    }
    for layout in [
        SegmentLayout { slots: 1, slot_len: 100 },
        SegmentLayout { slots: MOST_SLOTS + 1, slot_len: 100 },
        SegmentLayout { slots: 2, slot_len: 0 },
        SegmentLayout { slots: 2, slot_len: u64::MAX },
        SegmentLayout { slots: 2, slot_len: u64::MAX / 2 },
    ] {
        assert!(matches!(Segment::create(&name.0, layout, [0; 16]), Err(ShmError::Segment { .. })));
    }
    // More than there is leaves nothing behind.
    let huge = SegmentLayout { slots: 2, slot_len: 1 << 50 };
    assert!(matches!(Segment::create(&name.0, huge, [0; 16]), Err(ShmError::System { .. })));
    assert!(Segment::attach(&name.0).is_err());
    Segment::create(&name.0, LAYOUT, [0; 16]).unwrap();
    assert!(Segment::create(&name.0, LAYOUT, [0; 16]).is_err());
    Segment::unlink(&name.0).unwrap();
    assert!(Segment::unlink(&name.0).is_err());
}

#[test]
fn what_is_no_segment_is_not_attached() {
    let name = Name::new();
    let foreign = ForeignSegment::create(&name.0, 100_000).unwrap();
    assert!(matches!(Segment::attach(&name.0), Err(ShmError::Segment { .. })));
    foreign.write_at(0, b"chmkseg1 and then something").unwrap();
    assert!(matches!(Segment::attach(&name.0), Err(ShmError::Segment { .. })));
    name.file().set_len(10).unwrap();
    assert!(matches!(Segment::attach(&name.0), Err(ShmError::Segment { .. })));
}

#[test]
fn a_segment_that_shrinks_makes_errors_and_no_crash() {
    for byte_len in [0, 10, 100, 4096, 5000, 20_000, 400_000] {
        let name = Name::new();
        let segment = Segment::create(&name.0, LAYOUT, [5; 16]).unwrap();
        publish(&segment, &content(1, 250_000));
        publish(&segment, &content(2, 250_000));
        let found = segment.generations().unwrap();
        let mut writer = segment.writer().unwrap();
        name.file().set_len(byte_len).unwrap();
        assert!(segment.read(&found[0], &mut |_| ()).is_err());
        assert!(writer.begin([0; 16]).is_err());
        assert!(Segment::attach(&name.0).is_err());
        drop(segment.hold(&found[1]));
        drop(segment.generations());
    }
}

#[test]
fn readers_get_whole_generations_while_a_writer_publishes() {
    let name = Name::new();
    let segment = Segment::create(&name.0, LAYOUT, [5; 16]).unwrap();
    let stop = AtomicBool::new(false);
    let reads = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let segment = Segment::attach(&name.0).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    for found in segment.generations().unwrap() {
                        let mut bytes = Vec::new();
                        match segment.read(&found, &mut |part| bytes.extend_from_slice(part)) {
                            Ok(()) => {
                                assert!(bytes == content(found.number, bytes.len()));
                                reads.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(error) => assert!(matches!(error, ShmError::Overwritten { .. }), "{error}"),
                        }
                    }
                }
            });
        }
        for number in 1..150 {
            let byte_len = 60_000 + number as usize * 1000;
            assert_eq!(publish(&segment, &content(number, byte_len)), number);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(reads.load(Ordering::Relaxed) > 0);
}

/// Not a test by itself: what another process does, in a test below. It says "ready" and then waits to be killed.
#[test]
fn child() {
    let Ok(text) = std::env::var(CHILD) else { return };
    let (task, name) = text.split_once(' ').unwrap();
    let segment = Segment::attach(name).unwrap();
    let ready = || {
        println!("\nready");
        std::io::stdout().flush().unwrap();
        std::thread::sleep(std::time::Duration::from_secs(60));
    };
    match task {
        "hold" => {
            let first = segment.generations().unwrap().pop().unwrap();
            let _lease = segment.hold(&first).unwrap();
            ready();
        }
        "open" => {
            let mut writer = segment.writer().unwrap();
            let mut open = writer.begin([1; 16]).unwrap();
            open.write(b"half").unwrap();
            ready();
        }
        _ => {
            let mut writer = segment.writer().unwrap();
            let mut open = writer.begin([1; 16]).unwrap();
            open.write(b"whole").unwrap();
            open.close().unwrap();
            ready();
        }
    }
}

/// Runs `while_it_lives` beside a process that does `task`, then kills it.
fn beside(task: &str, name: &Name, while_it_lives: impl FnOnce()) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, format!("{task} {}", name.0))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "ready"), "the other process failed");
    while_it_lives();
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_a_process_published_is_there_after_it_was_killed() {
    let name = Name::new();
    let segment = Segment::create(&name.0, LAYOUT, [5; 16]).unwrap();
    beside("close", &name, || {
        assert!(matches!(segment.writer(), Err(ShmError::InUse { .. })));
    });
    assert_eq!(read(&segment, 1).unwrap(), b"whole");
    assert_eq!(publish(&segment, b"next"), 2);
}

#[test]
fn what_a_killed_writer_left_open_is_discarded() {
    let name = Name::new();
    let segment = Segment::create(&name.0, LAYOUT, [5; 16]).unwrap();
    publish(&segment, b"before");
    beside("open", &name, || assert_eq!(segment.generations().unwrap().len(), 1));
    assert_eq!(segment.generations().unwrap().len(), 1);
    for i in 0..6u8 {
        publish(&segment, &[i]);
    }
    assert_eq!(segment.generations().unwrap().len(), 3);
}

#[test]
fn the_lease_of_a_killed_reader_ends() {
    let name = Name::new();
    let segment = Segment::create(&name.0, LAYOUT, [5; 16]).unwrap();
    publish(&segment, b"held");
    beside("hold", &name, || {
        for _ in 0..6 {
            publish(&segment, b"later");
        }
        assert_eq!(read(&segment, 1).unwrap(), b"held");
    });
    for _ in 0..2 {
        publish(&segment, b"later");
    }
    assert_eq!(read(&segment, 1).unwrap(), b"none");
}

#[test]
fn foreign_memory_is_read_with_and_without_its_name() {
    let name = Name::new();
    let made = ForeignSegment::create(&name.0, 10_000).unwrap();
    made.write_at(100, b"theirs").unwrap();
    let slashed = ForeignSegment::open(&format!("/{}", name.0)).unwrap();
    assert_eq!(slashed.byte_len().unwrap(), 10_000);
    assert!(slashed.write_at(0, b"no").is_err());
    let file = name.file();
    Segment::unlink(&name.0).unwrap();
    assert!(ForeignSegment::open(&name.0).is_err());
    let nameless = ForeignSegment::of_descriptor(file.as_fd(), "a descriptor").unwrap();
    for segment in [&slashed, &nameless] {
        let mut bytes = [0; 6];
        segment.read_at(100, &mut bytes).unwrap();
        assert_eq!(&bytes, b"theirs");
    }
    file.set_len(102).unwrap();
    let error = nameless.read_at(100, &mut [0; 6]).unwrap_err();
    assert!(error.to_string().contains("shrunk"), "{error}");
    assert!(nameless.read_at(u64::MAX, &mut [0; 6]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever stands in a segment: an error, or bytes that were published, never a crash.
    #[test]
    fn hostile_contents_make_errors(
        damage in proptest::collection::vec((0u64..21_000, any::<u8>(), 1usize..40), 1..6),
        cut in proptest::option::of(0u64..1_000_000),
    ) {
        let name = Name::new();
        let segment = Segment::create(&name.0, LAYOUT, [5; 16]).unwrap();
        for seed in 1..4 {
            publish(&segment, &content(seed, 1000));
        }
        let file = name.file();
        for (at, value, len) in damage {
            file.write_all_at(&vec![value; len], at).unwrap();
        }
        if let Some(byte_len) = cut {
            file.set_len(byte_len).unwrap();
        }
        let attached = Segment::attach(&name.0);
        for segment in [Ok(segment), attached].into_iter().flatten() {
            for found in segment.generations().into_iter().flatten() {
                let mut bytes = Vec::new();
                if segment.read(&found, &mut |part| bytes.extend_from_slice(part)).is_ok() {
                    let is_published = (1..4).any(|seed| bytes == content(seed, 1000)) || bytes == b"next";
                    prop_assert!(is_published);
                }
                drop(segment.hold(&found));
            }
            if let Ok(mut writer) = segment.writer()
                && let Ok(mut open) = writer.begin([0; 16])
            {
                drop(open.write(b"next"));
                drop(open.close());
            }
        }
    }
}
