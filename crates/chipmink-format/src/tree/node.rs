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

/// Reads a node item by item without making it: the current key in one buffer, values as slices.
pub(super) struct Items<'a> {
    bytes: &'a Bytes,
    input: Input<'a>,
    pub(super) level: u8,
    /// Items that are not read yet.
    left: usize,
    /// Key of the item read last.
    pub(super) key: Vec<u8>,
    is_started: bool,
}

/// What stands beside a key.
pub(super) enum Item {
    Value(Bytes),
    Child { digest: Digest, rows: u64 },
}

impl<'a> Items<'a> {
    pub(super) fn new(bytes: &'a Bytes) -> Result<Self> {
        let mut input = Input::with_header("table node", LETTER, bytes)?;
        let level = input.u8()?;
        if level > TREE_LEVEL_MAX {
            return Err(input.damaged(format!("level {level}, at most {TREE_LEVEL_MAX} is possible")));
        }
        let left = input.count(if level == 0 { 3 } else { 3 + DIGEST_LEN })?;
        if left == 0 && level > 0 {
            return Err(input.damaged("an inner node without children"));
        }
        Ok(Items { bytes, input, level, left, key: Vec::new(), is_started: false })
    }

    /// Items that are not read yet.
    pub(super) const fn left(&self) -> usize {
        self.left
    }

    /// Reads the next item; its key is in `key` then. `None`: there are no more, and the node ends where it should.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Item>> {
        if self.left == 0 {
            return if self.input.is_at_end() {
                Ok(None)
            } else {
                Err(self.input.damaged("bytes after the last item"))
            };
        }
        self.left -= 1;
        self.next_key()?;
        if self.level == 0 {
            let value = self.input.bytes()?;
            return Ok(Some(Item::Value(self.bytes.slice_ref(value))));
        }
        Ok(Some(Item::Child { digest: self.input.digest()?, rows: self.input.varint()? }))
    }

    #[inline]
    fn next_key(&mut self) -> Result<()> {
        let shared = self.input.varint()?;
        if shared > self.key.len() as u64 {
            let len = self.key.len();
            return Err(self.input.damaged(format!("a key shares {shared} bytes with one of {len}")));
        }
        let (shared, others) = (shared as usize, self.input.bytes()?);
        // A key may be much longer than its bytes here: bound it before it is put together.
        if shared + others.len() > TREE_KEY_MAX {
            let len = shared + others.len();
            return Err(self
                .input
                .damaged(format!("a key of {len} bytes, at most {TREE_KEY_MAX} are allowed")));
        }
        // The shared bytes are equal: the rest decides.
        if self.is_started && self.key[shared..] >= *others {
            return Err(self.input.damaged("keys do not ascend"));
        }
        self.is_started = true;
        self.key.truncate(shared);
        self.key.extend_from_slice(others);
        Ok(())
    }
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
        let mut items = Items::new(bytes)?;
        if items.level == 0 {
            let mut rows = Vec::with_capacity(items.left());
            while let Some(item) = items.next()? {
                if let Item::Value(value) = item {
                    rows.push(Row { key: items.key.clone(), value });
                }
            }
            return Ok(Node::Leaf(rows));
        }
        let level = items.level;
        let mut children = Vec::with_capacity(items.left());
        while let Some(item) = items.next()? {
            if let Item::Child { digest, rows } = item {
                children.push(Child { key: items.key.clone(), digest, rows });
            }
        }
        Ok(Node::Inner { level, children })
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
