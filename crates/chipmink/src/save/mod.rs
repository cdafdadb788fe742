//! Saving: prepare under the caller's lock, publish without it, then let the source know.

mod aliases;
mod align;
mod compare;
mod delta;
mod groups;
mod matching;
mod patch;
mod prepared;
mod restore;
mod rows;
mod stored;
mod table;
mod writer;

pub(crate) use delta::Delta;
pub(crate) use prepared::now_micros;
pub use prepared::{Begun, Prepared, Published, Report, Saved};
pub(crate) use writer::{Written, write_version};
