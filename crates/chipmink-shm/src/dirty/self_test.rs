//! Tries write protection out on memory of its own: what it is not seen to do, it is not trusted with.

use super::protect::WriteProtection;
use super::{DirtyPages, Verdict};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::io::Read;
use std::ops::Range;

/// Span of the last level of the page table with pages of 4 KiB: an area that was never touched has none.
const TABLE_SPAN: usize = 2 << 20;

/// A mapping of our own. `byte_len` bytes, readable and writable, until drop.
struct Own {
    address: usize,
    byte_len: usize,
}

impl Own {
    fn new(byte_len: usize) -> rustix::io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
        let address = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                byte_len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        Ok(Own { address: address as usize, byte_len })
    }

    fn write(&self, at: usize) {
        assert!(at < self.byte_len, "only its own bytes");
        // SAFETY: the byte lies in the mapping, to which only this value refers.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(self.address + at).write_volatile(1) };
    }

    fn empty(&self, at: Range<usize>) -> rustix::io::Result<()> {
        assert!(at.end <= self.byte_len, "only its own bytes");
        let start = std::ptr::with_exposed_provenance_mut(self.address + at.start);
        // SAFETY: the pages lie in the mapping, in which nobody keeps anything.
        unsafe { rustix::mm::madvise(start, at.len(), Advice::LinuxDontNeed) }
    }

    /// Lets the kernel write, by `read(2)`.
    fn read_into(&self, at: usize) -> std::io::Result<()> {
        assert!(at + 8 <= self.byte_len, "only its own bytes");
        let mut zeros = std::fs::File::open("/dev/zero")?;
        let start = std::ptr::with_exposed_provenance_mut::<u8>(self.address + at);
        // SAFETY: eight bytes of the mapping, to which only this value refers.
        zeros.read_exact(unsafe { std::slice::from_raw_parts_mut(start, 8) })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // SAFETY: nobody else knows the mapping. A failure would leak it.
        let _ =
            unsafe { rustix::mm::munmap(std::ptr::with_exposed_provenance_mut(self.address), self.byte_len) };
    }
}

/// Writes in each of the ways that matter and looks whether exactly that is reported.
pub(super) fn run(protection: &mut WriteProtection) -> Result<(), String> {
    let page = rustix::param::page_size();
    let failed = |error: &dyn std::fmt::Display| format!("trying it out: {error}");
    let own = Own::new(4 * TABLE_SPAN).map_err(|error| failed(&error))?;
    (0..16).for_each(|i| own.write(i * page));
    let (address, byte_len) = (own.address, own.byte_len);
    protection.track(address, byte_len).map_err(|error| failed(&error))?;
    let mut expect = |what: &str, expected: Range<usize>| {
        let written = match protection.written(address, byte_len) {
            Verdict::Written(written) => written,
            Verdict::Unknown => return Err(format!("{what}: tracking was lost")),
        };
        let here: Vec<_> = written.iter().map(|pages| pages.start - address..pages.end - address).collect();
        let expected: Vec<_> = (!expected.is_empty()).then_some(expected).into_iter().collect();
        if here == expected { Ok(()) } else { Err(format!("{what}: {here:?} instead of {expected:?}")) }
    };
    expect("nothing was written", 0..0)?;
    own.write(3 * page + 5);
    expect("one page was written", 3 * page..4 * page)?;
    expect("nothing was written since", 0..0)?;
    own.read_into(5 * page).map_err(|error| failed(&error))?;
    expect("read(2) wrote", 5 * page..6 * page)?;
    own.empty(7 * page..9 * page).map_err(|error| failed(&error))?;
    expect("madvise emptied pages", 7 * page..9 * page)?;
    own.write(byte_len - 1);
    expect("the last page was written for the first time", byte_len - page..byte_len)?;
    protection.untrack(address, byte_len);

    // An area without a page table, never protected: the least that can be known of pages.
    let bare = Own::new(3 * TABLE_SPAN).map_err(|error| failed(&error))?;
    let start = bare.address.next_multiple_of(TABLE_SPAN);
    match protection.scan_bare(start, TABLE_SPAN).map_err(|error| failed(&error))? {
        written if written == TABLE_SPAN => Ok(()),
        written => Err(format!("of {TABLE_SPAN} absent bytes {written} were reported")),
    }
}
