//! [`FaultDisk`]: system calls of which chosen ones fail.

use chipmink_store::local::{Input, Output, Stat, Syscalls};
use std::ffi::OsString;
use std::fmt;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A kind of system call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Call {
    /// Creating a file.
    Create,
    /// Writing to it.
    Write,
    /// Syncing a file or directory.
    Sync,
    /// Renaming.
    Rename,
    /// Linking.
    Link,
    /// Removing a name.
    Unlink,
    /// Making a directory.
    MakeDirectory,
    /// Opening for reading.
    Open,
    /// Reading.
    Read,
    /// Listing a directory.
    List,
    /// Looking at a path.
    Stat,
}

impl Call {
    /// Whether the call needs room on the disk.
    pub const fn takes_room(self) -> bool {
        matches!(
            self,
            Call::Create | Call::Write | Call::Sync | Call::Rename | Call::Link | Call::MakeDirectory
        )
    }
}

/// Whether a failing call has its effect all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timing {
    /// It fails before it does anything.
    Before,
    /// It does its work and the answer is lost, as over a network.
    After,
}

/// Which calls fail, and how.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Number of the first call that fails, counting from 0 those for which `matches` is true.
    pub first: u64,
    /// How many fail.
    pub count: u64,
    /// The error code, e.g. 28 for "no space left on device".
    pub errno: i32,
    /// Whether the failing call has its effect.
    pub timing: Timing,
    /// Which calls are counted.
    pub matches: fn(Call) -> bool,
}

#[derive(Debug, Default)]
struct Plan {
    fault: Option<Fault>,
    seen: u64,
    failed: u64,
}

/// System calls of which chosen ones fail. Clones are one disk.
#[derive(Clone)]
pub struct FaultDisk {
    calls: Arc<dyn Syscalls>,
    plan: Arc<Mutex<Plan>>,
    garbles: Arc<AtomicBool>,
}

impl fmt::Debug for FaultDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultDisk")
    }
}

impl FaultDisk {
    /// Calls that all go through to `calls` until a fault is set.
    pub fn new(calls: Arc<dyn Syscalls>) -> Self {
        FaultDisk { calls, plan: Arc::default(), garbles: Arc::default() }
    }

    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Sets the fault, or none, and counts from 0 again.
    pub fn set(&self, fault: Option<Fault>) {
        *self.plan() = Plan { fault, seen: 0, failed: 0 };
    }

    /// From now on, a bit in the middle of each write arrives wrong, and nobody says so; or no longer.
    pub fn garble(&self, does: bool) {
        self.garbles.store(does, Ordering::Relaxed);
    }

    /// How many calls have failed since the fault was set.
    pub fn failed(&self) -> u64 {
        self.plan().failed
    }

    fn run<T>(&self, call: Call, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let fails = {
            let mut plan = self.plan();
            match plan.fault.clone().filter(|fault| (fault.matches)(call)) {
                None => None,
                Some(fault) => {
                    let at = plan.seen;
                    plan.seen += 1;
                    let fails = at >= fault.first && at - fault.first < fault.count;
                    plan.failed += u64::from(fails);
                    fails.then_some(fault)
                }
            }
        };
        match fails {
            None => work(),
            Some(fault) => {
                if fault.timing == Timing::After {
                    work()?;
                }
                Err(io::Error::from_raw_os_error(fault.errno))
            }
        }
    }
}

#[derive(Debug)]
struct FaultOutput(FaultDisk, Box<dyn Output>);

impl Output for FaultOutput {
    fn write_all(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let FaultOutput(disk, output) = self;
        if !disk.garbles.load(Ordering::Relaxed) {
            return disk.run(Call::Write, || output.write_all(parts));
        }
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 1;
        }
        disk.run(Call::Write, || output.write_all(&[IoSlice::new(&bytes)]))
    }

    fn sync_ahead(&mut self) {
        self.1.sync_ahead();
    }

    fn fsync(&mut self) -> io::Result<()> {
        let FaultOutput(disk, output) = self;
        disk.run(Call::Sync, || output.fsync())
    }
}

#[derive(Debug)]
struct FaultInput(FaultDisk, Box<dyn Input>);

impl Input for FaultInput {
    fn read_at(&self, buffer: &mut [u8], byte_offset: u64) -> io::Result<usize> {
        self.0.run(Call::Read, || self.1.read_at(buffer, byte_offset))
    }

    fn stat(&self) -> io::Result<Stat> {
        self.1.stat()
    }
}

impl Syscalls for FaultDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        let output = self.run(Call::Create, || self.calls.create(path))?;
        Ok(Box::new(FaultOutput(self.clone(), output)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Input>> {
        let input = self.run(Call::Open, || self.calls.open(path))?;
        Ok(Box::new(FaultInput(self.clone(), input)))
    }

    fn open_file(&self, path: &Path) -> io::Result<std::fs::File> {
        self.run(Call::Open, || self.calls.open_file(path))
    }

    fn fsync(&self, path: &Path) -> io::Result<()> {
        self.run(Call::Sync, || self.calls.fsync(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(Call::Rename, || self.calls.rename(from, to))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(Call::Rename, || self.calls.rename_new(from, to))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(Call::Link, || self.calls.link(from, to))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.run(Call::Unlink, || self.calls.unlink(path))
    }

    fn mkdir(&self, path: &Path) -> io::Result<()> {
        self.run(Call::MakeDirectory, || self.calls.mkdir(path))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<(OsString, bool)>> {
        self.run(Call::List, || self.calls.read_dir(path))
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.run(Call::Stat, || self.calls.stat(path))
    }

    fn boot(&self) -> Option<[u8; 16]> {
        self.calls.boot()
    }
}
