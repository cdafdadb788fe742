//! Nodes of the ordered map, on bytes.
//!
//! ```text
//! 'T' 1 level  count  row…                 level 0, a leaf:  row   = key, varint length, value
//! 'T' 1 level  count  child…               else:             child = key, digest, varint rows below
//! key = varint bytes shared with the key before it, varint length of the others, those
//! ```

use crate::error::Result;
use crate::wire::{Input, put_bytes, put_digest, put_varint, varint_len};
use bytes::Bytes;
use chipmink_types::{DIGEST_LEN, Digest};

const LETTER: u8 = b'T';
/// Nodes are split above this many bytes, where a row boundary allows it.
pub const TREE_NODE_LEN: usize = 4096;
/// A root above this level is damage: eight levels of two children already hold more than can be stored.
pub const TREE_LEVEL_MAX: u8 = 24;
/// Bound on a key, in bytes.
pub const TREE_KEY_MAX: usize = 64 * 1024;
/// Letter, version, level, and a count of at most three bytes.
pub(super) const NODE_OVERHEAD: usize = 6;

/// A row of a leaf.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Row {
    pub(super) key: Vec<u8>,
    pub(super) value: Bytes,
}

/// A child that lies in a blob of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Child {
    /// The first key in it.
    pub(super) key: Vec<u8>,
    pub(super) digest: Digest,
    /// Rows in all leaves below it.
    pub(super) rows: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Node {
    Leaf(Vec<Row>),
    Inner { level: u8, children: Vec<Child> },
}

impl Node {
    pub(super) const fn level(&self) -> u8 {
        match self {
            Node::Leaf(_) => 0,
            Node::Inner { level, .. } => *level,
        }
    }

    pub(super) fn rows(&self) -> u64 {
        match self {
            Node::Leaf(rows) => rows.len() as u64,
            Node::Inner { children, .. } => {
                children.iter().fold(0, |sum, child| sum.saturating_add(child.rows))
            }
        }
    }

    pub(super) fn first_key(&self) -> Option<&[u8]> {
        match self {
            Node::Leaf(rows) => rows.first().map(|row| row.key.as_slice()),
            Node::Inner { children, .. } => children.first().map(|child| child.key.as_slice()),
        }
    }

    pub(super) fn decode(bytes: &Bytes) -> Result<Self> {
        let mut input = Input::with_header("table node", LETTER, bytes)?;
        let level = input.u8()?;
        if level > TREE_LEVEL_MAX {
            return Err(input.damaged(format!("level {level}, at most {TREE_LEVEL_MAX} is possible")));
        }
        let node = if level == 0 {
            let count = input.count(3)?;
            let mut rows: Vec<Row> = Vec::with_capacity(count);
            for _ in 0..count {
                let key = decode_key(&mut input, rows.last().map(|row| row.key.as_slice()))?;
                let value = bytes.slice_ref(input.bytes()?);
                rows.push(Row { key, value });
            }
            Node::Leaf(rows)
        } else {
            let count = input.count(3 + DIGEST_LEN)?;
            if count == 0 {
                return Err(input.damaged("an inner node without children"));
            }
            let mut children: Vec<Child> = Vec::with_capacity(count);
            for _ in 0..count {
                let key = decode_key(&mut input, children.last().map(|child| child.key.as_slice()))?;
                let digest = input.digest()?;
                children.push(Child { key, digest, rows: input.varint()? });
            }
            Node::Inner { level, children }
        };
        input.end()?;
        Ok(node)
    }
}

pub(super) fn encode_leaf<'a>(rows: impl ExactSizeIterator<Item = &'a Row>) -> Vec<u8> {
    let mut out = Vec::with_capacity(TREE_NODE_LEN);
    out.extend_from_slice(&[LETTER, 1, 0]);
    put_varint(&mut out, rows.len() as u64);
    let mut before: &[u8] = &[];
    for row in rows {
        put_key(&mut out, before, &row.key);
        put_bytes(&mut out, &row.value);
        before = &row.key;
    }
    out
}

pub(super) fn encode_inner(level: u8, children: &[Child]) -> Vec<u8> {
    let mut out = Vec::with_capacity(TREE_NODE_LEN);
    out.extend_from_slice(&[LETTER, 1, level]);
    put_varint(&mut out, children.len() as u64);
    let mut before: &[u8] = &[];
    for child in children {
        put_key(&mut out, before, &child.key);
        put_digest(&mut out, &child.digest);
        put_varint(&mut out, child.rows);
        before = &child.key;
    }
    out
}

fn shared_len(before: &[u8], key: &[u8]) -> usize {
    before.iter().zip(key).take_while(|(a, b)| a == b).count()
}

/// Bytes of a key behind another.
pub(super) fn key_len(before: &[u8], key: &[u8]) -> usize {
    let shared = shared_len(before, key);
    let others = key.len() - shared;
    varint_len(shared as u64) + varint_len(others as u64) + others
}

fn put_key(out: &mut Vec<u8>, before: &[u8], key: &[u8]) {
    let shared = shared_len(before, key);
    put_varint(out, shared as u64);
    put_bytes(out, &key[shared..]);
}

fn decode_key(input: &mut Input<'_>, before: Option<&[u8]>) -> Result<Vec<u8>> {
    let shared = input.varint()?;
    let from = before.unwrap_or(&[]);
    if shared > from.len() as u64 {
        return Err(input.damaged(format!("a key shares {shared} bytes with one of {}", from.len())));
    }
    let others = input.bytes()?;
    // A key may be much longer than its bytes here: bound it before it is put together.
    let len = shared as usize + others.len();
    if len > TREE_KEY_MAX {
        return Err(input.damaged(format!("a key of {len} bytes, at most {TREE_KEY_MAX} are allowed")));
    }
    let key = [&from[..shared as usize], others].concat();
    if before.is_some_and(|before| before >= key.as_slice()) {
        return Err(input.damaged("keys do not ascend"));
    }
    Ok(key)
}
