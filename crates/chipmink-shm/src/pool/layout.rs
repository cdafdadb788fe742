//! Where what stands in a pool.

use crate::segment::layout::{get, is_sealed, put, seal};

/// Least length of a pool, in bytes.
pub const POOL_LEN_MIN: u64 = 1 << 20;

pub(super) const MAGIC: [u8; 8] = *b"chmkpool";
const VERSION: u32 = 1;

pub(super) const HEAD_LEN: usize = 56;
/// Changes so far; odd: one is under way.
pub(super) const CHANGES_AT: u64 = 64;
/// Slots that were ever used: those behind them are free.
pub(super) const SLOTS_USED_AT: u64 = 72;
/// The repository that it is bound to.
pub(super) const BINDING_AT: u64 = 128;
pub(super) const BINDING_LEN: usize = 25;
/// The lease of whoever settles.
pub(super) const LEASE_AT: u64 = 192;
const SLOTS_AT: u64 = 4096;
pub(super) const SLOT_LEN: usize = 1024;
/// Room is given in multiples of so many bytes: small root entries waste little, and a gigabyte is two million of them.
pub(super) const GRAIN: u64 = 512;
/// A slot for so many bytes of the pool: a version of two objects takes at least as much as two slots.
const BYTES_PER_SLOT: u64 = 64 << 10;
const SLOTS_MIN: u64 = 128;
const SLOTS_MAX: u64 = 32 << 10;

/// How a pool is divided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PoolLayout {
    /// Objects that it has room for.
    pub(super) slots: u32,
    /// Length of the segment, in bytes.
    pub(super) byte_len: u64,
}

impl PoolLayout {
    /// The layout of a segment of so many bytes.
    pub(super) fn of(byte_len: u64) -> Option<Self> {
        let slots = (byte_len / BYTES_PER_SLOT).clamp(SLOTS_MIN, SLOTS_MAX) as u32;
        let layout = PoolLayout { slots, byte_len };
        layout.is_possible().then_some(layout)
    }

    fn is_possible(&self) -> bool {
        (1..=1 << 20).contains(&self.slots)
            && self.byte_len >= POOL_LEN_MIN
            && i64::try_from(self.byte_len).is_ok()
            && self.data_at() < self.byte_len
    }

    pub(super) fn slot_at(&self, slot: u32) -> u64 {
        SLOTS_AT + u64::from(slot) * SLOT_LEN as u64
    }

    /// Where the bytes of objects begin.
    pub(super) fn data_at(&self) -> u64 {
        self.slot_at(self.slots).next_multiple_of(4096)
    }

    /// Where they end.
    pub(super) fn data_end(&self) -> u64 {
        self.byte_len / GRAIN * GRAIN
    }

    pub(super) fn encode(&self, id: [u8; 16]) -> [u8; HEAD_LEN] {
        let mut bytes = [0; HEAD_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.slots.to_le_bytes());
        put(&mut bytes, 16, self.byte_len);
        put(&mut bytes, 24, self.data_at());
        bytes[32..48].copy_from_slice(&id);
        seal(&mut bytes);
        bytes
    }

    /// The layout and the id that a head states.
    pub(super) fn decode(bytes: &[u8; HEAD_LEN], byte_len: u64) -> Result<(Self, [u8; 16]), String> {
        if bytes[..8] != MAGIC {
            return Err("it does not begin as a pool of chipmink does".to_owned());
        }
        if !is_sealed(bytes) {
            return Err("the checksum of its head is wrong".to_owned());
        }
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if number(8) != VERSION {
            return Err(format!("it has layout {}, this build knows {VERSION}", number(8)));
        }
        let layout = PoolLayout { slots: number(12), byte_len: get(bytes, 16) };
        if !layout.is_possible() || get(bytes, 24) != layout.data_at() {
            return Err(format!("its head states an impossible layout: {layout:?}"));
        }
        if layout.byte_len != byte_len {
            return Err(format!("it has {byte_len} bytes, its head says {}", layout.byte_len));
        }
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[32..48]);
        Ok((layout, id))
    }
}
