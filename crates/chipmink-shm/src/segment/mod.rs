//! Named segments of shared memory, by which processes hand each other bytes that outlive them.
//!
//! A segment is read and written by `pread` and `pwrite` on its descriptor, never through a mapping: another process may
//! shrink it at any time, and touching a mapping of what is gone kills the process (`SIGBUS`), whereas a read comes back
//! short. A copy is made in any case, since bytes that another process may write are digested and used as copies only.
//! Segments are made without a resource tracker: they are there until [`Segment::unlink`], also if their maker was killed.
//!
//! ```text
//!  0      "chmkseg1", u32 slots, u32 0, u64 bytes of a slot, u64 bytes of the segment, id (16),
//!         u64 checksum of the 56 bytes before it
//!  1024   64 leases of 40 bytes: u64 pid, u64 start time, u64 pid namespace, u64 generation, u64 checksum;
//!         the first is the writer's
//!  4096   per slot a page: u64 generation, u64 byte length, u64 state (1 open, 2 closed), label (16),
//!         digest (17), zeros to 64, u64 checksum of these 64 bytes
//!  …      per slot its bytes, in whole pages
//! ```
//!
//! All numbers are little-endian; it is memory of one machine, not a format to keep.
//!
//! To publish: **1** the writer holds the writer's lease; **2** it takes the slot with the oldest generation that is neither
//! the newest closed nor leased; **3** it marks the slot open under the next generation; **4** it writes the bytes; **5** it
//! marks the slot closed, with their digest. A writer killed before 5 leaves a slot that nobody reads.
//! To read: **1** the reader reads the slot's head; **2** the bytes; **3** the head again. If it is not the same, the bytes
//! are nobody's.
//!
//! 1. Nothing in a segment is believed: head, slot heads and leases have checksums, and numbers are compared with the
//!    length that the segment has; hostile contents make errors.
//! 2. There are at least two slots, so the newest closed generation stays while the next is written.
//! 3. A lease ends with its process: it names pid and start time. One of another pid namespace cannot be judged and counts
//!    as living.

pub(crate) mod access;
mod foreign;
pub(crate) mod layout;
mod lease;
mod named;
pub(crate) mod process;
mod writer;

pub use foreign::ForeignSegment;
pub use layout::{MOST_SLOTS, SegmentLayout};
pub use lease::Lease;
pub use named::{Generation, Segment};
pub use writer::{OpenGeneration, Writer};
