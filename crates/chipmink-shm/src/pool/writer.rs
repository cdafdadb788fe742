//! [`Writer`]: an object on its way into a pool.

use super::extents::{places, trim};
use super::slot::{Slot, State};
use super::store::{LARGER, Shared, now_micros};
use chipmink_digest::Digester;
use chipmink_types::{PoolError, PoolObject, PoolWriter};
use std::sync::Arc;

/// Room that is reserved ahead at most, in bytes.
const AHEAD_MAX: u64 = 64 << 20;

#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    at: u32,
    slot: Slot,
    digester: Digester,
    is_over: bool,
}

impl Writer {
    /// Over a slot that was reserved.
    pub(super) fn new(shared: Arc<Shared>, at: u32, slot: Slot) -> Self {
        Writer { shared, at, slot, digester: Digester::new(), is_over: false }
    }

    /// Whether a slot is still the reservation of this writer.
    fn is_mine(&self, slot: &Slot) -> bool {
        (slot.state, slot.generation, slot.owner) == (self.slot.state, self.slot.generation, self.slot.owner)
    }

    /// Makes sure that there is room for so many bytes in all.
    fn reserve(&mut self, byte_len: u64) -> Result<(), PoolError> {
        let room: u64 = self.slot.extents.iter().map(|extent| extent.byte_len).sum();
        if byte_len <= room {
            return Ok(());
        }
        let (needed, shared) = (byte_len - room, &self.shared);
        // What is written piece by piece grows by as much as it has, so that it does not ask for each piece.
        let wanted = needed.max(room.min(AHEAD_MAX));
        let mut slot = self.slot.clone();
        let grown = shared.change(|change| {
            if !change.directory.slot(self.at).is_some_and(|reserved| self.is_mine(reserved)) {
                return Err(shared.access.bad("its reservation is gone: another process took it away"));
            }
            if !shared.grow(change, &mut slot.extents, needed, wanted)? {
                return Ok(Err(shared.full(change, needed, LARGER)));
            }
            change.write(self.at, Some(slot.clone()))?;
            Ok(Ok(()))
        });
        grown.map_err(|error| shared.failed("reserving room for", &self.slot.name, error))??;
        self.slot = slot;
        Ok(())
    }
}

impl PoolWriter for Writer {
    fn write(&mut self, bytes: &[u8]) -> Result<(), PoolError> {
        let end = self.slot.byte_len + bytes.len() as u64;
        self.reserve(end)?;
        for (at, range) in places(&self.slot.extents, self.slot.byte_len..end) {
            let written = self.shared.access.write_at(at, &bytes[range]);
            written.map_err(|error| self.shared.failed("writing", &self.slot.name, error))?;
        }
        self.digester.update(bytes);
        // The reservation in the segment does not say how much of its room is written.
        self.slot.byte_len = end;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<PoolObject, PoolError> {
        let shared = Arc::clone(&self.shared);
        let digest = std::mem::replace(&mut self.digester, Digester::new()).finish();
        let published = shared.change(|change| {
            if !change.directory.slot(self.at).is_some_and(|reserved| self.is_mine(reserved)) {
                return Err(shared.access.bad("its reservation is gone: another process took it away"));
            }
            let mut slot = self.slot.clone();
            trim(&mut slot.extents, slot.byte_len);
            slot.state = State::Live;
            slot.generation = change.generation();
            slot.digest = digest;
            slot.modified_at = now_micros();
            let earlier = change.directory.published(&slot.name).map(|(at, _)| at);
            change.write(self.at, Some(slot.clone()))?;
            if let Some(earlier) = earlier {
                change.write(earlier, None)?;
            }
            Ok(slot.object())
        });
        let object = published.map_err(|error| shared.failed("publishing", &self.slot.name, error))?;
        self.is_over = true;
        Ok(object)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // A forked child must not take its parent's room away.
        if self.is_over || u64::from(std::process::id()) != self.slot.owner.pid {
            return;
        }
        // If it fails, it is freed when this process has ended.
        let _ = self.shared.change(|change| match change.directory.slot(self.at) {
            Some(slot) if self.is_mine(slot) => change.write(self.at, None),
            _ => Ok(()),
        });
    }
}
