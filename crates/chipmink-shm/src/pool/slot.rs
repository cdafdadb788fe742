//! [`Slot`]: the description of one object, or of the room for one that is being written.

use super::extents::Extent;
use super::layout::{GRAIN, PoolLayout, SLOT_LEN};
use crate::segment::layout::{get, is_sealed, put, seal};
use crate::segment::process::Owner;
use chipmink_types::{DIGEST_LEN, Digest, PoolObject};

/// Pieces that an object may lie in.
pub(super) const EXTENTS_MAX: usize = 32;
const NAME_AT: usize = 80 + EXTENTS_MAX * 16;
/// Longest name, in bytes.
pub(super) const NAME_LEN_MAX: usize = SLOT_LEN - 8 - NAME_AT;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Being written by its owner. Nobody else may begin one of its name if it is exclusive.
    Reserved { is_exclusive: bool },
    /// Published.
    Live,
    /// Published, and held elsewhere, too.
    Settled,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Slot {
    pub(super) state: State,
    pub(super) generation: u64,
    pub(super) byte_len: u64,
    pub(super) digest: Digest,
    pub(super) owner: Owner,
    pub(super) modified_at: i64,
    pub(super) extents: Vec<Extent>,
    pub(super) name: String,
}

impl Slot {
    pub(super) fn is_published(&self) -> bool {
        matches!(self.state, State::Live | State::Settled)
    }

    pub(super) fn object(&self) -> PoolObject {
        PoolObject {
            name: self.name.clone(),
            byte_len: self.byte_len,
            generation: self.generation,
            digest: self.digest,
            modified_at: self.modified_at,
            is_settled: self.state == State::Settled,
        }
    }

    pub(super) fn encode(&self) -> [u8; SLOT_LEN] {
        let mut bytes = [0; SLOT_LEN];
        put(&mut bytes, 0, self.generation);
        put(&mut bytes, 8, self.byte_len);
        bytes[16] = match self.state {
            State::Reserved { is_exclusive: false } => 1,
            State::Reserved { is_exclusive: true } => 2,
            State::Live => 3,
            State::Settled => 4,
        };
        bytes[17] = self.extents.len() as u8;
        bytes[18..20].copy_from_slice(&(self.name.len() as u16).to_le_bytes());
        bytes[24..24 + DIGEST_LEN].copy_from_slice(self.digest.as_bytes());
        put(&mut bytes, 48, self.owner.pid);
        put(&mut bytes, 56, self.owner.started);
        put(&mut bytes, 64, self.owner.namespace);
        bytes[72..80].copy_from_slice(&self.modified_at.to_le_bytes());
        for (ordinal, extent) in self.extents.iter().enumerate() {
            put(&mut bytes, 80 + 16 * ordinal, extent.start);
            put(&mut bytes, 88 + 16 * ordinal, extent.byte_len);
        }
        bytes[NAME_AT..NAME_AT + self.name.len()].copy_from_slice(self.name.as_bytes());
        seal(&mut bytes);
        bytes
    }

    /// `None`: free, or nothing that a writer wrote as a whole.
    pub(super) fn decode(bytes: &[u8], layout: &PoolLayout) -> Option<Self> {
        let state = match bytes.get(16)? {
            1 => State::Reserved { is_exclusive: false },
            2 => State::Reserved { is_exclusive: true },
            3 => State::Live,
            4 => State::Settled,
            _ => return None,
        };
        let count = usize::from(bytes[17]);
        let name_len = usize::from(u16::from_le_bytes([bytes[18], bytes[19]]));
        if bytes.len() != SLOT_LEN || !is_sealed(bytes) || count > EXTENTS_MAX || name_len > NAME_LEN_MAX {
            return None;
        }
        let extents: Vec<Extent> = (0..count)
            .map(|ordinal| Extent {
                start: get(bytes, 80 + 16 * ordinal),
                byte_len: get(bytes, 88 + 16 * ordinal),
            })
            .collect();
        let fits = |extent: &Extent| {
            extent.start.is_multiple_of(GRAIN)
                && extent.byte_len.is_multiple_of(GRAIN)
                && extent.byte_len > 0
                && extent.start >= layout.data_at()
                && extent.start.checked_add(extent.byte_len).is_some_and(|end| end <= layout.data_end())
        };
        let byte_len = get(bytes, 8);
        // At most 32 pieces of less than 2^63 bytes that lie in the segment: the sum of 128 bits cannot overflow.
        let room: u128 = extents.iter().map(|extent| u128::from(extent.byte_len)).sum();
        if !extents.iter().all(fits) || u128::from(byte_len) > room {
            return None;
        }
        Some(Slot {
            state,
            generation: get(bytes, 0),
            byte_len,
            digest: Digest::from_encoded(bytes[24..24 + DIGEST_LEN].try_into().ok()?),
            owner: Owner { pid: get(bytes, 48), started: get(bytes, 56), namespace: get(bytes, 64) },
            modified_at: get(bytes, 72) as i64,
            extents,
            name: String::from_utf8(bytes[NAME_AT..NAME_AT + name_len].to_vec()).ok()?,
        })
    }
}
