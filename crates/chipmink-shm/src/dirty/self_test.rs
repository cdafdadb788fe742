//! Tries write protection out on memory of its own: what it is not seen to do, it is not trusted with.

use super::own::OwnPages;
use super::protect::WriteProtection;
use super::{DirtyPages, Verdict};
use rustix::mm::Advice;
use std::io::Read;
use std::ops::Range;

/// Span of the last level of the page table with pages of 4 KiB: an area that was never touched has none.
const TABLE_SPAN: usize = 2 << 20;

/// Lets the program write.
fn write(own: &OwnPages, at: usize) {
    // SAFETY: the byte lies in the mapping, to which only this module refers.
    unsafe { own.byte(at).write_volatile(1) };
}

/// Lets the kernel write, by `read(2)`.
fn read_into(own: &OwnPages, at: usize) -> std::io::Result<()> {
    let mut zeros = std::fs::File::open("/dev/zero")?;
    assert!(at + 8 <= own.byte_len(), "only its own bytes");
    // SAFETY: eight bytes of the mapping, to which only this module refers.
    zeros.read_exact(unsafe { std::slice::from_raw_parts_mut(own.byte(at).as_ptr(), 8) })
}

/// Writes in each of the ways that matter and looks whether exactly that is reported.
pub(super) fn run(protection: &mut WriteProtection) -> Result<(), String> {
    let page = rustix::param::page_size();
    let failed = |error: &dyn std::fmt::Display| format!("trying it out: {error}");
    let own = OwnPages::new(4 * TABLE_SPAN).map_err(|error| failed(&error))?;
    (0..16).for_each(|i| write(&own, i * page));
    let (address, byte_len) = (own.start().as_ptr() as usize, own.byte_len());
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
    write(&own, 3 * page + 5);
    expect("one page was written", 3 * page..4 * page)?;
    expect("nothing was written since", 0..0)?;
    read_into(&own, 5 * page).map_err(|error| failed(&error))?;
    expect("read(2) wrote", 5 * page..6 * page)?;
    own.advise(7 * page..9 * page, Advice::LinuxDontNeed).map_err(|error| failed(&error))?;
    expect("madvise emptied pages", 7 * page..9 * page)?;
    write(&own, byte_len - 1);
    expect("the last page was written for the first time", byte_len - page..byte_len)?;
    protection.untrack(address, byte_len);

    // An area without a page table, never protected: the least that can be known of pages.
    let bare = OwnPages::new(3 * TABLE_SPAN).map_err(|error| failed(&error))?;
    let start = (bare.start().as_ptr() as usize).next_multiple_of(TABLE_SPAN);
    match protection.scan_bare(start, TABLE_SPAN).map_err(|error| failed(&error))? {
        written if written == TABLE_SPAN => Ok(()),
        written => Err(format!("of {TABLE_SPAN} absent bytes {written} were reported")),
    }
}
