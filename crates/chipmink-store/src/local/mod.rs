//! The local backend: durable immutable files under one directory, on a seam of system calls.

mod disk;
mod error;
mod files;
mod objects;
mod sync_ahead;
mod syscalls;
mod system;

pub use error::LocalError;
pub use files::{LocalFiles, PackOutput};
pub use objects::LocalDisk;
pub(crate) use objects::range_of;
pub use syscalls::{Input, Output, Stat, Syscalls};
pub use system::System;
