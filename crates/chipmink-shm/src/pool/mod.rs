//! [`Pool`]: named objects in a shared segment of bounded size, which outlives the processes that use it.
//!
//! It is what a repository in shared memory, and the staging tier of one elsewhere, are made of. The segment is made with
//! all its space reserved, and stays until [`Pool::unlink`] or until the machine is shut down. Like every segment it is read
//! and written through its descriptor, so that one which another process shrinks gives an error. Its layout is written
//! down in `FORMAT.md`, since builds of several versions may meet in one.
//!
//! To publish an object: **1** under the lock, the writer takes a free slot and room, and marks the slot reserved under its
//! own name and start time; **2** it writes the bytes; **3** under the lock, it marks the slot live, with length and digest,
//! and frees that of an earlier object of the name. Whoever is killed before 3 leaves a reservation that the next writer in need
//! of its room finds to be nobody's.
//! To read: **1** find the slot; **2** read the bytes; **3** see that the slot still holds the same object. If not, the
//! bytes are nobody's.
//! A change under the lock: **1** the count of changes is made odd; **2** slots are written; **3** it is made even. One who
//! finds it odd under the lock knows that its holder died in between, and reads all slots anew.
//!
//! 1. Nothing in a segment is believed: head, slots and lease have checksums, and every number is compared with the length
//!    that the segment has. A slot whose checksum fails is free.
//! 2. An object is seen whole or not at all, and its bytes do not change.
//! 3. When there is no room, settled objects go, oldest first. No other goes by itself.
//! 4. A lock ends with its process; a reservation and the lease count only as long as their process lives.

mod directory;
mod extents;
mod layout;
mod lease;
mod listing;
mod slot;
mod store;
#[cfg(test)]
mod tests;
mod writer;

pub use layout::POOL_LEN_MIN;
pub use lease::PoolLease;
pub use listing::{SegmentKind, SegmentSummary, segments};
pub use store::Pool;
