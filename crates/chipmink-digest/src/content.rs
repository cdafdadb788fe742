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

    /// Computed with the reference C library, xxHash 0.8.4 (`xxhash.xxh3_128_hexdigest(buffer[:length])` of the Python
    /// package `xxhash` 4.1.0). The lengths lie on both sides of each branch of the algorithm.
    #[test]
    fn equals_the_reference_implementation() {
        let vectors: &[(usize, &str)] = &[
            (0, "99aa06d3014798d86001c324468d497f"),
            (1, "a6cd5e9392000f6ac44bdff4074eecdb"),
            (3, "20efc49ff02422ea54247382a8d6b94d"),
            (4, "970d585ac632bf8e2e7d8d6876a39fe9"),
            (8, "47a7f080d82bb45664c69cab4bb21dc5"),
            (9, "564ef6078950d457ed7ccbc501eb7501"),
            (16, "c68c368ecf8a9c05562980258a998629"),
            (17, "955fa78643ed3669abbc12d11973d7db"),
            (32, "98fc6458710dc2e8278410a17595e3f9"),
            (33, "3103c192ceaa2dede593bc4e5914c9d1"),
            (64, "6d90e81a9b0fd622efdb6a44690721a9"),
            (65, "6c074d65e54db85afe2f650fa500ec6e"),
            (96, "d9d0b885f56c93f1e9324473ea9afebe"),
            (128, "39992220e045260aebb15e34a7fb5ab1"),
            (129, "03815fc91f1b30b686c9e3bc8f0a3b5c"),
            (200, "e76ff4780fe18439eb060f1bb3126f5a"),
            (240, "aa4202daa2769dc85c9aae94c8ebe5a0"),
            (241, "99a80ecf0ecfc647c5a639ecd2030e5e"),
            (256, "8b1c66091423d28855de574ad89d0ac5"),
            (257, "f15fee7f9f457599b17fd5a8ae75bb0b"),
            (512, "18d2d110dcc9bca1617e49599013cb6b"),
            (1024, "0d30d24071c64c57dd85c9b5c1109c5c"),
            (1025, "fd3ee4fe7f2954c6d870c0fa13211c6a"),
            (2048, "f736557fd47073a5dd59e2c3a5f038e0"),
            (4096, "b9cfaea2ca5626a4e91206429d1f48f9"),
            (4160, "67140711c1e3e3354f323b15321e94e1"),
        ];
        let buffer = sanity_buffer(4160);
        for (len, expected) in vectors {
            assert_eq!(hex(&buffer[..*len]), format!("01{expected}"), "length {len}");
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
