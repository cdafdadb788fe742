//! What is asked of a sweep, and what it did.

use super::policy::Retention;
use chipmink_types::TimeId;
use std::time::Duration;

/// What a sweep is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SweepRequest {
    /// Which versions stay.
    pub retention: Retention,
    /// How long a condemned pack is left for those who still read from it, by the store's clock; and how old a pack that no
    /// version names must be to be taken for the leftover of a save that died.
    pub grace: Duration,
    /// Only say what would be done. Nothing is written.
    pub dry_run: bool,
}

/// An hour: longer than a load, or a save, takes.
pub(super) const GRACE: Duration = Duration::from_secs(3600);

impl Default for SweepRequest {
    fn default() -> Self {
        SweepRequest { retention: Retention::default(), grace: GRACE, dry_run: false }
    }
}

/// What a sweep did, or would do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SweepReport {
    /// Nothing was written: it says what would be done.
    pub is_dry_run: bool,
    /// Versions that were dropped, ascending.
    pub versions_dropped: Vec<TimeId>,
    /// Versions that are left.
    pub versions_kept: u64,
    /// Refs that went with their versions: tags, where those do not keep them.
    pub refs_deleted: Vec<String>,
    /// Packs of versions that were condemned.
    pub packs_condemned: u64,
    /// Packs without a version that were condemned.
    pub orphans_condemned: u64,
    /// Bytes of all that was condemned.
    pub condemned_bytes: u64,
    /// Bytes of blobs that were moved out of packs that go.
    pub moved_bytes: u64,
    /// Packs that were deleted, those that an earlier sweep had condemned included.
    pub packs_deleted: u64,
    /// Bytes of the deleted packs.
    pub freed_bytes: u64,
    /// Packs that are condemned and wait until the grace is over.
    pub packs_waiting: u64,
    /// Bytes of the waiting packs.
    pub waiting_bytes: u64,
    /// Bytes of the packs that stay: of the moved blobs without the index of the pack that they went to.
    pub kept_bytes: u64,
    /// The entry that it published, if there was anything to publish.
    pub entry: Option<TimeId>,
}
