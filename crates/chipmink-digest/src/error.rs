//! What can be wrong with a grid or a digest tree.

use chipmink_types::Digest;

/// A grid or a node that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// The grid's numbers contradict each other.
    #[error("a region cannot be cut into chunks: {reason}; its record is damaged")]
    BadGrid {
        /// Which number, and what it would have to be.
        reason: String,
    },
    /// The bytes are not a node of a digest tree, or not the one expected at this place.
    #[error("digest tree node {node} is damaged: {reason}")]
    BadNode {
        /// The node.
        node: Digest,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why a digest tree could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError<E> {
    /// A node is damaged.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// A node could not be had, or the visitor refused to go on.
    #[error("{0}")]
    Caller(E),
}
