//! [`Pool`]: an open pool.

use super::directory::{Change, Directory, count};
use super::extents::{Extent, gaps, places, take};
use super::layout::{BINDING_AT, BINDING_LEN, CHANGES_AT, HEAD_LEN, MAGIC, POOL_LEN_MIN, PoolLayout};
use super::slot::{EXTENTS_MAX, NAME_LEN_MAX, Slot, State};
use super::writer::Writer;
use crate::error::{Result, ShmError};
use crate::segment::access::Access;
use crate::segment::layout::{is_sealed, seal};
use crate::segment::process::Owner;
use chipmink_types::{Digest, PoolError, PoolObject, PoolWriter, SharedPool};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a pool that has no head yet is waited for: its maker is about to write it.
const HEAD_WAIT: Duration = Duration::from_secs(5);
/// Settled objects that stay at most: each takes a slot, which everybody reads after each change.
const SETTLED_MAX: usize = 1024;

/// An open pool. Clones are the same one; threads may share it.
#[derive(Clone, Debug)]
pub struct Pool {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) access: Access,
    pub(super) layout: PoolLayout,
    id: [u8; 16],
    label: String,
    /// Also makes the threads of this process take turns: the lock on the segment is one for all of them.
    directory: Mutex<Directory>,
    me: Mutex<Option<Owner>>,
}

impl Pool {
    /// Makes a pool of so many bytes, all of them reserved. `id` tells it from others that have had its name.
    ///
    /// # Errors
    /// When the name is taken, it is too small, or there is not enough memory.
    pub fn create(name: &str, byte_len: u64, id: [u8; 16]) -> Result<Self> {
        let layout = PoolLayout::of(byte_len).ok_or_else(|| ShmError::Segment {
            name: name.to_owned(),
            reason: format!("{byte_len} bytes are too few or too many; give {POOL_LEN_MIN} or more"),
        })?;
        let access = Access::create(name, byte_len)?;
        access.write_at(0, &layout.encode(id))?;
        Ok(Pool::over(access, layout, id))
    }

    /// Opens a pool that another process, or an earlier one, has made.
    ///
    /// # Errors
    /// When there is none of the name, or it is no pool of chipmink, or its head is damaged.
    pub fn attach(name: &str) -> Result<Self> {
        let began = Instant::now();
        loop {
            let access = Access::open(name, true)?;
            let byte_len = access.byte_len()?;
            let mut head = [0; HEAD_LEN];
            let is_being_made = byte_len < HEAD_LEN as u64 || {
                access.read_at(0, &mut head)?;
                head == [0; HEAD_LEN]
            };
            if is_being_made && began.elapsed() < HEAD_WAIT {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            let (layout, id) = PoolLayout::decode(&head, byte_len).map_err(|reason| access.bad(reason))?;
            return Ok(Pool::over(access, layout, id));
        }
    }

    /// Opens a pool, or makes it with so many bytes if there is none.
    ///
    /// # Errors
    /// As [`Pool::create`] and [`Pool::attach`].
    pub fn attach_or_create(name: &str, byte_len: u64, id: [u8; 16]) -> Result<Self> {
        let is = |error: &ShmError, kind: std::io::ErrorKind| matches!(error, ShmError::System { source, .. } if source.kind() == kind);
        match Pool::attach(name) {
            Err(error) if is(&error, std::io::ErrorKind::NotFound) => {}
            other => return other,
        }
        match Pool::create(name, byte_len, id) {
            Err(error) if is(&error, std::io::ErrorKind::AlreadyExists) => Pool::attach(name),
            other => other,
        }
    }

    /// Takes its name away. It is gone when the last process has let it go.
    ///
    /// # Errors
    /// When there is none of the name, it is no pool, or it may not be removed.
    pub fn unlink(name: &str) -> Result<()> {
        let access = Access::open(name, false)?;
        let mut magic = [0; 8];
        if access.byte_len()? < 8 || access.read_at(0, &mut magic).is_err() || magic != MAGIC {
            return Err(access.bad("it was not made by chipmink for versions, so it is not removed"));
        }
        Access::unlink(name)
    }

    fn over(access: Access, layout: PoolLayout, id: [u8; 16]) -> Self {
        let label = format!("shm://{}", access.name.trim_start_matches('/'));
        let directory = Mutex::default();
        Pool { shared: Arc::new(Shared { access, layout, id, label, directory, me: Mutex::default() }) }
    }

    /// The id that it was made with.
    pub fn id(&self) -> [u8; 16] {
        self.shared.id
    }

    /// Its length, in bytes.
    pub fn byte_len(&self) -> u64 {
        self.shared.layout.byte_len
    }

    /// The repository of which it is the staging tier, if it is one.
    ///
    /// # Errors
    /// When the segment cannot be read.
    pub fn binding(&self) -> Result<Option<[u8; 16]>> {
        let mut bytes = [0; BINDING_LEN];
        self.shared.access.read_at(BINDING_AT, &mut bytes)?;
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[..16]);
        Ok((is_sealed(&bytes) && bytes[16] == 1).then_some(id))
    }

    /// Makes it the staging tier of a repository. Settled objects of another go; what is not settled keeps it from changing
    /// hands.
    ///
    /// # Errors
    /// When it holds objects of another repository that are not settled, or the segment fails.
    pub fn bind(&self, repository: [u8; 16]) -> Result<()> {
        self.shared.change(|change| {
            let bound = self.binding()?;
            if bound == Some(repository) {
                return Ok(());
            }
            let live = change.directory.all_published().filter(|slot| slot.state == State::Live).count();
            if live > 0 {
                let holds = match bound {
                    Some(_) => "versions of another repository that are not durable there yet",
                    None => "a repository of its own",
                };
                return Err(self.shared.access.bad(format!(
                    "it holds {holds} ({live} objects); open it as that, or remove it with `chipmink shm rm`"
                )));
            }
            let all: Vec<u32> = change.directory.slots().map(|(at, _)| at).collect();
            all.into_iter().try_for_each(|at| change.write(at, None))?;
            let mut bytes = [0; BINDING_LEN];
            bytes[..16].copy_from_slice(&repository);
            bytes[16] = 1;
            seal(&mut bytes);
            self.shared.access.write_at(BINDING_AT, &bytes)
        })
    }
}

impl Shared {
    fn directory(&self) -> MutexGuard<'_, Directory> {
        // What a panic may leave is known not to be known: the count is missing while a change is under way.
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn me(&self) -> Result<Owner> {
        let mut me = self.me.lock().unwrap_or_else(PoisonError::into_inner);
        match *me {
            Some(owner) if owner.pid == u64::from(std::process::id()) => Ok(owner),
            _ => {
                let owner = Owner::me().map_err(|error| self.access.failed("reserving room in", error))?;
                Ok(*me.insert(owner))
            }
        }
    }

    /// Looks at the slots as they are now.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Directory) -> T) -> Result<T> {
        let mut directory = self.directory();
        if directory.changes != Some(count(&self.access, CHANGES_AT)?) {
            self.access.locked(|| Change::begin(&self.access, &self.layout, &mut directory)?.end())?;
        }
        Ok(look(&directory))
    }

    /// Changes slots.
    pub(super) fn change<T>(&self, act: impl FnOnce(&mut Change<'_>) -> Result<T>) -> Result<T> {
        let mut directory = self.directory();
        self.access.locked(|| {
            let byte_len = self.access.byte_len()?;
            if byte_len != self.layout.byte_len {
                // Writing would make it grow again, without a reservation.
                return Err(self.access.bad(format!("by now it has {byte_len} bytes")));
            }
            let mut change = Change::begin(&self.access, &self.layout, &mut directory)?;
            let result = act(&mut change);
            change.end()?;
            result
        })
    }

    /// Reserves room for bytes that follow those of a slot; lets settled objects go for it. `false`: there is none.
    pub(super) fn grow(
        &self,
        change: &mut Change<'_>,
        extents: &mut Vec<Extent>,
        needed: u64,
        wanted: u64,
    ) -> Result<bool> {
        let mut has_freed_orphans = false;
        loop {
            let used = change.directory.slots().flat_map(|(_, slot)| slot.extents.iter().copied());
            let free = gaps(&self.layout, used.chain(extents.iter().copied()));
            let mut longer = extents.clone();
            if take(&mut longer, free, needed, wanted, EXTENTS_MAX) {
                *extents = longer;
                return Ok(true);
            }
            if !self.evict(change)? && (has_freed_orphans || !change.free_orphans()?) {
                return Ok(false);
            }
            has_freed_orphans = true;
        }
    }

    /// Lets the oldest settled object go; whether there was one.
    fn evict(&self, change: &mut Change<'_>) -> Result<bool> {
        let settled = change.directory.slots().filter(|(_, slot)| slot.state == State::Settled);
        let oldest = settled.min_by_key(|(_, slot)| slot.generation).map(|(at, _)| at);
        match oldest {
            Some(at) => change.write(at, None).map(|()| true),
            None => Ok(false),
        }
    }

    /// A free slot; a settled object goes if there is none.
    fn free_slot(&self, change: &mut Change<'_>) -> Result<Option<u32>> {
        loop {
            if let Some(at) = change.directory.free(&self.layout) {
                return Ok(Some(at));
            }
            if !self.evict(change)? && !change.free_orphans()? {
                return Ok(None);
            }
        }
    }

    pub(super) fn full(&self, change: &Change<'_>, needed: u64, advice: &'static str) -> PoolError {
        let used = change.directory.slots().flat_map(|(_, slot)| slot.extents.iter().copied());
        PoolError::Full {
            place: self.label.clone(),
            needed,
            free: gaps(&self.layout, used).iter().map(|gap| gap.byte_len).sum(),
            byte_len: self.layout.data_end() - self.layout.data_at(),
            advice,
        }
    }

    pub(super) fn failed(&self, verb: &str, name: &str, error: ShmError) -> PoolError {
        PoolError::Failed { context: format!("{verb} {name} in {}", self.label), source: Box::new(error) }
    }

    pub(super) fn missing(&self, name: &str) -> PoolError {
        PoolError::Missing { place: self.label.clone(), name: name.to_owned() }
    }
}

/// Advice to one whose object has no room.
pub(super) const LARGER: &str = "open it anew with a larger size";
/// Advice to one whose object has no slot.
const FEWER: &str = "it has as many objects as it can have; open it anew with a larger size";

impl SharedPool for Pool {
    fn label(&self) -> &str {
        &self.shared.label
    }

    fn begin(&self, name: &str, is_exclusive: bool) -> Result<Box<dyn PoolWriter>, PoolError> {
        let shared = &self.shared;
        let failed = |error| shared.failed("beginning", name, error);
        if name.is_empty() || name.len() > NAME_LEN_MAX {
            let reason = format!("names of objects have 1 to {NAME_LEN_MAX} bytes, this has {}", name.len());
            return Err(failed(shared.access.bad(reason)));
        }
        let owner = shared.me().map_err(failed)?;
        let begun = shared.change(|change| {
            let taken = |change: &Change<'_>| {
                let is_reserved = |(_, slot): (u32, &Slot)| {
                    slot.name == name && slot.state == State::Reserved { is_exclusive: true }
                };
                change.directory.published(name).is_some() || change.directory.slots().any(is_reserved)
            };
            if is_exclusive && taken(change) && (!change.free_orphans()? || taken(change)) {
                return Ok(Err(PoolError::Exists { place: shared.label.clone(), name: name.to_owned() }));
            }
            let Some(at) = shared.free_slot(change)? else {
                return Ok(Err(shared.full(change, 0, FEWER)));
            };
            let slot = Slot {
                state: State::Reserved { is_exclusive },
                generation: change.generation(),
                byte_len: 0,
                digest: Digest::xxh3([0; 16]),
                owner,
                modified_at: 0,
                extents: Vec::new(),
                name: name.to_owned(),
            };
            change.write(at, Some(slot.clone()))?;
            Ok(Ok((at, slot)))
        });
        let (at, slot) = begun.map_err(failed)??;
        Ok(Box::new(Writer::new(shared.clone(), at, slot)))
    }

    fn find(&self, name: &str) -> Result<Option<PoolObject>, PoolError> {
        let found = self.shared.look(|directory| directory.published(name).map(|(_, slot)| slot.object()));
        found.map_err(|error| self.shared.failed("looking for", name, error))
    }

    fn list(&self) -> Result<Vec<PoolObject>, PoolError> {
        let listed = self
            .shared
            .look(|directory| directory.all_published().map(Slot::object).collect::<Vec<PoolObject>>());
        let mut all = listed.map_err(|error| self.shared.failed("listing", "objects", error))?;
        all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    fn read_at(&self, object: &PoolObject, byte_offset: u64, into: &mut [u8]) -> Result<(), PoolError> {
        let shared = &self.shared;
        let failed = |error| shared.failed("reading", &object.name, error);
        let extents = || {
            let found = shared.look(|directory| {
                let (_, slot) = directory.published(&object.name)?;
                let is_same = slot.generation == object.generation && slot.byte_len == object.byte_len;
                is_same.then(|| slot.extents.clone())
            });
            found.map_err(failed)?.ok_or_else(|| shared.missing(&object.name))
        };
        let end = byte_offset.checked_add(into.len() as u64).filter(|end| *end <= object.byte_len);
        let Some(end) = end else {
            let reason = format!("{} bytes at {byte_offset} are not in its {}", into.len(), object.byte_len);
            return Err(failed(shared.access.bad(reason)));
        };
        let before = extents()?;
        for (at, range) in places(&before, byte_offset..end) {
            shared.access.read_at(at, &mut into[range]).map_err(failed)?;
        }
        match extents()? == before {
            true => Ok(()),
            false => Err(shared.missing(&object.name)),
        }
    }

    fn remove(&self, name: &str) -> Result<bool, PoolError> {
        let removed = self.shared.change(|change| {
            let mut is_removed = false;
            while let Some((at, _)) = change.directory.published(name) {
                change.write(at, None)?;
                is_removed = true;
            }
            Ok(is_removed)
        });
        removed.map_err(|error| self.shared.failed("removing", name, error))
    }

    fn settle(&self, objects: &[PoolObject]) -> Result<(), PoolError> {
        let settled = self.shared.change(|change| {
            for object in objects {
                let Some((at, slot)) = change.directory.published(&object.name) else { continue };
                if slot.generation == object.generation && slot.state == State::Live {
                    let slot = Slot { state: State::Settled, ..slot.clone() };
                    change.write(at, Some(slot))?;
                }
            }
            let count = change.directory.slots().filter(|(_, slot)| slot.state == State::Settled).count();
            for _ in SETTLED_MAX..count {
                self.shared.evict(change)?;
            }
            Ok(())
        });
        settled.map_err(|error| self.shared.failed("settling objects", "", error))
    }

    fn is_abandoned(&self, object: &PoolObject) -> Result<bool, PoolError> {
        let owner = self.shared.look(|directory| {
            let (_, slot) = directory.published(&object.name)?;
            (slot.generation == object.generation).then_some(slot.owner)
        });
        let owner = owner.map_err(|error| self.shared.failed("looking at", &object.name, error))?;
        Ok(owner.is_some_and(|owner| !owner.may_live()))
    }

    fn changes(&self) -> Result<u64, PoolError> {
        count(&self.shared.access, CHANGES_AT).map_err(|error| self.shared.failed("asking", "changes", error))
    }
}

pub(super) fn now_micros() -> i64 {
    let age = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_micros());
    i64::try_from(age).unwrap_or(i64::MAX)
}
