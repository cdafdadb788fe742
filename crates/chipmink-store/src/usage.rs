//! How much room things take: the whole place, each variable of a version, each version.
//!
//! Bytes are those of blobs as they are stored, each counted once for whoever uses it; a delta counts without its base, and
//! indexes, padding and root entries belong to nobody.

use crate::error::{Result, StoreError};
use crate::generations::DigestHasher;
use crate::inner::Inner;
use crate::log::read_entry;
use crate::reach::{Reached, blobs_of, reach};
use crate::store::Store;
use chipmink_format::{
    Commit, ManifestRow, ManifestValue, decode_segment, pack_path, parse_pack_path, read_manifest, root_path,
};
use chipmink_types::{Digest, TimeId};
use hashbrown::{HashMap, HashSet};
use std::cell::RefCell;
use std::hash::BuildHasherDefault;

/// Blobs that are looked up at once.
const WINDOW: usize = 4096;

/// How much there is in a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoreStats {
    /// Root entries.
    pub entries: u64,
    /// Versions.
    pub versions: u64,
    /// Packs that the log names.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Packs that the log does not name (any more), and their bytes.
    pub orphan_packs: u64,
    /// Bytes of these.
    pub orphan_bytes: u64,
    /// Blobs in the packs, copies counted.
    pub blobs: u64,
    /// Bytes of the blobs as they are stored.
    pub stored_bytes: u64,
    /// Bytes of the blobs as they are used.
    pub decoded_bytes: u64,
    /// Blobs that are stored as differences.
    pub deltas: u64,
}

/// What something takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Usage<T> {
    /// What it is.
    pub what: T,
    /// Bytes of all that it needs.
    pub bytes: u64,
    /// Bytes of these that nothing else needs.
    pub own_bytes: u64,
}

type Users = HashMap<Digest, User, BuildHasherDefault<DigestHasher>>;

/// Who needs a blob.
#[derive(Clone, Copy)]
struct User {
    first: usize,
    is_shared: bool,
    byte_len: u64,
}

/// Adds up what users need.
#[derive(Default)]
struct Count {
    users: Users,
    bytes: Vec<u64>,
}

impl Count {
    fn add(&mut self, inner: &Inner, blobs: &[Digest]) {
        let user = self.bytes.len();
        let mut bytes = 0;
        for window in blobs.chunks(WINDOW) {
            let new: Vec<Digest> =
                window.iter().filter(|digest| !self.users.contains_key(*digest)).copied().collect();
            let (found, _) = inner.index().find_many(&new);
            for (digest, found) in new.into_iter().zip(found) {
                let byte_len = found.map_or(0, |found| found.location.stored_len);
                self.users.insert(digest, User { first: user, is_shared: false, byte_len });
            }
            for digest in window {
                if let Some(known) = self.users.get_mut(digest) {
                    known.is_shared |= known.first != user;
                    bytes += known.byte_len;
                }
            }
        }
        self.bytes.push(bytes);
    }

    fn finish<T>(self, whats: Vec<T>) -> Vec<Usage<T>> {
        let mut own = vec![0; self.bytes.len()];
        for user in self.users.values().filter(|user| !user.is_shared) {
            own[user.first] += user.byte_len;
        }
        let all = whats.into_iter().zip(self.bytes).zip(own);
        all.map(|((what, bytes), own_bytes)| Usage { what, bytes, own_bytes }).collect()
    }
}

impl Store {
    /// How much there is.
    ///
    /// # Errors
    /// When the log, or the index of a pack, cannot be read.
    pub fn stats(&self) -> Result<StoreStats> {
        self.refresh()?;
        let inner = &*self.inner;
        let mut stats = StoreStats::default();
        for entry in self.entries() {
            stats.entries += 1;
            stats.versions += entry?.commits.len() as u64;
        }
        let packs = inner.log().state.packs.clone();
        for pack in &packs {
            stats.packs += 1;
            stats.pack_bytes += pack.byte_len;
            let path = pack_path(pack.name);
            let range = pack.index.byte_offset..pack.index.byte_offset + pack.index.byte_len;
            let bytes = inner.backend.get_range(&path, range)?;
            let (_, rows) = decode_segment(&bytes).map_err(|source| StoreError::Format {
                place: inner.backend.label().to_owned(),
                object: path,
                source,
            })?;
            for row in rows {
                stats.blobs += 1;
                stats.stored_bytes += row.stored_len;
                stats.decoded_bytes = stats.decoded_bytes.saturating_add(row.decoded_len);
                stats.deltas += u64::from(row.base.is_some());
            }
        }
        let known: HashSet<_> = packs.iter().map(|pack| pack.name).collect();
        let mut orphans = Vec::new();
        inner.backend.list("packs", |path| {
            let is_known = parse_pack_path(path).is_some_and(|name| known.contains(&name));
            if !is_known {
                orphans.push(path.to_owned());
            }
            true
        })?;
        for path in orphans {
            stats.orphan_packs += 1;
            stats.orphan_bytes += inner.backend.byte_len(&path)?.unwrap_or(0);
        }
        Ok(stats)
    }

    /// What the variables of a version take; those that share objects are one. Atoms take nothing of their own.
    ///
    /// # Errors
    /// When there is no such version, or its manifest is missing or damaged.
    pub fn variable_usage(&self, time: TimeId) -> Result<Vec<Usage<Vec<String>>>> {
        let inner = &*self.inner;
        let commit = self.commit(time)?;
        let rows = read_manifest(commit.manifest, inner).map_err(|source| StoreError::Format {
            place: inner.backend.label().to_owned(),
            object: root_path(time),
            source,
        })?;
        let mut places: HashMap<Digest, usize> = HashMap::new();
        let (mut names, mut count) = (Vec::<Vec<String>>::new(), Count::default());
        for (name, ManifestRow { value, .. }) in rows {
            match value {
                ManifestValue::Covariable(covariable) => {
                    if let Some(place) = places.get(&covariable.digest()) {
                        names[*place].push(name);
                        continue;
                    }
                    places.insert(covariable.digest(), names.len());
                    count.add(inner, &blobs_of(inner, &covariable));
                }
                _ => count.add(inner, &[]),
            }
            names.push(vec![name]);
        }
        Ok(count.finish(names))
    }

    /// What the versions take, newest first.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn version_usage(&self) -> Result<Vec<Usage<TimeId>>> {
        self.refresh()?;
        let inner = &*self.inner;
        let (mut times, mut count) = (Vec::new(), Count::default());
        let mut next = Some(inner.log().head.number);
        while let Some(number) = next {
            if let Some(range) = inner.log().dropped.range_of(number) {
                next = range.first.0.checked_sub(1).map(TimeId);
                continue;
            }
            let entry = read_entry(&inner.backend, number)?.entry;
            for inline in &entry.commits {
                let commit = Commit::decode(&inline.bytes).map_err(|source| StoreError::Format {
                    place: inner.backend.label().to_owned(),
                    object: root_path(number),
                    source,
                })?;
                let met = RefCell::new(Reached::default());
                reach(inner, &commit, &met);
                let blobs: Vec<Digest> =
                    met.into_inner().blobs.into_iter().map(|(digest, _)| digest).collect();
                count.add(inner, &blobs);
                times.push(number);
            }
            next = entry.previous.map(|previous| previous.number);
        }
        Ok(count.finish(times))
    }
}
