//! Tables: a persistent ordered map from byte keys to byte values, whose nodes are blobs.
//!
//! Rows stand in leaves of at most [`TREE_NODE_LEN`] bytes, split at row boundaries (a longer row has a leaf to itself).
//! Inner nodes hold, for each child, its first key, its digest and its number of rows. Changing a row costs its leaf and
//! the nodes above it; everything else is shared with the version before.
//!
//! Invariants:
//! 1. Keys ascend strictly through the whole tree; a child's first key is the one its parent says, and so is its number
//!    of rows and its level. So no node is reached twice, and reading ends, whatever the bytes are.
//! 2. An edit that changes nothing writes nothing.
//! 3. A node that an edit rewrote and that is less than half full fits with neither neighbour under its parent into one
//!    node; none is less than a quarter full unless it is alone under its parent or rows are too long to be divided.
//! 4. A tree may be edited once per save: what was put into the sink cannot be read back before the save is published.

mod apply;
mod diff;
mod node;
mod read;

pub use diff::TreeChange;
pub use node::{TREE_KEY_MAX, TREE_LEVEL_MAX, TREE_NODE_LEN};
pub use read::{EnterNode, VisitRow};

use crate::error::{FormatError, Result};
use bytes::Bytes;
use chipmink_types::{BlobSource, Digest};
use node::{Child, Node};

/// An edit of a row: its key, and its new value or `None` to remove it.
pub type Edit = (Vec<u8>, Option<Vec<u8>>);

/// Where the root node of a tree is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum TreeRoot {
    /// In a blob.
    Stored(Digest),
    /// Inside what names the tree: the bytes of a leaf.
    Inline(Bytes),
}

/// One version of a table.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Tree {
    root: Option<TreeRoot>,
}

impl Tree {
    /// The table without rows; it has no blob until it is first edited.
    pub const fn empty() -> Self {
        Tree { root: None }
    }

    /// The table under a root node in a blob.
    pub const fn open(root: Digest) -> Self {
        Tree { root: Some(TreeRoot::Stored(root)) }
    }

    /// The table under any root.
    pub const fn with_root(root: TreeRoot) -> Self {
        Tree { root: Some(root) }
    }

    /// Its root; `None` while it is new and was never edited.
    pub const fn root(&self) -> Option<&TreeRoot> {
        self.root.as_ref()
    }

    fn root_node(&self, source: &dyn BlobSource) -> Result<Node> {
        let Some(bytes) = self.root_bytes(source)? else { return Ok(Node::Leaf(Vec::new())) };
        Node::decode(&bytes).map_err(|error| self.of_root(error))
    }

    /// The bytes of the root node.
    fn root_bytes(&self, source: &dyn BlobSource) -> Result<Option<Bytes>> {
        match &self.root {
            None => Ok(None),
            Some(TreeRoot::Inline(bytes)) if bytes.get(2).is_some_and(|level| *level != 0) => {
                Err(damaged(None, "a root inside its owner must be a leaf".to_owned()))
            }
            Some(TreeRoot::Inline(bytes)) => Ok(Some(bytes.clone())),
            Some(TreeRoot::Stored(digest)) => Ok(Some(source.get(digest)?)),
        }
    }

    /// An error of the root node, with its name if it has one.
    fn of_root(&self, error: FormatError) -> FormatError {
        match &self.root {
            Some(TreeRoot::Stored(digest)) => error.in_blob(digest),
            _ => error,
        }
    }
}

/// Decodes a child and checks that it is what its parent says.
fn decode_child(child: &Child, parent_level: u8, bytes: &Bytes) -> Result<Node> {
    let node = Node::decode(bytes).map_err(|error| error.in_blob(&child.digest))?;
    check_child(child, parent_level, node.level(), node.first_key(), node.rows())?;
    Ok(node)
}

fn check_child(
    child: &Child,
    parent_level: u8,
    level: u8,
    first_key: Option<&[u8]>,
    rows: u64,
) -> Result<()> {
    let of_child = |reason: String| Err(damaged(Some(&child.digest), reason));
    if level + 1 != parent_level {
        return of_child(format!("level {level} under level {parent_level}"));
    }
    if first_key != Some(&child.key) {
        return of_child("its first key is not the one that its parent says".to_owned());
    }
    if rows != child.rows {
        return of_child(format!("{rows} rows, its parent says {}", child.rows));
    }
    Ok(())
}

fn load_child(child: &Child, parent_level: u8, source: &dyn BlobSource) -> Result<Node> {
    decode_child(child, parent_level, &source.get(&child.digest)?)
}

fn damaged(digest: Option<&Digest>, reason: String) -> FormatError {
    let error = FormatError::Damaged { what: "table node".into(), byte_offset: 0, reason: reason.into() };
    match digest {
        Some(digest) => error.in_blob(digest),
        None => error,
    }
}

#[cfg(test)]
mod tests;
