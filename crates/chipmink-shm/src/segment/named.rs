//! [`Segment`]: a named segment and its generations.

use super::access::Access;
use super::layout::{HEAD_LEN, LEASES, SLOT_HEAD_LEN, SegmentLayout, SlotHead};
use super::lease::{self, Lease};
use crate::error::{Result, ShmError};
use chipmink_digest::Digester;
use chipmink_types::Digest;
use std::sync::Arc;

/// Bytes that are read at once: they stay in the processor's cache until they are digested.
const PIECE: usize = 64 * 1024;

/// Bytes that were published in a segment, as their writer describes them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Generation {
    /// Counts up with each publication, from 1.
    pub number: u64,
    /// Length in bytes.
    pub byte_len: u64,
    /// What the writer says of them.
    pub label: [u8; 16],
    /// Of the bytes.
    pub digest: Digest,
    pub(super) slot: u32,
}

/// A named segment of shared memory.
#[derive(Clone, Debug)]
pub struct Segment {
    pub(super) access: Arc<Access>,
    pub(super) layout: SegmentLayout,
    id: [u8; 16],
}

impl Segment {
    /// Makes a segment with all its space reserved. `id` tells it from others that have had its name.
    ///
    /// # Errors
    /// When the name is taken, the layout is impossible, or there is not enough memory.
    pub fn create(name: &str, layout: SegmentLayout, id: [u8; 16]) -> Result<Self> {
        let byte_len = layout.byte_len().ok_or_else(|| ShmError::Segment {
            name: name.to_owned(),
            reason: format!("no segment can be laid out so: {layout:?}"),
        })?;
        let access = Access::create(name, byte_len)?;
        access.write_at(0, &layout.encode(id))?;
        Ok(Segment { access: Arc::new(access), layout, id })
    }

    /// Opens a segment that another process, or an earlier one, has made.
    ///
    /// # Errors
    /// When there is none of the name, or it is no segment of chipmink, or it was damaged.
    pub fn attach(name: &str) -> Result<Self> {
        let access = Access::open(name, true)?;
        let byte_len = access.byte_len()?;
        if byte_len < HEAD_LEN as u64 {
            return Err(access.bad(format!("it has only {byte_len} bytes")));
        }
        let mut head = [0; HEAD_LEN];
        access.read_at(0, &mut head)?;
        let (layout, id) = SegmentLayout::decode(&head).map_err(|reason| access.bad(reason))?;
        match layout.byte_len() {
            Some(expected) if expected == byte_len => {}
            expected => {
                let expected = expected.unwrap_or(0);
                return Err(access.bad(format!("it has {byte_len} bytes instead of {expected}")));
            }
        }
        Ok(Segment { access: Arc::new(access), layout, id })
    }

    /// Takes its name away. It is gone when the last process has let it go.
    ///
    /// # Errors
    /// When there is none of the name, or it may not be removed.
    pub fn unlink(name: &str) -> Result<()> {
        Access::unlink(name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.access.name
    }

    /// The id that it was made with.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// How it is divided.
    pub fn layout(&self) -> SegmentLayout {
        self.layout
    }

    pub(super) fn head(&self, slot: u32) -> Result<Option<SlotHead>> {
        let mut bytes = [0; SLOT_HEAD_LEN];
        self.access.read_at(self.layout.head_at(slot), &mut bytes)?;
        Ok(SlotHead::decode(&bytes, &self.layout))
    }

    /// What is published, newest first.
    ///
    /// # Errors
    /// When it was shrunk or cannot be read.
    pub fn generations(&self) -> Result<Vec<Generation>> {
        let mut found = Vec::new();
        for slot in 0..self.layout.slots {
            if let Some(head) = self.head(slot)?.filter(|head| head.is_closed) {
                found.push(Generation {
                    number: head.generation,
                    byte_len: head.byte_len,
                    label: head.label,
                    digest: head.digest,
                    slot,
                });
            }
        }
        found.sort_by_key(|generation| std::cmp::Reverse(generation.number));
        Ok(found)
    }

    /// Whether a generation is still published as it was found.
    pub(super) fn check(&self, generation: &Generation) -> Result<()> {
        let expected = SlotHead {
            generation: generation.number,
            byte_len: generation.byte_len,
            is_closed: true,
            label: generation.label,
            digest: generation.digest,
        };
        match self.head(generation.slot)? {
            Some(head) if head == expected => Ok(()),
            _ => Err(self.overwritten(generation)),
        }
    }

    fn overwritten(&self, generation: &Generation) -> ShmError {
        ShmError::Overwritten { name: self.access.name.clone(), generation: generation.number }
    }

    /// Copies bytes of a generation out. They were all there, unchanged, when it returns.
    ///
    /// # Errors
    /// When the generation was overwritten, the bytes are not all within it, or the segment was shrunk.
    pub fn read_at(&self, generation: &Generation, byte_offset: u64, into: &mut [u8]) -> Result<()> {
        let end = byte_offset.checked_add(into.len() as u64);
        if end.is_none_or(|end| end > generation.byte_len) || generation.slot >= self.layout.slots {
            let len = into.len();
            return Err(self.access.bad(format!("{len} bytes at {byte_offset} are outside the generation")));
        }
        self.access.read_at(self.layout.data_at(generation.slot) + byte_offset, into)?;
        self.check(generation)
    }

    /// Gives all bytes of a generation to `take`, piece by piece, and compares them with their digest.
    ///
    /// What `take` was given counts only if this returns without an error.
    ///
    /// # Errors
    /// When the generation was overwritten, its bytes are not those that were published, or the segment was shrunk.
    pub fn read(&self, generation: &Generation, take: &mut dyn FnMut(&[u8])) -> Result<()> {
        let mut digester = Digester::new();
        let mut piece = [0; PIECE];
        let mut at = 0;
        while at < generation.byte_len {
            let len = (generation.byte_len - at).min(PIECE as u64) as usize;
            self.read_at(generation, at, &mut piece[..len])?;
            digester.update(&piece[..len]);
            take(&piece[..len]);
            at += len as u64;
        }
        if digester.finish() != generation.digest {
            return Err(self.overwritten(generation));
        }
        Ok(())
    }

    /// Keeps a generation from being overwritten until the lease is dropped, or this process ends.
    ///
    /// # Errors
    /// When it was overwritten already, or too many are held.
    pub fn hold(&self, generation: &Generation) -> Result<Lease> {
        self.access.locked(|| {
            self.check(generation)?;
            let entries = lease::entries(&self.access)?;
            let is_free = |place: &usize| entries[*place].is_none_or(|entry| !entry.owner.may_live());
            let place = (1..LEASES).find(is_free).ok_or_else(|| ShmError::InUse {
                name: self.access.name.clone(),
                by: format!("{} readers, which is the most that there can be", LEASES - 1),
            })?;
            Lease::take(&self.access, place, generation.number)
        })
    }
}
