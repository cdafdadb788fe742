//! Failures of the local backend, and what the `object_store` trait calls them.

use std::io;
use std::path::{Path, PathBuf};

/// A system call of the local backend failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {source}", path.display())]
pub struct LocalError {
    /// What was being done, e.g. `write`.
    pub operation: &'static str,
    /// On which file or directory.
    pub path: PathBuf,
    /// The system's answer.
    #[source]
    pub source: io::Error,
}

impl LocalError {
    pub(crate) fn new(operation: &'static str, path: &Path, source: io::Error) -> Self {
        LocalError { operation, path: path.to_owned(), source }
    }

    /// Whether neither `link` nor `renameat2` works here, so that nothing can be published.
    pub(crate) fn cannot_publish(&self) -> bool {
        self.operation == PUBLISH && is_unsupported(&self.source)
    }
}

/// The operation of giving a finished file its final name.
pub(crate) const PUBLISH: &str = "publish";

/// Whether a call failed because the file system does not know it.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    use rustix::io::Errno;
    const ANSWERS: [Errno; 5] = [Errno::PERM, Errno::NOSYS, Errno::OPNOTSUPP, Errno::INVAL, Errno::MLINK];
    error.kind() == io::ErrorKind::Unsupported
        || error.raw_os_error().is_some_and(|code| ANSWERS.iter().any(|known| known.raw_os_error() == code))
}

impl From<LocalError> for object_store::Error {
    fn from(error: LocalError) -> Self {
        let path = error.path.display().to_string();
        match error.source.kind() {
            io::ErrorKind::NotFound => object_store::Error::NotFound { path, source: Box::new(error) },
            io::ErrorKind::AlreadyExists => {
                object_store::Error::AlreadyExists { path, source: Box::new(error) }
            }
            _ if error.cannot_publish() => object_store::Error::NotSupported { source: Box::new(error) },
            io::ErrorKind::PermissionDenied => {
                object_store::Error::PermissionDenied { path, source: Box::new(error) }
            }
            _ => object_store::Error::Generic { store: "local", source: Box::new(error) },
        }
    }
}
