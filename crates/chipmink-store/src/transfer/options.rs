//! What a transfer is asked for, and what it says of itself.

use crate::error::StoreError;
use chipmink_types::TimeId;

/// A ref that is carried, and its name in the destination.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefSpec {
    /// Its name in the source.
    pub from: String,
    /// Its name in the destination.
    pub to: String,
}

impl RefSpec {
    /// Understands `NAME`, or `NAME:OTHER` for another name in the destination.
    ///
    /// # Errors
    /// When a name is empty.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let (from, to) = text.split_once(':').unwrap_or((text, text));
        if from.is_empty() || to.is_empty() {
            return Err(StoreError::RefSpec { text: text.to_owned() });
        }
        Ok(RefSpec { from: from.to_owned(), to: to.to_owned() })
    }
}

/// Where the history that is sent begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Since {
    /// At this version of the source.
    Version(TimeId),
    /// At what was saved at this time, in microseconds since 1970-01-01 UTC, by the saver's clock.
    SavedAt(i64),
}

/// What is to be transferred, and how.
#[derive(Clone, PartialEq, Debug)]
pub struct TransferOptions {
    /// The refs to carry; empty: all branches and tags.
    pub refs: Vec<RefSpec>,
    /// Leaves out older versions.
    pub since: Option<Since>,
    /// Only these variables, with all that shares objects with them and what their functions read.
    pub names: Option<Vec<String>>,
    /// Makes the refs of the destination equal to those of the source: also those that went their own way, and those that
    /// the source does not have.
    pub mirror: bool,
    /// Bytes per second at most.
    pub limit: Option<u64>,
    /// Whether what was written is read back, and compared with its digests, before it becomes visible.
    pub verify: bool,
    /// Packs that are written at once.
    pub parallel: usize,
}

impl Default for TransferOptions {
    fn default() -> Self {
        let (refs, since, names, limit) = (Vec::new(), None, None, None);
        TransferOptions { refs, since, names, mirror: false, limit, verify: true, parallel: 4 }
    }
}

impl TransferOptions {
    /// Whether all of the source is carried, so that a new destination can have its identity and its numbers.
    pub fn is_whole(&self) -> bool {
        self.refs.is_empty() && self.since.is_none() && self.names.is_none()
    }
}

/// What a transfer is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Phase {
    /// Finding out what is missing.
    #[default]
    Comparing,
    /// Copying what is missing.
    Copying,
    /// Making versions visible.
    Publishing,
}

impl Phase {
    /// A word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Comparing => "comparing",
            Phase::Copying => "copying",
            Phase::Publishing => "publishing",
        }
    }
}

/// How far a transfer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TransferProgress {
    /// What it is doing.
    pub phase: Phase,
    /// Bytes copied, as they are stored; while publishing, versions.
    pub done: u64,
    /// Of so many; 0 while that is not known.
    pub total: u64,
}

/// What a transfer did.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct TransferReport {
    /// Versions that became visible in the destination.
    pub versions: u64,
    /// Versions of the source whose content is no longer there, and which were left out.
    pub swept: u64,
    /// Refs that were made, moved or taken away.
    pub refs: Vec<String>,
    /// Branches of the destination that have versions beyond those of the source, and were left alone.
    pub ahead: Vec<String>,
    /// Blobs that were copied.
    pub blobs: u64,
    /// Bytes that were copied, as they are stored.
    pub bytes: u64,
    /// Packs that were written.
    pub packs: u64,
    /// Packs of an earlier transfer that was interrupted, which were found and used.
    pub packs_resumed: u64,
    /// Bytes of these.
    pub bytes_resumed: u64,
    /// Time that it took.
    pub seconds: f64,
}
