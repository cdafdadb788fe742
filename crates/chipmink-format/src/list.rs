//! Long lists: bytes as a tree of blobs, cut where the content says, so that an insertion moves no later cut.
//!
//! ```text
//! 'L' 1 0  bytes                          a leaf
//! 'L' 1 level  (digest, varint bytes)…    an inner node; the bytes are those of the list below the child
//! ```
//!
//! Where to cut is up to the writer; a reader joins what it finds.

use crate::error::{FormatError, Result};
use crate::wire::{Input, put_digest, put_varint};
use chipmink_digest::digest;
use chipmink_types::{BlobKind, BlobSink, BlobSource, DIGEST_LEN, Digest};

const LETTER: u8 = b'L';
/// Lists above this many bytes leave their row.
pub const LIST_INLINE_MAX: usize = 512;
/// Bytes of a leaf: at least, on average about twice that, and at most.
const LEAF_MIN: usize = 1024;
const LEAF_MAX: usize = 4096;
/// A leaf ends where the top bits of the rolling hash are zero.
const LEAF_MASK: u64 = 0x3ff << 54;
/// Children of an inner node, on average and at most: 200 of 20 bytes are below 4 KiB.
const CHILDREN_MASK: u8 = 0x3f;
const CHILDREN_MAX: usize = 200;
const LEVEL_MAX: u8 = 16;
/// Bound on a list, in bytes: a hundred million neighbours of one pod have less.
pub const LIST_LEN_MAX: u64 = 1 << 28;

/// Puts `bytes` into blobs; returns the digest of the root node.
///
/// # Errors
/// When the sink fails.
pub fn store_list(bytes: &[u8], sink: &mut dyn BlobSink) -> Result<Digest> {
    let mut put = |node: &[u8]| -> Result<Digest> {
        let name = digest(node);
        sink.put(BlobKind::Table, name, node)?;
        Ok(name)
    };
    let mut nodes: Vec<(Digest, u64)> = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() || nodes.is_empty() {
        let (leaf, after) = rest.split_at(leaf_len(rest));
        let node = [&[LETTER, 1, 0], leaf].concat();
        nodes.push((put(&node)?, leaf.len() as u64));
        rest = after;
    }
    let mut level = 0;
    while nodes.len() > 1 {
        level += 1;
        let mut parents = Vec::new();
        let mut rest = nodes.as_slice();
        while !rest.is_empty() {
            let (children, after) = rest.split_at(children_len(rest));
            let mut node = vec![LETTER, 1, level];
            for (name, len) in children {
                put_digest(&mut node, name);
                put_varint(&mut node, *len);
            }
            parents.push((put(&node)?, children.iter().map(|(_, len)| len).sum()));
            rest = after;
        }
        nodes = parents;
    }
    Ok(nodes[0].0)
}

/// The bytes of the list under `root`, which must be at most `max`.
///
/// # Errors
/// When a node is missing or damaged, or there are more than `max` bytes.
pub fn load_list(root: &Digest, max: u64, source: &dyn BlobSource) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    load_node(root, None, None, max, source, &mut out)?;
    Ok(out)
}

fn load_node(
    name: &Digest,
    expected_level: Option<u8>,
    expected_len: Option<u64>,
    max: u64,
    source: &dyn BlobSource,
    out: &mut Vec<u8>,
) -> Result<()> {
    let bytes = source.get(name)?;
    let start = out.len() as u64;
    let mut input = Input::with_header("list node", LETTER, &bytes).map_err(|error| error.in_blob(name))?;
    let bad = |input: &Input<'_>, reason: String| Err(input.damaged(reason).in_blob(name));
    let level = input.u8().map_err(|error| error.in_blob(name))?;
    if level > LEVEL_MAX || expected_level.is_some_and(|expected| expected != level) {
        return bad(&input, format!("level {level} where another was expected"));
    }
    if level == 0 {
        let content = input.take(input.left())?;
        check_len(start, content.len() as u64, max)?;
        out.extend_from_slice(content);
    } else {
        // Every child has content, so nodes that repeat still cost the bytes that they give.
        while !input.is_at_end() {
            let child = input.digest().map_err(|error| error.in_blob(name))?;
            let len = input.varint().map_err(|error| error.in_blob(name))?;
            if len == 0 || input.left() > CHILDREN_MAX * (DIGEST_LEN + 10) {
                return bad(&input, "an empty child, or too many children".to_owned());
            }
            check_len(out.len() as u64, len, max)?;
            load_node(&child, Some(level - 1), Some(len), max, source, out)?;
        }
    }
    let len = out.len() as u64 - start;
    match expected_len {
        Some(expected) if expected != len => bad(&input, format!("{len} bytes, its parent says {expected}")),
        _ => Ok(()),
    }
}

fn check_len(have: u64, more: u64, max: u64) -> Result<()> {
    match have.checked_add(more) {
        Some(found) if found <= max => Ok(()),
        found => Err(FormatError::TooLarge {
            what: "a list of a row",
            found: found.unwrap_or(u64::MAX),
            limit: max,
        }),
    }
}

/// Length of the next leaf: up to where a gear hash of the last 64 bytes has zeros on top.
fn leaf_len(bytes: &[u8]) -> usize {
    let limit = bytes.len().min(LEAF_MAX);
    let mut hash = 0u64;
    for (i, byte) in bytes[..limit].iter().enumerate() {
        hash = (hash << 1).wrapping_add(gear(*byte));
        if i + 1 >= LEAF_MIN && hash & LEAF_MASK == 0 {
            return i + 1;
        }
    }
    limit
}

/// A fixed random-looking number for each byte: the finaliser of SplitMix64.
const fn gear(byte: u8) -> u64 {
    let mut x = (byte as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn children_len(children: &[(Digest, u64)]) -> usize {
    let limit = children.len().min(CHILDREN_MAX);
    // At least two, so that every level is shorter than the one below.
    let ends = |(digest, _): &(Digest, u64)| digest.as_bytes()[DIGEST_LEN - 1] & CHILDREN_MASK == 0;
    children[..limit].iter().skip(1).position(ends).map_or(limit, |at| at + 2)
}

#[cfg(test)]
mod tests;
