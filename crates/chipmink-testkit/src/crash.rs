//! [`CrashDisk`]: a file system in memory that knows what would survive a power cut.
//!
//! The model is harsher than any journaling file system: of what was not synced, any subset survives. The writes to a
//! file and the changes of a directory's entries are independent of each other; a rename is one entry added and one
//! removed, and either may be lost; syncing a file says nothing about its name.
//!
//! Invariants:
//! 1. What was synced is in every image; what was never written is in none.
//! 2. After a failed sync the bytes are still seen by the living, but no later sync of that file makes them durable
//!    (that is how Linux behaves since 4.13).

use crate::image::Images;
use chipmink_store::local::{Input, Output, Stat, Syscalls};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Component, Path};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

/// Number of a file or directory, whatever its names.
pub(crate) type Number = usize;

/// A write that was not synced: where, and what.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) byte_offset: usize,
    pub(crate) bytes: Arc<[u8]>,
}

/// A change of a directory that was not synced: a name, and the file that it now means, if any.
pub(crate) type Change = (OsString, Option<Number>);

#[derive(Clone, Debug)]
pub(crate) enum Node {
    File { live: Arc<Vec<u8>>, durable: Arc<Vec<u8>>, pending: Vec<Write> },
    Directory { live: BTreeMap<OsString, Number>, durable: BTreeMap<OsString, Number>, pending: Vec<Change> },
}

/// Everything on the disk at one moment.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
}

impl World {
    fn empty() -> Self {
        let root = Node::Directory { live: BTreeMap::new(), durable: BTreeMap::new(), pending: Vec::new() };
        World { nodes: vec![root] }
    }

    fn directory(&self, number: Number) -> io::Result<&BTreeMap<OsString, Number>> {
        match &self.nodes[number] {
            Node::Directory { live, .. } => Ok(live),
            Node::File { .. } => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<Number> {
        let mut at = 0;
        for part in path.components() {
            if let Component::Normal(name) = part {
                at = *self.directory(at)?.get(name).ok_or(io::ErrorKind::NotFound)?;
            }
        }
        Ok(at)
    }

    fn parent<'a>(&self, path: &'a Path) -> io::Result<(Number, &'a OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = self.find(path.parent().unwrap_or(Path::new("")))?;
        self.directory(parent)?;
        Ok((parent, name))
    }

    fn change(&mut self, directory: Number, name: &OsStr, to: Option<Number>) {
        if let Node::Directory { live, pending, .. } = &mut self.nodes[directory] {
            match to {
                Some(number) => live.insert(name.to_owned(), number),
                None => live.remove(name),
            };
            pending.push((name.to_owned(), to));
        }
    }

    fn add(&mut self, path: &Path, node: Node) -> io::Result<Number> {
        let (parent, name) = self.parent(path)?;
        if self.directory(parent)?.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.nodes.push(node);
        let number = self.nodes.len() - 1;
        self.change(parent, name, Some(number));
        Ok(number)
    }

    fn rename(&mut self, from: &Path, to: &Path, may_replace: bool) -> io::Result<()> {
        let number = self.find(from)?;
        let ((from_parent, from_name), (to_parent, to_name)) = (self.parent(from)?, self.parent(to)?);
        if !may_replace && self.directory(to_parent)?.contains_key(to_name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change(to_parent, to_name, Some(number));
        self.change(from_parent, from_name, None);
        Ok(())
    }

    fn sync(&mut self, number: Number) {
        match &mut self.nodes[number] {
            Node::File { durable, pending, .. } => {
                let bytes = Arc::make_mut(durable);
                pending.drain(..).for_each(|write| apply(bytes, &write));
            }
            Node::Directory { durable, pending, .. } => {
                pending.drain(..).for_each(|change| apply_change(durable, &change));
            }
        }
    }

    fn lose(&mut self, number: Number) {
        match &mut self.nodes[number] {
            Node::File { pending, .. } => pending.clear(),
            Node::Directory { pending, .. } => pending.clear(),
        }
    }
}

pub(crate) fn apply(bytes: &mut Vec<u8>, write: &Write) {
    let end = write.byte_offset + write.bytes.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[write.byte_offset..end].copy_from_slice(&write.bytes);
}

pub(crate) fn apply_change(entries: &mut BTreeMap<OsString, Number>, (name, to): &Change) {
    match to {
        Some(number) => entries.insert(name.clone(), *number),
        None => entries.remove(name),
    };
}

/// A sync that the program asks for.
#[derive(Debug)]
pub struct SyncCall<'a> {
    /// A path that the file or directory was reached by.
    pub path: &'a Path,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// What a file holds; empty for a directory.
    pub bytes: &'a [u8],
}

/// The disk just before a call that changes it, and what the test had noted by then.
#[derive(Clone, Debug)]
pub struct Moment {
    world: World,
    /// The last number given to [`CrashDisk::note`].
    pub note: u64,
    /// The call that was about to be made.
    pub call: String,
}

impl Moment {
    /// What the disk may hold after a power cut at this moment: all possibilities if they are at most `limit`, else as
    /// many at random. Of the directory `scratch` it is left to chance what survives.
    pub fn images(&self, scratch: &Path, limit: usize, seed: u64) -> Images {
        let scratch = self.world.find(scratch).ok();
        Images::new(self.world.clone(), scratch, limit, seed)
    }
}

type Ignore = dyn Fn(&SyncCall<'_>) -> bool + Send + Sync;

struct State {
    world: World,
    moments: Option<Vec<Moment>>,
    note: u64,
    ignore: Option<Arc<Ignore>>,
    fail_sync: Option<u64>,
    syncs: u64,
    has_no_links: bool,
    boot: [u8; 16],
}

/// A disk in memory that can lose what was not synced. Clones are one disk.
#[derive(Clone)]
pub struct CrashDisk(Arc<Mutex<State>>);

impl fmt::Debug for CrashDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CrashDisk")
    }
}

impl Default for CrashDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl CrashDisk {
    /// An empty disk; its root directory is there and durable.
    pub fn new() -> Self {
        CrashDisk::of(World::empty())
    }

    pub(crate) fn of(world: World) -> Self {
        CrashDisk(Arc::new(Mutex::new(State {
            world,
            moments: None,
            note: 0,
            ignore: None,
            fail_sync: None,
            syncs: 0,
            has_no_links: false,
            boot: {
                static BOOTS: AtomicU64 = AtomicU64::new(0);
                u128::from(BOOTS.fetch_add(1, Ordering::Relaxed)).to_be_bytes()
            },
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Keeps the disk as it is before every call from now on that changes or syncs it.
    pub fn record(&self) {
        self.state().moments = Some(Vec::new());
    }

    /// Ends the recording and returns what was kept, with the disk as it is now as the last.
    pub fn recorded(&self) -> Vec<Moment> {
        let mut state = self.state();
        let end = Moment { world: state.world.clone(), note: state.note, call: "the end".into() };
        let mut moments = state.moments.take().unwrap_or_default();
        moments.push(end);
        moments
    }

    /// Notes how far the test has come, e.g. the last version that a save has promised.
    pub fn note(&self, note: u64) {
        self.state().note = note;
    }

    /// Lets the syncs for which `ignore` is true do nothing and report success: a mutant of the program without them.
    pub fn ignore_syncs(&self, ignore: impl Fn(&SyncCall<'_>) -> bool + Send + Sync + 'static) {
        self.state().ignore = Some(Arc::new(ignore));
    }

    /// Lets the `n`-th sync from now on (from 0) fail with an I/O error and lose what it should have synced.
    pub fn fail_sync(&self, n: u64) {
        let mut state = self.state();
        state.fail_sync = Some(state.syncs + n);
    }

    /// Syncs asked for so far.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Lets `link` and `renameat2` fail as on a file system that has neither.
    pub fn without_links(&self) {
        self.state().has_no_links = true;
    }

    /// Replaces the bytes of a file, as damage would.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn damage(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        let number = state.world.find(path).expect("the file is there");
        let bytes = Arc::new(bytes);
        state.world.nodes[number] =
            Node::File { live: Arc::clone(&bytes), durable: bytes, pending: Vec::new() };
    }

    /// The bytes of a file.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        match &state.world.nodes[state.world.find(path).expect("the file is there")] {
            Node::File { live, .. } => live.to_vec(),
            Node::Directory { .. } => panic!("{} is a directory", path.display()),
        }
    }

    /// Paths of all files, ascending.
    pub fn files(&self) -> BTreeSet<std::path::PathBuf> {
        let state = self.state();
        let mut found = BTreeSet::new();
        let mut open = vec![(std::path::PathBuf::from("/"), 0)];
        while let Some((path, number)) = open.pop() {
            match &state.world.nodes[number] {
                Node::Directory { live, .. } => {
                    open.extend(live.iter().map(|(name, number)| (path.join(name), *number)));
                }
                Node::File { .. } => {
                    found.insert(path);
                }
            }
        }
        found
    }

    fn before(&self, call: impl FnOnce() -> String) -> MutexGuard<'_, State> {
        let mut state = self.state();
        if state.moments.is_some() {
            let moment = Moment { world: state.world.clone(), note: state.note, call: call() };
            state.moments.get_or_insert_default().push(moment);
        }
        state
    }

    fn sync_number(&self, number: Number, path: &Path) -> io::Result<()> {
        let mut state = self.before(|| format!("sync {}", path.display()));
        let at = state.syncs;
        state.syncs += 1;
        if state.fail_sync == Some(at) {
            state.world.lose(number);
            return Err(io::Error::other("the disk failed"));
        }
        if let Some(ignore) = state.ignore.clone() {
            let (is_directory, bytes) = match &state.world.nodes[number] {
                Node::File { live, .. } => (false, Arc::clone(live)),
                Node::Directory { .. } => (true, Arc::default()),
            };
            if ignore(&SyncCall { path, is_directory, bytes: &bytes }) {
                return Ok(());
            }
        }
        state.world.sync(number);
        Ok(())
    }
}

#[derive(Debug)]
struct CrashOutput {
    disk: CrashDisk,
    path: std::path::PathBuf,
    number: Number,
}

impl Output for CrashOutput {
    fn write_all(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let bytes: Arc<[u8]> = parts.iter().flat_map(|part| part.iter().copied()).collect::<Vec<u8>>().into();
        let mut state = self.disk.before(|| format!("write {}", self.path.display()));
        if let Node::File { live, pending, .. } = &mut state.world.nodes[self.number] {
            let write = Write { byte_offset: live.len(), bytes };
            apply(Arc::make_mut(live), &write);
            pending.push(write);
        }
        Ok(())
    }

    fn fsync(&mut self) -> io::Result<()> {
        self.disk.sync_number(self.number, &self.path)
    }
}

#[derive(Debug)]
struct CrashInput {
    disk: CrashDisk,
    number: Number,
}

fn stat_of(world: &World, number: Number) -> Stat {
    let (byte_len, is_directory) = match &world.nodes[number] {
        Node::File { live, .. } => (live.len() as u64, false),
        Node::Directory { .. } => (0, true),
    };
    // Nothing on this disk is ever old.
    let modified = SystemTime::now() - Duration::from_secs(1);
    Stat { byte_len, is_directory, file_number: number as u64, modified }
}

impl Input for CrashInput {
    fn read_at(&self, buffer: &mut [u8], byte_offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        match &state.world.nodes[self.number] {
            Node::File { live, .. } => {
                let start = usize::try_from(byte_offset).unwrap_or(usize::MAX).min(live.len());
                let len = buffer.len().min(live.len() - start);
                buffer[..len].copy_from_slice(&live[start..start + len]);
                Ok(len)
            }
            Node::Directory { .. } => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(stat_of(&self.disk.state().world, self.number))
    }
}

impl Syscalls for CrashDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        let mut state = self.before(|| format!("create {}", path.display()));
        let node = Node::File { live: Arc::default(), durable: Arc::default(), pending: Vec::new() };
        let number = state.world.add(path, node)?;
        Ok(Box::new(CrashOutput { disk: self.clone(), path: path.to_owned(), number }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Input>> {
        let number = self.state().world.find(path)?;
        Ok(Box::new(CrashInput { disk: self.clone(), number }))
    }

    fn open_file(&self, _path: &Path) -> io::Result<std::fs::File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn fsync(&self, path: &Path) -> io::Result<()> {
        let number = self.state().world.find(path)?;
        self.sync_number(number, path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.before(|| format!("rename {} to {}", from.display(), to.display())).world.rename(from, to, true)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.before(|| format!("rename {} to new {}", from.display(), to.display()));
        if state.has_no_links {
            return Err(io::ErrorKind::Unsupported.into());
        }
        state.world.rename(from, to, false)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.before(|| format!("link {} to {}", from.display(), to.display()));
        if state.has_no_links {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let number = state.world.find(from)?;
        let (parent, name) = state.world.parent(to)?;
        if state.world.directory(parent)?.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.world.change(parent, name, Some(number));
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut state = self.before(|| format!("unlink {}", path.display()));
        state.world.find(path)?;
        let (parent, name) = state.world.parent(path)?;
        state.world.change(parent, name, None);
        Ok(())
    }

    fn mkdir(&self, path: &Path) -> io::Result<()> {
        let node = Node::Directory { live: BTreeMap::new(), durable: BTreeMap::new(), pending: Vec::new() };
        self.before(|| format!("mkdir {}", path.display())).world.add(path, node).map(|_| ())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<(OsString, bool)>> {
        let state = self.state();
        let entries = state.world.directory(state.world.find(path)?)?;
        let is_directory = |number: &Number| matches!(state.world.nodes[*number], Node::Directory { .. });
        Ok(entries.iter().map(|(name, number)| (name.clone(), is_directory(number))).collect())
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let state = self.state();
        Ok(stat_of(&state.world, state.world.find(path)?))
    }

    fn boot(&self) -> Option<[u8; 16]> {
        Some(self.state().boot)
    }
}
