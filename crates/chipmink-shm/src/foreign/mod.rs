//! Memory that the program has mapped and shares with other processes, told by address alone.
//!
//! 1. It is never read through its mapping: touching a mapping of what another process has shrunk kills the process
//!    (`SIGBUS`). Reads go through a descriptor of the same memory or, if none is found, through the kernel's view of this
//!    process' memory; either fails where touching would kill.
//! 2. Nothing is taken for the memory that is mapped unless device and inode say so: a name may have been given to other
//!    memory since.

mod mapping;
mod reader;

pub use mapping::{Mapping, MappingKind, mapping_at};
pub use reader::shared_memory;
