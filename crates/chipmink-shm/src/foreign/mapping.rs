//! [`Mapping`]: what is mapped at an address.

use crate::dirty::query_map;
use crate::error::{Result, ShmError};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::Range;

/// What kind of memory a mapping shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MappingKind {
    /// Memory of this process alone, without a file.
    Private,
    /// Memory without a file on a disk that other processes may have mapped, too.
    Shared,
    /// A file, or a device.
    File,
}

/// A mapping of this process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// The addresses that it covers, whole pages.
    pub range: Range<usize>,
    /// What it shows.
    pub kind: MappingKind,
    /// Where the first byte of the range lies in the memory, or file, that is mapped; 0 for private memory.
    pub byte_offset: u64,
    /// Number of the device, major and minor; 0 for private memory.
    pub device: (u32, u32),
    /// Number of the file on the device; 0 for private memory.
    pub inode: u64,
    /// Its path if it has one at present.
    pub path: Option<String>,
}

/// Where the kernel says that memory comes from which is mapped as a file but on no disk.
const MEMORY: [&str; 4] = ["/dev/shm/", "/memfd:", "/dev/zero", "/SYSV"];

impl Mapping {
    /// Of a line `start-end perms offset major:minor inode path`; `None` if it is none.
    fn parse(line: &str) -> Option<Self> {
        let mut rest = line;
        let mut word = || {
            let trimmed = rest.trim_start();
            let (word, left) = trimmed.split_at(trimmed.find(' ').unwrap_or(trimmed.len()));
            rest = left;
            word
        };
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let (start, end) = word().split_once('-')?;
        let range = usize::try_from(hex(start)?).ok()?..usize::try_from(hex(end)?).ok()?;
        let permissions = word();
        let byte_offset = hex(word())?;
        let (major, minor) = word().split_once(':')?;
        let device = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
        let inode = word().parse().ok()?;
        let name = rest.trim_start();
        let is_shared = permissions.ends_with('s');
        let kind = match () {
            () if is_shared && MEMORY.iter().any(|prefix| name.starts_with(prefix)) => MappingKind::Shared,
            () if !is_shared && inode == 0 => MappingKind::Private,
            () => MappingKind::File,
        };
        // The kernel writes a line feed of a path as its octal code; such a path is not found, and so not used.
        let has_path = name.starts_with('/') && inode != 0 && !name.ends_with(" (deleted)");
        let path = has_path.then(|| name.to_owned());
        Some(Mapping { range, kind, byte_offset, device, inode, path })
    }
}

/// The mapping that covers an address, if there is one.
///
/// # Errors
/// When the system does not list the mappings of this process, or in a way that is not known.
pub fn mapping_at(address: usize) -> Result<Option<Mapping>> {
    let refused = |error: std::io::Error| ShmError::system("reading /proc/self/maps", error);
    let maps = File::open("/proc/self/maps").map_err(refused)?;
    // The list is long; kernels from 6.11 on say at once that memory is the process' own, as most of it is.
    if let Ok((range, true)) = query_map(&maps, address) {
        let (byte_offset, device, inode) = (0, (0, 0), 0);
        return Ok(Some(Mapping {
            range,
            kind: MappingKind::Private,
            byte_offset,
            device,
            inode,
            path: None,
        }));
    }
    find(BufReader::new(maps), address).map_err(refused)
}

fn find(lines: impl BufRead, address: usize) -> std::io::Result<Option<Mapping>> {
    for line in lines.split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        let mapping = Mapping::parse(&line)
            .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, line.into_owned()))?;
        if mapping.range.contains(&address) {
            return Ok(Some(mapping));
        }
        if mapping.range.start > address {
            break;
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
1000-3000 rw-p 00000000 00:00 0                          [heap]
5000-6000 rw-s 00000000 00:01 2049                       /dev/zero (deleted)
6000-7000 rw-s 00001000 00:1b 2050                       /dev/shm/a  b
7000-8000 rw-s 00000000 00:1b 2051                       /dev/shm/gone (deleted)
8000-9000 r--p 00000000 fe:00 1234                       /usr/lib/x.so
9000-a000 rw-s 00000000 fe:00 1235                       /data/file
a000-b000 rw-s 00000000 00:0e 7                          anon_inode:[io_uring]
b000-c000 rw-s 00000000 00:01 8                          /memfd:name (deleted)
";

    fn at(address: usize) -> Option<Mapping> {
        find(MAPS.as_bytes(), address).unwrap()
    }

    #[test]
    fn kinds_are_told_apart() {
        let kind = |address| at(address).unwrap().kind;
        assert_eq!(kind(0x2FFF), MappingKind::Private);
        assert_eq!(kind(0x5000), MappingKind::Shared);
        assert_eq!(kind(0x6000), MappingKind::Shared);
        assert_eq!(kind(0x7000), MappingKind::Shared);
        assert_eq!(kind(0x8000), MappingKind::File);
        assert_eq!(kind(0x9000), MappingKind::File);
        assert_eq!(kind(0xA000), MappingKind::File);
        assert_eq!(kind(0xB000), MappingKind::Shared);
        assert_eq!(at(0x4000), None);
        assert_eq!(at(0xC000), None);
    }

    #[test]
    fn a_path_is_one_only_while_it_has_not_been_removed() {
        assert_eq!(at(0x6000).unwrap().path.as_deref(), Some("/dev/shm/a  b"));
        assert_eq!(at(0x7000).unwrap().path, None);
        assert_eq!(at(0x2000).unwrap().path, None);
        assert_eq!(at(0x6000).unwrap().byte_offset, 0x1000);
        assert_eq!((at(0x6000).unwrap().device, at(0x6000).unwrap().inode), ((0, 0x1B), 2050));
    }

    #[test]
    fn what_is_no_line_of_the_list_is_an_error() {
        for bad in ["what is this", "1000-", "1000-2000 rw-p 0 00:00 x", "\u{FFFD}"] {
            assert!(find(bad.as_bytes(), 1).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_memory_of_this_process_is_found() {
        let heap = vec![1u8; 1 << 20];
        let mapping = mapping_at(heap.as_ptr() as usize).unwrap().unwrap();
        assert_eq!(mapping.kind, MappingKind::Private);
        let code = mapping_at as *const () as usize;
        assert_eq!(mapping_at(code).unwrap().unwrap().kind, MappingKind::File);
        assert_eq!(mapping_at(1).unwrap(), None);
    }
}
