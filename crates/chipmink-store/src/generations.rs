//! [`Generations`]: a map that forgets what was not used for long, within a budget of bytes.

use chipmink_types::Digest;
use hashbrown::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

/// Takes eight bytes of a digest for its hash: they are as good as any.
#[derive(Default, Clone, Copy)]
pub(crate) struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn write(&mut self, bytes: &[u8]) {
        // The first byte of a digest names the algorithm and is nearly always the same.
        let tail = bytes.last_chunk::<8>().map_or(0, |tail| u64::from_le_bytes(*tail));
        self.0 ^= tail;
    }

    fn write_usize(&mut self, _len: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A bounded map by digest.
pub(crate) type ByDigest<V> = Generations<Digest, V, BuildHasherDefault<DigestHasher>>;
/// A set of digests.
pub(crate) type DigestSet = hashbrown::HashSet<Digest, BuildHasherDefault<DigestHasher>>;

/// A bounded map in two generations: what is used moves to the young one; when that is full the old one is dropped and
/// the young one becomes old. So what was used lately stays, and every operation takes constant time.
#[derive(Debug)]
pub(crate) struct Generations<K, V, S = hashbrown::DefaultHashBuilder> {
    young: HashMap<K, V, S>,
    old: HashMap<K, V, S>,
    young_bytes: u64,
    old_bytes: u64,
    budget: u64,
    dropped: u64,
}

/// Bytes that a map's slot takes beside key and value, with the slots that stand empty between two doublings.
const SLOT_SHARE: u64 = 2;

impl<K: Hash + Eq, V: Clone, S: BuildHasher + Default> Generations<K, V, S> {
    /// A map that takes about `budget` bytes at most.
    pub(crate) fn new(budget: u64) -> Self {
        Generations {
            young: HashMap::default(),
            old: HashMap::default(),
            young_bytes: 0,
            old_bytes: 0,
            budget,
            dropped: 0,
        }
    }

    fn slot_bytes() -> u64 {
        (size_of::<(K, V)>() as u64 + 1) * SLOT_SHARE
    }

    /// Bytes taken, as an estimate.
    pub(crate) fn byte_len(&self) -> u64 {
        self.young_bytes + self.old_bytes
    }

    /// How many entries have been forgotten so far for want of room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What is known of a key; `heap_bytes` says what a value takes beside its slot, as when it was inserted.
    pub(crate) fn get(&mut self, key: &K, heap_bytes: impl Fn(&V) -> u64) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        let bytes = Self::slot_bytes() + heap_bytes(&value);
        self.old_bytes = self.old_bytes.saturating_sub(bytes);
        self.insert(key, value.clone(), bytes - Self::slot_bytes());
        Some(value)
    }

    /// Takes an entry; `heap_bytes` are those beside its slot.
    pub(crate) fn insert(&mut self, key: K, value: V, heap_bytes: u64) {
        let bytes = Self::slot_bytes() + heap_bytes;
        if bytes > self.budget / 2 {
            self.dropped += 1;
            return;
        }
        if self.young_bytes + bytes > self.budget / 2 {
            self.dropped += self.old.len() as u64;
            self.old = std::mem::take(&mut self.young);
            self.old_bytes = std::mem::take(&mut self.young_bytes);
        }
        if self.young.insert(key, value).is_none() {
            self.young_bytes += bytes;
        }
    }

    pub(crate) fn clear(&mut self) {
        let budget = self.budget;
        *self = Generations::new(budget);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Map = ByDigest<u64>;

    fn digest(n: u64) -> Digest {
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&n.to_le_bytes());
        Digest::xxh3(bytes)
    }

    #[test]
    fn it_keeps_what_is_used_and_its_budget() {
        let slot = Map::slot_bytes();
        let mut map = Map::new(100 * slot);
        for n in 0..1000 {
            map.insert(digest(n), n, 0);
            assert_eq!(map.get(&digest(7.min(n)), |_| 0), Some(7.min(n)), "used in every step");
            assert!(map.byte_len() <= 100 * slot);
        }
        assert_eq!(map.get(&digest(999), |_| 0), Some(999));
        assert_eq!(map.get(&digest(500), |_| 0), None);
        assert!(map.dropped() > 800);
    }

    #[test]
    fn what_is_larger_than_the_budget_is_not_taken() {
        let mut map = Map::new(1000);
        map.insert(digest(1), 1u64, 900);
        assert_eq!(map.get(&digest(1), |_| 900), None);
        assert_eq!(map.byte_len(), 0);
    }
}
