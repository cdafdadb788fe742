//! Failures of a store.

use crate::remote::RemoteFailure;
use chipmink_format::FormatError;
use chipmink_types::{BlobError, TimeId, WriteId};
use std::io;

/// What went wrong with a repository.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The text names no place that can hold a repository.
    #[error("cannot use {place:?} as a place for a repository: {reason}")]
    Place {
        /// The text.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no repository.
    #[error("there is no chipmink repository in {place}; save something there first, or check the path")]
    NoRepository {
        /// Where one was looked for.
        place: String,
    },
    /// There are entries of a root log, and none can be used.
    #[error(
        "no entry of the root log in {place} is sound ({reason}); if a power cut came before the first durable save, remove the folder, else restore it from a copy"
    )]
    NoSoundEntry {
        /// Where it is.
        place: String,
        /// What is wrong with the newest.
        reason: String,
    },
    /// There is a repository already.
    #[error("there is a chipmink repository in {place} already; open it")]
    AlreadyThere {
        /// Where it is.
        place: String,
    },
    /// The place does not keep two writers from creating one object.
    #[error(
        "{place} does not honour conditional writes ({}), so two writers could damage a repository there; use a service that does, or pass single_writer=True if only one process at a time will ever write there", race(*writers, *winners, *is_known))]
    Unconditional {
        /// The place.
        place: String,
        /// How many tried to create one object.
        writers: usize,
        /// How many were told that they had.
        winners: usize,
        /// Whether it knows such requests at all.
        is_known: bool,
    },
    /// The place can be read and not written.
    #[error("{place} can only be read: {reason}")]
    ReadOnly {
        /// The place.
        place: String,
        /// Why.
        reason: String,
    },
    /// Somebody moved the ref since the caller looked.
    #[error("ref {ref_name:?} has moved: expected {}, found {}; load the newer version or save under another ref", shown(*expected), shown(*found))]
    RefMoved {
        /// The ref.
        ref_name: String,
        /// What the caller built on.
        expected: Option<TimeId>,
        /// What the ref refers to now.
        found: Option<TimeId>,
    },
    /// It could not be found out whether the version was published.
    #[error("the outcome of publishing as entry {number} of {place} is unknown (write id {}): {reason}; look with `chipmink log` before you save again", hex(&write_id.0))]
    OutcomeUnknown {
        /// The place.
        place: String,
        /// The number under which it was to be published.
        number: TimeId,
        /// By this the entry can be recognised.
        write_id: WriteId,
        /// What stood in the way.
        reason: String,
    },
    /// The disk, or a quota, is full.
    #[error(
        "no space left while {context}; nothing of this save was published, free some space and save again"
    )]
    DiskFull {
        /// What was being done, on what.
        context: String,
        /// The failure.
        #[source]
        source: object_store::Error,
    },
    /// The place failed.
    #[error("{context} failed: {}", plain(source))]
    Storage {
        /// What was being done, on what.
        context: String,
        /// The failure.
        #[source]
        source: object_store::Error,
    },
    /// No entry has this number, or it published no version.
    #[error("version {time} is not in {place}: {reason}")]
    UnknownVersion {
        /// The place.
        place: String,
        /// The number.
        time: TimeId,
        /// Why not.
        reason: String,
    },
    /// A sweep has dropped the version.
    #[error("version {time} of {place} was dropped by a sweep{when}; `chipmink log` lists what is left")]
    Dropped {
        /// The place.
        place: String,
        /// The number.
        time: TimeId,
        /// When, as ` on` and a date, if that is known.
        when: String,
    },
    /// What is to be kept cannot be read, so nothing is deleted.
    #[error(
        "{place} was not swept: {reason}; look with `chipmink verify`, and let the sweep drop what cannot be mended"
    )]
    Unsweepable {
        /// The place.
        place: String,
        /// What cannot be read.
        reason: String,
    },
    /// Others published again and again while a sweep was being prepared.
    #[error("{place} was not swept: others published {attempts} times meanwhile; sweep again")]
    Outrun {
        /// The place.
        place: String,
        /// How often it was tried.
        attempts: usize,
    },
    /// An object is damaged, or made by a later version.
    #[error("{object} in {place}: {source}")]
    Format {
        /// The place.
        place: String,
        /// Path of the object.
        object: String,
        /// What is wrong.
        #[source]
        source: FormatError,
    },
    /// The repository was replaced by another while it was open.
    #[error("{place} holds another repository than when it was opened; open it again")]
    Replaced {
        /// The place.
        place: String,
    },
    /// Packs that this save builds on were swept by another process.
    #[error("another process swept data that this save builds on; save again")]
    BaseSwept,
    /// The text names no ref, and no other name for it.
    #[error("{text:?} names no ref to carry: give NAME, or NAME:OTHER for another name in the destination")]
    RefSpec {
        /// The text.
        text: String,
    },
    /// There is no such ref.
    #[error("there is no ref {ref_name:?} in {place}; `chipmink log` shows which there are")]
    UnknownRef {
        /// The place.
        place: String,
        /// The ref.
        ref_name: String,
    },
    /// No version that is to be sent has such a variable.
    #[error("no version that is to be brought from {place} has a variable {name:?}")]
    UnknownName {
        /// The place.
        place: String,
        /// The variable.
        name: String,
    },
    /// Branches of the destination went their own way, or its tags are others.
    #[error(
        "{} in {place} went another way than in the source, and nothing was transferred; give them other names there, as in --ref main:theirs, or `mirror` to replace them", refs.join(", "))]
    Diverged {
        /// The destination.
        place: String,
        /// The refs.
        refs: Vec<String>,
    },
    /// The caller stopped a transfer.
    #[error("stopped; what was copied stays, and the same transfer goes on from there")]
    Stopped,
    /// The caller cancelled a load.
    #[error("the load was cancelled")]
    LoadCancelled,
    /// Whoever wanted the save does not want it any more.
    #[error("the save was cancelled before it was published, so there is no version of it")]
    Cancelled,
    /// A failed transaction was used again.
    #[error("this save failed before ({reason}); begin another")]
    Spent {
        /// How it failed.
        reason: String,
    },
    /// A blob could not be read or taken.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// What a failure of a place is called: buckets explain theirs.
fn plain(error: &object_store::Error) -> String {
    RemoteFailure::of(error).map_or_else(|| error.to_string(), ToString::to_string)
}

fn race(writers: usize, winners: usize, is_known: bool) -> String {
    match is_known {
        true => format!("{winners} of {writers} creators of one name won"),
        false => "it does not know them".to_owned(),
    }
}

fn shown(time: Option<TimeId>) -> String {
    time.map_or_else(|| "no version".to_owned(), |time| format!("version {time}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Result of this crate.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// The first I/O error among the causes.
fn io_cause(error: &object_store::Error) -> Option<&io::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

impl StoreError {
    /// Says what was being done when the place failed.
    pub(crate) fn storage(context: impl Into<String>, source: object_store::Error) -> Self {
        let context = context.into();
        match io_cause(&source).map(io::Error::kind) {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                StoreError::DiskFull { context, source }
            }
            _ => StoreError::Storage { context, source },
        }
    }

    /// Whether the object was not there.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, StoreError::Storage { source: object_store::Error::NotFound { .. }, .. })
    }
}

impl From<StoreError> for BlobError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Blob(error) => error,
            StoreError::Storage { context, source } => {
                let failure = RemoteFailure::of(&source).cloned();
                let source = failure.map_or_else(|| Box::new(source) as _, |failure| Box::new(failure) as _);
                BlobError::Storage { context, source }
            }
            other => BlobError::Storage { context: "the repository".to_owned(), source: Box::new(other) },
        }
    }
}
