//! [`WriteProtection`]: userfaultfd in asynchronous mode, and `PAGEMAP_SCAN` (Linux 6.7).
//!
//! A registered page that was protected is writable all the same: the first write lifts the protection, inside the kernel,
//! and leaves a mark. The scan reports marked pages and protects them anew. Writes by the kernel (`read(2)` into the page)
//! fault in the same way. A mapping that is moved, unmapped or replaced loses its registration, and then the scan is refused.

use super::fork::ForkMark;
use super::ioctl::{self, PAGE_IS_PRESENT, PAGE_IS_SWAPPED, PAGE_IS_WRITTEN, PageRange, Report};
use super::{DirtyPages, Untracked, Verdict, maps, self_test};
use rustix::fd::OwnedFd;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;

/// Entries that one call of the scan fills at most.
const SCAN_ENTRIES: usize = 4096;

/// Tracks pages by asynchronous write protection.
#[derive(Debug)]
pub struct WriteProtection {
    uffd: OwnedFd,
    pagemap: File,
    mark: ForkMark,
    page_len: usize,
    report: Report,
    /// Tracked ranges, by address: the length. They do not overlap.
    ranges: BTreeMap<usize, usize>,
    entries: Vec<PageRange>,
}

impl WriteProtection {
    /// Opens what is needed and tries it out on memory of its own.
    ///
    /// # Errors
    /// When the kernel lacks it or refuses it, or does not report what was written.
    pub fn probe() -> Result<Self, Untracked> {
        let unavailable =
            |what: &str, error: &dyn std::fmt::Display| Untracked::Unavailable(format!("{what}: {error}"));
        let mark = ForkMark::set().map_err(|error| unavailable("madvise(MADV_WIPEONFORK)", &error))?;
        let uffd = ioctl::open_uffd().map_err(|error| unavailable("userfaultfd", &error))?;
        let pagemap =
            File::open("/proc/self/pagemap").map_err(|error| unavailable("/proc/self/pagemap", &error))?;
        let mut protection = WriteProtection {
            uffd,
            pagemap,
            mark,
            page_len: rustix::param::page_size(),
            report: Report::Written,
            ranges: BTreeMap::new(),
            entries: vec![PageRange::default(); SCAN_ENTRIES],
        };
        // The cheaper scan, if it reports absent pages on this kernel; else the one that asks for them.
        if let Err(reason) = self_test::run(&mut protection) {
            protection.report = Report::WrittenOrAbsent;
            self_test::run(&mut protection)
                .map_err(|second| Untracked::Unavailable(format!("{reason}; {second}")))?;
        }
        Ok(protection)
    }

    #[cfg(test)]
    pub(super) fn report_absent(&mut self) {
        self.report = Report::WrittenOrAbsent;
    }

    /// The whole pages inside a range; the whole pages around it.
    fn pages(&self, address: usize, byte_len: usize) -> Option<(Range<usize>, Range<usize>)> {
        let end = address.checked_add(byte_len)?;
        let up = |at: usize| at.checked_next_multiple_of(self.page_len);
        let down = |at: usize| at - at % self.page_len;
        let (inner, outer) = (up(address)?..down(end), down(address)..up(end)?);
        (inner.start < inner.end).then_some((inner, outer))
    }

    /// Protects the inner pages; returns those that were written.
    fn scan(&mut self, inner: &Range<usize>) -> rustix::io::Result<Vec<Range<usize>>> {
        let mut written: Vec<Range<usize>> = Vec::new();
        let mut left = inner.clone();
        while left.start < left.end {
            let (count, end) = ioctl::scan_and_protect(&self.pagemap, &left, self.report, &mut self.entries)?;
            for entry in &self.entries[..count] {
                let is_known = entry.categories & PAGE_IS_WRITTEN == 0
                    && entry.categories & (PAGE_IS_PRESENT | PAGE_IS_SWAPPED) != 0;
                if is_known {
                    continue;
                }
                let range = (entry.start as usize).max(inner.start)..(entry.end as usize).min(inner.end);
                match written.last_mut() {
                    Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                    _ => written.push(range),
                }
            }
            // Without progress the answer would be incomplete.
            if end <= left.start || (count == 0 && end < left.end) {
                return Err(rustix::io::Errno::INVAL);
            }
            left.start = end;
        }
        Ok(written)
    }

    /// Registers pages that were never protected, and reports how many bytes a scan finds written.
    pub(super) fn scan_bare(&mut self, start: usize, byte_len: usize) -> rustix::io::Result<usize> {
        let pages = start..start + byte_len;
        ioctl::register(&self.uffd, &pages)?;
        let written = self.scan(&pages);
        ioctl::unregister(&self.uffd, &pages)?;
        Ok(written?.iter().map(ExactSizeIterator::len).sum())
    }

    fn forget(&mut self, address: usize, outer: &Range<usize>) {
        self.ranges.remove(&address);
        // Memory that is gone or was replaced is not registered any more; nothing is lost then.
        let _ = ioctl::unregister(&self.uffd, outer);
    }
}

impl DirtyPages for WriteProtection {
    fn page_len(&self) -> usize {
        self.page_len
    }

    fn is_trusted(&mut self) -> bool {
        self.mark.is_here() && !maps::has_pinned()
    }

    fn is_lost(&self) -> bool {
        !self.mark.is_here()
    }

    fn track(&mut self, address: usize, byte_len: usize) -> Result<(), Untracked> {
        if !self.mark.is_here() {
            return Err(Untracked::Forked);
        }
        let (inner, outer) = self.pages(address, byte_len).ok_or(Untracked::TooSmall(byte_len))?;
        let before = self.ranges.range(..address + byte_len).next_back();
        if let Some((other, len)) = before
            && other + len > address
        {
            return Err(Untracked::Overlaps(*other));
        }
        let refused = |reason: String| Untracked::Refused { address, reason };
        // Registered are the whole pages around it: that is what an allocator mapped, and a mapping that was split could
        // not be resized in place any more. Only the pages inside are believed.
        ioctl::register(&self.uffd, &outer).map_err(|error| refused(error.to_string()))?;
        // Asked after registering: a mapping that is replaced from here on loses its registration, which the scan notices.
        let kind = maps::first_not_private(&outer);
        let armed = match kind {
            Ok(None) => self.scan(&inner).map(|_| ()).map_err(|error| refused(error.to_string())),
            Ok(Some(at)) => Err(Untracked::NotPrivate(at)),
            Err(error) => Err(refused(error.to_string())),
        };
        match armed {
            Ok(()) => {
                self.ranges.insert(address, byte_len);
                Ok(())
            }
            Err(error) => {
                self.forget(address, &outer);
                Err(error)
            }
        }
    }

    fn written(&mut self, address: usize, byte_len: usize) -> Verdict {
        if !self.mark.is_here() || self.ranges.get(&address) != Some(&byte_len) {
            return Verdict::Unknown;
        }
        let Some((inner, outer)) = self.pages(address, byte_len) else { return Verdict::Unknown };
        // The scan is content with anybody's registration; registering again is refused unless it is ours.
        let scanned = self.scan(&inner).and_then(|pages| {
            ioctl::register(&self.uffd, &inner)?;
            Ok(pages)
        });
        match scanned {
            Ok(pages) => {
                let mut written = Vec::with_capacity(pages.len() + 2);
                written.extend((address < inner.start).then_some(address..inner.start));
                written.extend(pages);
                written.extend((inner.end < address + byte_len).then_some(inner.end..address + byte_len));
                Verdict::Written(written)
            }
            Err(_) => {
                self.forget(address, &outer);
                Verdict::Unknown
            }
        }
    }

    fn untrack(&mut self, address: usize, byte_len: usize) {
        if !self.mark.is_here() || self.ranges.get(&address) != Some(&byte_len) {
            return;
        }
        if let Some((_, outer)) = self.pages(address, byte_len) {
            self.forget(address, &outer);
        }
    }
}

#[cfg(test)]
#[path = "protect_tests.rs"]
mod tests;
