//! The root log: entries that are created once under ascending numbers, and the states that sum them up.

mod dropped;
mod entry;
mod parts;
mod state;

pub use dropped::{DroppedRange, DroppedVersions};
pub use entry::{
    InlineCommit, LeaseChange, PreviousEntry, ROOT_ENTRY_LEN_MAX, ROOT_MAGIC, RefChange, RefMove, RootEntry,
    STATE_EVERY, StatePlace,
};
pub use parts::{ConditionalWrites, Lease, PackInfo, RefTarget, SegmentInfo};
pub use state::RootState;

#[cfg(test)]
mod tests;
