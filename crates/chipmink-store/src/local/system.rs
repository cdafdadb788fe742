//! The system calls of the machine.

use super::sync_ahead::SyncAhead;
use super::syscalls::{Input, Output, Stat, Syscalls};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The system calls of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

#[derive(Debug)]
struct SystemOutput {
    file: File,
    ahead: Option<SyncAhead>,
}

#[derive(Debug)]
struct SystemInput(File);

#[cfg(unix)]
fn file_number(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn file_number(_metadata: &fs::Metadata) -> u64 {
    0
}

fn stat_of(metadata: &fs::Metadata) -> Stat {
    Stat {
        byte_len: metadata.len(),
        is_directory: metadata.is_dir(),
        file_number: file_number(metadata),
        modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
    }
}

impl Output for SystemOutput {
    fn write_all(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        // `write_all_vectored` is not stable; two parts at most are ever given, so that copying their descriptions
        // costs nothing beside the call.
        let mut parts = parts.to_vec();
        let mut rest = &mut parts[..];
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match self.file.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sync_ahead(&mut self) {
        if let Some(ahead) = &mut self.ahead
            && !ahead.is_done()
        {
            // The disk has enough to do.
            return;
        }
        match self.ahead.take().map_or(Ok(()), SyncAhead::end) {
            Ok(()) => self.ahead = SyncAhead::begin(&self.file),
            failed => self.ahead = Some(SyncAhead::Done(failed)),
        }
    }

    fn fsync(&mut self) -> io::Result<()> {
        // The system tells of a failure once, and the other thread may be the one that it was told.
        self.ahead.take().map_or(Ok(()), SyncAhead::end)?;
        self.file.sync_all()
    }
}

impl Input for SystemInput {
    #[cfg(unix)]
    fn read_at(&self, buffer: &mut [u8], byte_offset: u64) -> io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], byte_offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Without writing zeros first, which took a twelfth of the time of a load of small objects.
    #[cfg(unix)]
    fn read_new(&self, len: usize, byte_offset: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = byte_offset + bytes.len() as u64;
            match rustix::io::pread(&self.0, rustix::buffer::spare_capacity(&mut bytes), at) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error == rustix::io::Errno::INTR => {}
                Err(error) => return Err(error.into()),
            }
        }
        // The capacity may be larger than was asked for.
        bytes.truncate(len);
        Ok(bytes)
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(stat_of(&self.0.metadata()?))
    }
}

impl Syscalls for System {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(Box::new(SystemOutput { file, ahead: None }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Input>> {
        Ok(Box::new(SystemInput(File::open(path)?)))
    }

    fn open_file(&self, path: &Path) -> io::Result<File> {
        File::open(path)
    }

    fn fsync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    #[cfg(any(target_os = "linux", target_os = "macos"))]
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
    }

    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    fn rename_new(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn mkdir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<(OsString, bool)>> {
        let named = |entry: fs::DirEntry| Ok((entry.file_name(), entry.file_type()?.is_dir()));
        fs::read_dir(path)?.map(|entry| named(entry?)).collect()
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        Ok(stat_of(&fs::metadata(path)?))
    }

    fn boot(&self) -> Option<[u8; 16]> {
        static BOOT: OnceLock<Option<[u8; 16]>> = OnceLock::new();
        *BOOT.get_or_init(|| {
            let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
            let digits: String = text.trim().chars().filter(|digit| *digit != '-').collect();
            u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32).map(u128::to_be_bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_that_failed_beside_is_an_error_of_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("file")).unwrap();
        let failed = SyncAhead::Done(Err(io::Error::other("the disk is gone")));
        let mut output = SystemOutput { file, ahead: Some(failed) };
        output.write_all(&[IoSlice::new(b"bytes")]).unwrap();
        output.sync_ahead();
        output.sync_ahead();
        assert_eq!(output.fsync().unwrap_err().to_string(), "the disk is gone");
    }

    #[test]
    fn what_is_synced_beside_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut output = System.create(&path).unwrap();
        for i in 0..64 {
            output.write_all(&[IoSlice::new(&[i; 4096])]).unwrap();
            output.sync_ahead();
        }
        output.fsync().unwrap();
        let bytes = fs::read(path).unwrap();
        assert!((0..64).all(|i| bytes[i * 4096..(i + 1) * 4096].iter().all(|byte| usize::from(*byte) == i)));
    }
}
