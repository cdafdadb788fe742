//! The structures through which host and kernels speak. All numbers are little-endian.

/// The kernels, by the names under which a module offers them.
pub const KERNELS: [&str; 7] = [DIGEST, COMPARE, COMPACT, ADOPT, GATHER, CONFIRM, RELEASE];
/// Digest of every chunk.
pub const DIGEST: &str = "chipmink_digest";
/// One bit per chunk: whether its digest is another than before.
pub const COMPARE: &str = "chipmink_compare";
/// The dirty chunks as a list.
pub const COMPACT: &str = "chipmink_compact";
/// What was found becomes what is known.
pub const ADOPT: &str = "chipmink_adopt";
/// Dirty chunks into a staging area.
pub const GATHER: &str = "chipmink_gather";
/// Digests of what was staged.
pub const CONFIRM: &str = "chipmink_confirm";
/// Says that live memory is no longer read.
pub const RELEASE: &str = "chipmink_release";

/// Threads of a block of [`DIGEST`] and of [`CONFIRM`], which take a chunk with each warp of 32.
pub const DIGEST_BLOCK: u32 = 128;
/// Threads of a block of [`COMPARE`] and of [`ADOPT`].
pub const COMPARE_BLOCK: u32 = 256;
/// Threads of the one block of [`COMPACT`].
pub const COMPACT_BLOCK: u32 = 1024;
/// Threads of a block of [`GATHER`].
pub const GATHER_BLOCK: u32 = 256;

/// Staged chunks begin at multiples of so many bytes.
pub const STAGED_ALIGNMENT: u64 = 16;

/// One chunk in device memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Chunk {
    /// Of its first byte; any alignment.
    pub address: u64,
    /// Bytes.
    pub byte_len: u32,
    /// Its place in the tables of digests.
    pub slot: u32,
}

/// A digest as the kernels hold it: XXH3-128 without the algorithm byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct RawDigest {
    /// Low half.
    pub low: u64,
    /// High half.
    pub high: u64,
}

impl RawDigest {
    /// Of a slot that has no digest.
    pub const UNKNOWN: RawDigest = RawDigest { low: u64::MAX, high: u64::MAX };

    /// The canonical bytes.
    pub fn to_canonical(self) -> [u8; 16] {
        (u128::from(self.high) << 64 | u128::from(self.low)).to_be_bytes()
    }

    /// From the canonical bytes.
    pub fn from_canonical(bytes: [u8; 16]) -> Self {
        let value = u128::from_be_bytes(bytes);
        RawDigest { low: value as u64, high: (value >> 64) as u64 }
    }
}

/// A chunk that is not what it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Dirty {
    /// Bytes that the dirty chunks before it take up when they are staged.
    pub byte_offset: u64,
    /// Number of its descriptor.
    pub number: u32,
    /// Bytes.
    pub byte_len: u32,
    /// What it is now.
    pub digest: RawDigest,
}

/// What [`COMPACT`] found in all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Totals {
    /// Bytes that all dirty chunks take up when they are staged.
    pub byte_len: u64,
    /// How many there are.
    pub dirty_count: u32,
    /// How many of the first fit in the staging area together.
    pub fitting_count: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_lengths_that_the_kernels_count_on() {
        assert_eq!(size_of::<Chunk>(), 16);
        assert_eq!(size_of::<RawDigest>(), 16);
        assert_eq!(size_of::<Dirty>(), 32);
        assert_eq!(size_of::<Totals>(), 16);
    }

    #[test]
    fn canonical_bytes_are_big_endian_with_the_high_half_first() {
        let raw = RawDigest { low: 2, high: 1 };
        let mut bytes = [0; 16];
        (bytes[7], bytes[15]) = (1, 2);
        assert_eq!(raw.to_canonical(), bytes);
        assert_eq!(RawDigest::from_canonical(bytes), raw);
    }
}
