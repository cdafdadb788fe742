//! Creating a root entry, and finding out what became of it: an answer decides nothing, what stands there does.

use crate::error::{Result, StoreError};
use crate::inner::Inner;
use crate::log::{ReadEntry, read_entry};
use bytes::Bytes;
use chipmink_format::{ConditionalWrites, FormatError, RootEntry, root_path};

/// How often the same bytes are sent again before the outcome counts as unknown.
const TRIES: usize = 4;

/// What became of an attempt to create an entry.
pub(crate) enum Outcome {
    /// It is there.
    Won,
    /// Another entry has its number.
    Lost(Box<ReadEntry>),
    /// Its number is spent, without a sound entry.
    Spent,
}

/// Creates the entry and finds out what became of it; `verdict` says what the place does with conditional writes.
pub(crate) fn create_entry(
    inner: &Inner,
    entry: &RootEntry,
    bytes: &Bytes,
    verdict: ConditionalWrites,
) -> Result<Outcome> {
    let path = root_path(entry.number);
    let unknown = |reason: String| StoreError::OutcomeUnknown {
        place: inner.backend.label().to_owned(),
        number: entry.number,
        write_id: entry.write_id,
        reason,
    };
    let mut attempt = 0;
    loop {
        attempt += 1;
        let failure = match inner.backend.create_entry(&path, bytes.clone(), verdict) {
            Ok(()) => return Ok(Outcome::Won),
            Err(failure) => failure,
        };
        match read_entry(&inner.backend, entry.number) {
            Ok(read) if read.entry.write_id == entry.write_id => {
                let is_doubtful = !matches!(failure, object_store::Error::AlreadyExists { .. });
                if is_doubtful && inner.options.durable {
                    // It is seen; whether it was synced is not known.
                    inner.backend.sync(&[path]).map_err(|error| unknown(error.to_string()))?;
                }
                return Ok(Outcome::Won);
            }
            Ok(read) => return Ok(Outcome::Lost(Box::new(read))),
            Err(StoreError::Format { source: FormatError::Void { .. }, .. }) => {
                return Ok(Outcome::Spent);
            }
            Err(error) if error.is_missing() => {
                let error = inner.backend.write_error(&format!("creating {path}"), failure);
                if matches!(error, StoreError::ReadOnly { .. }) {
                    return Err(error);
                }
                if attempt == TRIES {
                    // Here a call that failed does nothing later. Elsewhere it may be under way.
                    return Err(if inner.backend.is_prompt() { error } else { unknown(error.to_string()) });
                }
            }
            Err(error) if attempt == TRIES => return Err(unknown(error.to_string())),
            Err(_) => {}
        }
    }
}
