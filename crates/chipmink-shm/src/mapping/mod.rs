//! Pieces of files as one range of memory, copy-on-write.
//!
//! 1. Writing to a mapped region never reaches a file: every mapping is private.
//! 2. A file is mapped only if it has exactly the length that it should have. Cutting it *afterwards* makes access to the
//!    lost part fatal (`SIGBUS`); packs are never cut or rewritten by chipmink, and a mapping outlives their deletion on
//!    file systems that keep unlinked files ([`keeps_unlinked_files`]). What others do to them is beyond the guarantee.
//! 3. A region has at most [`MOST_RUNS`] mappings, and a process at most those of its [`MapBudget`]; the kernel's own limit
//!    (65,530) is shared with everything else in the process.

mod ahead;
mod budget;
mod place;
mod region;

pub use ahead::FaultAhead;
pub use budget::{MOST_MAPPINGS, MapBudget, Permit};
pub use place::keeps_unlinked_files;
pub use region::{MOST_RUNS, MappedRegion, Piece, page_len};
