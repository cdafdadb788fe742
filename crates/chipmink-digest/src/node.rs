//! Nodes of a digest tree.
//!
//! A node is 12 header bytes and then up to [`NODE_FANOUT`] digests of [`DIGEST_LEN`] bytes:
//!
//! ```text
//!  0        1      2       3   4                            12
//!  version  kind   level   0   digests below, u64 LE        digest digest …
//! ```
//!
//! Level 0 holds the digests of the list itself, level n those of nodes of level n - 1. Every node but the last of its
//! level is full, so a list of digests has exactly one tree.

use crate::DigestError;
use chipmink_types::{DIGEST_LEN, Digest};

/// First byte of a node.
pub const NODE_VERSION: u8 = 1;
/// Bytes of a node's header.
pub const NODE_HEADER_LEN: usize = 12;
/// Digests in a full node. A power of two, so that a device finds a digest's node by a shift; at 256 a changed chunk of
/// 1 GiB costs a node of 4,364 bytes and a root of 1,100.
pub const NODE_FANOUT: usize = 256;
/// Bytes of the longest node; below the format's bound of 8 KiB.
pub const NODE_LEN_MAX: usize = NODE_HEADER_LEN + NODE_FANOUT * DIGEST_LEN;
/// The highest level: `NODE_FANOUT.pow(LEVEL_MAX + 1)` is 2^64.
pub(crate) const LEVEL_MAX: u8 = 7;

/// What a digest tree is a list of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
#[repr(u8)]
pub enum NodeKind {
    /// The chunks of a region.
    Region = 1,
}

/// How many list digests a full node of `level` stands for; `None`: more than a u64 can say.
pub(crate) fn full_count(level: u8) -> Option<u64> {
    (NODE_FANOUT as u64).checked_pow(u32::from(level) + 1)
}

/// The level of the root over `count` digests.
pub(crate) fn root_level(count: u64) -> u8 {
    (0..LEVEL_MAX).find(|&level| full_count(level).is_some_and(|full| count <= full)).unwrap_or(LEVEL_MAX)
}

/// Digests that stand in a node itself, given how many list digests are below it.
pub(crate) fn width(level: u8, count: u64) -> u64 {
    match level.checked_sub(1).and_then(full_count) {
        Some(below) => count.div_ceil(below),
        None => count,
    }
}

/// The bytes of a node.
pub(crate) fn encode(kind: NodeKind, level: u8, count: u64, digests: &[Digest]) -> Vec<u8> {
    debug_assert!(digests.len() as u64 == width(level, count) && digests.len() <= NODE_FANOUT);
    let mut out = Vec::with_capacity(NODE_HEADER_LEN + digests.len() * DIGEST_LEN);
    out.extend_from_slice(&[NODE_VERSION, kind as u8, level, 0]);
    out.extend_from_slice(&count.to_le_bytes());
    digests.iter().for_each(|digest| out.extend_from_slice(digest.as_bytes()));
    out
}

/// The digests in the bytes of a node, which must be of this kind, level and count.
pub(crate) fn decode(
    node: Digest,
    bytes: &[u8],
    kind: NodeKind,
    level: u8,
    count: u64,
) -> Result<Vec<Digest>, DigestError> {
    let bad = |reason: String| DigestError::BadNode { node, reason };
    let Some((header, rest)) = bytes.split_first_chunk::<NODE_HEADER_LEN>() else {
        return Err(bad(format!("{} bytes, a header has {NODE_HEADER_LEN}", bytes.len())));
    };
    if header[0] != NODE_VERSION {
        return Err(bad(format!("version {}, this build reads {NODE_VERSION}", header[0])));
    }
    if header[1] != kind as u8 || header[2] != level || header[3] != 0 {
        return Err(bad(format!(
            "kind {} level {}, expected {} and {level}",
            header[1], header[2], kind as u8
        )));
    }
    let found = u64::from_le_bytes([
        header[4], header[5], header[6], header[7], header[8], header[9], header[10], header[11],
    ]);
    if found != count {
        return Err(bad(format!("{found} digests below it, expected {count}")));
    }
    let (digests, odd) = rest.as_chunks::<DIGEST_LEN>();
    if !odd.is_empty() || digests.len() as u64 != width(level, count) {
        return Err(bad(format!("{} bytes, too many or too few for {count} digests below it", bytes.len())));
    }
    Ok(digests.iter().map(|bytes| Digest::from_encoded(*bytes)).collect())
}
