//! [`Staging`]: what is staged, and making it durable.

use crate::backend::Backend;
use crate::error::{Result, StoreError};
use crate::log::read_entry;
use crate::options::StoreOptions;
use crate::pack_check::pass_pack;
use crate::pool::{Pressure, pool_failure};
use crate::store::Store;
use crate::sweep::{SweepReport, SweepRequest};
use bytes::Bytes;
use chipmink_digest::{Digester, digest};
use chipmink_format::{
    FormatError, PackInfo, ROOT_ENTRY_LEN_MAX, RootEntry, pack_path, parse_pack_path, parse_root_path,
    root_path,
};
use chipmink_types::{PoolObject, SharedPool, TimeId};
use hashbrown::HashSet;
use std::sync::Arc;

/// How often an entry that is gone when it is read is looked for again.
const TRIES: usize = 8;

/// What is staged and not durable yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StagedState {
    /// Versions (and other entries of the root log).
    pub entries: u64,
    /// Bytes of their objects, and of those of saves under way.
    pub bytes: u64,
    /// The newest of the entries.
    pub newest: Option<TimeId>,
}

/// A version that has become durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Persisted {
    /// The number under which it was staged.
    pub staged_as: TimeId,
    /// Its number below: the same, unless others have published there.
    pub time: TimeId,
    /// The ref that it went to because others have moved the one that it was saved to.
    pub moved_to: Option<String>,
    /// Bytes of its objects.
    pub byte_len: u64,
}

/// What is only in the pool.
struct Unsettled {
    /// Root entries, oldest first.
    entries: Vec<(TimeId, PoolObject)>,
    others: Vec<PoolObject>,
}

/// A pool in front of a repository. Clones are one handle.
#[derive(Clone, Debug)]
pub struct Staging {
    pool: Arc<dyn SharedPool>,
    /// The pool, as a place.
    near: Backend,
    /// The repository below, always durable.
    lower: Store,
    pressure: Arc<Pressure>,
}

impl Staging {
    /// Puts a pool in front of a repository. It must be bound to that, and to no other.
    pub fn new(pool: Arc<dyn SharedPool>, lower: Store) -> Self {
        let pressure = Arc::new(Pressure::default());
        let near = Backend::pool(Arc::clone(&pool));
        Staging { pool, near, lower, pressure }
    }

    /// Opens the repository as one whose new versions are staged.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(&self, options: StoreOptions) -> Result<Store> {
        let backend =
            Backend::staged(Arc::clone(&self.pool), self.lower.backend(), Arc::clone(&self.pressure));
        Store::open_in(backend, options)
    }

    /// The repository below.
    pub fn lower(&self) -> &Store {
        &self.lower
    }

    /// Says to those who wait for room why it cannot be made, or that it can.
    pub fn note_failure(&self, failure: Option<String>) {
        self.pressure.note(failure);
    }

    fn failed(&self, verb: &str, error: chipmink_types::PoolError) -> StoreError {
        StoreError::storage(format!("{verb} {}", self.pool.label()), pool_failure(error))
    }

    /// What is only in the pool.
    fn unsettled(&self) -> Result<Unsettled> {
        let listed = self.pool.list().map_err(|error| self.failed("listing", error))?;
        let (mut entries, mut others) = (Vec::new(), Vec::new());
        for object in listed.into_iter().filter(|object| !object.is_settled) {
            match parse_root_path(&object.name) {
                Some(number) => entries.push((number, object)),
                None => others.push(object),
            }
        }
        entries.sort_unstable_by_key(|(number, _)| *number);
        Ok(Unsettled { entries, others })
    }

    /// What is staged and not durable yet.
    ///
    /// # Errors
    /// When the pool fails.
    pub fn state(&self) -> Result<StagedState> {
        let Unsettled { entries, others } = self.unsettled()?;
        let of_entries: u64 = entries.iter().map(|(_, object)| object.byte_len).sum();
        let of_others: u64 = others.iter().map(|object| object.byte_len).sum();
        Ok(StagedState {
            entries: entries.len() as u64,
            bytes: of_entries.saturating_add(of_others),
            newest: entries.last().map(|(number, _)| *number),
        })
    }

    /// Whether a version that was staged is durable by now.
    ///
    /// # Errors
    /// When the pool fails.
    pub fn is_durable(&self, staged_as: TimeId) -> Result<bool> {
        let found =
            self.pool.find(&root_path(staged_as)).map_err(|error| self.failed("looking into", error))?;
        Ok(found.is_none_or(|object| object.is_settled))
    }

    /// A number that changes with what is staged.
    ///
    /// # Errors
    /// When the pool fails.
    pub fn changes(&self) -> Result<u64> {
        self.pool.changes().map_err(|error| self.failed("looking into", error))
    }

    /// Makes the oldest staged version durable; `None` if there is none. `report` is told how many bytes were copied.
    ///
    /// # Errors
    /// When the pool or the place below fails, or what is staged is damaged. The version stays staged.
    pub fn persist_next(&self, report: &mut dyn FnMut(u64)) -> Result<Option<Persisted>> {
        let mut tries = 0;
        let (number, object, entry, bytes) = loop {
            tries += 1;
            let Some((number, object)) = self.unsettled()?.entries.into_iter().next() else {
                return Ok(None);
            };
            match self.entry(number, &object) {
                Ok((entry, bytes)) => break (number, object, entry, bytes),
                // Somebody else was faster.
                Err(error) if error.is_missing() && tries < TRIES => {}
                Err(error) => return Err(error),
            }
        };
        let lower = &self.lower.inner;
        if entry.repository != self.lower.repository() {
            let reason = "it belongs to another repository".to_owned();
            return Err(self.damaged(&object.name, reason));
        }
        lower.refresh()?;
        let mut held = vec![object.clone()];
        let mut byte_len = object.byte_len;
        if lower.find_write(&entry)?.is_none() {
            for pack in &entry.packs_added {
                byte_len += pack.byte_len;
                self.copy_pack(pack, report)?;
            }
        }
        for pack in &entry.packs_added {
            let found = self.pool.find(&pack_path(pack.name));
            held.extend(found.map_err(|error| self.failed("looking into", error))?);
        }
        let published = lower.publish_staged(&entry, &bytes)?;
        if published.time != number {
            // Below, the number is another entry's, and is now to be read there.
            self.pool.remove(&object.name).map_err(|error| self.failed("changing", error))?;
            held.remove(0);
        }
        self.pool.settle(&held).map_err(|error| self.failed("changing", error))?;
        Ok(Some(Persisted {
            staged_as: number,
            time: published.time,
            moved_to: published.moved_to,
            byte_len,
        }))
    }

    fn damaged(&self, object: &str, reason: String) -> StoreError {
        let source =
            FormatError::Damaged { what: "staged object".into(), byte_offset: 0, reason: reason.into() };
        StoreError::Format { place: self.pool.label().to_owned(), object: object.to_owned(), source }
    }

    /// Reads and checks a staged entry.
    fn entry(&self, number: TimeId, object: &PoolObject) -> Result<(RootEntry, Bytes)> {
        let bytes = self.near.get(&object.name, ROOT_ENTRY_LEN_MAX)?;
        if digest(&bytes) != object.digest {
            return Err(self.damaged(&object.name, "it has another digest than its writer stated".to_owned()));
        }
        let read = read_entry(&self.near, number)?;
        if read.digest != object.digest {
            return Err(self.damaged(&object.name, "it changed while it was read".to_owned()));
        }
        Ok((read.entry, bytes))
    }

    /// Writes a pack below, unless it is there. Every byte of it is checked before it gets its name.
    fn copy_pack(&self, pack: &PackInfo, report: &mut dyn FnMut(u64)) -> Result<()> {
        let path = pack_path(pack.name);
        let lower = self.lower.backend();
        let find = self.pool.find(&path).map_err(|error| self.failed("looking into", error))?;
        let Some(object) = find else {
            // It went below with another entry, or it is lost.
            return match lower.byte_len(&path)? {
                Some(found) if found == pack.byte_len => Ok(()),
                _ => Err(self.damaged(&path, "a staged version needs it, and it is not there".to_owned())),
            };
        };
        if object.byte_len != pack.byte_len {
            let reason = format!("it has {} bytes, its entry says {}", object.byte_len, pack.byte_len);
            return Err(self.damaged(&path, reason));
        }
        let mut output = lower.create_pack(&path)?;
        let mut digester = Digester::new();
        let blob_bytes_max = self.lower.options().blob_bytes_max;
        let failed = |error| StoreError::storage(format!("writing {path} in {}", lower.label()), error);
        let mut read = |at: u64, into: &mut [u8]| {
            self.pool.read_at(&object, at, into).map_err(|error| self.failed("reading", error))
        };
        let mut pass = |piece: &[u8]| {
            digester.update(piece);
            output.write(&[piece]).map_err(failed)?;
            report(piece.len() as u64);
            Ok(())
        };
        pass_pack(&self.near, pack, blob_bytes_max, &mut read, &mut pass)?;
        if digester.finish() != object.digest {
            return Err(self.damaged(&path, "it has another digest than its writer stated".to_owned()));
        }
        output.finish().map_err(failed)
    }

    /// Sweeps the repository below, if nothing is staged; else `None`. Saves to `staged` wait meanwhile, so that no version
    /// is staged on what is being swept.
    ///
    /// # Errors
    /// As [`Store::sweep`], and when the pool fails.
    pub fn sweep(&self, staged: &Store, request: &SweepRequest) -> Result<Option<SweepReport>> {
        let _turn = staged.inner.publishing();
        if self.state()?.entries > 0 {
            return Ok(None);
        }
        let report = self.lower.sweep(request)?;
        staged.refresh()?;
        Ok(Some(report))
    }

    /// Removes what dead processes left of saves that they did not publish; returns how many objects there were.
    ///
    /// # Errors
    /// When the pool fails.
    pub fn clean(&self) -> Result<u64> {
        let Unsettled { entries, others } = self.unsettled()?;
        let mut needed = HashSet::new();
        for (number, object) in &entries {
            match self.entry(*number, object) {
                Ok((entry, _)) => needed.extend(entry.packs_added.iter().map(|pack| pack.name)),
                // What cannot be read may need any of them.
                Err(_) => return Ok(0),
            }
        }
        let is_needed =
            |object: &PoolObject| parse_pack_path(&object.name).is_some_and(|name| needed.contains(&name));
        let mut count = 0;
        for object in others.iter().filter(|object| !is_needed(object)) {
            let is_abandoned =
                self.pool.is_abandoned(object).map_err(|error| self.failed("looking into", error))?;
            if is_abandoned {
                self.pool.remove(&object.name).map_err(|error| self.failed("changing", error))?;
                count += 1;
            }
        }
        Ok(count)
    }
}
