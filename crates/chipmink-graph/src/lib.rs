//! The plain data structures of a pod graph: which pods belong together, in which order they run, where they stand in
//! their table.
//!
//! Nothing here knows what a pod holds. Everything is a function of its arguments: no hashing by address, no clock, so
//! that two processes that save the same graph write the same tables.
//!
//! 1. Labels of [`assign_ranks`] are strictly ascending, and as many old ones as possible stay.
//! 2. A slot of [`Slots`] is held by at most one pod at a time, and the lowest free one is given out first.
#![forbid(unsafe_code)]

mod error;
mod overlap;
mod ranks;
mod slots;
mod union_find;

pub use error::GraphError;
pub use overlap::most_frequent;
pub use ranks::{Ranks, assign_ranks};
pub use slots::Slots;
pub use union_find::{UnionFind, components};
