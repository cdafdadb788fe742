//! Memory: the only crate that maps it, and the one that knows which pages of it were written.
//!
//! - [`dirty`]: which pages of private memory were written since they were last looked at ([`DirtyPages`]), by
//!   write protection that the kernel lifts by itself; Linux only, elsewhere nothing is ever proved.
//! - [`LiveMemo`]: digests of live memory that hold as long as their pages stay unwritten
//!   ([`chipmink_types::LiveDigests`]).
//!
//! It knows neither Python nor repositories. It refuses to guess: memory of which it cannot prove that it is unchanged
//! counts as written.

pub mod dirty;
mod live;

pub use dirty::{DirtyPages, Untracked, Verdict};
pub use live::{LiveMemo, LivePolicy, live_digests};
