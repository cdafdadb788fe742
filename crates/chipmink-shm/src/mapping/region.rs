//! [`MappedRegion`]: one range of memory made of pieces of files.

use super::ahead::{FaultAhead, Place};
use super::budget::{MapBudget, Permit};
use crate::error::{Result, ShmError};
use rustix::mm::{MapFlags, ProtFlags};
use std::fs::File;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

/// Mappings of which one region may consist.
pub const MOST_RUNS: usize = 256;

/// Bytes of a large page where pages have 4 KiB. Where they differ nothing is lost but speed.
const LARGE_PAGE_LEN: usize = 2 << 20;

/// Bytes of a page of memory: file pieces begin at multiples of it, in the file and in the region.
pub fn page_len() -> u64 {
    rustix::param::page_size() as u64
}

/// A piece of a region.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    /// Bytes of a file, which must be `file_len` bytes long.
    File {
        /// The open file.
        file: &'a Arc<File>,
        /// What errors call it.
        path: &'a Path,
        /// Length that the file must have.
        file_len: u64,
        /// Where the piece begins in the file: a multiple of [`page_len`].
        byte_offset: u64,
        /// Length of the piece.
        byte_len: u64,
    },
    /// Zeros, to be filled by [`MappedRegion::write_at`].
    Zeros {
        /// Length of the piece.
        byte_len: u64,
    },
}

impl Piece<'_> {
    fn byte_len(&self) -> u64 {
        match self {
            Piece::File { byte_len, .. } | Piece::Zeros { byte_len } => *byte_len,
        }
    }
}

/// Pieces that one mapping holds.
struct Run<'a> {
    /// File and offset in it; `None`: zeros.
    source: Option<(&'a Arc<File>, u64)>,
    start: u64,
    byte_len: u64,
}

/// A range of memory that belongs to its owner: readable, writable, private; unmapped on drop.
///
/// Its bytes come from files, so that they are never lent as a slice: whoever may write to those files could change what
/// was not yet touched. They are copied out, or used through the pointer by code that allows for that.
#[derive(Debug)]
pub struct MappedRegion {
    start: NonNull<u8>,
    byte_len: usize,
    /// What is mapped: `byte_len` in whole pages.
    mapped_len: usize,
    permit: Option<Permit>,
    /// What another thread knows of it.
    place: Option<Arc<Place>>,
}

// SAFETY: the memory belongs to this value and nothing in it is bound to a thread.
unsafe impl Send for MappedRegion {}
// SAFETY: through a shared reference bytes are only copied out.
unsafe impl Sync for MappedRegion {}

impl MappedRegion {
    /// Maps the pieces one after another.
    ///
    /// # Errors
    /// When a file has not the length that it should have, a piece does not begin at a page, there would be more than
    /// [`MOST_RUNS`] mappings or more than the budget has left, or the system refuses.
    pub fn map(pieces: &[Piece<'_>], budget: &MapBudget) -> Result<Self> {
        let (runs, byte_len) = plan(pieces)?;
        if runs.len() > MOST_RUNS {
            return Err(ShmError::Mappings { needed: runs.len(), left: MOST_RUNS, limit: MOST_RUNS });
        }
        let permit = budget.take(runs.len())?;
        let Some(mapped_len) = usize::try_from(byte_len)
            .ok()
            .and_then(|len| len.max(1).checked_next_multiple_of(rustix::param::page_size()))
        else {
            return Err(ShmError::Piece {
                piece: 0,
                reason: format!("{byte_len} bytes in all are too many"),
            });
        };
        let refused = |error: rustix::io::Errno| {
            ShmError::system(format!("mapping {byte_len} bytes in {} pieces", pieces.len()), error)
        };
        let mut region = MappedRegion::zeros(mapped_len, residue(&runs)).map_err(refused)?;
        region.byte_len = byte_len as usize;
        region.permit = Some(permit);
        for run in &runs {
            let Some((file, byte_offset)) = run.source else { continue };
            // SAFETY: `plan` lays runs one after another within `byte_len`, which is in bounds of the mapping.
            let at = unsafe { region.start.add(run.start as usize) };
            // SAFETY: replaces whole pages of the mapping made above, which nobody else knows yet.
            unsafe {
                rustix::mm::mmap(
                    at.as_ptr().cast(),
                    run.byte_len as usize,
                    ProtFlags::READ | ProtFlags::WRITE,
                    flags() | MapFlags::FIXED,
                    file,
                    byte_offset,
                )
            }
            .map_err(refused)?;
        }
        Ok(region)
    }

    /// So many bytes of zeros, in whole pages, at an address that leaves this residue by [`LARGE_PAGE_LEN`] if they are many.
    fn zeros(mapped_len: usize, residue: usize) -> rustix::io::Result<Self> {
        let spare = if mapped_len >= LARGE_PAGE_LEN { LARGE_PAGE_LEN } else { 0 };
        let whole_len = mapped_len.checked_add(spare).ok_or(rustix::io::Errno::NOMEM)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                whole_len,
                ProtFlags::READ | ProtFlags::WRITE,
                flags(),
            )
        }?;
        let start = NonNull::new(start.cast::<u8>()).ok_or(rustix::io::Errno::NOMEM)?;
        let whole =
            MappedRegion { start, byte_len: whole_len, mapped_len: whole_len, permit: None, place: None };
        if spare == 0 {
            return Ok(whole);
        }
        let address = start.as_ptr() as usize;
        let before = (residue + LARGE_PAGE_LEN - address % LARGE_PAGE_LEN) % LARGE_PAGE_LEN;
        let (_, rest) = whole.split(before);
        Ok(rest.split(mapped_len).0)
    }

    /// Cuts a range that has no permit in two, at a page.
    fn split(self, at: usize) -> (Self, Self) {
        assert!(at <= self.mapped_len && self.permit.is_none(), "a place in a range of zeros");
        let whole = std::mem::ManuallyDrop::new(self);
        // SAFETY: within the mapping, or at its end.
        let middle = unsafe { whole.start.add(at) };
        let part =
            |start, len| MappedRegion { start, byte_len: len, mapped_len: len, permit: None, place: None };
        (part(whole.start, at), part(middle, whole.mapped_len - at))
    }

    /// What lets another thread look up its pages. There is one per region, which each call gives again.
    pub fn fault_ahead(&mut self) -> FaultAhead {
        let extent = (self.start.as_ptr() as usize, self.mapped_len);
        FaultAhead(Arc::clone(self.place.get_or_insert_with(|| Arc::new(Place::new(extent)))))
    }

    /// Length in bytes.
    pub fn byte_len(&self) -> usize {
        self.byte_len
    }

    /// The first byte. It is valid for reads and writes of [`MappedRegion::byte_len`] bytes for as long as `self` lives.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    fn check(&self, byte_offset: usize, len: usize) -> Result<()> {
        match byte_offset.checked_add(len) {
            Some(end) if end <= self.byte_len => Ok(()),
            _ => Err(ShmError::Piece {
                piece: 0,
                reason: format!("{len} bytes at {byte_offset} are not within its {} bytes", self.byte_len),
            }),
        }
    }

    /// Copies bytes out.
    ///
    /// # Errors
    /// When they are not all within the region.
    pub fn read_at(&self, byte_offset: usize, into: &mut [u8]) -> Result<()> {
        self.check(byte_offset, into.len())?;
        // SAFETY: in bounds, and `into` is memory of somebody else. A writer to the file makes bytes of no state in
        // particular, which are checked against their digest by those who need to know.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.start.add(byte_offset).as_ptr(),
                into.as_mut_ptr(),
                into.len(),
            );
        }
        Ok(())
    }

    /// Copies bytes in. The files stay as they are.
    ///
    /// # Errors
    /// When they are not all within the region.
    pub fn write_at(&mut self, byte_offset: usize, from: &[u8]) -> Result<()> {
        self.check(byte_offset, from.len())?;
        // SAFETY: in bounds, exclusively borrowed, and `from` is memory of somebody else.
        unsafe {
            std::ptr::copy_nonoverlapping(from.as_ptr(), self.start.add(byte_offset).as_ptr(), from.len());
        }
        Ok(())
    }
}

impl Drop for MappedRegion {
    fn drop(&mut self) {
        if self.mapped_len == 0 {
            return;
        }
        if self.place.as_ref().is_some_and(|place| !place.leave()) {
            // It stays mapped in this process.
            return;
        }
        // SAFETY: mapped by `map`, and nobody may use the pointer any more. A failure would leak it.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.mapped_len) };
    }
}

/// Where in a large page the region must begin, so that its longest run from a file lies in large pages as it does in its
/// file: the kernel then maps large pages of its file cache at once.
fn residue(runs: &[Run<'_>]) -> usize {
    let from_files = runs.iter().filter_map(|run| Some((run.byte_len, run.start, run.source?.1)));
    let longest = from_files.max_by_key(|(byte_len, ..)| *byte_len);
    let large = LARGE_PAGE_LEN as u64;
    longest.map_or(0, |(_, start, byte_offset)| (byte_offset % large + large - start % large) % large)
        as usize
}

/// Private; what is not written needs no memory of its own.
fn flags() -> MapFlags {
    #[cfg(target_os = "linux")]
    return MapFlags::PRIVATE | MapFlags::NORESERVE;
    #[cfg(not(target_os = "linux"))]
    MapFlags::PRIVATE
}

/// Joins pieces that follow each other, and checks them. Returns the length in all, too.
fn plan<'a>(pieces: &[Piece<'a>]) -> Result<(Vec<Run<'a>>, u64)> {
    let page_len = page_len();
    let mut runs: Vec<Run<'a>> = Vec::new();
    let mut at = 0u64;
    let mut measured: Option<(&Arc<File>, u64)> = None;
    for (i, piece) in pieces.iter().enumerate() {
        let bad = |reason: String| Err(ShmError::Piece { piece: i, reason });
        let byte_len = piece.byte_len();
        let Some(end) = at.checked_add(byte_len).filter(|end| *end <= i64::MAX as u64) else {
            return bad(format!("{byte_len} bytes after {at} are too many"));
        };
        if byte_len == 0 {
            continue;
        }
        let mut source = None;
        if let Piece::File { file, path, file_len, byte_offset, .. } = *piece {
            let found = match measured {
                Some((known, len)) if Arc::ptr_eq(known, file) => len,
                _ => {
                    let context = || format!("asking {} for its length", path.display());
                    file.metadata().map_err(|error| ShmError::system(context(), error))?.len()
                }
            };
            measured = Some((file, found));
            if found != file_len {
                return Err(ShmError::Length { path: path.to_owned(), expected: file_len, found });
            }
            if byte_offset.checked_add(byte_len).is_none_or(|end| end > file_len) {
                return bad(format!(
                    "{byte_len} bytes at {byte_offset} are not within the {file_len} of its file"
                ));
            }
            source = Some((file, byte_offset));
        }
        let continues = runs.last().is_some_and(|last| match (last.source, source) {
            (None, None) => true,
            (Some((last_file, offset)), Some((file, byte_offset))) => {
                Arc::ptr_eq(last_file, file) && offset + last.byte_len == byte_offset
            }
            _ => false,
        });
        match runs.last_mut() {
            Some(last) if continues => last.byte_len += byte_len,
            _ => {
                if !at.is_multiple_of(page_len)
                    && (source.is_some() || runs.last().is_some_and(|run| run.source.is_some()))
                {
                    // The page in which it begins is another mapping's.
                    return bad(format!(
                        "it begins at {at} of the region, which is not a multiple of {page_len}"
                    ));
                }
                if let Some((_, byte_offset)) = source
                    && !byte_offset.is_multiple_of(page_len)
                {
                    return bad(format!(
                        "it begins at {byte_offset} of its file, not a multiple of {page_len}"
                    ));
                }
                runs.push(Run { source, start: at, byte_len });
            }
        }
        at = end;
    }
    Ok((runs, at))
}

#[cfg(test)]
#[path = "region_tests.rs"]
mod tests;
