//! Lists of digests as trees of nodes: build, read, visit.
//!
//! Invariants:
//! 1. One list has one tree; equal lists have equal roots.
//! 2. There is always a root node, also over one digest and over none.
//! 3. Reading follows the count that the caller expects (it comes from the region's grid): a node of another level or
//!    count is damage, so neither depth nor size is up to the bytes read.

use crate::node::{self, NODE_FANOUT, NodeKind};
use crate::{DigestError, TreeError, digest};
use bytes::Bytes;
use chipmink_types::Digest;

/// Takes the nodes of a tree that is being built.
pub type EmitNode<'a, E> = dyn FnMut(Digest, &[u8]) -> Result<(), E> + 'a;

/// Collects a list of digests and makes its tree. It holds 17 bytes per digest: 1/3,855 of the region.
#[derive(Debug, Clone)]
pub struct TreeBuilder {
    kind: NodeKind,
    digests: Vec<Digest>,
}

impl TreeBuilder {
    /// Starts an empty list.
    pub const fn new(kind: NodeKind) -> Self {
        TreeBuilder { kind, digests: Vec::new() }
    }

    /// Adds the next digest.
    pub fn push(&mut self, digest: Digest) {
        self.digests.push(digest);
    }

    /// Gives every node, children before parents, to `emit` with its digest. Returns the root's digest.
    ///
    /// # Errors
    /// The first error of `emit`.
    pub fn finish<E>(self, emit: &mut EmitNode<'_, E>) -> Result<Digest, E> {
        let count = self.digests.len() as u64;
        let mut digests = self.digests;
        for level in 0..node::root_level(count) {
            let full = node::full_count(level).unwrap_or(u64::MAX);
            let mut left = count;
            let mut parents = Vec::with_capacity(digests.len().div_ceil(NODE_FANOUT));
            for children in digests.chunks(NODE_FANOUT) {
                let below = left.min(full);
                left -= below;
                parents.push(emit_node(self.kind, level, below, children, emit)?);
            }
            digests = parents;
        }
        emit_node(self.kind, node::root_level(count), count, &digests, emit)
    }
}

fn emit_node<E>(
    kind: NodeKind,
    level: u8,
    count: u64,
    digests: &[Digest],
    emit: &mut EmitNode<'_, E>,
) -> Result<Digest, E> {
    let bytes = node::encode(kind, level, count, digests);
    let name = digest(&bytes);
    emit(name, &bytes)?;
    Ok(name)
}

/// Bytes of all nodes of the tree over `count` digests, which is what a region costs beside its chunks.
pub fn tree_len(count: u64) -> u64 {
    let mut total = 0u64;
    let mut width = count;
    for level in 0..=node::root_level(count) {
        let nodes = if level == node::root_level(count) { 1 } else { width.div_ceil(NODE_FANOUT as u64) };
        total = total
            .saturating_add(nodes.saturating_mul(node::NODE_HEADER_LEN as u64))
            .saturating_add(width.saturating_mul(chipmink_types::DIGEST_LEN as u64));
        width = nodes;
    }
    total
}

/// Visits the `expected_count` digests of the list under `root`, in order, holding one node of each level.
///
/// `get` gives a node's bytes and has checked them against the digest.
///
/// # Errors
/// When a node is damaged or is not what `expected_count` demands at its place; any error of `get` or `visit`.
pub fn visit_tree<E>(
    kind: NodeKind,
    root: Digest,
    expected_count: u64,
    get: &mut dyn FnMut(&Digest) -> Result<Bytes, E>,
    visit: &mut dyn FnMut(Digest) -> Result<(), E>,
) -> Result<(), TreeError<E>> {
    visit_node(kind, root, node::root_level(expected_count), expected_count, get, visit)
}

fn visit_node<E>(
    kind: NodeKind,
    name: Digest,
    level: u8,
    count: u64,
    get: &mut dyn FnMut(&Digest) -> Result<Bytes, E>,
    visit: &mut dyn FnMut(Digest) -> Result<(), E>,
) -> Result<(), TreeError<E>> {
    let bytes = get(&name).map_err(TreeError::Caller)?;
    let digests = node::decode(name, &bytes, kind, level, count)?;
    let Some(child_level) = level.checked_sub(1) else {
        return digests.into_iter().try_for_each(visit).map_err(TreeError::Caller);
    };
    let full = node::full_count(child_level).unwrap_or(u64::MAX);
    let mut left = count;
    for child in digests {
        let below = left.min(full);
        left -= below;
        visit_node(kind, child, child_level, below, get, visit)?;
    }
    Ok(())
}

/// Visits those of the `expected_count` digests under `root` that are not the same as the list under `beside`, of as many,
/// has at their places. Subtrees that are equal are not read; where one of the other list cannot be had, all of it counts
/// as different.
///
/// # Errors
/// As [`visit_tree`], for the first list.
pub fn visit_tree_beside<E>(
    kind: NodeKind,
    root: Digest,
    beside: Digest,
    expected_count: u64,
    get: &mut dyn FnMut(&Digest) -> Result<Bytes, E>,
    visit: &mut dyn FnMut(Digest) -> Result<(), E>,
) -> Result<(), TreeError<E>> {
    let level = node::root_level(expected_count);
    visit_beside(kind, root, Some(beside), level, expected_count, get, visit)
}

fn visit_beside<E>(
    kind: NodeKind,
    name: Digest,
    beside: Option<Digest>,
    level: u8,
    count: u64,
    get: &mut dyn FnMut(&Digest) -> Result<Bytes, E>,
    visit: &mut dyn FnMut(Digest) -> Result<(), E>,
) -> Result<(), TreeError<E>> {
    if beside == Some(name) {
        return Ok(());
    }
    let bytes = get(&name).map_err(TreeError::Caller)?;
    let digests = node::decode(name, &bytes, kind, level, count)?;
    let others = beside.and_then(|beside| node::decode(beside, &get(&beside).ok()?, kind, level, count).ok());
    let other = |at: usize| others.as_ref().map(|others| others[at]);
    let Some(child_level) = level.checked_sub(1) else {
        let mut new = digests.into_iter().enumerate().filter(|(at, digest)| other(*at) != Some(*digest));
        return new.try_for_each(|(_, digest)| visit(digest)).map_err(TreeError::Caller);
    };
    let full = node::full_count(child_level).unwrap_or(u64::MAX);
    let mut left = count;
    for (at, child) in digests.into_iter().enumerate() {
        let below = left.min(full);
        left -= below;
        visit_beside(kind, child, other(at), child_level, below, get, visit)?;
    }
    Ok(())
}

/// The digests of the list under `root`.
///
/// Memory grows with what has been read, not with `expected_count`; but nodes may repeat, so the caller bounds
/// `expected_count` by the size of the region that it is ready to hold.
///
/// # Errors
/// As [`visit_tree`].
pub fn read_tree<E>(
    kind: NodeKind,
    root: Digest,
    expected_count: u64,
    get: &mut dyn FnMut(&Digest) -> Result<Bytes, E>,
) -> Result<Vec<Digest>, TreeError<E>> {
    let mut digests = Vec::new();
    visit_tree(kind, root, expected_count, get, &mut |digest| {
        digests.push(digest);
        Ok(())
    })?;
    if digests.len() as u64 != expected_count {
        let reason = format!("{} digests in all, expected {expected_count}", digests.len());
        return Err(DigestError::BadNode { node: root, reason }.into());
    }
    Ok(digests)
}

#[cfg(test)]
mod tests;
