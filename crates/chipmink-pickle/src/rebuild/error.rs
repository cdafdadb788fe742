//! What can go wrong while objects are rebuilt, and what Python sees of it.

use chipmink_format::FormatError;
use chipmink_types::BlobError;
use pyo3::exceptions::{PyOSError, PyPermissionError, PyTypeError, PyValueError};
use pyo3::prelude::*;

/// Why a rebuild failed, where that is not an exception that Python code raised.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildError {
    /// The bytes of a pod do not make sense.
    #[error(
        "{pod} is damaged at byte {byte_offset}: {reason}; \
         run `chipmink verify` to see what else is, or load another version"
    )]
    Damaged {
        /// Which pod: its digest, or what it is if it has none.
        pod: String,
        /// Where decoding stopped, from the pod's first byte.
        byte_offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The plan contradicts itself: it names a pod, an export or a shape that it does not hold.
    #[error("the plan of this load is damaged: {0}; run `chipmink verify`")]
    Plan(String),
    /// A restricted load met something that its allowlist does not grant.
    #[error(
        "{name} is not allowed in this load{place}; add it to `allow` if you trust it, or do not load these bytes"
    )]
    Refused {
        /// What would have to be granted.
        name: String,
        /// Where it was met, as ` at variable[3].attribute`; empty as long as nobody said.
        place: String,
    },
    /// A blob could not be had.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The bytes given to `loads` are no stream that can be read.
    #[error(transparent)]
    Stream(#[from] FormatError),
}

/// The exception class of chipmink's own with this name, if the package is there.
fn exception_class<'py>(py: Python<'py>, name: &str) -> Option<Bound<'py, PyAny>> {
    py.import("chipmink._errors").and_then(|module| module.getattr(name)).ok()
}

/// Whether bytes are sound, but not for this chipmink to read.
fn is_foreign(error: &FormatError) -> bool {
    matches!(error, FormatError::Pickle | FormatError::UnsupportedForReading { .. })
}

impl RebuildError {
    /// The Python exception for it: of `chipmink._errors`, or the nearest builtin where that is not importable.
    pub fn into_exception(self, py: Python<'_>) -> PyErr {
        let message = self.to_string();
        let name = match &self {
            RebuildError::Refused { .. } => "NotAllowedError",
            RebuildError::Blob(BlobError::Storage { .. }) => "StorageError",
            RebuildError::Stream(error) if is_foreign(error) => "UnsupportedError",
            _ => "DamagedError",
        };
        if let Some(exception) =
            exception_class(py, name).and_then(|class| class.call1((message.as_str(),)).ok())
        {
            return PyErr::from_value(exception);
        }
        match &self {
            RebuildError::Refused { .. } => PyPermissionError::new_err(message),
            RebuildError::Blob(BlobError::Storage { .. }) => PyOSError::new_err(message),
            RebuildError::Stream(error) if is_foreign(error) => PyTypeError::new_err(message),
            _ => PyValueError::new_err(message),
        }
    }
}

/// A failure on its way out of the decoder; one pointer, so that results stay in registers.
pub(super) struct Failure(Box<Cause>);

/// What a [`Failure`] carries.
pub(super) enum Cause {
    /// Python code raised, or an object could not be made.
    Python(PyErr),
    /// The bytes are wrong; place and pod are added on the way out.
    Damaged(String),
    /// Anything that already knows what it is about.
    Known(RebuildError),
}

pub(super) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// The bytes at the reader's place are wrong.
    #[cold]
    #[inline(never)]
    pub(super) fn damaged(reason: impl Into<String>) -> Self {
        Failure(Box::new(Cause::Damaged(reason.into())))
    }

    /// The exception that is set in this thread; for a call of the C API that has just failed.
    #[cold]
    #[inline(never)]
    pub(super) fn raised(py: Python<'_>) -> Self {
        Failure(Box::new(Cause::Python(PyErr::fetch(py))))
    }

    pub(super) fn into_cause(self) -> Cause {
        *self.0
    }
}

impl From<Cause> for Failure {
    #[cold]
    fn from(cause: Cause) -> Self {
        Failure(Box::new(cause))
    }
}

impl From<PyErr> for Failure {
    #[cold]
    fn from(error: PyErr) -> Self {
        Failure(Box::new(Cause::Python(error)))
    }
}

impl From<RebuildError> for Failure {
    #[cold]
    fn from(error: RebuildError) -> Self {
        Failure(Box::new(Cause::Known(error)))
    }
}

impl From<BlobError> for Failure {
    #[cold]
    fn from(error: BlobError) -> Self {
        RebuildError::Blob(error).into()
    }
}
