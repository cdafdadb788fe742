//! Where what stands in a segment, and the encoding of its heads.

use chipmink_types::{DIGEST_LEN, Digest};

/// Slots of a segment at most.
pub const MOST_SLOTS: u32 = 64;

pub(super) const PAGE: u64 = 4096;
pub(super) const HEAD_LEN: usize = 64;
pub(super) const LEASES_AT: u64 = 1024;
pub(super) const LEASE_LEN: usize = 40;
pub(super) const LEASES: usize = 64;
pub(super) const SLOT_HEAD_LEN: usize = 72;

const MAGIC: [u8; 8] = *b"chmkseg1";

/// How a segment is divided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentLayout {
    /// Generations that it has room for: 2 to [`MOST_SLOTS`].
    pub slots: u32,
    /// Bytes of which a generation may consist at most.
    pub slot_len: u64,
}

impl SegmentLayout {
    /// Bytes of the whole segment; `None` if the layout is impossible.
    pub fn byte_len(&self) -> Option<u64> {
        let is_allowed = (2..=MOST_SLOTS).contains(&self.slots) && self.slot_len > 0;
        let per_slot = self.slot_len.checked_next_multiple_of(PAGE)?.checked_add(PAGE)?;
        let byte_len = per_slot.checked_mul(u64::from(self.slots))?.checked_add(PAGE)?;
        (is_allowed && byte_len <= i64::MAX as u64).then_some(byte_len)
    }

    pub(super) fn head_at(&self, slot: u32) -> u64 {
        PAGE * (1 + u64::from(slot))
    }

    pub(super) fn data_at(&self, slot: u32) -> u64 {
        self.head_at(self.slots) + u64::from(slot) * self.slot_len.next_multiple_of(PAGE)
    }

    pub(super) fn encode(&self, id: [u8; 16]) -> [u8; HEAD_LEN] {
        let mut bytes = [0; HEAD_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.slots.to_le_bytes());
        put(&mut bytes, 16, self.slot_len);
        put(&mut bytes, 24, self.byte_len().unwrap_or(0));
        bytes[32..48].copy_from_slice(&id);
        seal(&mut bytes);
        bytes
    }

    /// The layout and the id that a head states.
    pub(super) fn decode(bytes: &[u8; HEAD_LEN]) -> Result<(Self, [u8; 16]), String> {
        if bytes[..8] != MAGIC {
            return Err("it does not begin as a segment of chipmink does".to_owned());
        }
        if !is_sealed(bytes) {
            return Err("the checksum of its head is wrong".to_owned());
        }
        let slots = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        let layout = SegmentLayout { slots, slot_len: get(bytes, 16) };
        if layout.byte_len() != Some(get(bytes, 24)) {
            return Err(format!("its head states an impossible layout: {layout:?}"));
        }
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[32..48]);
        Ok((layout, id))
    }
}

/// What stands at a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SlotHead {
    pub(super) generation: u64,
    pub(super) byte_len: u64,
    pub(super) is_closed: bool,
    pub(super) label: [u8; 16],
    pub(super) digest: Digest,
}

impl SlotHead {
    pub(super) fn encode(&self) -> [u8; SLOT_HEAD_LEN] {
        let mut bytes = [0; SLOT_HEAD_LEN];
        put(&mut bytes, 0, self.generation);
        put(&mut bytes, 8, self.byte_len);
        put(&mut bytes, 16, if self.is_closed { 2 } else { 1 });
        bytes[24..40].copy_from_slice(&self.label);
        bytes[40..40 + DIGEST_LEN].copy_from_slice(self.digest.as_bytes());
        seal(&mut bytes);
        bytes
    }

    /// `None`: nothing that was written as a whole.
    pub(super) fn decode(bytes: &[u8; SLOT_HEAD_LEN], layout: &SegmentLayout) -> Option<Self> {
        let mut label = [0; 16];
        label.copy_from_slice(&bytes[24..40]);
        let head = SlotHead {
            generation: get(bytes, 0),
            byte_len: get(bytes, 8),
            is_closed: get(bytes, 16) == 2,
            label,
            digest: Digest::from_encoded(bytes[40..40 + DIGEST_LEN].try_into().ok()?),
        };
        (is_sealed(bytes) && head.generation != 0 && head.byte_len <= layout.slot_len).then_some(head)
    }
}

pub(crate) fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn get(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

/// Puts the checksum of all before them into the last eight bytes.
pub(crate) fn seal(bytes: &mut [u8]) {
    let at = bytes.len() - 8;
    let sum = checksum(&bytes[..at]);
    put(bytes, at, sum);
}

pub(crate) fn is_sealed(bytes: &[u8]) -> bool {
    let at = bytes.len() - 8;
    get(bytes, at) == checksum(&bytes[..at])
}

/// The first eight bytes of the digest, without its algorithm.
fn checksum(bytes: &[u8]) -> u64 {
    get(&chipmink_digest::digest(bytes).as_bytes()[1..], 0)
}
