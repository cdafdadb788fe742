//! Memory that others share with this process, read while they take it away.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use chipmink_shm::segment::{ForeignSegment, Segment};
use chipmink_shm::{MappingKind, mapping_at, shared_memory};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

const PAGE: usize = 4096;

/// A name of the test's own, unlinked in the end.
struct Name(String);

impl Name {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Name(format!("chipmink-foreign-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    fn path(&self) -> String {
        format!("/dev/shm/{}", self.0)
    }

    fn file(&self) -> File {
        File::options().read(true).write(true).open(self.path()).unwrap()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // Some tests unlink it themselves.
        let _ = Segment::unlink(&self.0);
    }
}

/// Memory that is mapped as long as this lives.
struct Mapped(*mut libc::c_void, usize);

impl Mapped {
    fn new(byte_len: usize, flags: i32, descriptor: i32) -> Self {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: new memory at an address of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), byte_len, access, flags, descriptor, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        Mapped(start, byte_len)
    }

    fn address(&self) -> usize {
        self.0 as usize
    }

    fn write(&self, at: usize, value: u8) {
        assert!(at < self.1);
        // SAFETY: inside the mapping, whose file the tests have not cut at that moment.
        unsafe { self.0.cast::<u8>().add(at).write_volatile(value) };
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; nothing refers to it any more.
        unsafe { libc::munmap(self.0, self.1) };
    }
}

fn read(address: usize, byte_len: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; byte_len];
    shared_memory().open(address, byte_len)?.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// A segment of these bytes, and a mapping of it.
fn segment(name: &Name, content: &[u8]) -> Mapped {
    let segment = ForeignSegment::create(&name.0, content.len() as u64).unwrap();
    segment.write_at(0, content).unwrap();
    Mapped::new(content.len(), libc::MAP_SHARED, name.file().as_raw_fd())
}

fn content() -> Vec<u8> {
    (0..3 * PAGE as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn a_segment_is_read_from_any_address_in_it() {
    let name = Name::new();
    let content = content();
    let mapped = segment(&name, &content);
    let found = mapping_at(mapped.address() + 5).unwrap().unwrap();
    assert_eq!((found.kind, found.path), (MappingKind::Shared, Some(name.path())));
    assert_eq!(read(mapped.address(), content.len()).unwrap(), content);
    assert_eq!(read(mapped.address() + 4000, 200).unwrap(), content[4000..4200]);
    mapped.write(4001, 7);
    assert_eq!(read(mapped.address() + 4000, 3).unwrap()[1], 7);
    let mut tail = [0; 4];
    shared_memory().open(mapped.address(), 9000).unwrap().read_at(8000, &mut tail).unwrap();
    assert_eq!(tail, content[8000..8004]);
}

#[test]
fn without_a_name_it_is_found_by_a_descriptor_or_by_its_address() {
    let name = Name::new();
    let content = content();
    let mapped = segment(&name, &content);
    let file = name.file();
    Segment::unlink(&name.0).unwrap();
    assert_eq!(read(mapped.address(), content.len()).unwrap(), content);
    // Other memory under the name is not what is mapped.
    std::fs::write(name.path(), vec![0; content.len()]).unwrap();
    assert_eq!(read(mapped.address(), content.len()).unwrap(), content);
    drop(file);
    assert_eq!(read(mapped.address() + 100, PAGE).unwrap(), content[100..PAGE + 100]);
}

#[test]
fn what_was_shrunk_is_an_error_with_and_without_a_descriptor() {
    for keeps_name in [true, false] {
        let name = Name::new();
        let content = content();
        let mapped = segment(&name, &content);
        let file = name.file();
        if !keeps_name {
            Segment::unlink(&name.0).unwrap();
        }
        file.set_len(PAGE as u64).unwrap();
        if !keeps_name {
            drop(file);
        }
        let error = read(mapped.address(), content.len()).unwrap_err();
        assert!(error.to_string().contains("shrunk by another process"), "{error}");
        assert!(read(mapped.address() + 2 * PAGE, 1).is_err());
        assert_eq!(read(mapped.address(), PAGE).unwrap(), content[..PAGE]);
    }
}

#[test]
fn anonymous_memory_is_read_by_its_address() {
    for flags in [libc::MAP_SHARED, libc::MAP_PRIVATE] {
        let mapped = Mapped::new(2 * PAGE, flags | libc::MAP_ANONYMOUS, -1);
        mapped.write(PAGE + 1, 9);
        assert_eq!(read(mapped.address() + PAGE, 3).unwrap(), [0, 9, 0]);
        let kind = mapping_at(mapped.address()).unwrap().unwrap().kind;
        let is_shared = flags == libc::MAP_SHARED;
        assert_eq!(kind, if is_shared { MappingKind::Shared } else { MappingKind::Private });
    }
}

#[test]
fn a_private_mapping_is_read_with_what_this_process_has_written() {
    let name = Name::new();
    segment(&name, &content());
    let mapped = Mapped::new(PAGE, libc::MAP_PRIVATE, name.file().as_raw_fd());
    mapped.write(3, 200);
    assert_eq!(mapping_at(mapped.address()).unwrap().unwrap().kind, MappingKind::File);
    assert_eq!(read(mapped.address(), 5).unwrap()[3], 200);
    assert_ne!(content()[3], 200);
}

#[test]
fn where_nothing_is_mapped_nothing_is_read() {
    let mapped = Mapped::new(PAGE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1);
    let address = mapped.address();
    drop(mapped);
    assert!(read(16, 1).is_err());
    // Another thread may have mapped something there by now.
    if mapping_at(address).unwrap().is_none() {
        assert!(read(address, 1).unwrap_err().to_string().contains("nothing is mapped"));
    }
}

#[test]
fn nothing_crashes_while_another_changes_its_length() {
    let name = Name::new();
    let content = vec![1; 16 * PAGE];
    let mapped = segment(&name, &content);
    let done = AtomicBool::new(false);
    let (mut whole, mut short) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = name.file();
            while !done.load(Ordering::Relaxed) {
                file.set_len(PAGE as u64).unwrap();
                file.set_len(content.len() as u64).unwrap();
            }
        });
        let began = std::time::Instant::now();
        while began.elapsed().as_millis() < 500 {
            match read(mapped.address(), content.len()) {
                Ok(bytes) => {
                    whole += 1;
                    assert!(bytes.iter().all(|byte| *byte <= 1));
                }
                Err(_) => short += 1,
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(whole + short > 100, "{whole} {short}");
}

#[test]
fn a_mapping_reaches_as_far_as_its_file() {
    let name = Name::new();
    let mapped = segment(&name, &vec![1; PAGE + 100]);
    let found = mapping_at(mapped.address()).unwrap().unwrap();
    assert_eq!((found.range.len(), found.reach()), (2 * PAGE, PAGE + 100));
    Segment::unlink(&name.0).unwrap();
    let found = mapping_at(mapped.address()).unwrap().unwrap();
    assert_eq!(found.reach(), 2 * PAGE);
    let anonymous = Mapped::new(PAGE, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1);
    assert_eq!(mapping_at(anonymous.address()).unwrap().unwrap().reach(), PAGE);
}
