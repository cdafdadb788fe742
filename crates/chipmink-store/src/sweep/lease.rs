//! Leases: time-limited claims on a version, which keep it from being swept.

use super::clock::Clock;
use crate::entry_creation::{Outcome, begin_entry, create_entry};
use crate::error::Result;
use crate::inner::Inner;
use crate::log::ReadEntry;
use crate::random;
use bytes::Bytes;
use chipmink_digest::digest;
use chipmink_format::{Lease, LeaseChange};
use chipmink_types::{TimeId, WriteId};
use std::time::Duration;

/// Claims a version for so long, by the store's clock; returns by what the claim is known.
pub(crate) fn take_lease(inner: &Inner, holds: TimeId, lasting: Duration) -> Result<[u8; 16]> {
    let now = Clock::read(inner)?.now();
    let lasting = i64::try_from(lasting.as_micros()).unwrap_or(i64::MAX);
    let lease = Lease { id: random::bytes(), holds, expires_at: now.saturating_add(lasting) };
    publish(inner, LeaseChange::Taken(lease))?;
    Ok(lease.id)
}

/// Gives a claim back.
pub(crate) fn release_lease(inner: &Inner, id: [u8; 16]) -> Result<()> {
    publish(inner, LeaseChange::Released(id))
}

fn publish(inner: &Inner, change: LeaseChange) -> Result<()> {
    let mut turn = inner.publishing();
    inner.check_writable()?;
    let write_id = WriteId(random::bytes());
    loop {
        inner.refresh_checked()?;
        if let LeaseChange::Taken(lease) = change {
            inner.check_retained(lease.holds)?;
        }
        let synced = if inner.options.durable { Some(inner.sync_all()?) } else { None };
        let (entry, verdict) = {
            let log = inner.log();
            let mut entry = begin_entry(inner, &log, write_id, synced, inner.options.durable)?;
            entry.leases = vec![change];
            (entry, log.state.conditional_writes)
        };
        let bytes = Bytes::from(entry.encode());
        match create_entry(inner, &mut turn, &entry, &bytes, verdict)? {
            Outcome::Won => return inner.take(&ReadEntry { entry, digest: digest(&bytes) }),
            Outcome::Lost { read, .. } => inner.take_winners(&read, entry.repository)?,
            Outcome::Spent => inner.note_void(entry.number),
        }
    }
}
