//! Reading memory that is mapped here, without touching the mapping.

use super::mapping::{Mapping, MappingKind, mapping_at};
use crate::error::{Result, ShmError};
use crate::segment::ForeignSegment;
use chipmink_types::{SharedBytes, SharedMemory};
use rustix::fs::{Mode, OFlags};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};

/// Reads shared memory that this process has mapped.
pub fn shared_memory() -> Box<dyn SharedMemory> {
    Box::new(MappedMemory)
}

#[derive(Debug)]
struct MappedMemory;

impl SharedMemory for MappedMemory {
    fn open(&self, address: usize, byte_len: usize) -> io::Result<Box<dyn SharedBytes>> {
        Ok(Box::new(Reader::open(address, byte_len)?))
    }
}

/// Shared memory that is read.
#[derive(Debug)]
enum Reader {
    /// Through a descriptor of the same memory, from this offset on.
    Segment { segment: ForeignSegment, byte_offset: u64 },
    /// Through the kernel's view of this process' memory.
    Own { memory: File, address: u64 },
}

impl Reader {
    fn open(address: usize, byte_len: usize) -> Result<Self> {
        let Some(mapping) = mapping_at(address)? else {
            return Err(ShmError::Segment {
                name: format!("at {address:#x}"),
                reason: "nothing is mapped there any more".to_owned(),
            });
        };
        // Pages of one memory may be several mappings, of different permissions; then addresses say more than offsets.
        let is_inside = address.checked_add(byte_len).is_some_and(|end| end <= mapping.range.end);
        if is_inside && let Some((name, file)) = descriptor(&mapping) {
            let segment = ForeignSegment::of_descriptor(file.as_fd(), &name)?;
            let within = (address - mapping.range.start) as u64;
            return Ok(Reader::Segment { segment, byte_offset: mapping.byte_offset.saturating_add(within) });
        }
        let memory = File::open("/proc/self/mem")
            .map_err(|error| ShmError::system("opening /proc/self/mem", error))?;
        Ok(Reader::Own { memory, address: address as u64 })
    }
}

impl SharedBytes for Reader {
    fn read_at(&self, byte_offset: u64, into: &mut [u8]) -> io::Result<()> {
        match self {
            Reader::Segment { segment, byte_offset: from } => {
                Ok(segment.read_at(from.saturating_add(byte_offset), into)?)
            }
            Reader::Own { memory, address } => {
                let at = address.saturating_add(byte_offset);
                memory.read_exact_at(into, at).map_err(|error| {
                    let end = at.saturating_add(into.len() as u64);
                    let reason = format!(
                        "it cannot be read up to {end:#x} ({error}); it was shrunk by another process, or unmapped"
                    );
                    ShmError::Segment { name: format!("at {address:#x}"), reason }.into()
                })
            }
        }
    }
}

impl From<ShmError> for io::Error {
    fn from(error: ShmError) -> Self {
        io::Error::other(error)
    }
}

impl Mapping {
    /// Bytes of the mapping that there are: all of its pages, but nothing beyond the end of the file that it shows.
    pub fn reach(&self) -> usize {
        let file_len = descriptor(self).and_then(|(_, file)| Some(file.metadata().ok()?.len()));
        let left = file_len.map_or(u64::MAX, |byte_len| byte_len.saturating_sub(self.byte_offset));
        self.range.len().min(usize::try_from(left).unwrap_or(usize::MAX))
    }
}

/// An open file of what is mapped, and what messages call it: by its path, or as one that this process has open.
fn descriptor(mapping: &Mapping) -> Option<(String, File)> {
    // A private mapping of a file shows what this process has written to it, which the file does not have.
    if mapping.kind != MappingKind::Shared {
        return None;
    }
    if let Some(path) = &mapping.path
        && let Some(file) = open_same(path, mapping)
    {
        let name = path.strip_prefix("/dev/shm/").unwrap_or(path);
        return Some((name.to_owned(), file));
    }
    let entries = std::fs::read_dir("/proc/self/fd").ok()?;
    entries.flatten().find_map(|entry| {
        let is_same = std::fs::metadata(entry.path()).is_ok_and(|found| is_of(&found, mapping));
        let file = if is_same { File::open(entry.path()).ok() } else { None };
        let file = file.filter(|file| file.metadata().is_ok_and(|found| is_of(&found, mapping)))?;
        Some((format!("without a name, inode {}", mapping.inode), file))
    })
}

/// What lies at a path, if it is what is mapped. Whatever else lies there by now is not waited for, and not followed.
fn open_same(path: &str, mapping: &Mapping) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    file.metadata().is_ok_and(|found| is_of(&found, mapping)).then_some(file)
}

fn is_of(found: &Metadata, mapping: &Mapping) -> bool {
    let device = (rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()));
    found.is_file() && (device, found.ino()) == (mapping.device, mapping.inode)
}
