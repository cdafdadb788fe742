//! Root entries: how each begins, creating it, and finding out what became of it. An answer decides nothing, what stands
//! there does.

use crate::compression::PlaceKind;
use crate::creation::now_micros;
use crate::error::{Result, StoreError};
use crate::inner::Inner;
use crate::log::{Log, ReadEntry, decode_entry, note_boot, read_entry};
use crate::turn::Held;
use bytes::Bytes;
use chipmink_format::{ConditionalWrites, FormatError, ROOT_ENTRY_LEN_MAX, RootEntry, root_path};
use chipmink_types::{TimeId, WriteId};
use std::time::Duration;

/// How often the same bytes are sent again before the outcome counts as unknown.
const TRIES: usize = 4;

/// How long it is waited for an entry whose name is taken and that is not there yet: two seconds, a thousand times what it
/// takes. Who took a name and died is found out by the pool.
const WAITS: usize = 1000;
/// How long at once.
const WAIT: Duration = Duration::from_millis(2);

/// Entries that are looked for above one that was faster.
const ABOVE: u64 = 2;

/// What became of an attempt to create an entry.
pub(crate) enum Outcome {
    /// It is there.
    Won,
    /// Another entry has its number: that, and those above it, as far as they were read along. Nobody has to look for more if there
    /// was nothing above them.
    Lost {
        /// Those that stand there, in order.
        read: Vec<ReadEntry>,
        /// Nothing stood above the last one.
        is_newest: bool,
    },
    /// Its number is spent, without a sound entry.
    Spent,
}

/// The entry that follows the head of `log`, and changes nothing yet. `synced`: all up to this number would survive a power
/// cut. `is_synced`: so will whatever the entry names, and the entry itself.
///
/// # Errors
/// When this build may not write here, or the last number is spent.
pub(crate) fn begin_entry(
    inner: &Inner,
    log: &Log,
    write_id: WriteId,
    synced: Option<TimeId>,
    is_synced: bool,
) -> Result<RootEntry> {
    let place = || inner.backend.label().to_owned();
    log.requirements.check_write("repository").map_err(|source| StoreError::Format {
        place: place(),
        object: root_path(log.head.number),
        source,
    })?;
    let Some(number) = log.next_number() else {
        return Err(StoreError::ReadOnly { place: place(), reason: "its last number is spent".to_owned() });
    };
    let mut entry = RootEntry::new(number, log.state.repository, write_id);
    entry.requirements = log.requirements;
    entry.published_at = now_micros();
    entry.floor = log.state.floor;
    entry.is_synced = is_synced;
    note_boot(&mut entry, &inner.backend);
    entry.synced_through = synced.max(log.synced_through);
    entry.previous = Some(log.head);
    entry.state = log.place;
    Ok(entry)
}

/// Creates the entry and finds out what became of it; `verdict` says what the place does with conditional writes.
pub(crate) fn create_entry(
    inner: &Inner,
    turn: &mut Held<'_>,
    entry: &RootEntry,
    bytes: &Bytes,
    verdict: ConditionalWrites,
) -> Result<Outcome> {
    let outcome = try_to_create(inner, entry, bytes, verdict)?;
    if matches!(outcome, Outcome::Won) {
        turn.tell(entry, bytes);
    }
    Ok(outcome)
}

fn try_to_create(
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
    let mut waits = 0;
    loop {
        attempt += 1;
        let failure = match inner.backend.create_entry(&path, bytes.clone(), verdict) {
            Ok(()) => return Ok(Outcome::Won),
            Err(failure) => failure,
        };
        let (found, above) = read_with_above(inner, entry.number, &failure);
        match found {
            Ok(read) if read.entry.write_id == entry.write_id => {
                let is_doubtful = !matches!(failure, object_store::Error::AlreadyExists { .. });
                if is_doubtful && inner.options.durable {
                    // It is seen; whether it was synced is not known.
                    inner.backend.sync(&[path]).map_err(|error| unknown(error.to_string()))?;
                }
                return Ok(Outcome::Won);
            }
            Ok(read) => {
                let is_newest = above.as_ref().is_some_and(|above| above.len() < ABOVE as usize);
                let read = std::iter::once(read).chain(above.unwrap_or_default()).collect();
                return Ok(Outcome::Lost { read, is_newest });
            }
            Err(StoreError::Format { source: FormatError::Void { .. }, .. }) => {
                return Ok(Outcome::Spent);
            }
            Err(error)
                if error.is_missing()
                    && inner.backend.is_prompt()
                    && matches!(failure, object_store::Error::AlreadyExists { .. })
                    && waits < WAITS =>
            {
                // Another process has taken the name in shared memory, and is about to create the entry.
                waits += 1;
                attempt -= 1;
                std::thread::sleep(WAIT);
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

/// An entry, and those above it, if it is likely that somebody was faster: far away, what follows would be one more request, during
/// which the next one publishes. `None` if they were not looked for.
fn read_with_above(
    inner: &Inner,
    number: TimeId,
    failure: &object_store::Error,
) -> (Result<ReadEntry>, Option<Vec<ReadEntry>>) {
    let is_taken = matches!(failure, object_store::Error::AlreadyExists { .. });
    if inner.backend.kind() != PlaceKind::Remote || !is_taken {
        return (read_entry(&inner.backend, number), None);
    }
    let above = || {
        let numbers: Vec<TimeId> =
            (1..=ABOVE).filter_map(|step| number.0.checked_add(step)).map(TimeId).collect();
        let paths: Vec<String> = numbers.iter().map(|number| root_path(*number)).collect();
        let found = inner.backend.get_all(&paths, ROOT_ENTRY_LEN_MAX).ok()?;
        let found = numbers.into_iter().zip(found).map_while(|(number, bytes)| Some((number, bytes?)));
        found.map(|(number, bytes)| decode_entry(&inner.backend, number, &bytes).ok()).collect()
    };
    inner.backend.both(|| read_entry(&inner.backend, number), above)
}
