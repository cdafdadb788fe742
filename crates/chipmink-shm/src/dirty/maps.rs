//! What kind of memory lies at an address, and whether any of it is pinned.

use super::ioctl::query_map;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::ops::Range;

/// The first address of a range that is not in private memory without a file; `None` if all of it is.
pub(super) fn first_not_private(range: &Range<usize>) -> io::Result<Option<usize>> {
    let maps = File::open("/proc/self/maps")?;
    let mut at = range.start;
    while at < range.end {
        match query_map(&maps, at) {
            Ok((mapped, true)) if mapped.end > at => at = mapped.end,
            // No mapping covers it.
            Ok(_) | Err(Errno::NOENT) => return Ok(Some(at)),
            Err(Errno::NOTTY | Errno::INVAL) => return read_maps(BufReader::new(maps), range),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// As [`first_not_private`], for kernels (before 6.11) that only list all mappings as text.
fn read_maps(lines: impl BufRead, range: &Range<usize>) -> io::Result<Option<usize>> {
    let mut at = range.start;
    for line in lines.lines() {
        let line = line?;
        let Some((mapped, is_private)) = parse_line(&line) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, line));
        };
        if mapped.end <= at {
            continue;
        }
        if mapped.start > at || !is_private {
            break;
        }
        at = mapped.end;
        if at >= range.end {
            return Ok(None);
        }
    }
    Ok(Some(at))
}

/// Address range of a line `start-end perms offset dev inode name`, and whether it is private and has no file.
fn parse_line(line: &str) -> Option<(Range<usize>, bool)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let permissions = words.next()?;
    let inode = words.nth(2)?;
    let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
    Some((range, permissions.ends_with('p') && inode == "0"))
}

/// Whether the process has memory that is pinned for long, as far as the kernel counts it: a device may write to it.
/// What cannot be read counts as pinned.
pub(super) fn has_pinned() -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return true };
    let pinned = status.lines().find_map(|line| line.strip_prefix("VmPin:"));
    pinned.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()) != Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
1000-3000 rw-p 00000000 00:00 0
3000-5000 rw-p 00000000 00:00 0                                  [heap]
5000-6000 rw-s 00000000 00:01 2049                               /dev/zero (deleted)
8000-9000 r--p 00000000 fe:00 1234                               /usr/lib/x y.so
";

    fn first(range: Range<usize>) -> Option<usize> {
        read_maps(MAPS.as_bytes(), &range).unwrap()
    }

    #[test]
    fn only_private_memory_without_a_file_counts() {
        assert_eq!(first(0x1000..0x5000), None);
        assert_eq!(first(0x2000..0x4000), None);
        assert_eq!(first(0x2000..0x5001), Some(0x5000));
        assert_eq!(first(0x5000..0x6000), Some(0x5000));
        assert_eq!(first(0x8000..0x9000), Some(0x8000));
    }

    #[test]
    fn a_gap_is_not_private() {
        assert_eq!(first(0..0x2000), Some(0));
        assert_eq!(first(0x6000..0x7000), Some(0x6000));
        assert_eq!(first(0x9000..0xA000), Some(0x9000));
    }

    #[test]
    fn a_line_that_cannot_be_read_is_an_error() {
        assert!(read_maps("what is this".as_bytes(), &(0..1)).is_err());
    }

    #[test]
    fn the_text_and_the_query_agree() {
        let heap = vec![1u8; 1 << 20];
        let start = heap.as_ptr() as usize;
        let range = start..start + heap.len();
        assert_eq!(first_not_private(&range).unwrap(), None);
        let text = BufReader::new(File::open("/proc/self/maps").unwrap());
        assert_eq!(read_maps(text, &range).unwrap(), None);
        let code = first_not_private as *const () as usize;
        assert_eq!(first_not_private(&(code..code + 1)).unwrap(), Some(code));
    }

    #[test]
    fn a_process_that_pins_nothing_has_nothing_pinned() {
        assert!(!has_pinned());
    }
}
