//! [`Directory`]: what this process knows of the slots, and [`Change`]: how they are changed.

use super::layout::{CHANGES_AT, PoolLayout, SLOT_LEN, SLOTS_USED_AT};
use super::slot::{Slot, State};
use crate::error::Result;
use crate::segment::access::Access;
use std::collections::HashMap;

/// Slots that are read at once.
const READ_SLOTS: usize = 64;

/// The slots, as they were when the changes had this count.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// `None`: nothing is known.
    pub(super) changes: Option<u64>,
    slots: Vec<Option<Slot>>,
    /// The published slot of each name.
    published: HashMap<String, u32>,
}

impl Directory {
    pub(super) fn published(&self, name: &str) -> Option<(u32, &Slot)> {
        let at = *self.published.get(name)?;
        Some((at, self.slots[at as usize].as_ref()?))
    }

    pub(super) fn slot(&self, at: u32) -> Option<&Slot> {
        self.slots.get(at as usize)?.as_ref()
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = (u32, &Slot)> {
        self.slots.iter().enumerate().filter_map(|(at, slot)| Some((at as u32, slot.as_ref()?)))
    }

    /// The slot that each name stands for now.
    pub(super) fn all_published(&self) -> impl Iterator<Item = &Slot> {
        self.published.values().filter_map(|at| self.slots[*at as usize].as_ref())
    }

    /// The lowest slot that is free.
    pub(super) fn free(&self, layout: &PoolLayout) -> Option<u32> {
        let at = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        u32::try_from(at).ok().filter(|at| *at < layout.slots)
    }

    /// Reads everything; the lock is held.
    pub(super) fn load(&mut self, access: &Access, layout: &PoolLayout, changes: u64) -> Result<()> {
        *self = Directory::default();
        let used = (count(access, SLOTS_USED_AT)? as usize).min(layout.slots as usize);
        let mut bytes = vec![0; READ_SLOTS.min(used) * SLOT_LEN];
        while self.slots.len() < used {
            let piece = &mut bytes[..READ_SLOTS.min(used - self.slots.len()) * SLOT_LEN];
            access.read_at(layout.slot_at(self.slots.len() as u32), piece)?;
            self.slots.extend(piece.chunks_exact(SLOT_LEN).map(|slot| Slot::decode(slot, layout)));
        }
        for at in 0..used {
            self.note_name(at as u32);
        }
        self.changes = Some(changes);
        Ok(())
    }

    fn note_name(&mut self, at: u32) {
        let Some(slot) = self.slots[at as usize].as_ref().filter(|slot| slot.is_published()) else { return };
        let newest = self.published.entry(slot.name.clone()).or_insert(at);
        // Whoever published the later one was killed before it could free the earlier.
        let known = self.slots[*newest as usize].as_ref().map(|known| known.generation);
        if known < Some(slot.generation) {
            *newest = at;
        }
    }

    fn set(&mut self, at: u32, slot: Option<Slot>) {
        let index = at as usize;
        if self.slots.len() <= index {
            self.slots.resize(index + 1, None);
        }
        if let Some(old) = self.slots[index].take()
            && self.published.get(&old.name) == Some(&at)
        {
            self.published.remove(&old.name);
        }
        self.slots[index] = slot;
        self.note_name(at);
    }
}

/// A count in the head.
pub(super) fn count(access: &Access, at: u64) -> Result<u64> {
    let mut bytes = [0; 8];
    access.read_at(at, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// A change of slots, under the lock.
pub(super) struct Change<'a> {
    access: &'a Access,
    layout: &'a PoolLayout,
    pub(super) directory: &'a mut Directory,
    /// The even count that stands, or is to stand, when the change begins.
    from: u64,
    has_begun: bool,
}

impl<'a> Change<'a> {
    /// Takes what stands there; the lock is held.
    pub(super) fn begin(
        access: &'a Access,
        layout: &'a PoolLayout,
        directory: &'a mut Directory,
    ) -> Result<Self> {
        let found = count(access, CHANGES_AT)?;
        // Odd: whoever made it so died.
        let from = found.wrapping_add(found & 1);
        if directory.changes != Some(found) || found != from {
            directory.load(access, layout, from)?;
        }
        Ok(Change { access, layout, directory, from, has_begun: found != from })
    }

    fn set_count(&self, count: u64) -> Result<()> {
        self.access.write_at(CHANGES_AT, &count.to_le_bytes())
    }

    /// The generation of what is published by this change: nothing before it had this one.
    pub(super) fn generation(&self) -> u64 {
        self.from.wrapping_add(2)
    }

    /// Writes a slot, or frees it.
    pub(super) fn write(&mut self, at: u32, slot: Option<Slot>) -> Result<()> {
        if !std::mem::replace(&mut self.has_begun, true) {
            // Not known until the end.
            self.directory.changes = None;
            self.set_count(self.from.wrapping_add(1))?;
        }
        match &slot {
            Some(slot) => {
                if count(self.access, SLOTS_USED_AT)? <= u64::from(at) {
                    self.access.write_at(SLOTS_USED_AT, &(u64::from(at) + 1).to_le_bytes())?;
                }
                self.access.write_at(self.layout.slot_at(at), &slot.encode())?;
            }
            // Without its state it is none.
            None => self.access.write_at(self.layout.slot_at(at), &[0; 32])?,
        }
        self.directory.set(at, slot);
        Ok(())
    }

    /// Frees reservations of processes that are dead; whether there were any.
    pub(super) fn free_orphans(&mut self) -> Result<bool> {
        let is_orphan = |slot: &Slot| matches!(slot.state, State::Reserved { .. }) && !slot.owner.may_live();
        let orphans: Vec<u32> =
            self.directory.slots().filter(|(_, slot)| is_orphan(slot)).map(|(at, _)| at).collect();
        orphans.iter().try_for_each(|at| self.write(*at, None))?;
        Ok(!orphans.is_empty())
    }

    /// Ends it: from now on others see it.
    pub(super) fn end(self) -> Result<()> {
        if self.has_begun {
            let changes = self.from.wrapping_add(2);
            self.set_count(changes)?;
            self.directory.changes = Some(changes);
        }
        Ok(())
    }
}
