//! What can go wrong with a repository, grouped by what the caller can do about it.

use chipmink_digest::DigestError;
use chipmink_format::FormatError;
use chipmink_graph::GraphError;
use chipmink_shm::ShmError;
use chipmink_store::StoreError;
use chipmink_types::{BlobError, TimeId, WalkError};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Groups of errors: a handler that knows the group knows what to do next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no such repository, version, ref or variable: ask for another.
    NotFound,
    /// Stored bytes are not what was written: run `verify`, take another version.
    Damaged,
    /// Another writer moved the ref: take its version as base, or save to another ref. Nothing was saved, nothing lost.
    RefMoved,
    /// A version may or may not have been published: look before saving again.
    OutcomeUnknown,
    /// The place failed: the same call may succeed later.
    Storage,
    /// This build cannot do that: another build or another argument can.
    Unsupported,
    /// Another save to this ref is running: wait for it.
    Busy,
    /// The save was interrupted: save again.
    Interrupted,
    /// The layers contradict each other: a mistake in chipmink, which should be reported.
    Internal,
}

impl ErrorKind {
    /// A stable word for programs, e.g. in `--json` output.
    pub const fn code(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "not-found",
            ErrorKind::Damaged => "damaged",
            ErrorKind::RefMoved => "ref-moved",
            ErrorKind::OutcomeUnknown => "outcome-unknown",
            ErrorKind::Storage => "storage",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::Busy => "busy",
            ErrorKind::Interrupted => "interrupted",
            ErrorKind::Internal => "internal",
        }
    }

    /// Whether the same call may succeed without anything else being done.
    pub const fn can_retry(self) -> bool {
        matches!(self, ErrorKind::Storage | ErrorKind::Busy | ErrorKind::Interrupted)
    }
}

/// Why an operation on a repository failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store failed or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Stored bytes could not be understood.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A blob could not be read or written.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A digest tree is damaged.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// A pod graph is beyond what a table can hold.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The walk over the live objects failed.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// The version has no such variable.
    #[error("version {time} has no variable {name:?}; `chipmink show PLACE {time}` lists what it has")]
    UnknownName {
        /// The version.
        time: TimeId,
        /// The name that was asked for.
        name: String,
    },
    /// Versions that are to be joined have variables of one name.
    #[error(
        "versions {first} and {second} both have a variable {name:?}; give the variables of what is joined names of their own"
    )]
    JoinedTwice {
        /// The name.
        name: String,
        /// A version that has it.
        first: TimeId,
        /// Another one.
        second: TimeId,
    },
    /// There is no such ref.
    #[error("there is no ref {name:?} in {place}; check the name, or save to it first")]
    UnknownRef {
        /// Where the repository is.
        place: String,
        /// The ref.
        name: String,
    },
    /// There is such a ref.
    #[error(
        "there is a ref {name:?} already, at version {time}; take another name, or delete that one first"
    )]
    RefExists {
        /// The ref.
        name: String,
        /// Where it points.
        time: TimeId,
    },
    /// A ref cannot have that name.
    #[error("{name:?} cannot be the name of a branch or tag: {reason}")]
    RefName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A save was to move a tag.
    #[error(
        "{name:?} is a tag, which saves do not move; open a branch, and load the version by the name of the tag"
    )]
    TagMoves {
        /// The tag.
        name: String,
    },
    /// A save to the ref is running.
    #[error(
        "another save to ref {ref_name:?} is running on this repository object; wait until it has finished"
    )]
    Busy {
        /// The ref.
        ref_name: String,
    },
    /// A table of the version contradicts itself.
    #[error("version {time} is damaged: {reason}; run `chipmink verify`")]
    DamagedVersion {
        /// The version.
        time: TimeId,
        /// The contradiction.
        reason: String,
    },
    /// Bytes that were read could not be passed on.
    #[error("the output failed: {0}")]
    Output(#[source] std::io::Error),
    /// Shared memory failed, or is not what it should be.
    #[error(transparent)]
    Shm(#[from] ShmError),
    /// What is staged could not be made durable. It stays staged, and is tried again.
    #[error(
        "what is staged in {place} could not be made durable: {reason}; it stays there, and is tried again"
    )]
    Staging {
        /// The staging tier.
        place: String,
        /// What stood in the way.
        reason: String,
    },
    /// Others published below, so a staged version has another number there, or another ref.
    #[error(
        "another program has published versions of {place} without its staging tier, so {what}; open the repository again, and look at `chipmink log`"
    )]
    PublishedElsewhere {
        /// The repository.
        place: String,
        /// Which version went where.
        what: String,
    },
    /// A walk broke the contract of `GraphSource`.
    #[error("the walk contradicts itself: {reason}; nothing was saved, please report this")]
    Contract {
        /// What it said.
        reason: String,
    },
}

impl Error {
    pub(crate) fn contract(reason: impl Into<String>) -> Self {
        Error::Contract { reason: reason.into() }
    }

    /// Whether a save failed because a sweep took what it builds on: walked again, on what is left, it can succeed.
    pub const fn wants_new_walk(&self) -> bool {
        matches!(self, Error::Store(StoreError::BaseSwept))
    }

    /// The group of the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Store(error) => of_store(error),
            Error::Format(error) => of_format(error),
            Error::Blob(error) => of_blob(error),
            Error::Digest(_) | Error::DamagedVersion { .. } => ErrorKind::Damaged,
            Error::Graph(_) | Error::RefName { .. } | Error::TagMoves { .. } | Error::JoinedTwice { .. } => {
                ErrorKind::Unsupported
            }
            Error::RefExists { .. } => ErrorKind::RefMoved,
            Error::Walk(WalkError::Blob(error)) => of_blob(error),
            Error::Walk(WalkError::Interrupted) => ErrorKind::Interrupted,
            Error::Walk(_) => ErrorKind::Unsupported,
            Error::UnknownName { .. } | Error::UnknownRef { .. } => ErrorKind::NotFound,
            Error::Busy { .. } => ErrorKind::Busy,
            Error::Output(_) | Error::Staging { .. } => ErrorKind::Storage,
            Error::Shm(ShmError::InUse { .. }) => ErrorKind::Busy,
            Error::Shm(ShmError::System { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                ErrorKind::NotFound
            }
            Error::Shm(_) => ErrorKind::Storage,
            Error::PublishedElsewhere { .. } => ErrorKind::RefMoved,
            Error::Contract { .. } => ErrorKind::Internal,
        }
    }
}

fn of_store(error: &StoreError) -> ErrorKind {
    match error {
        StoreError::NoRepository { .. }
        | StoreError::UnknownVersion { .. }
        | StoreError::Dropped { .. }
        | StoreError::UnknownRef { .. }
        | StoreError::UnknownName { .. } => ErrorKind::NotFound,
        StoreError::RefMoved { .. } | StoreError::Diverged { .. } => ErrorKind::RefMoved,
        StoreError::Stopped | StoreError::Cancelled | StoreError::LoadCancelled => ErrorKind::Interrupted,
        StoreError::Unsweepable { .. } => ErrorKind::Damaged,
        StoreError::OutcomeUnknown { .. } => ErrorKind::OutcomeUnknown,
        StoreError::Place { .. } | StoreError::Unconditional { .. } | StoreError::RefSpec { .. } => {
            ErrorKind::Unsupported
        }
        StoreError::Format { source, .. } => of_format(source),
        StoreError::Blob(error) => of_blob(error),
        _ => ErrorKind::Storage,
    }
}

fn of_format(error: &FormatError) -> ErrorKind {
    match error {
        FormatError::UnsupportedForReading { .. }
        | FormatError::UnsupportedForWriting { .. }
        | FormatError::Pickle
        | FormatError::TooLarge { .. } => ErrorKind::Unsupported,
        FormatError::Blob(error) => of_blob(error),
        _ => ErrorKind::Damaged,
    }
}

fn of_blob(error: &BlobError) -> ErrorKind {
    match error {
        BlobError::Missing { .. } | BlobError::Damaged { .. } => ErrorKind::Damaged,
        // What a store says inside of a blob error keeps its group.
        BlobError::Storage { source, .. } => match source.downcast_ref::<StoreError>() {
            Some(error) => of_store(error),
            None => ErrorKind::Storage,
        },
        _ => ErrorKind::Storage,
    }
}
