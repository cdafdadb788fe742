//! What changed between two versions of a table, without reading what they share.

use super::node::{Child, Node};
use super::{Tree, TreeRoot, load_child};
use crate::error::Result;
use bytes::Bytes;
use chipmink_types::BlobSource;
use std::cmp::Ordering;

/// A row that differs between two versions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TreeChange {
    /// Its key.
    pub key: Vec<u8>,
    /// Its value in the first version; `None`: it is not there.
    pub before: Option<Bytes>,
    /// Its value in the second version; `None`: it is not there.
    pub after: Option<Bytes>,
}

/// What is still to be compared, in order; the next item is the last.
struct Cursor<'a> {
    items: Vec<Item>,
    source: &'a dyn BlobSource,
}

enum Item {
    /// A subtree and the level of its parent.
    Subtree(Child, u8),
    Row(Vec<u8>, Bytes),
}

impl Item {
    fn key(&self) -> &[u8] {
        match self {
            Item::Subtree(child, _) => &child.key,
            Item::Row(key, _) => key,
        }
    }

    /// Parent's level of a subtree, 0 for a row.
    const fn height(&self) -> u8 {
        match self {
            Item::Subtree(_, level) => *level,
            Item::Row(..) => 0,
        }
    }
}

impl<'a> Cursor<'a> {
    fn new(tree: &Tree, source: &'a dyn BlobSource) -> Result<Self> {
        let mut cursor = Cursor { items: Vec::new(), source };
        cursor.unfold(tree.root_node(source)?);
        Ok(cursor)
    }

    fn unfold(&mut self, node: Node) {
        match node {
            Node::Leaf(rows) => {
                self.items.extend(rows.into_iter().rev().map(|row| Item::Row(row.key, row.value)));
            }
            Node::Inner { level, children } => {
                self.items.extend(children.into_iter().rev().map(|child| Item::Subtree(child, level)));
            }
        }
    }

    /// Replaces the next item, a subtree, by what is in it.
    fn open(&mut self) -> Result<()> {
        if let Some(Item::Subtree(child, level)) = self.items.pop() {
            let node = load_child(&child, level, self.source)?;
            self.unfold(node);
        }
        Ok(())
    }
}

impl Tree {
    /// The rows that differ between two versions, in ascending order of key. Equal subtrees are not read.
    ///
    /// # Errors
    /// When a node is missing or damaged.
    pub fn diff(before: &Tree, after: &Tree, source: &dyn BlobSource) -> Result<Vec<TreeChange>> {
        let mut changes = Vec::new();
        if before.root == after.root && matches!(before.root, Some(TreeRoot::Stored(_)) | None) {
            return Ok(changes);
        }
        let (mut a, mut b) = (Cursor::new(before, source)?, Cursor::new(after, source)?);
        loop {
            match (a.items.last(), b.items.last()) {
                (None, None) => return Ok(changes),
                (Some(Item::Subtree(..)), None) => a.open()?,
                (None, Some(Item::Subtree(..))) => b.open()?,
                (Some(Item::Row(..)), None) => take(&mut a, &mut changes, true),
                (None, Some(Item::Row(..))) => take(&mut b, &mut changes, false),
                (Some(x), Some(y)) => {
                    if let (Item::Subtree(x, _), Item::Subtree(y, _)) = (x, y)
                        && x.digest == y.digest
                    {
                        a.items.pop();
                        b.items.pop();
                        continue;
                    }
                    let order = x.key().cmp(y.key());
                    match (x, y) {
                        (Item::Row(..), _) if order == Ordering::Less => take(&mut a, &mut changes, true),
                        (_, Item::Row(..)) if order == Ordering::Greater => take(&mut b, &mut changes, false),
                        (Item::Row(key, before), Item::Row(_, after)) => {
                            if before != after {
                                let (before, after) = (Some(before.clone()), Some(after.clone()));
                                changes.push(TreeChange { key: key.clone(), before, after });
                            }
                            a.items.pop();
                            b.items.pop();
                        }
                        // Opening the higher one, or the one that begins earlier, brings the two into step again.
                        _ if x.height() > y.height()
                            || x.height() == y.height() && order == Ordering::Less =>
                        {
                            a.open()?;
                        }
                        _ if x.height() == y.height() && order == Ordering::Equal => {
                            a.open()?;
                            b.open()?;
                        }
                        _ => b.open()?,
                    }
                }
            }
        }
    }
}

fn take(cursor: &mut Cursor<'_>, changes: &mut Vec<TreeChange>, is_before: bool) {
    if let Some(Item::Row(key, value)) = cursor.items.pop() {
        let (before, after) = if is_before { (Some(value), None) } else { (None, Some(value)) };
        changes.push(TreeChange { key, before, after });
    }
}
