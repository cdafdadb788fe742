//! [`Writer`]: the one process that publishes in a segment.

use super::layout::SlotHead;
use super::lease::{self, Lease, WRITER};
use super::named::{Generation, Segment};
use crate::error::{Result, ShmError};
use chipmink_digest::Digester;
use chipmink_types::Digest;

/// Publishes generations. There is one at a time, in all processes.
#[derive(Debug)]
pub struct Writer {
    segment: Segment,
    lease: Lease,
}

/// A generation that is being written; dropped without [`OpenGeneration::close`], it is nobody's.
#[derive(Debug)]
pub struct OpenGeneration<'a> {
    writer: &'a mut Writer,
    slot: u32,
    head: SlotHead,
    digester: Digester,
}

impl Segment {
    /// Becomes the writer.
    ///
    /// # Errors
    /// When another living process is.
    pub fn writer(&self) -> Result<Writer> {
        let lease = self.access.locked(|| {
            match lease::entries(&self.access)?[WRITER] {
                Some(entry) if entry.owner.may_live() => {
                    return Err(ShmError::InUse {
                        name: self.access.name.clone(),
                        by: format!("the writer with process id {}", entry.owner.pid),
                    });
                }
                _ => {}
            }
            Lease::take(&self.access, WRITER, 0)
        })?;
        Ok(Writer { segment: self.clone(), lease })
    }
}

impl Writer {
    /// Begins the next generation, in the place of the oldest that may go.
    ///
    /// # Errors
    /// When all others are held by readers, or this process is not the writer any more.
    pub fn begin(&mut self, label: [u8; 16]) -> Result<OpenGeneration<'_>> {
        let segment = self.segment.clone();
        let (slot, head) = segment.access.locked(|| {
            self.check()?;
            let heads: Vec<Option<SlotHead>> =
                (0..segment.layout.slots).map(|slot| segment.head(slot)).collect::<Result<_>>()?;
            let held = lease::held(&segment.access)?;
            let newest_closed =
                heads.iter().flatten().filter(|head| head.is_closed).map(|head| head.generation).max();
            let may_go = |head: &Option<SlotHead>| match head {
                Some(head) => {
                    !head.is_closed
                        || (Some(head.generation) != newest_closed && !held.contains(&head.generation))
                }
                None => true,
            };
            let age = |head: &Option<SlotHead>| head.map_or(0, |head| head.generation);
            let slot =
                (0..heads.len()).filter(|slot| may_go(&heads[*slot])).min_by_key(|slot| age(&heads[*slot]));
            let slot = slot.ok_or_else(|| ShmError::InUse {
                name: segment.access.name.clone(),
                by: "readers that hold every older generation".to_owned(),
            })?;
            let newest = heads.iter().map(age).max().unwrap_or(0);
            let generation = newest.checked_add(1).ok_or_else(|| {
                segment.access.bad("it states a generation that no process can have reached")
            })?;
            let head =
                SlotHead { generation, byte_len: 0, is_closed: false, label, digest: Digest::xxh3([0; 16]) };
            segment.access.write_at(segment.layout.head_at(slot as u32), &head.encode())?;
            Ok((slot as u32, head))
        })?;
        Ok(OpenGeneration { writer: self, slot, head, digester: Digester::new() })
    }

    /// Whether this process is still the writer, and the segment whole; the lock is held.
    fn check(&self) -> Result<()> {
        let byte_len = self.segment.access.byte_len()?;
        if Some(byte_len) != self.segment.layout.byte_len() {
            // Writing would make it grow again, without a reservation.
            return Err(self.segment.access.bad(format!("by now it has {byte_len} bytes")));
        }
        if self.lease.stands()? {
            return Ok(());
        }
        Err(self.segment.access.bad("this process is not its writer any more"))
    }
}

impl OpenGeneration<'_> {
    /// Its number, once it is closed.
    pub fn number(&self) -> u64 {
        self.head.generation
    }

    /// Adds bytes at its end.
    ///
    /// # Errors
    /// When the slot has not enough room, or the segment cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let segment = &self.writer.segment;
        let end = self.head.byte_len.checked_add(bytes.len() as u64);
        let Some(end) = end.filter(|end| *end <= segment.layout.slot_len) else {
            return Err(segment.access.bad(format!(
                "{} bytes more than {} do not fit into its {} for a generation",
                bytes.len(),
                self.head.byte_len,
                segment.layout.slot_len
            )));
        };
        segment.access.write_at(segment.layout.data_at(self.slot) + self.head.byte_len, bytes)?;
        self.digester.update(bytes);
        self.head.byte_len = end;
        Ok(())
    }

    /// Publishes it.
    ///
    /// # Errors
    /// When this process is not the writer any more, or the segment cannot be written.
    pub fn close(mut self) -> Result<Generation> {
        self.head.is_closed = true;
        self.head.digest = self.digester.finish();
        let segment = self.writer.segment.clone();
        segment.access.locked(|| {
            self.writer.check()?;
            segment.access.write_at(segment.layout.head_at(self.slot), &self.head.encode())
        })?;
        Ok(Generation {
            number: self.head.generation,
            byte_len: self.head.byte_len,
            label: self.head.label,
            digest: self.head.digest,
            slot: self.slot,
        })
    }
}
