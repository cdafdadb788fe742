//! What can be wrong with bytes that claim to be ours.

use chipmink_types::{BlobError, Digest};
use std::borrow::Cow;

/// Why bytes could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The bytes are not what was written.
    #[error("{what} is damaged at byte {byte_offset}: {reason}")]
    Damaged {
        /// What the bytes were read as, with its name where it has one.
        what: Cow<'static, str>,
        /// Where in those bytes the contradiction showed, in bytes from their start.
        byte_offset: u64,
        /// The contradiction.
        reason: Cow<'static, str>,
    },
    /// A root entry whose checksum fails. Its number is spent; readers step over it and say so.
    #[error("root entry {number} is void: {reason}; it is stepped over")]
    Void {
        /// The number under which it was read.
        number: u64,
        /// Why it is void.
        reason: Cow<'static, str>,
    },
    /// Reading needs something that this build does not know. The bytes are sound.
    #[error("{what} cannot be read by this build: {needs}; use a newer chipmink")]
    UnsupportedForReading {
        /// What was being read.
        what: Cow<'static, str>,
        /// The version, feature bit or number that is not known.
        needs: String,
    },
    /// Writing (or sweeping) needs something that this build does not know. Reading is not affected.
    #[error("{what} cannot be written to by this build: {needs}; use a newer chipmink, or open it read-only")]
    UnsupportedForWriting {
        /// What was to be written to.
        what: Cow<'static, str>,
        /// The version or feature bit that is not known.
        needs: String,
    },
    /// The bytes are a pickle.
    #[error("these bytes are a pickle, not a chipmink stream; load them with `pickle.loads`")]
    Pickle,
    /// The bytes begin with another magic.
    #[error("these bytes are no {what}: they begin with {found:02x?}")]
    NotChipmink {
        /// What was expected.
        what: &'static str,
        /// The first bytes found, at most eight.
        found: Vec<u8>,
    },
    /// More bytes before the given ones are needed to decode the end of a pack.
    #[error("the last {needed} bytes of the pack are needed to read its footer")]
    NeedMore {
        /// How many bytes from the end of the pack must be given, at least.
        needed: u64,
    },
    /// Something is larger than the format allows.
    #[error("{what} has {found} bytes, at most {limit} are allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size in bytes.
        found: u64,
        /// The bound in bytes.
        limit: u64,
    },
    /// A blob that was needed could not be had, or not be put.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

impl FormatError {
    /// Names the blob in which the damage is.
    #[must_use]
    pub fn in_blob(self, digest: &Digest) -> Self {
        let name = |what: Cow<'static, str>| Cow::Owned(format!("{what} {digest}"));
        match self {
            FormatError::Damaged { what, byte_offset, reason } => {
                FormatError::Damaged { what: name(what), byte_offset, reason }
            }
            FormatError::UnsupportedForReading { what, needs } => {
                FormatError::UnsupportedForReading { what: name(what), needs }
            }
            other => other,
        }
    }
}

/// Result of this crate.
pub type Result<T, E = FormatError> = std::result::Result<T, E>;
