use super::*;
use proptest::prelude::*;
use std::fs::File;
use std::os::fd::AsFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

const PAGE: usize = 4096;

/// A kernel or a sandbox without the facility cannot run these tests; it is said once for each.
fn protection() -> Option<WriteProtection> {
    match WriteProtection::probe() {
        Ok(protection) => Some(protection),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// Memory of the test's own, mapped as asked.
struct Memory {
    start: *mut u8,
    len: usize,
}

impl Memory {
    fn new(len: usize) -> Self {
        Memory::with(len, rustix::mm::MapFlags::PRIVATE)
    }

    fn with(len: usize, flags: rustix::mm::MapFlags) -> Self {
        let both = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
        // SAFETY: at an address of the kernel's choice.
        let start = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, both, flags) }.unwrap();
        Memory { start: start.cast(), len }
    }

    fn of_file(file: &File, len: usize, flags: rustix::mm::MapFlags) -> Self {
        let both = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
        // SAFETY: at an address of the kernel's choice.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), len, both, flags, file, 0) }.unwrap();
        Memory { start: start.cast(), len }
    }

    fn address(&self) -> usize {
        self.start as usize
    }

    fn write(&self, at: usize, value: u8) {
        assert!(at < self.len);
        // SAFETY: inside the mapping.
        unsafe { self.start.add(at).write_volatile(value) };
    }

    fn fill(&self) {
        (0..self.len).step_by(PAGE).for_each(|at| self.write(at, 1));
    }

    fn slice(&mut self, range: Range<usize>) -> &mut [u8] {
        assert!(range.end <= self.len);
        // SAFETY: inside the mapping, and borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    fn advise(&self, range: Range<usize>, advice: rustix::mm::Advice) {
        // SAFETY: inside the mapping; tests expect what the advice does.
        unsafe { rustix::mm::madvise(self.start.add(range.start).cast(), range.len(), advice) }.unwrap();
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to this value.
        unsafe { rustix::mm::munmap(self.start.cast(), self.len) }.unwrap();
    }
}

/// Numbers of the pages written, counted from the start of the range.
fn pages(protection: &mut WriteProtection, address: usize, len: usize) -> Vec<usize> {
    match protection.written(address, len) {
        Verdict::Written(ranges) => ranges
            .into_iter()
            .flat_map(|range| (range.start - address) / PAGE..(range.end - address).div_ceil(PAGE))
            .collect(),
        Verdict::Unknown => panic!("tracking was lost"),
    }
}

/// Refusing is allowed (an old kernel, a sandbox); granting it and then reporting wrongly is not.
#[test]
fn a_system_that_grants_it_passes_the_trial() {
    if let Err(error) = WriteProtection::probe() {
        let error = error.to_string();
        assert!(!error.contains("instead of") && !error.contains("were reported"), "{error}");
    }
}

#[test]
fn only_written_pages_are_reported_and_only_once() {
    let Some(mut protection) = protection() else { return };
    let memory = Memory::new(64 * PAGE);
    memory.fill();
    protection.track(memory.address(), memory.len).unwrap();
    assert_eq!(pages(&mut protection, memory.address(), memory.len), []);
    memory.write(7 * PAGE + 13, 2);
    memory.write(9 * PAGE, 2);
    memory.write(63 * PAGE + 4095, 2);
    assert_eq!(pages(&mut protection, memory.address(), memory.len), [7, 9, 63]);
    assert_eq!(pages(&mut protection, memory.address(), memory.len), []);
    memory.write(7 * PAGE, 3);
    assert_eq!(pages(&mut protection, memory.address(), memory.len), [7]);
}

#[test]
fn parts_of_pages_at_the_ends_are_always_written() {
    let Some(mut protection) = protection() else { return };
    let memory = Memory::new(8 * PAGE);
    let (address, len) = (memory.address() + 16, 5 * PAGE);
    protection.track(address, len).unwrap();
    let first = address..address + PAGE - 16;
    let last = address + len - 16..address + len;
    assert_eq!(protection.written(address, len), Verdict::Written(vec![first.clone(), last.clone()]));
    memory.write(2 * PAGE, 1);
    let page = memory.address() + 2 * PAGE..memory.address() + 3 * PAGE;
    assert_eq!(protection.written(address, len), Verdict::Written(vec![first, page, last]));
}

#[test]
fn a_range_without_a_whole_page_is_not_tracked() {
    let Some(mut protection) = protection() else { return };
    let memory = Memory::new(4 * PAGE);
    let refused = protection.track(memory.address() + 1, 2 * PAGE - 2);
    assert_eq!(refused, Err(Untracked::TooSmall(2 * PAGE - 2)));
    assert_eq!(protection.track(usize::MAX - 10, 100), Err(Untracked::TooSmall(100)));
    assert_eq!(protection.written(memory.address() + 1, 2 * PAGE - 2), Verdict::Unknown);
}

#[test]
fn writes_by_the_kernel_are_seen() {
    let Some(mut protection) = protection() else { return };
    let mut memory = Memory::new(64 * PAGE);
    memory.fill();
    let (address, len) = (memory.address(), memory.len);
    protection.track(address, len).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, &[7; 3 * PAGE]).unwrap();
    rustix::io::pread(&file, memory.slice(10 * PAGE + 5..12 * PAGE), 0).unwrap();
    assert_eq!(pages(&mut protection, address, len), [10, 11]);
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::io::write(writer.as_fd(), b"12345678").unwrap();
    rustix::io::read(reader.as_fd(), memory.slice(20 * PAGE..20 * PAGE + 8)).unwrap();
    assert_eq!(pages(&mut protection, address, len), [20]);
    let mut stat = std::io::IoSliceMut::new(memory.slice(30 * PAGE..30 * PAGE + 1));
    rustix::io::preadv(&file, std::slice::from_mut(&mut stat), 0).unwrap();
    assert_eq!(pages(&mut protection, address, len), [30]);
}

#[test]
fn emptied_pages_count_as_written_whatever_the_page_size() {
    for absent in [false, true] {
        for huge in [rustix::mm::Advice::LinuxHugepage, rustix::mm::Advice::LinuxNoHugepage] {
            let Some(mut protection) = protection() else { return };
            if absent {
                protection.report_absent();
            }
            let memory = Memory::new(8 << 20);
            memory.advise(0..memory.len, huge);
            memory.fill();
            protection.track(memory.address(), memory.len).unwrap();
            assert_eq!(pages(&mut protection, memory.address(), memory.len), []);
            // Whole tables of pages and single ones.
            memory.advise(2 << 20..6 << 20, rustix::mm::Advice::LinuxDontNeed);
            memory.advise(0..2 * PAGE, rustix::mm::Advice::LinuxDontNeed);
            let expected: Vec<usize> = (0..2).chain((2 << 20) / PAGE..(6 << 20) / PAGE).collect();
            assert_eq!(pages(&mut protection, memory.address(), memory.len), expected);
            assert_eq!(pages(&mut protection, memory.address(), memory.len), []);
        }
    }
}

#[test]
fn memory_never_touched_is_unwritten_until_it_is_written() {
    for absent in [false, true] {
        let Some(mut protection) = protection() else { return };
        if absent {
            protection.report_absent();
        }
        let memory = Memory::new(64 * PAGE);
        protection.track(memory.address(), memory.len).unwrap();
        assert_eq!(pages(&mut protection, memory.address(), memory.len), []);
        // SAFETY: inside the mapping.
        assert_eq!(unsafe { memory.start.add(5 * PAGE).read_volatile() }, 0);
        assert_eq!(pages(&mut protection, memory.address(), memory.len), []);
        memory.write(5 * PAGE, 1);
        assert_eq!(pages(&mut protection, memory.address(), memory.len), [5]);
    }
}

#[test]
fn shared_and_file_mappings_are_refused() {
    let Some(mut protection) = protection() else { return };
    let shared = Memory::with(4 * PAGE, rustix::mm::MapFlags::SHARED);
    assert_eq!(protection.track(shared.address(), shared.len), Err(Untracked::NotPrivate(shared.address())));
    let file = tempfile::tempfile().unwrap();
    file.set_len(4 * PAGE as u64).unwrap();
    for flags in [rustix::mm::MapFlags::PRIVATE, rustix::mm::MapFlags::SHARED] {
        let mapped = Memory::of_file(&file, 4 * PAGE, flags);
        assert_eq!(
            protection.track(mapped.address(), mapped.len),
            Err(Untracked::NotPrivate(mapped.address()))
        );
        assert_eq!(protection.written(mapped.address(), mapped.len), Verdict::Unknown);
    }
}

#[test]
fn memory_freed_and_mapped_anew_at_the_same_address_is_unknown() {
    let Some(mut protection) = protection() else { return };
    let memory = Memory::new(16 * PAGE);
    memory.fill();
    for part in [0..16 * PAGE, 0..4 * PAGE, 15 * PAGE..16 * PAGE, 3 * PAGE..5 * PAGE] {
        protection.track(memory.address(), memory.len).unwrap();
        let both = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
        let flags = rustix::mm::MapFlags::PRIVATE | rustix::mm::MapFlags::FIXED;
        let start = memory.slice_start(part.start);
        // SAFETY: replaces a part of the test's own mapping.
        unsafe { rustix::mm::mmap_anonymous(start, part.len(), both, flags) }.unwrap();
        assert_eq!(protection.written(memory.address(), memory.len), Verdict::Unknown);
        // It can be tracked again.
        protection.track(memory.address(), memory.len).unwrap();
        assert_eq!(pages(&mut protection, memory.address(), memory.len), []);
        protection.untrack(memory.address(), memory.len);
        assert_eq!(protection.written(memory.address(), memory.len), Verdict::Unknown);
    }
}

impl Memory {
    fn slice_start(&self, at: usize) -> *mut std::ffi::c_void {
        assert!(at < self.len);
        // SAFETY: inside the mapping.
        unsafe { self.start.add(at) }.cast()
    }
}

#[test]
fn moved_memory_is_unknown() {
    let Some(mut protection) = protection() else { return };
    let mut memory = Memory::new(16 * PAGE);
    memory.fill();
    protection.track(memory.address(), memory.len).unwrap();
    let (old, len) = (memory.address(), memory.len);
    let room = Memory::new(32 * PAGE);
    let flags = rustix::mm::MremapFlags::MAYMOVE;
    let target = room.slice_start(0);
    // SAFETY: moves the test's own mapping over the test's other one.
    let moved =
        unsafe { rustix::mm::mremap_fixed(memory.start.cast(), len, 32 * PAGE, flags, target) }.unwrap();
    std::mem::forget(room);
    memory.start = moved.cast();
    memory.len = 32 * PAGE;
    assert_eq!(protection.written(memory.address(), len), Verdict::Unknown);
    assert_eq!(protection.written(memory.address(), 32 * PAGE), Verdict::Unknown);
    // Something else by now lies where it was.
    let flags = rustix::mm::MapFlags::PRIVATE | rustix::mm::MapFlags::FIXED_NOREPLACE;
    let both = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
    let place = ptr::with_exposed_provenance_mut(old);
    // SAFETY: only where nothing is mapped.
    if let Ok(start) = unsafe { rustix::mm::mmap_anonymous(place, len, both, flags) } {
        let _later = Memory { start: start.cast(), len };
        assert_eq!(protection.written(old, len), Verdict::Unknown);
    }
}

#[test]
fn a_mapping_that_is_tracked_can_still_be_resized() {
    let Some(mut protection) = protection() else { return };
    let mut memory = Memory::new(16 * PAGE);
    memory.fill();
    // As an allocator lays it out: its own header before the array, slack behind it.
    let (address, len) = (memory.address() + 16, memory.len - 100);
    protection.track(address, len).unwrap();
    let flags = rustix::mm::MremapFlags::MAYMOVE;
    // SAFETY: the test's own mapping.
    let moved = unsafe { rustix::mm::mremap(memory.start.cast(), memory.len, 64 * PAGE, flags) }.unwrap();
    memory.start = moved.cast();
    memory.len = 64 * PAGE;
    memory.write(60 * PAGE, 1);
}

#[test]
fn ranges_that_overlap_are_refused() {
    let Some(mut protection) = protection() else { return };
    let memory = Memory::new(16 * PAGE);
    let at = |page: usize| memory.address() + page * PAGE;
    protection.track(at(4), 4 * PAGE).unwrap();
    for (page, len) in [(4, 4), (2, 3), (5, 1), (0, 16), (7, 8)] {
        assert_eq!(protection.track(at(page), len * PAGE), Err(Untracked::Overlaps(at(4))));
    }
    protection.track(at(0), 4 * PAGE).unwrap();
    protection.track(at(8), 4 * PAGE).unwrap();
    memory.write(4 * PAGE, 1);
    assert_eq!(pages(&mut protection, at(0), 4 * PAGE), []);
    assert_eq!(pages(&mut protection, at(8), 4 * PAGE), []);
    assert_eq!(pages(&mut protection, at(4), 4 * PAGE), [0]);
    assert_eq!(protection.written(at(4), 3 * PAGE), Verdict::Unknown);
}

#[test]
fn neighbours_that_share_a_page_do_not_take_each_other_s_marks() {
    let Some(mut protection) = protection() else { return };
    let memory = Memory::new(16 * PAGE);
    memory.fill();
    let (first, second) = (memory.address() + 100, memory.address() + 100 + 5 * PAGE);
    protection.track(first, 5 * PAGE).unwrap();
    protection.track(second, 5 * PAGE).unwrap();
    memory.write(5 * PAGE + 200, 9);
    pages(&mut protection, first, 5 * PAGE);
    let Verdict::Written(written) = protection.written(second, 5 * PAGE) else { panic!("lost") };
    assert!(written[0].contains(&(memory.address() + 5 * PAGE + 200)));
    // Letting one go leaves the other as it is.
    protection.untrack(first, 5 * PAGE);
    memory.write(7 * PAGE, 9);
    assert!(pages(&mut protection, second, 5 * PAGE).contains(&1));
}

#[test]
fn another_tracker_of_the_same_memory_gets_nothing() {
    let (Some(mut first), Some(mut second)) = (protection(), protection()) else { return };
    let memory = Memory::new(16 * PAGE);
    memory.fill();
    first.track(memory.address(), memory.len).unwrap();
    assert!(matches!(second.track(memory.address(), memory.len), Err(Untracked::Refused { .. })));
    memory.write(3 * PAGE, 1);
    assert_eq!(pages(&mut first, memory.address(), memory.len), [3]);
}

/// The scan itself does not ask whose registration it is: memory that was freed, mapped anew and is tracked by somebody
/// else by now would look unwritten.
#[test]
fn memory_that_somebody_else_tracks_by_now_is_unknown() {
    let (Some(mut first), Some(mut second)) = (protection(), protection()) else { return };
    let memory = Memory::new(16 * PAGE);
    memory.fill();
    first.track(memory.address(), memory.len).unwrap();
    let both = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
    let flags = rustix::mm::MapFlags::PRIVATE | rustix::mm::MapFlags::FIXED;
    // SAFETY: replaces the test's own mapping.
    unsafe { rustix::mm::mmap_anonymous(memory.start.cast(), memory.len, both, flags) }.unwrap();
    memory.fill();
    second.track(memory.address(), memory.len).unwrap();
    assert_eq!(first.written(memory.address(), memory.len), Verdict::Unknown);
    memory.write(2 * PAGE, 5);
    assert_eq!(pages(&mut second, memory.address(), memory.len), [2]);
}

#[test]
fn a_thread_that_writes_all_the_time_is_never_missed() {
    let Some(mut protection) = protection() else { return };
    let memory = Memory::new(64 * PAGE);
    memory.fill();
    let address = memory.address();
    protection.track(address, memory.len).unwrap();
    let read = |page: usize| {
        // SAFETY: inside the mapping; the writer writes whole, aligned words.
        unsafe { ptr::with_exposed_provenance::<AtomicU32>(address + page * PAGE).as_ref() }
            .unwrap()
            .load(Ordering::Relaxed)
    };
    // What the bytes were when they were last read, after a look.
    let mut known = [None; 64];
    let mut look = |known: &mut [Option<u32>; 64]| {
        for page in pages(&mut protection, address, 64 * PAGE) {
            known[page] = None;
        }
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut value = 0u32;
            while !stop.load(Ordering::Relaxed) {
                value = value.wrapping_add(1);
                let word = address + value as usize * 7 % 64 * PAGE;
                // SAFETY: inside the mapping.
                let word = unsafe { ptr::with_exposed_provenance::<AtomicU32>(word).as_ref() };
                word.unwrap().store(value, Ordering::Relaxed);
            }
        });
        for _ in 0..5000 {
            look(&mut known);
            for (page, known) in known.iter_mut().enumerate() {
                known.get_or_insert_with(|| read(page));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    look(&mut known);
    for (page, known) in known.iter().enumerate() {
        assert!(known.is_none_or(|known| known == read(page)), "page {page} was changed unseen");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Whatever is written, emptied or mapped anew between looks: a page that is not reported has the bytes of the last look.
    #[test]
    fn unreported_pages_are_unchanged(
        offset in 0usize..200,
        steps in proptest::collection::vec((0u8..6, 0usize..64, 1usize..9, any::<u8>()), 1..60),
    ) {
        let Some(mut protection) = protection() else { return Ok(()) };
        let mut memory = Memory::new(66 * PAGE);
        let (address, len) = (memory.address() + offset, 64 * PAGE);
        let mut copy = memory.slice(offset..offset + len).to_vec();
        let mut tracked = protection.track(address, len).is_ok();
        prop_assert!(tracked);
        for (kind, page, count, value) in steps {
            let range = page * PAGE..(page + count).min(66) * PAGE;
            match kind {
                0 => memory.slice(range).fill(value),
                1 => memory.write(range.start + usize::from(value), value),
                2 => memory.advise(range, rustix::mm::Advice::LinuxDontNeed),
                3 if value < 10 => {
                    let both = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
                    let flags = rustix::mm::MapFlags::PRIVATE | rustix::mm::MapFlags::FIXED;
                    // SAFETY: replaces a part of the test's own mapping.
                    unsafe {
                        rustix::mm::mmap_anonymous(memory.slice_start(range.start), range.len(), both, flags)
                    }.unwrap();
                }
                4 if value < 30 => {
                    protection.untrack(address, len);
                    tracked = false;
                }
                _ => {
                    let now = memory.slice(offset..offset + len).to_vec();
                    if let Verdict::Written(written) = protection.written(address, len) {
                        prop_assert!(tracked);
                        for range in written {
                            let range = range.start - address..range.end - address;
                            copy[range.clone()].copy_from_slice(&now[range]);
                        }
                        prop_assert!(copy == now, "a change was missed");
                    } else {
                        tracked = protection.track(address, len).is_ok();
                        copy = now;
                    }
                }
            }
        }
    }
}
