use super::layout::{CHANGES_AT, PoolLayout, SLOT_LEN, SLOTS_USED_AT};
use super::*;
use chipmink_digest::digest;
use chipmink_types::{PoolError, PoolObject, SharedPool};
use proptest::prelude::*;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};

const MIB: u64 = 1 << 20;

/// A pool of its own, which goes when the test ends.
struct Temporary {
    name: String,
    pool: Pool,
}

impl Temporary {
    fn new(byte_len: u64) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("chipmink-pool-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let pool = Pool::create(&name, byte_len, [7; 16]).unwrap();
        Temporary { name, pool }
    }

    fn file(&self) -> File {
        OpenOptions::new().read(true).write(true).open(format!("/dev/shm/{}", self.name)).unwrap()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = crate::segment::Segment::unlink(&self.name);
    }
}

fn put(pool: &Pool, name: &str, bytes: &[u8]) -> Result<PoolObject, PoolError> {
    let mut writer = pool.begin(name, true)?;
    writer.write(bytes)?;
    writer.finish()
}

fn get(pool: &Pool, name: &str) -> Option<Vec<u8>> {
    let object = pool.find(name).unwrap()?;
    let mut bytes = vec![0; object.byte_len as usize];
    pool.read_at(&object, 0, &mut bytes).unwrap();
    assert_eq!(digest(&bytes), object.digest);
    Some(bytes)
}

#[test]
fn another_opener_finds_what_was_published_and_nothing_else() {
    let temporary = Temporary::new(2 * MIB);
    let other = Pool::attach(&temporary.name).unwrap();
    assert_eq!((other.id(), other.byte_len()), ([7; 16], 2 * MIB));
    assert_eq!(other.find("a").unwrap(), None);
    let mut writer = temporary.pool.begin("a", true).unwrap();
    writer.write(b"some").unwrap();
    assert_eq!(other.find("a").unwrap(), None);
    assert!(matches!(other.begin("a", true), Err(PoolError::Exists { .. })));
    writer.write(b" bytes").unwrap();
    writer.finish().unwrap();
    assert_eq!(get(&other, "a").unwrap(), b"some bytes");
    assert!(matches!(other.begin("a", true), Err(PoolError::Exists { .. })));
    let dropped = other.begin("b", true).unwrap();
    drop(dropped);
    put(&temporary.pool, "b", b"").unwrap();
    let names: Vec<String> = other.list().unwrap().into_iter().map(|object| object.name).collect();
    assert_eq!(names, ["a", "b"]);
    assert!(other.remove("a").unwrap());
    assert!(!temporary.pool.remove("a").unwrap());
}

#[test]
fn an_object_that_is_replaced_is_not_read_any_more() {
    let temporary = Temporary::new(MIB);
    let old = put(&temporary.pool, "hint", b"1").unwrap();
    let mut writer = temporary.pool.begin("hint", false).unwrap();
    writer.write(b"2").unwrap();
    writer.finish().unwrap();
    assert_eq!(get(&temporary.pool, "hint").unwrap(), b"2");
    let read = temporary.pool.read_at(&old, 0, &mut [0]);
    assert!(matches!(read, Err(PoolError::Missing { .. })));
}

#[test]
fn settled_objects_go_oldest_first_and_others_never() {
    let temporary = Temporary::new(2 * MIB);
    let pool = &temporary.pool;
    let bytes = vec![9; 400 << 10];
    let objects: Vec<PoolObject> = (0..4).map(|at| put(pool, &format!("o{at}"), &bytes).unwrap()).collect();
    let error = put(pool, "more", &bytes).unwrap_err();
    assert!(matches!(&error, PoolError::Full { needed, .. } if *needed == 400 << 10), "{error}");
    assert_eq!(pool.list().unwrap().len(), 4, "nothing went for it");
    pool.settle(&objects[1..3]).unwrap();
    put(pool, "more", &bytes).unwrap();
    assert_eq!(pool.find("o1").unwrap(), None);
    assert!(pool.find("o2").unwrap().unwrap().is_settled);
    assert_eq!(get(pool, "o0").unwrap(), bytes);
    put(pool, "another", &bytes).unwrap();
    assert!(matches!(put(pool, "last", &bytes), Err(PoolError::Full { .. })));
    // A write that found no room can be tried again.
    let mut writer = pool.begin("last", true).unwrap();
    writer.write(b"head").unwrap();
    writer.write(&bytes).unwrap_err();
    pool.remove("o0").unwrap();
    writer.write(&bytes).unwrap();
    assert_eq!(writer.finish().unwrap().byte_len, 4 + bytes.len() as u64);
    assert_eq!(get(pool, "last").unwrap()[4..], bytes);
}

#[test]
fn what_a_dead_process_reserved_is_free_again() {
    let temporary = Temporary::new(2 * MIB);
    let mut dead = std::process::Command::new("true").spawn().unwrap();
    let pid = u64::from(dead.id());
    dead.wait().unwrap();
    let mut writer = temporary.pool.begin("a", true).unwrap();
    writer.write(&vec![1; 1500 << 10]).unwrap();
    std::mem::forget(writer);
    assert!(matches!(temporary.pool.begin("a", true), Err(PoolError::Exists { .. })));
    temporary
        .pool
        .shared
        .change(|change| {
            let (at, slot) = change.directory.slots().next().unwrap();
            let mut slot = slot.clone();
            slot.owner.pid = pid;
            change.write(at, Some(slot))
        })
        .unwrap();
    put(&temporary.pool, "b", &vec![2; 1500 << 10]).unwrap();
    put(&temporary.pool, "a", b"x").unwrap();
}

#[test]
fn who_is_killed_in_the_midst_of_a_change_leaves_no_half_of_it() {
    let temporary = Temporary::new(2 * MIB);
    let other = Pool::attach(&temporary.name).unwrap();
    put(&temporary.pool, "a", b"whole").unwrap();
    assert_eq!(get(&other, "a").unwrap(), b"whole");
    let file = temporary.file();
    let layout = PoolLayout::of(2 * MIB).unwrap();
    let mut changes = [0; 8];
    file.read_exact_at(&mut changes, CHANGES_AT).unwrap();
    // A later slot, cut off in the midst, and a count that says that its writer did not end.
    let mut slot = [0; SLOT_LEN];
    file.read_exact_at(&mut slot, layout.slot_at(0)).unwrap();
    slot[0] ^= 0xff;
    file.write_all_at(&slot, layout.slot_at(1)).unwrap();
    file.write_all_at(&2u64.to_le_bytes(), SLOTS_USED_AT).unwrap();
    file.write_all_at(&(u64::from_le_bytes(changes) + 1).to_le_bytes(), CHANGES_AT).unwrap();
    assert_eq!(get(&other, "a").unwrap(), b"whole");
    assert_eq!(other.list().unwrap().len(), 1);
    put(&temporary.pool, "b", b"next").unwrap();
    assert_eq!(get(&other, "b").unwrap(), b"next");
    assert_eq!(other.changes().unwrap() % 2, 0);
}

#[test]
fn it_says_when_memory_is_short_and_leaves_nothing() {
    let name = format!("chipmink-pool-large-{}", std::process::id());
    let error = Pool::create(&name, 1 << 46, [0; 16]).unwrap_err();
    assert!(error.to_string().contains("reserving"), "{error}");
    assert!(!std::path::Path::new("/dev/shm").join(&name).exists());
    assert!(Pool::create(&name, 4096, [0; 16]).unwrap_err().to_string().contains("too few"));
}

#[test]
fn a_pool_that_is_cut_gives_errors() {
    let temporary = Temporary::new(2 * MIB);
    let object = put(&temporary.pool, "a", &[3; 100_000]).unwrap();
    temporary.file().set_len(200_000).unwrap();
    let mut bytes = vec![0; 100_000];
    assert!(temporary.pool.read_at(&object, 0, &mut bytes).is_err());
    assert!(put(&temporary.pool, "b", b"x").is_err());
    assert!(Pool::attach(&temporary.name).is_err());
    temporary.file().set_len(0).unwrap();
    assert!(temporary.pool.list().is_err());
}

#[test]
fn one_process_at_a_time_has_the_lease() {
    let temporary = Temporary::new(MIB);
    let lease = temporary.pool.lease().unwrap().unwrap();
    assert_eq!(temporary.pool.lease_holder().unwrap(), Some(u64::from(std::process::id())));
    assert!(lease.stands().unwrap());
    drop(lease);
    assert_eq!(temporary.pool.lease_holder().unwrap(), None);
}

#[test]
fn a_binding_changes_only_when_nothing_would_be_lost() {
    let temporary = Temporary::new(MIB);
    assert_eq!(temporary.pool.binding().unwrap(), None);
    temporary.pool.bind([1; 16]).unwrap();
    let object = put(&temporary.pool, "a", b"x").unwrap();
    temporary.pool.bind([1; 16]).unwrap();
    assert!(temporary.pool.bind([2; 16]).unwrap_err().to_string().contains("not durable"));
    temporary.pool.settle(&[object]).unwrap();
    temporary.pool.bind([2; 16]).unwrap();
    assert_eq!(temporary.pool.binding().unwrap(), Some([2; 16]));
    assert_eq!(temporary.pool.list().unwrap(), []);
}

#[test]
fn threads_and_openers_may_write_at_once() {
    let temporary = Temporary::new(8 * MIB);
    std::thread::scope(|scope| {
        for who in 0..8u8 {
            let pool = match who % 2 {
                0 => temporary.pool.clone(),
                _ => Pool::attach(&temporary.name).unwrap(),
            };
            scope.spawn(move || {
                for round in 0..20 {
                    let bytes = vec![who; 10_000 + round * 500];
                    put(&pool, &format!("{who}/{round}"), &bytes).unwrap();
                    if round % 3 == 0 {
                        pool.remove(&format!("{who}/{round}")).unwrap();
                    }
                }
            });
        }
    });
    for object in temporary.pool.list().unwrap() {
        let who: u8 = object.name.split('/').next().unwrap().parse().unwrap();
        assert!(get(&temporary.pool, &object.name).unwrap().iter().all(|byte| *byte == who));
    }
    assert_eq!(temporary.pool.list().unwrap().len(), 8 * 13);
}

#[test]
fn segments_are_listed_and_only_they_are_removed() {
    let temporary = Temporary::new(MIB);
    put(&temporary.pool, "a", b"12345").unwrap();
    let found = segments().unwrap().into_iter().find(|found| found.name == temporary.name).unwrap();
    assert_eq!((found.kind, found.used, found.unsettled), (SegmentKind::Repository, 5, 5));
    let foreign = format!("chipmink-pool-foreign-{}", std::process::id());
    let made = crate::segment::ForeignSegment::create(&foreign, 4096).unwrap();
    assert!(Pool::unlink(&foreign).unwrap_err().to_string().contains("not made by chipmink"));
    drop(made);
    crate::segment::Segment::unlink(&foreign).unwrap();
    Pool::unlink(&temporary.name).unwrap();
    assert!(Pool::attach(&temporary.name).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever stands there, looking at it and writing to it makes errors at most, and no byte is read that is not
    /// checked against its digest by `get`'s caller.
    #[test]
    fn hostile_contents_make_errors_at_most(
        spots in prop::collection::vec((0u64..40_000, prop::collection::vec(any::<u8>(), 1..64)), 1..12),
        reseals in any::<bool>(),
    ) {
        let temporary = Temporary::new(MIB);
        for at in 0..5u8 {
            put(&temporary.pool, &format!("o{at}"), &vec![at; 3000]).unwrap();
        }
        let file = temporary.file();
        let layout = PoolLayout::of(MIB).unwrap();
        for (at, bytes) in &spots {
            // Behind the head, which is believed once it was checked.
            file.write_all_at(bytes, 64 + at % 9000).unwrap();
        }
        if reseals {
            for slot in 0..5 {
                let mut bytes = [0; SLOT_LEN];
                file.read_exact_at(&mut bytes, layout.slot_at(slot)).unwrap();
                crate::segment::layout::seal(&mut bytes);
                file.write_all_at(&bytes, layout.slot_at(slot)).unwrap();
            }
        }
        for pool in [temporary.pool.clone(), Pool::attach(&temporary.name).unwrap()] {
            if let Ok(listed) = pool.list() {
                for object in listed {
                    let mut bytes = vec![0; object.byte_len.min(MIB) as usize];
                    let _ = pool.read_at(&object, 0, &mut bytes);
                    let _ = pool.read_at(&object, u64::MAX, &mut bytes);
                }
            }
            let _ = put(&pool, "new", &[1; 10_000]);
            let _ = pool.remove("o1");
            let _ = pool.bind([3; 16]);
            let _ = pool.lease();
        }
    }
}
