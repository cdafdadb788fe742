//! Leases: time-limited claims on a version, which keep it from being swept.

use super::clock::Clock;
use crate::creation::now_micros;
use crate::entry_creation::{Outcome, create_entry};
use crate::error::{Result, StoreError};
use crate::inner::Inner;
use crate::log::{ReadEntry, note_boot};
use crate::random;
use bytes::Bytes;
use chipmink_digest::digest;
use chipmink_format::{Lease, LeaseChange, RootEntry, root_path};
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
    let _turn = inner.publishing();
    inner.check_writable()?;
    let write_id = WriteId(random::bytes());
    loop {
        inner.refresh()?;
        if let LeaseChange::Taken(lease) = change {
            inner.check_retained(lease.holds)?;
        }
        let synced = if inner.options.durable { Some(inner.sync_all()?) } else { None };
        let (entry, verdict) = {
            let log = inner.log();
            log.requirements.check_write("repository").map_err(|source| StoreError::Format {
                place: inner.backend.label().to_owned(),
                object: root_path(log.head.number),
                source,
            })?;
            let mut entry = RootEntry::new(TimeId(log.highest.0 + 1), log.state.repository, write_id);
            entry.requirements = log.requirements;
            entry.published_at = now_micros();
            entry.floor = log.state.floor;
            entry.is_synced = inner.options.durable;
            note_boot(&mut entry, &inner.backend);
            entry.synced_through = synced.max(log.synced_through);
            entry.previous = Some(log.head);
            entry.state = log.place;
            entry.leases = vec![change];
            (entry, log.state.conditional_writes)
        };
        let bytes = Bytes::from(entry.encode());
        match create_entry(inner, &entry, &bytes, verdict)? {
            Outcome::Won => return inner.take(&ReadEntry { entry, digest: digest(&bytes) }),
            Outcome::Lost(read) => inner.take_foreign(&read, entry.repository)?,
            Outcome::Spent => inner.note_void(entry.number),
        }
    }
}
