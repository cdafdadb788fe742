//! Memory: the only crate that maps it, and the one that knows which pages of it were written.
//!
//! - [`dirty`]: which pages of private memory were written since they were last looked at ([`DirtyPages`]), by
//!   write protection that the kernel lifts by itself; Linux only, elsewhere nothing is ever proved.
//! - [`LargeBuffer`]: bytes that are gathered in memory, in large pages where the system has them.
//! - [`LiveMemo`]: digests of live memory that hold as long as their pages stay unwritten
//!   ([`chipmink_types::LiveDigests`]).
//! - [`MappedRegion`]: pieces of files as one range of memory, copy-on-write, within a [`MapBudget`].
//! - [`pool`]: named objects in shared memory, which hold versions and outlive their writer; Linux only.
//! - [`mapping_at`], [`shared_memory`]: what others share with this process, told by address and read without touching it;
//!   Linux only.
//! - [`copy_streamed`]: copies to memory that the program does not look at soon.
//! - [`segment`]: named shared memory in which processes publish bytes for each other; Linux only.
//!
//! It knows neither Python nor repositories. It refuses to guess: memory of which it cannot prove that it is unchanged
//! counts as written.

pub mod dirty;
mod error;
#[cfg(target_os = "linux")]
mod foreign;
mod large_buffer;
mod live;
mod mapping;
#[cfg(target_os = "linux")]
pub mod pool;
#[cfg(target_os = "linux")]
pub mod segment;
mod streamed;

pub use dirty::{DirtyPages, Untracked, Verdict};
pub use error::{Result, ShmError};
#[cfg(target_os = "linux")]
pub use foreign::{Mapping, MappingKind, mapping_at, shared_memory};
pub use large_buffer::LargeBuffer;
pub use live::{LiveMemo, LivePolicy, live_digests};
pub use mapping::{
    FaultAhead, MOST_MAPPINGS, MOST_RUNS, MapBudget, MappedRegion, Permit, Piece, keeps_unlinked_files,
    page_len,
};
pub use streamed::copy_streamed;
