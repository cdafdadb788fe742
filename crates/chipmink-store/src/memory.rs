//! A place in the memory of this process, of bounded size.
//!
//! Invariants:
//! 1. What is stored never takes more than the limit, counted in bytes of objects.
//! 2. What does not fit is refused as a whole: nothing that is there goes away for it.

use crate::local::PackOutput;
use bytes::Bytes;
use chipmink_types::{Gather, NewGather};
use hashbrown::HashMap;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How much is stored, and how much may be.
#[derive(Debug)]
pub(crate) struct Room {
    limit: u64,
    gather: NewGather,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    /// Bytes of each object.
    objects: HashMap<String, u64>,
    /// Bytes of all of them.
    total: u64,
}

impl Room {
    pub(crate) fn new(limit: u64, gather: NewGather) -> Self {
        Room { limit, gather, used: Mutex::default() }
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        // A panic leaves a count that is wrong by one object at most.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error if `path` cannot have so many bytes.
    fn check(&self, used: &Used, path: &str, byte_len: u64) -> object_store::Result<()> {
        let others = used.total - used.objects.get(path).copied().unwrap_or(0);
        if others.saturating_add(byte_len) <= self.limit {
            return Ok(());
        }
        let source = format!(
            "its {} bytes of memory are full: {others} are taken, {byte_len} more are needed; open it with larger memory_bytes",
            self.limit
        );
        Err(object_store::Error::Generic { store: "memory", source: source.into() })
    }

    /// Stores an object of so many bytes by `put`, if there is room for it.
    pub(crate) fn put(
        &self,
        path: &str,
        byte_len: u64,
        put: impl FnOnce() -> object_store::Result<()>,
    ) -> object_store::Result<()> {
        let mut used = self.used();
        self.check(&used, path, byte_len)?;
        put()?;
        used.total += byte_len;
        used.total -= used.objects.insert(path.to_owned(), byte_len).unwrap_or(0);
        Ok(())
    }

    /// Notes that an object is gone.
    pub(crate) fn free(&self, path: &str) {
        let mut used = self.used();
        used.total -= used.objects.remove(path).unwrap_or(0);
    }
}

/// A pack that is gathered, and stored whole.
#[derive(Debug)]
pub(crate) struct MemoryPack {
    objects: Arc<InMemory>,
    room: Arc<Room>,
    path: String,
    bytes: Box<dyn Gather>,
}

impl MemoryPack {
    pub(crate) fn new(objects: Arc<InMemory>, room: Arc<Room>, path: &str) -> Self {
        let bytes = (room.gather)();
        MemoryPack { objects, room, path: path.to_owned(), bytes }
    }
}

/// Bytes of a stored pack.
struct Stored(Box<dyn Gather>);

impl AsRef<[u8]> for Stored {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl PackOutput for MemoryPack {
    fn write(&mut self, parts: &[&[u8]]) -> object_store::Result<()> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.room.check(&self.room.used(), &self.path, ((*self.bytes).as_ref().len() + len) as u64)?;
        let full = |error: io::Error| object_store::Error::Generic { store: "memory", source: error.into() };
        parts.iter().try_for_each(|part| self.bytes.gather(part)).map_err(full)
    }

    fn finish(&mut self) -> object_store::Result<()> {
        let mut bytes = std::mem::replace(&mut self.bytes, Box::new(Vec::new()));
        bytes.shrink();
        let bytes = Bytes::from_owner(Stored(bytes));
        let location = Path::from(self.path.as_str());
        self.room.put(&self.path, bytes.len() as u64, || {
            let put = self.objects.put(&location, PutPayload::from_bytes(bytes.clone()));
            futures::executor::block_on(put).map(drop)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_what_is_there() {
        let room = Room::new(100, || Box::<Vec<u8>>::default());
        room.put("a", 60, || Ok(())).unwrap();
        let error = room.put("b", 41, || panic!("there is no room")).unwrap_err();
        assert!(error.to_string().contains("memory_bytes"), "{error}");
        room.put("a", 100, || Ok(())).unwrap();
        let failed =
            || Err(object_store::Error::NotImplemented { operation: "x".into(), implementer: "y".into() });
        room.free("a");
        room.put("c", 90, failed).unwrap_err();
        room.put("d", 100, || Ok(())).unwrap();
        room.put("e", u64::MAX, || Ok(())).unwrap_err();
    }
}
