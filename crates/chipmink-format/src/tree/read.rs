//! Looking rows up, and visiting them in order.

use super::node::{Child, Node};
use super::{Tree, damaged, decode_child, load_child};
use crate::error::Result;
use bytes::Bytes;
use chipmink_types::BlobSource;
use std::ops::ControlFlow;

/// Children that are fetched at a time: at most 1 MiB of nodes.
const FETCH: usize = 256;

/// Takes the rows of a scan, key and value, until it breaks.
pub type VisitRow<'a> = dyn FnMut(&[u8], &Bytes) -> Result<ControlFlow<()>> + 'a;

impl Tree {
    /// The value of a row.
    ///
    /// # Errors
    /// When a node on the way is missing or damaged.
    pub fn get(&self, key: &[u8], source: &dyn BlobSource) -> Result<Option<Bytes>> {
        let mut node = self.root_node(source)?;
        loop {
            match node {
                Node::Leaf(mut rows) => {
                    let found = rows.binary_search_by(|row| row.key.as_slice().cmp(key));
                    return Ok(found.ok().map(|at| rows.swap_remove(at).value));
                }
                Node::Inner { level, children } => {
                    let after = children.partition_point(|child| child.key.as_slice() <= key);
                    let Some(child) = after.checked_sub(1).map(|at| &children[at]) else { return Ok(None) };
                    node = load_child(child, level, source)?;
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
        let root = self.root_node(source)?;
        scan_node(&root, from, None, source, visit).map(drop)
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

/// `end`: all keys below this node must be less.
fn scan_node(
    node: &Node,
    from: &[u8],
    end: Option<&[u8]>,
    source: &dyn BlobSource,
    visit: &mut VisitRow<'_>,
) -> Result<ControlFlow<()>> {
    match node {
        Node::Leaf(rows) => {
            check_end(rows.last().map(|row| row.key.as_slice()), end)?;
            let start = rows.partition_point(|row| row.key.as_slice() < from);
            for row in &rows[start..] {
                if visit(&row.key, &row.value)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Node::Inner { level, children } => {
            check_end(children.last().map(|child| child.key.as_slice()), end)?;
            let start = children.partition_point(|child| child.key.as_slice() <= from).saturating_sub(1);
            let mut at = start;
            while at < children.len() {
                let window = &children[at..children.len().min(at + FETCH)];
                for (i, child) in fetch(window, *level, source)?.into_iter().enumerate() {
                    let end = children.get(at + i + 1).map(|next| next.key.as_slice()).or(end);
                    if scan_node(&child, from, end, source, visit)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                at += window.len();
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn check_end(last: Option<&[u8]>, end: Option<&[u8]>) -> Result<()> {
    match (last, end) {
        (Some(last), Some(end)) if last >= end => {
            Err(damaged(None, "a key lies beyond the first key of the next node".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Loads neighbouring children with one call, leaves only: inner ones are few.
fn fetch(children: &[Child], parent_level: u8, source: &dyn BlobSource) -> Result<Vec<Node>> {
    let digests: Vec<_> = children.iter().map(|child| child.digest).collect();
    let all = source.get_many(&digests)?;
    if all.len() != children.len() {
        return Err(damaged(None, format!("{} of {} nodes came back", all.len(), children.len())));
    }
    children.iter().zip(&all).map(|(child, bytes)| decode_child(child, parent_level, bytes)).collect()
}
