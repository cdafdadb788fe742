//! [`Lease`]: a claim by which a generation stays, or by which a process is the only writer.

use super::access::Access;
use super::layout::{LEASE_LEN, LEASES, LEASES_AT, get, is_sealed, put, seal};
use super::process::Owner;
use crate::error::Result;
use std::sync::Arc;

/// The place of the writer's lease.
pub(super) const WRITER: usize = 0;

/// An entry of the table of leases.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) owner: Owner,
    /// 0: the writer's.
    pub(super) generation: u64,
}

impl Entry {
    fn encode(&self) -> [u8; LEASE_LEN] {
        let mut bytes = [0; LEASE_LEN];
        put(&mut bytes, 0, self.owner.pid);
        put(&mut bytes, 8, self.owner.started);
        put(&mut bytes, 16, self.owner.namespace);
        put(&mut bytes, 24, self.generation);
        seal(&mut bytes);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let owner = Owner { pid: get(bytes, 0), started: get(bytes, 8), namespace: get(bytes, 16) };
        (is_sealed(bytes) && owner.pid != 0).then(|| Entry { owner, generation: get(bytes, 24) })
    }
}

/// All entries that were written as a whole; the caller holds the lock.
pub(super) fn entries(access: &Access) -> Result<Vec<Option<Entry>>> {
    let mut bytes = [0; LEASE_LEN * LEASES];
    access.read_at(LEASES_AT, &mut bytes)?;
    Ok(bytes.chunks_exact(LEASE_LEN).map(Entry::decode).collect())
}

/// Generations that living processes hold; the caller holds the lock.
pub(super) fn held(access: &Access) -> Result<Vec<u64>> {
    let entries = entries(access)?.into_iter().skip(1).flatten();
    Ok(entries.filter(|entry| entry.owner.may_live()).map(|entry| entry.generation).collect())
}

pub(super) fn write(access: &Access, place: usize, entry: &Entry) -> Result<()> {
    access.write_at(LEASES_AT + (place * LEASE_LEN) as u64, &entry.encode())
}

/// A claim of this process. It ends when it is dropped, and with the process.
#[derive(Debug)]
pub struct Lease {
    access: Arc<Access>,
    place: usize,
    entry: Entry,
}

impl Lease {
    /// Takes a place of the table; the caller holds the lock.
    pub(super) fn take(access: &Arc<Access>, place: usize, generation: u64) -> Result<Self> {
        let owner = Owner::me().map_err(|error| access.failed("taking a lease on", error))?;
        let entry = Entry { owner, generation };
        write(access, place, &entry)?;
        Ok(Lease { access: Arc::clone(access), place, entry })
    }

    /// Whether it is this process' and still stands; the caller holds the lock.
    pub(super) fn stands(&self) -> Result<bool> {
        Ok(entries(&self.access)?[self.place] == Some(self.entry))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A forked child has a copy of what is not its own.
        if u64::from(std::process::id()) != self.entry.owner.pid {
            return;
        }
        // If it fails, the lease ends with the process.
        let _ = self.access.locked(|| {
            if self.stands()? {
                self.access.write_at(LEASES_AT + (self.place * LEASE_LEN) as u64, &[0; LEASE_LEN])?;
            }
            Ok(())
        });
    }
}
