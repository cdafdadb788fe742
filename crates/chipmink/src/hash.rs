//! A hash for pod keys, which count upwards.

use chipmink_types::PodKey;
use hashbrown::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by pod.
pub(crate) type KeyMap<V> = HashMap<PodKey, V, BuildHasherDefault<KeyHasher>>;

/// Multiplies by the golden ratio (Fibonacci hashing), and folds the well-mixed upper half down.
#[derive(Default, Clone, Copy)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
