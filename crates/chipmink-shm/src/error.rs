//! What can go wrong with mapped and shared memory.

use std::io;
use std::path::PathBuf;

/// A failure of mapped or shared memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShmError {
    /// A file is not as long as it should be.
    #[error("{path} has {found} bytes instead of {expected}; it was cut or replaced, run `chipmink verify`")]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes that it should have.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// A piece does not begin where pages begin, or lies outside its file.
    #[error("piece {piece} of a mapping cannot be mapped: {reason}")]
    Piece {
        /// Ordinal of the piece.
        piece: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Too many mappings would be needed; the bytes must be read instead.
    #[error("{needed} mappings are needed and {left} are left of {limit}; read the bytes instead")]
    Mappings {
        /// Mappings that the region needs.
        needed: usize,
        /// Mappings that may still be made.
        left: usize,
        /// Mappings that may be made in all.
        limit: usize,
    },
    /// Shared memory is not what it should be, or cannot be used so.
    #[error("shared memory {name:?} cannot be used: {reason}")]
    Segment {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The generation that was being read is gone: a writer has taken its slot, or the bytes are not what was published.
    #[error(
        "generation {generation} of shared memory {name:?} is not there any more; ask for the newest again"
    )]
    Overwritten {
        /// Name of the segment.
        name: String,
        /// The generation.
        generation: u64,
    },
    /// Another process is using it.
    #[error("shared memory {name:?} is in use by {by}; wait for it, or end it")]
    InUse {
        /// Name of the segment.
        name: String,
        /// Who uses it.
        by: String,
    },
    /// The system refused.
    #[error("{context}: {source}")]
    System {
        /// What was being done, on what.
        context: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl ShmError {
    pub(crate) fn system(context: impl Into<String>, source: impl Into<io::Error>) -> Self {
        ShmError::System { context: context.into(), source: source.into() }
    }
}

/// Result of this crate's operations.
pub type Result<T, E = ShmError> = std::result::Result<T, E>;
