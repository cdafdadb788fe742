//! Identifiers. Each is its own type, so that none is mistaken for another.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// The algorithm byte of XXH3-128, the only digest of format version 1.
pub const XXH3_128: u8 = 1;

/// Length of an encoded [`Digest`]: one algorithm byte and sixteen digest bytes.
pub const DIGEST_LEN: usize = 17;

/// Content identity: equal digests mean equal bytes, within one trust domain.
///
/// One algorithm byte, then XXH3-128 (seed 0) of the decoded bytes in canonical, big-endian order, so that any
/// xxHash tool can check it. It is no defence against somebody who forges collisions.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; DIGEST_LEN]);

impl Digest {
    /// Makes a digest of the sixteen canonical bytes of an XXH3-128 value.
    pub const fn xxh3(canonical: [u8; 16]) -> Self {
        let mut bytes = [0u8; DIGEST_LEN];
        bytes[0] = XXH3_128;
        let mut i = 0;
        while i < 16 {
            bytes[i + 1] = canonical[i];
            i += 1;
        }
        Digest(bytes)
    }

    /// Takes an encoded digest as it stands; an unknown algorithm byte is kept, and never equals a known one.
    pub const fn from_encoded(bytes: [u8; DIGEST_LEN]) -> Self {
        Digest(bytes)
    }

    /// The encoded form: algorithm byte, then canonical digest bytes.
    pub const fn as_bytes(&self) -> &[u8; DIGEST_LEN] {
        &self.0
    }

    /// The algorithm byte.
    pub const fn algorithm(&self) -> u8 {
        self.0[0]
    }

    /// Numbers that are ordered as the bytes are, and compared in two instructions: a look into an index compares a lot.
    fn ordered(&self) -> (u8, u128) {
        let [algorithm, canonical @ ..] = self.0;
        (algorithm, u128::from_be_bytes(canonical))
    }
}

/// As of the encoded bytes.
impl Ord for Digest {
    fn cmp(&self, other: &Self) -> Ordering {
        self.ordered().cmp(&other.ordered())
    }
}

impl PartialOrd for Digest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// The text is not a digest: 34 lower-case hexadecimal characters are needed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: {0:?} (34 hexadecimal characters are needed)")]
pub struct ParseDigestError(pub String);

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || ParseDigestError(text.chars().take(64).collect());
        if text.len() != 2 * DIGEST_LEN || !text.is_ascii() {
            return Err(fail());
        }
        let mut bytes = [0u8; DIGEST_LEN];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| fail())?;
        }
        Ok(Digest(bytes))
    }
}

/// Number of the root entry that published a commit in one repository; what `save` returns.
///
/// It is not a wall-clock time: that is the commit's `saved_at`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TimeId(pub u64);

impl fmt::Display for TimeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Identity of a repository: sixteen random bytes, in every root entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RepositoryId(pub [u8; 16]);

/// Identity of one attempt to publish: sixteen random bytes, by which a writer knows its own entry again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WriteId(pub [u8; 16]);

/// Identity of a pod over its life within one session. Never stored; [`Slot`] is its stored counterpart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PodKey(pub u64);

/// Row number of a pod in the table of its co-variable (or definition group); kept while the pod lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_ordered_as_their_bytes() {
        let mut digests = Vec::new();
        for at in 0..DIGEST_LEN {
            for byte in [0, 1, 127, 128, 255] {
                let mut bytes = [128; DIGEST_LEN];
                bytes[at] = byte;
                digests.push(Digest::from_encoded(bytes));
            }
        }
        for left in &digests {
            for right in &digests {
                assert_eq!(left.cmp(right), left.as_bytes().cmp(right.as_bytes()));
            }
        }
    }
}
