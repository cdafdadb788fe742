//! Looking rows up, and visiting them in order.

use super::node::{Child, Item, Items, Node};
use super::{Tree, TreeRoot, check_child, damaged, decode_child};
use crate::error::{FormatError, Result};
use bytes::Bytes;
use chipmink_types::{BlobSource, Digest};
use std::ops::ControlFlow;

/// Children that are fetched at a time: at most 1 MiB of nodes.
const FETCH: usize = 256;

/// Says of a node whether it is to be read.
pub type EnterNode<'a> = dyn FnMut(&Digest) -> bool + 'a;

/// Takes the rows of a scan, key and value, until it breaks.
pub type VisitRow<'a> = dyn FnMut(&[u8], &Bytes) -> Result<ControlFlow<()>> + 'a;

impl Tree {
    /// The value of a row.
    ///
    /// # Errors
    /// When a node on the way is missing or damaged.
    pub fn get(&self, key: &[u8], source: &dyn BlobSource) -> Result<Option<Bytes>> {
        let Some(mut bytes) = self.root_bytes(source)? else { return Ok(None) };
        let mut found = find(&bytes, key).map_err(|error| self.of_root(error))?;
        loop {
            match found.hit {
                Hit::Nothing => return Ok(None),
                Hit::Value(value) => return Ok(Some(value)),
                Hit::Child(child) => {
                    let parent_level = found.level;
                    bytes = source.get(&child.digest)?;
                    found = find(&bytes, key).map_err(|error| error.in_blob(&child.digest))?;
                    check_child(&child, parent_level, found.level, found.first_key.as_deref(), found.rows)?;
                }
            }
        }
    }

    /// How many rows there are, from the root node alone.
    ///
    /// # Errors
    /// When the root node is missing or damaged.
    pub fn row_count(&self, source: &dyn BlobSource) -> Result<u64> {
        Ok(self.root_node(source)?.rows())
    }

    /// Visits the rows from `from` on, in ascending order of key, until `visit` breaks.
    ///
    /// # Errors
    /// When a node is missing or damaged, or the visitor fails.
    pub fn scan(&self, from: &[u8], source: &dyn BlobSource, visit: &mut VisitRow<'_>) -> Result<()> {
        self.scan_from(from, source, &mut |_| true, visit)
    }

    /// Visits the rows of those nodes that `enter` wants to be read; it is asked once for each, before its parent's other
    /// children are read. Of a root that stands inside its owner it is not asked.
    ///
    /// # Errors
    /// As [`Tree::scan`].
    pub fn scan_nodes(
        &self,
        source: &dyn BlobSource,
        enter: &mut EnterNode<'_>,
        visit: &mut VisitRow<'_>,
    ) -> Result<()> {
        match &self.root {
            Some(TreeRoot::Stored(root)) if !enter(root) => Ok(()),
            _ => self.scan_from(&[], source, enter, visit),
        }
    }

    fn scan_from(
        &self,
        from: &[u8],
        source: &dyn BlobSource,
        enter: &mut EnterNode<'_>,
        visit: &mut VisitRow<'_>,
    ) -> Result<()> {
        let Some(bytes) = self.root_bytes(source)? else { return Ok(()) };
        let mut scan = Scan { tree: self, from, source, enter, visit, is_past_start: from.is_empty() };
        scan.node(&bytes, None, None).map(drop)
    }

    /// Every row, in ascending order of key.
    ///
    /// # Errors
    /// When a node is missing or damaged.
    pub fn rows(&self, source: &dyn BlobSource) -> Result<Vec<(Vec<u8>, Bytes)>> {
        let mut rows = Vec::new();
        self.scan(&[], source, &mut |key, value| {
            rows.push((key.to_vec(), value.clone()));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(rows)
    }
}

/// What a search in one node leads to.
enum Hit {
    Nothing,
    Value(Bytes),
    Child(Child),
}

/// A node, as far as a search has to know it.
struct Found {
    level: u8,
    first_key: Option<Vec<u8>>,
    rows: u64,
    hit: Hit,
}

/// Searches a node; reads all of it, so that what is damaged is not overlooked.
fn find(bytes: &Bytes, key: &[u8]) -> Result<Found> {
    let mut items = Items::new(bytes)?;
    let mut found = Found { level: items.level, first_key: None, rows: 0, hit: Hit::Nothing };
    while let Some(item) = items.next()? {
        if found.first_key.is_none() {
            found.first_key = Some(items.key.clone());
        }
        match item {
            Item::Value(value) => {
                found.rows += 1;
                if items.key == key {
                    found.hit = Hit::Value(value);
                }
            }
            Item::Child { digest, rows } => {
                found.rows = found.rows.saturating_add(rows);
                if items.key.as_slice() <= key {
                    found.hit = Hit::Child(Child { key: items.key.clone(), digest, rows });
                }
            }
        }
    }
    Ok(found)
}

/// A scan under way.
struct Scan<'a, 'e, 'v> {
    tree: &'a Tree,
    from: &'a [u8],
    source: &'a dyn BlobSource,
    enter: &'a mut EnterNode<'e>,
    visit: &'a mut VisitRow<'v>,
    /// Whether all keys from here on are wanted.
    is_past_start: bool,
}

impl Scan<'_, '_, '_> {
    /// `parent`: what the node's parent says of it, and the parent's level. `end`: all keys in the node must be less.
    fn node(
        &mut self,
        bytes: &Bytes,
        parent: Option<(&Child, u8)>,
        end: Option<&[u8]>,
    ) -> Result<ControlFlow<()>> {
        let tree = self.tree;
        let name = |error: FormatError| match parent {
            Some((child, _)) => error.in_blob(&child.digest),
            None => tree.of_root(error),
        };
        let mut items = Items::new(bytes).map_err(name)?;
        if items.level > 0 {
            let node = match parent {
                Some((child, level)) => decode_child(child, level, bytes)?,
                None => Node::decode(bytes).map_err(name)?,
            };
            let Node::Inner { level, children } = node else { return Ok(ControlFlow::Continue(())) };
            return self.children(level, &children, end);
        }
        // Whoever sees a row has to know that its node is what it should be: the count is known, the first key comes first.
        if let Some((child, level)) = parent {
            let rows = items.left() as u64;
            check_child(child, level, items.level, Some(&child.key), rows)?;
        }
        let mut is_first = true;
        while let Some(item) = items.next().map_err(name)? {
            if let Some((child, level)) = parent
                && is_first
            {
                check_child(child, level, items.level, Some(&items.key), child.rows)?;
            }
            is_first = false;
            check_end(&items.key, end)?;
            self.is_past_start |= items.key.as_slice() >= self.from;
            if let Item::Value(value) = item
                && self.is_past_start
                && (self.visit)(&items.key, &value)?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn children(&mut self, level: u8, children: &[Child], end: Option<&[u8]>) -> Result<ControlFlow<()>> {
        if let Some(last) = children.last() {
            check_end(&last.key, end)?;
        }
        let start = match self.is_past_start {
            true => 0,
            false => children.partition_point(|child| child.key.as_slice() <= self.from).saturating_sub(1),
        };
        let mut at = start;
        while at < children.len() {
            let window = &children[at..children.len().min(at + FETCH)];
            let wanted: Vec<usize> = (0..window.len()).filter(|i| (self.enter)(&window[*i].digest)).collect();
            let digests: Vec<_> = wanted.iter().map(|i| window[*i].digest).collect();
            let all = if digests.is_empty() { Vec::new() } else { self.source.get_many(&digests)? };
            if all.len() != wanted.len() {
                return Err(damaged(None, format!("{} of {} nodes came back", all.len(), wanted.len())));
            }
            for (i, bytes) in wanted.into_iter().zip(&all) {
                let child = &window[i];
                let end = children.get(at + i + 1).map(|next| next.key.as_slice()).or(end);
                if self.node(bytes, Some((child, level)), end)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            at += window.len();
        }
        Ok(ControlFlow::Continue(()))
    }
}

fn check_end(key: &[u8], end: Option<&[u8]>) -> Result<()> {
    match end {
        Some(end) if key >= end => {
            Err(damaged(None, "a key lies beyond the first key of the next node".to_owned()))
        }
        _ => Ok(()),
    }
}
