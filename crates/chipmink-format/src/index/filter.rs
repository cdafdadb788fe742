//! A Bloom filter over digests: says "surely not here" without reading a block.
//!
//! The bits that a digest sets: with `a` and `b` the first and second eight of its last sixteen bytes as big-endian
//! u64, probe i of 7 sets bit `((a + i * (b | 1)) mod 2^64) * bits / 2^64`; bit n is bit n mod 8 of byte n / 8.

use crate::error::Result;
use crate::wire::{Input, put_bytes};
use chipmink_types::Digest;

/// Bits per digest: with 7 probes 0.8 % of foreign digests pass.
const BITS_PER_DIGEST: usize = 10;
const PROBES: u64 = 7;

/// The filter of one index segment; an empty one says "maybe" to everything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Filter(Vec<u8>);

impl Filter {
    pub(crate) fn of<'a>(count: usize, digests: impl Iterator<Item = &'a Digest>) -> Self {
        let mut filter = Filter(vec![0; (count * BITS_PER_DIGEST).div_ceil(8)]);
        for digest in digests {
            for bit in probes(digest, filter.0.len()) {
                filter.0[bit / 8] |= 1 << (bit % 8);
            }
        }
        filter
    }

    pub(crate) fn may_hold(&self, digest: &Digest) -> bool {
        self.0.is_empty() || probes(digest, self.0.len()).all(|bit| self.0[bit / 8] & 1 << (bit % 8) != 0)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, &self.0);
    }

    pub(crate) fn decode(input: &mut Input<'_>) -> Result<Self> {
        Ok(Filter(input.bytes()?.to_vec()))
    }
}

fn probes(digest: &Digest, byte_len: usize) -> impl Iterator<Item = usize> {
    let bytes = digest.as_bytes();
    let half = |from: usize| bytes[from..from + 8].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    let (a, b) = (half(1), half(9) | 1);
    let bits = byte_len as u128 * 8;
    (0..PROBES).map(move |i| ((u128::from(a.wrapping_add(i.wrapping_mul(b))) * bits) >> 64) as usize)
}
