//! Editing a tree: only the leaves that rows fall into, and the nodes above them, are written anew.
//!
//! The edit works on *drafts*, nodes that are not encoded yet, and encodes them only when the whole new tree stands, so
//! that no node is written that a later merge would replace.

use super::node::{Child, NODE_OVERHEAD, Node, Row, TREE_KEY_MAX, TREE_LEVEL_MAX, TREE_NODE_LEN};
use super::node::{encode_inner, encode_leaf, key_len};
use super::{Edit, Tree, TreeRoot, damaged, load_child};
use crate::error::{FormatError, Result};
use crate::wire::varint_len;
use bytes::Bytes;
use chipmink_digest::digest;
use chipmink_types::{BlobKind, BlobSink, BlobSource, DIGEST_LEN, Digest};

/// A node of the new tree that is not encoded yet.
enum Draft {
    Leaf(Vec<Row>),
    Inner(Vec<Entry>),
}

/// A child of a draft.
enum Entry {
    /// As it was.
    Kept(Child),
    /// Rewritten.
    New(Draft),
}

impl Tree {
    /// Applies `edits`, which are in ascending order of key without repeats, and puts every new node into `sink`.
    /// Returns the digest of the new root, which is always a blob; the tree is then at the new version.
    ///
    /// # Errors
    /// When a node is missing or damaged, a key is too long, or the sink fails; the tree is then as before.
    ///
    /// # Panics
    /// When the edits are not in ascending order, which is a mistake of the caller.
    pub fn apply(
        &mut self,
        edits: &[Edit],
        source: &dyn BlobSource,
        sink: &mut dyn BlobSink,
    ) -> Result<Digest> {
        match self.edit(edits, 0, source, sink)? {
            TreeRoot::Stored(digest) => Ok(digest),
            TreeRoot::Inline(_) => Err(damaged(None, "a root stayed inline against the order".to_owned())),
        }
    }

    /// As [`Tree::apply`], but a new root that is a leaf of at most `inline_limit` bytes is not put into the sink: it
    /// is returned to be written into what names the tree.
    ///
    /// # Errors
    /// As [`Tree::apply`].
    ///
    /// # Panics
    /// As [`Tree::apply`].
    pub fn apply_inline(
        &mut self,
        edits: &[Edit],
        inline_limit: usize,
        source: &dyn BlobSource,
        sink: &mut dyn BlobSink,
    ) -> Result<TreeRoot> {
        self.edit(edits, inline_limit, source, sink)
    }

    fn edit(
        &mut self,
        edits: &[Edit],
        inline_limit: usize,
        source: &dyn BlobSource,
        sink: &mut dyn BlobSink,
    ) -> Result<TreeRoot> {
        assert!(edits.is_sorted_by(|a, b| a.0 < b.0), "edits must ascend and not repeat");
        if let Some((key, _)) = edits.iter().find(|(key, _)| key.len() > TREE_KEY_MAX) {
            let (found, limit) = (key.len() as u64, TREE_KEY_MAX as u64);
            return Err(FormatError::TooLarge { what: "a table key", found, limit });
        }
        if edits.is_empty() {
            // The root stays where it is, also if it could be inline.
            match &self.root {
                Some(root @ TreeRoot::Stored(_)) => return Ok(root.clone()),
                Some(root @ TreeRoot::Inline(bytes)) if bytes.len() <= inline_limit => {
                    return Ok(root.clone());
                }
                _ => {}
            }
        }
        let node = self.root_node(source)?;
        let mut level = node.level();
        let mut drafts = match edit_node(node, edits, source)? {
            Some(drafts) => drafts,
            None => match &self.root {
                Some(root @ TreeRoot::Stored(_)) => return Ok(root.clone()),
                _ => vec![Draft::of(self.root_node(source)?)],
            },
        };
        // Too many for one root: inner nodes above them.
        while drafts.len() > 1 {
            level += 1;
            if level > TREE_LEVEL_MAX {
                return Err(damaged(None, format!("a tree of more than {TREE_LEVEL_MAX} levels")));
            }
            drafts = split_inner(drafts.into_iter().map(Entry::New).collect());
        }
        let mut root = drafts.pop().unwrap_or_else(|| Draft::Leaf(Vec::new()));
        // A root with one child is not needed.
        let root = loop {
            match root {
                Draft::Inner(mut entries) if entries.len() == 1 => match entries.pop() {
                    Some(Entry::New(only)) => {
                        level -= 1;
                        root = only;
                    }
                    Some(Entry::Kept(child)) => break TreeRoot::Stored(child.digest),
                    None => return Err(damaged(None, "an inner node without children".to_owned())),
                },
                Draft::Leaf(rows) => {
                    let bytes = encode_leaf(rows.iter());
                    if bytes.len() <= inline_limit {
                        break TreeRoot::Inline(bytes.into());
                    }
                    break TreeRoot::Stored(put(&bytes, sink)?);
                }
                Draft::Inner(entries) => {
                    break TreeRoot::Stored(store(Draft::Inner(entries), level, sink)?.digest);
                }
            }
        };
        self.root = Some(root.clone());
        Ok(root)
    }
}

/// The drafts that take a node's place; `None`: the edits change nothing in it. No drafts: no row is left.
fn edit_node(node: Node, edits: &[Edit], source: &dyn BlobSource) -> Result<Option<Vec<Draft>>> {
    match node {
        Node::Leaf(rows) => Ok(edit_leaf(&rows, edits).map(split_leaf)),
        Node::Inner { level, children } => {
            let mut entries = Vec::with_capacity(children.len());
            let mut left = edits;
            let mut is_changed = false;
            let ends: Vec<Vec<u8>> = children.iter().skip(1).map(|child| child.key.clone()).collect();
            for (i, child) in children.into_iter().enumerate() {
                let mine = ends.get(i).map_or(left.len(), |end| left.partition_point(|(key, _)| key < end));
                let (edits, rest) = left.split_at(mine);
                left = rest;
                if edits.is_empty() {
                    entries.push(Entry::Kept(child));
                    continue;
                }
                match edit_node(load_child(&child, level, source)?, edits, source)? {
                    None => entries.push(Entry::Kept(child)),
                    Some(drafts) => {
                        is_changed = true;
                        entries.extend(drafts.into_iter().map(Entry::New));
                    }
                }
            }
            if !is_changed {
                return Ok(None);
            }
            let entries = fill(entries, level, source)?;
            Ok(Some(if entries.is_empty() { Vec::new() } else { split_inner(entries) }))
        }
    }
}

/// The rows of a leaf after the edits; `None` if they are the same.
fn edit_leaf(rows: &[Row], edits: &[Edit]) -> Option<Vec<Row>> {
    let mut out = Vec::with_capacity(rows.len() + edits.len());
    let mut is_changed = false;
    let mut old = rows.iter().peekable();
    for (key, value) in edits {
        while let Some(row) = old.next_if(|row| row.key < *key) {
            out.push(row.clone());
        }
        let before = old.next_if(|row| row.key == *key);
        match value {
            Some(value) => {
                is_changed |= before.is_none_or(|row| row.value != value);
                out.push(Row { key: key.clone(), value: Bytes::copy_from_slice(value) });
            }
            None => is_changed |= before.is_some(),
        }
    }
    out.extend(old.cloned());
    is_changed.then_some(out)
}

/// Merges nodes that are less than half full with a neighbour if one node can hold both. A node that is less than a
/// quarter full is divided evenly with its neighbour otherwise; between the two the neighbour is left alone, so that
/// nodes near the bound do not drag it along with every edit.
fn fill(mut entries: Vec<Entry>, level: u8, source: &dyn BlobSource) -> Result<Vec<Entry>> {
    let mut at = 0;
    while at < entries.len() {
        let len = match &entries[at] {
            Entry::New(draft) => draft.byte_len(),
            Entry::Kept(_) => TREE_NODE_LEN,
        };
        let Some(left) =
            (if len < TREE_NODE_LEN / 2 { neighbour(&entries, at, len, level, source)? } else { None })
        else {
            at += 1;
            continue;
        };
        let mut drafts = Vec::with_capacity(2);
        for entry in entries.splice(left..left + 2, []) {
            drafts.push(entry.open(level, source)?);
        }
        let joined = join(drafts, level - 1, source)?;
        let count = joined.len();
        entries.splice(left..left, joined.into_iter().map(Entry::New));
        // One node may still be short, and is looked at again; two share what was too much for one.
        at = if count == 1 { left } else { left + count };
    }
    Ok(entries)
}

/// The left one of the pair to join for the short node at `at`; `None`: leave it.
fn neighbour(
    entries: &[Entry],
    at: usize,
    len: usize,
    level: u8,
    source: &dyn BlobSource,
) -> Result<Option<usize>> {
    let mut pairs: Vec<(usize, usize)> = Vec::with_capacity(2);
    pairs.extend(at.checked_sub(1).map(|left| (left, left)));
    pairs.extend((at + 1 < entries.len()).then_some((at, at + 1)));
    // A neighbour that is rewritten anyway costs nothing more.
    pairs.sort_by_key(|(_, other)| matches!(entries[*other], Entry::Kept(_)));
    for (left, other) in &pairs {
        let other_len = match &entries[*other] {
            Entry::New(draft) => draft.byte_len(),
            Entry::Kept(child) => Draft::of(load_child(child, level, source)?).byte_len(),
        };
        if len + other_len <= TREE_NODE_LEN {
            return Ok(Some(*left));
        }
    }
    Ok(pairs.first().filter(|_| len < TREE_NODE_LEN / 4).map(|(left, _)| *left))
}

/// Two neighbouring drafts as one, divided where one node cannot hold them.
fn join(drafts: Vec<Draft>, level: u8, source: &dyn BlobSource) -> Result<Vec<Draft>> {
    let mut rows = Vec::new();
    let mut entries = Vec::new();
    for draft in drafts {
        match draft {
            Draft::Leaf(more) => rows.extend(more),
            Draft::Inner(more) => entries.extend(more),
        }
    }
    if level == 0 {
        return Ok(split_leaf(rows));
    }
    // What was alone under its parent has neighbours now.
    Ok(split_inner(fill(entries, level, source)?))
}

impl Draft {
    fn of(node: Node) -> Self {
        match node {
            Node::Leaf(rows) => Draft::Leaf(rows),
            Node::Inner { children, .. } => Draft::Inner(children.into_iter().map(Entry::Kept).collect()),
        }
    }

    fn first_key(&self) -> &[u8] {
        match self {
            Draft::Leaf(rows) => rows.first().map_or(&[], |row| &row.key),
            Draft::Inner(entries) => entries.first().map_or(&[], Entry::first_key),
        }
    }

    fn rows(&self) -> u64 {
        match self {
            Draft::Leaf(rows) => rows.len() as u64,
            Draft::Inner(entries) => entries.iter().map(Entry::rows).sum(),
        }
    }

    fn byte_len(&self) -> usize {
        match self {
            Draft::Leaf(rows) => {
                NODE_OVERHEAD + item_lens(rows, |row| &row.key, row_value_len).sum::<usize>()
            }
            Draft::Inner(entries) => {
                NODE_OVERHEAD + item_lens(entries, Entry::first_key, Entry::value_len).sum::<usize>()
            }
        }
    }
}

impl Entry {
    fn first_key(&self) -> &[u8] {
        match self {
            Entry::Kept(child) => &child.key,
            Entry::New(draft) => draft.first_key(),
        }
    }

    fn rows(&self) -> u64 {
        match self {
            Entry::Kept(child) => child.rows,
            Entry::New(draft) => draft.rows(),
        }
    }

    /// The draft of it, to be edited; `level` is that of its parent.
    fn open(self, level: u8, source: &dyn BlobSource) -> Result<Draft> {
        match self {
            Entry::New(draft) => Ok(draft),
            Entry::Kept(child) => load_child(&child, level, source).map(Draft::of),
        }
    }

    fn value_len(&self) -> usize {
        DIGEST_LEN + varint_len(self.rows())
    }
}

fn row_value_len(row: &Row) -> usize {
    varint_len(row.value.len() as u64) + row.value.len()
}

/// Bytes of each item where it stands.
fn item_lens<'a, T>(
    items: &'a [T],
    key: impl Fn(&T) -> &[u8] + 'a,
    value_len: impl Fn(&T) -> usize + 'a,
) -> impl Iterator<Item = usize> + 'a {
    items.iter().enumerate().map(move |(i, item)| {
        let before = i.checked_sub(1).map_or(&[][..], |before| key(&items[before]));
        key_len(before, key(item)) + value_len(item)
    })
}

/// Where to cut items of these lengths so that nodes are about equally full and none is too long (an item that is too
/// long by itself stands alone).
fn cuts(lens: &[usize]) -> Vec<usize> {
    let room = TREE_NODE_LEN - NODE_OVERHEAD;
    let mut total: usize = lens.iter().sum();
    let longest = lens.iter().copied().max().unwrap_or(0).min(room / 4);
    // Leaving room for one more item makes the last node hold what the others' rounding leaves to it.
    let mut nodes = if total <= room { 1 } else { total.div_ceil(room - longest).max(2) };
    let mut cuts = Vec::with_capacity(nodes + 1);
    let mut len = 0;
    for (i, item) in lens.iter().enumerate() {
        let target = total.div_ceil(nodes);
        let is_nearer_without = len + item > target && len + item - target > target.saturating_sub(len);
        if len > 0 && (len + item > room || nodes > 1 && is_nearer_without) {
            cuts.push(i);
            total -= len;
            nodes = (nodes - 1).max(1);
            len = 0;
        }
        len += item;
    }
    cuts.push(lens.len());
    cuts
}

fn split<T>(items: Vec<T>, lens: &[usize]) -> Vec<Vec<T>> {
    let mut items = items.into_iter();
    let mut start = 0;
    cuts(lens)
        .into_iter()
        .map(|end| {
            let piece = items.by_ref().take(end - start).collect();
            start = end;
            piece
        })
        .collect()
}

fn split_leaf(rows: Vec<Row>) -> Vec<Draft> {
    if rows.is_empty() {
        return Vec::new();
    }
    let lens: Vec<usize> = item_lens(&rows, |row| &row.key, row_value_len).collect();
    split(rows, &lens).into_iter().map(Draft::Leaf).collect()
}

fn split_inner(entries: Vec<Entry>) -> Vec<Draft> {
    let lens: Vec<usize> = item_lens(&entries, Entry::first_key, Entry::value_len).collect();
    split(entries, &lens).into_iter().map(Draft::Inner).collect()
}

fn put(bytes: &[u8], sink: &mut dyn BlobSink) -> Result<Digest> {
    let name = digest(bytes);
    sink.put(BlobKind::Table, name, bytes)?;
    Ok(name)
}

/// Encodes a draft and all below it, children first.
fn store(draft: Draft, level: u8, sink: &mut dyn BlobSink) -> Result<Child> {
    let (key, rows) = (draft.first_key().to_vec(), draft.rows());
    let bytes = match draft {
        Draft::Leaf(rows) => encode_leaf(rows.iter()),
        Draft::Inner(entries) => {
            let mut children = Vec::with_capacity(entries.len());
            for entry in entries {
                children.push(match entry {
                    Entry::Kept(child) => child,
                    Entry::New(draft) => store(draft, level - 1, sink)?,
                });
            }
            encode_inner(level, &children)
        }
    };
    Ok(Child { key, digest: put(&bytes, sink)?, rows })
}
