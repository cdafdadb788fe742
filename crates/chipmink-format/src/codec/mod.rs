//! How the bytes of a blob stand in a pack.
//!
//! Which codec a blob gets is not decided here: a [`Compressor`] does what it is told, within a limit.
//!
//! Invariants:
//! 1. The digest is always that of the decoded bytes; a codec changes no name.
//! 2. Decoding allocates at most the decoded length of the index row, and that only if it is within the caller's bound
//!    and agrees with what the stored bytes say of themselves.

mod compressor;
mod decode;
mod sparse;

pub use compressor::{Compressor, Method, ZSTD_LEVEL};
pub use decode::{check_delta, decode_blob, decode_delta, expansion_max};

/// Readers refuse longer chains of chunk deltas.
pub const DELTA_CHAIN_MAX: usize = 16;

/// How a blob's bytes are stored. The number is the low half of the byte in its index row.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    Raw = 0,
    /// One zstd frame that states its content size.
    Zstd = 1,
    /// One LZ4 block.
    Lz4 = 2,
    /// A chunk delta: one zstd frame of the bytes XORed with those of the base blob (as if zeros followed it).
    XorDelta = 3,
    /// A chunk delta: the places of the elements that differ from the base blob, and in what.
    SparseDelta = 4,
}

impl Codec {
    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Codec::Raw),
            1 => Some(Codec::Zstd),
            2 => Some(Codec::Lz4),
            3 => Some(Codec::XorDelta),
            4 => Some(Codec::SparseDelta),
            _ => None,
        }
    }

    /// Whether the bytes come out only with those of a base blob.
    pub const fn is_delta(self) -> bool {
        matches!(self, Codec::XorDelta | Codec::SparseDelta)
    }

    /// The feature bits for reading that a repository must carry once it holds such a blob.
    pub const fn features(self) -> u64 {
        match self {
            Codec::Raw | Codec::Zstd => 0,
            Codec::Lz4 => crate::requirements::FEATURE_LZ4,
            Codec::XorDelta | Codec::SparseDelta => crate::requirements::FEATURE_CHUNK_DELTA,
        }
    }
}

#[cfg(test)]
mod tests;
