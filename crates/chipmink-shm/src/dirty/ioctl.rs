//! The system calls beneath: userfaultfd (`linux/userfaultfd.h`), the page map's scan and the query of mappings
//! (`linux/fs.h`). Structures and numbers are the kernel's.

use rustix::fd::{AsFd, OwnedFd};
use rustix::io::{Errno, Result};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Updater, ioctl, opcode};
use rustix::mm::UserfaultfdFlags;
use std::ffi::c_void;
use std::ops::Range;

const UFFD_API: u64 = 0xAA;
const UFFD_USER_MODE_ONLY: u32 = 1;
const FEATURE_PAGEFAULT_FLAG_WP: u64 = 1 << 0;
const FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
const FEATURE_WP_ASYNC: u64 = 1 << 15;
const REGISTER_MODE_WP: u64 = 2;

#[repr(C)]
struct UffdApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct UffdRange {
    start: u64,
    len: u64,
}

#[repr(C)]
struct UffdRegister {
    range: UffdRange,
    mode: u64,
    ioctls: u64,
}

/// Opens a descriptor for asynchronous write protection of this process' memory.
pub(super) fn open_uffd() -> Result<OwnedFd> {
    let flags = UserfaultfdFlags::CLOEXEC
        | UserfaultfdFlags::NONBLOCK
        | UserfaultfdFlags::from_bits_retain(UFFD_USER_MODE_ONLY);
    // SAFETY: the descriptor is used here only, and only to protect pages asynchronously: the kernel lifts the protection
    // by itself, so that no access to memory ever waits or fails because of it.
    let uffd = unsafe { rustix::mm::userfaultfd(flags) }?;
    let features = FEATURE_PAGEFAULT_FLAG_WP | FEATURE_WP_UNPOPULATED | FEATURE_WP_ASYNC;
    let mut api = UffdApi { api: UFFD_API, features, ioctls: 0 };
    // SAFETY: UFFDIO_API reads and writes one `uffdio_api`, which has this layout.
    unsafe { ioctl(&uffd, Updater::<{ opcode::read_write::<UffdApi>(0xAA, 0x3F) }, _>::new(&mut api)) }?;
    Ok(uffd)
}

/// Registers whole pages.
pub(super) fn register(uffd: impl AsFd, pages: &Range<usize>) -> Result<()> {
    let range = UffdRange { start: pages.start as u64, len: pages.len() as u64 };
    let mut register = UffdRegister { range, mode: REGISTER_MODE_WP, ioctls: 0 };
    // SAFETY: UFFDIO_REGISTER reads and writes one `uffdio_register`, which has this layout. It changes no content.
    unsafe {
        ioctl(uffd, Updater::<{ opcode::read_write::<UffdRegister>(0xAA, 0x00) }, _>::new(&mut register))
    }
}

/// Lets whole pages go, with their protection.
pub(super) fn unregister(uffd: impl AsFd, pages: &Range<usize>) -> Result<()> {
    let mut range = UffdRange { start: pages.start as u64, len: pages.len() as u64 };
    // SAFETY: UFFDIO_UNREGISTER reads one `uffdio_range`, which has this layout. It changes no content.
    unsafe { ioctl(uffd, Updater::<{ opcode::read::<UffdRange>(0xAA, 0x01) }, _>::new(&mut range)) }
}

pub(super) const PAGE_IS_WRITTEN: u64 = 1 << 1;
pub(super) const PAGE_IS_PRESENT: u64 = 1 << 3;
pub(super) const PAGE_IS_SWAPPED: u64 = 1 << 4;
const SCAN_WP_MATCHING: u64 = 1;
const SCAN_CHECK_WPASYNC: u64 = 2;

/// Pages with equal categories, as the kernel reports them.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct PageRange {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) categories: u64,
}

/// What a scan reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Report {
    /// Pages written to.
    Written,
    /// Also pages of which the page table knows nothing: emptied by `madvise`, some kernels report those only so.
    WrittenOrAbsent,
}

#[repr(C)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// One call of `PAGEMAP_SCAN`: yields how many entries of the vector were filled.
struct Scan<'a>(&'a mut ScanArg);

// SAFETY: `opcode` is that of PAGEMAP_SCAN, which reads and writes one `pm_scan_arg` (this layout, for the length of
// the call), and writes at most `vec_len` entries to `vec`; both belong to the caller of `scan_and_protect`.
unsafe impl Ioctl for Scan<'_> {
    type Output = usize;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::read_write::<ScanArg>(b'f', 16)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut::<ScanArg>(self.0).cast()
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> Result<usize> {
        usize::try_from(output).map_err(|_| Errno::INVAL)
    }
}

/// Reports the pages of a range that match, and protects these anew in the same step. Fills `out`, and returns how many
/// entries count and where the scan ended.
///
/// Fails with `EPERM` unless all mappings in the range are registered.
pub(super) fn scan_and_protect(
    pagemap: impl AsFd,
    pages: &Range<usize>,
    report: Report,
    out: &mut [PageRange],
) -> Result<(usize, usize)> {
    let mut arg = ScanArg {
        size: size_of::<ScanArg>() as u64,
        flags: SCAN_WP_MATCHING | SCAN_CHECK_WPASYNC,
        start: pages.start as u64,
        end: pages.end as u64,
        walk_end: 0,
        vec: out.as_mut_ptr() as u64,
        vec_len: out.len() as u64,
        max_pages: 0,
        category_inverted: 0,
        category_mask: PAGE_IS_WRITTEN,
        category_anyof_mask: 0,
        return_mask: PAGE_IS_WRITTEN,
    };
    if report == Report::WrittenOrAbsent {
        arg.category_inverted = PAGE_IS_PRESENT;
        arg.category_mask = 0;
        arg.category_anyof_mask = PAGE_IS_WRITTEN | PAGE_IS_PRESENT;
        arg.return_mask = PAGE_IS_WRITTEN | PAGE_IS_PRESENT | PAGE_IS_SWAPPED;
    }
    // SAFETY: as `Scan` says; `out` is borrowed for the call.
    let count = unsafe { ioctl(pagemap, Scan(&mut arg)) }?;
    let end = usize::try_from(arg.walk_end).map_err(|_| Errno::INVAL)?;
    Ok((count.min(out.len()), end))
}

/// A mapping, as `PROCMAP_QUERY` describes it.
#[repr(C)]
#[derive(Default)]
struct MapQuery {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    vma_start: u64,
    vma_end: u64,
    vma_flags: u64,
    vma_page_size: u64,
    vma_offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    vma_name_size: u32,
    build_id_size: u32,
    vma_name_addr: u64,
    build_id_addr: u64,
}

const QUERY_SHARED: u64 = 8;

/// The mapping that covers an address, and whether it is private and has no file.
pub(crate) fn query_map(maps: impl AsFd, address: usize) -> Result<(Range<usize>, bool)> {
    let mut query =
        MapQuery { size: size_of::<MapQuery>() as u64, query_addr: address as u64, ..MapQuery::default() };
    // SAFETY: PROCMAP_QUERY reads and writes one `procmap_query`, which has this layout; no name is asked for.
    unsafe { ioctl(maps, Updater::<{ opcode::read_write::<MapQuery>(b'f', 17) }, _>::new(&mut query)) }?;
    let is_private = query.vma_flags & QUERY_SHARED == 0 && query.inode == 0;
    let number = |value: u64| usize::try_from(value).map_err(|_| Errno::INVAL);
    Ok((number(query.vma_start)?..number(query.vma_end)?, is_private))
}
