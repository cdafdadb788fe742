//! What "the same content" means: the digest, how a region is cut into chunks, and the tree over its chunk digests.
//!
//! The code of this crate, on the CPU, is the definition; a kernel on a device and a reader in another language must
//! come to the same bytes. `FORMAT.md` of `chipmink-format` ("Digests", "Regions") says the same in words.
//!
//! - [`digest`] and [`Digester`]: XXH3-128, seed 0, canonical order, behind an algorithm byte.
//! - [`Grid`]: where the chunks of a region begin.
//! - [`TreeBuilder`], [`read_tree`], [`visit_tree`], [`visit_tree_beside`]: the list of a region's chunk digests as a tree of small nodes, so
//!   that one changed chunk costs one node of each level.
//! - [`digest_region`]: the three of them together.
#![forbid(unsafe_code)]

mod content;
mod error;
mod grid;
mod node;
mod region;
mod tree;

pub use content::{Digester, digest};
pub use error::{DigestError, TreeError};
pub use grid::{CHUNK_LEN, Chunks, Grid, chunk_lens};
pub use node::{NODE_FANOUT, NODE_HEADER_LEN, NODE_LEN_MAX, NODE_VERSION, NodeKind};
pub use region::digest_region;
pub use tree::{EmitNode, TreeBuilder, read_tree, tree_len, visit_tree, visit_tree_beside};
