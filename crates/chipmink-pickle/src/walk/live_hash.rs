//! The digest of memory that lies far away: XXH3-128 as `chipmink_digest` defines it, asking for the bytes ahead of time.
//!
//! Reading a large buffer is bound by how long each line of it takes to come. Asked for a page ahead, stripe by stripe, a
//! gibibyte took 0.12 s instead of 0.17 s on a core whose caches it exceeds. For memory that is in a cache there is
//! nothing to gain.

use chipmink_digest::digest;
use chipmink_types::{Digest, Edges};

const STRIPE: usize = 64;
const BLOCK: usize = 1024;
/// How far ahead of the stripe that is digested the memory is asked for: processors fetch ahead by themselves, but not
/// across pages.
const AHEAD: usize = 4096;
/// Shorter input has formulas of its own in XXH3.
const LONG_FROM: usize = 4 * BLOCK;

// The constants of XXH3, as its specification (xxhash_spec.md) names them.
const PRIME32_1: u64 = 0x9E37_79B1;
const PRIME32_2: u64 = 0x85EB_CA77;
const PRIME32_3: u64 = 0xC2B2_AE3D;
const PRIME64_1: u64 = 0x9E37_79B1_85EB_CA87;
const PRIME64_2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const PRIME64_3: u64 = 0x1656_67B1_9E37_79F9;
const PRIME64_4: u64 = 0x85EB_CA77_C2B2_AE63;
const PRIME64_5: u64 = 0x27D4_EB2F_1656_67C5;
const PRIME_MX1: u64 = 0x1656_6791_9E37_79F9;
const SECRET_LEN: usize = 192;
#[rustfmt::skip]
const SECRET: [u8; SECRET_LEN] = [
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
];

#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

#[inline(always)]
fn accumulate(lanes: &mut [u64; 8], stripe: &[u8], secret_at: usize) {
    let (stripe, secret) = (&stripe[..STRIPE], &SECRET[secret_at..secret_at + STRIPE]);
    let (mut data, mut keys) = ([0; 8], [0; 8]);
    for i in 0..8 {
        data[i] = word(stripe, 8 * i);
        keys[i] = data[i] ^ word(secret, 8 * i);
    }
    for i in 0..8 {
        let product = (keys[i] & 0xFFFF_FFFF).wrapping_mul(keys[i] >> 32);
        lanes[i] = lanes[i].wrapping_add(data[i ^ 1]).wrapping_add(product);
    }
}

fn merge(lanes: &[u64; 8], secret_at: usize, start: u64) -> u64 {
    let mut sum = start;
    for i in 0..4 {
        let low = lanes[2 * i] ^ word(&SECRET, secret_at + 16 * i);
        let high = lanes[2 * i + 1] ^ word(&SECRET, secret_at + 16 * i + 8);
        let product = u128::from(low) * u128::from(high);
        sum = sum.wrapping_add(product as u64 ^ (product >> 64) as u64);
    }
    sum ^= sum >> 37;
    sum = sum.wrapping_mul(PRIME_MX1);
    sum ^ sum >> 32
}

/// Asks for the memory at an address, which need not be mapped.
#[inline(always)]
fn fetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which reads nothing as far as the program can tell, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Equal to [`chipmink_digest::digest`].
pub(super) fn digest_far(bytes: &[u8]) -> Digest {
    match bytes.len() < LONG_FROM {
        true => digest(bytes),
        false => digest_parts(&[], &[], bytes),
    }
}

/// The digest of a chunk of memory that others may write to meanwhile, and its edges: of the very same bytes, whatever is
/// written when. `lens`: bytes of the head and of the tail. `scratch` is overwritten.
pub(super) fn digest_with_edges(
    bytes: &[u8],
    (head_len, tail_len): (usize, usize),
    scratch: &mut Vec<u8>,
) -> (Digest, Edges) {
    // What is read twice is copied before: whole blocks at the front, and at least a stripe at the end.
    let front = head_len.next_multiple_of(BLOCK);
    let back = bytes.len().saturating_sub(tail_len.max(STRIPE)) / BLOCK * BLOCK;
    scratch.clear();
    if back < front || bytes.len() < LONG_FROM {
        scratch.extend_from_slice(bytes);
        let edges = edges_of(scratch, scratch, (head_len, tail_len));
        return (digest_far(scratch), edges);
    }
    for at in (front..back.min(front + AHEAD)).step_by(STRIPE) {
        fetch(bytes[at..].as_ptr());
    }
    scratch.extend_from_slice(&bytes[..front]);
    scratch.extend_from_slice(&bytes[back..]);
    let (head, tail) = scratch.split_at(front);
    (digest_parts(head, &bytes[front..back], tail), edges_of(head, tail, (head_len, tail_len)))
}

/// The edges of a chunk that begins and ends so.
pub(super) fn edges_of(start: &[u8], end: &[u8], (head_len, tail_len): (usize, usize)) -> Edges {
    Edges { head: digest(&start[..head_len]), tail: digest(&end[end.len() - tail_len..]) }
}

/// The digest of three pieces joined: whole blocks, whole blocks, and at least a stripe; of [`LONG_FROM`] bytes or more.
fn digest_parts(head: &[u8], middle: &[u8], tail: &[u8]) -> Digest {
    let mut lanes = [PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3, PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1];
    // The last stripe is taken from the end, so the last block is never whole.
    let whole = (tail.len() - 1) / BLOCK * BLOCK;
    for part in [head, middle, &tail[..whole]] {
        for block in part.chunks_exact(BLOCK) {
            for (n, stripe) in block.chunks_exact(STRIPE).enumerate() {
                fetch(stripe.as_ptr().wrapping_add(AHEAD));
                accumulate(&mut lanes, stripe, 8 * n);
            }
            for (i, lane) in lanes.iter_mut().enumerate() {
                let mixed = *lane ^ *lane >> 47 ^ word(&SECRET, SECRET_LEN - STRIPE + 8 * i);
                *lane = mixed.wrapping_mul(PRIME32_1);
            }
        }
    }
    let rest = &tail[whole..];
    for (n, stripe) in rest[..rest.len() - 1].chunks_exact(STRIPE).enumerate() {
        accumulate(&mut lanes, stripe, 8 * n);
    }
    accumulate(&mut lanes, &tail[tail.len() - STRIPE..], SECRET_LEN - STRIPE - 7);
    let len = (head.len() + middle.len() + tail.len()) as u64;
    let low = merge(&lanes, 11, len.wrapping_mul(PRIME64_1));
    let high = merge(&lanes, SECRET_LEN - STRIPE - 11, !len.wrapping_mul(PRIME64_2));
    Digest::xxh3((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_digest() {
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 21) as u8).collect();
        let near = |len: usize| len - 70..len + 70;
        let lens =
            (0..3000).chain(near(LONG_FROM)).chain(near(65_536)).chain(near(100 * BLOCK)).chain([199_000]);
        for len in lens {
            for start in [0, 1, 37] {
                let part = &bytes[start..start + len];
                assert_eq!(digest_far(part), digest(part), "{len} bytes from {start}");
            }
        }
    }

    #[test]
    fn edges_and_the_digest_are_those_of_the_bytes() {
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 21) as u8).collect();
        let mut scratch = Vec::new();
        for len in
            [1, 100, 1024, 4095, 4096, 4097, 5000, 8192, 16_384, 16_400, 65_535, 65_536, 65_600, 150_001]
        {
            for head in [0, 1, 16, 1023, 1024, 1025, 4080, 4095] {
                for tail in [0, 1, 16, 63, 64, 65, 1024, 4080, 4095] {
                    let (head, tail) = (head.min(len), tail.min(len));
                    let part = &bytes[7..7 + len];
                    let (found, edges) = digest_with_edges(part, (head, tail), &mut scratch);
                    assert_eq!(found, digest(part), "{len} bytes, edges of {head} and {tail}");
                    assert_eq!(edges.head, digest(&part[..head]));
                    assert_eq!(edges.tail, digest(&part[len - tail..]));
                }
            }
        }
    }
}
