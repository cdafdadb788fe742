//! Finding the entries of a root log: which is the newest, and reading those below it.

use crate::backend::Backend;
use crate::compression::PlaceKind;
use crate::error::{Result, StoreError};
use crate::log::{HINT, ReadEntry};
use bytes::Bytes;
use chipmink_digest::digest;
use chipmink_format::{
    ROOT_ENTRY_LEN_MAX, RootEntry, STATE_EVERY, StatePlace, pack_path, parse_root_path, root_path,
};
use chipmink_types::TimeId;
use hashbrown::HashMap;

/// Reads one entry.
pub(crate) fn read_entry(backend: &Backend, number: TimeId) -> Result<ReadEntry> {
    decode_entry(backend, number, &backend.get(&root_path(number), ROOT_ENTRY_LEN_MAX)?)
}

pub(crate) fn decode_entry(backend: &Backend, number: TimeId, bytes: &[u8]) -> Result<ReadEntry> {
    match RootEntry::decode(bytes, number) {
        Ok(entry) => Ok(ReadEntry { entry, digest: digest(bytes) }),
        Err(source) => {
            let object = root_path(number);
            Err(StoreError::Format { place: backend.label().to_owned(), object, source })
        }
    }
}

/// The newest of what stands in a root log.
#[derive(Debug)]
pub(super) struct Newest {
    /// The highest number under which something stands.
    pub(super) number: TimeId,
    /// What stands there, if that was read already.
    bytes: Option<Bytes>,
}

impl Newest {
    /// Looks for the highest number; `None` if there is no log.
    pub(super) fn look(backend: &Backend) -> Result<Option<Self>> {
        let (listed, hint) = backend.both(|| first_listed(backend), || backend.get(HINT, 64).ok());
        let mut newest = listed?;
        let hint = hint.and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse().ok()).map(TimeId);
        if let Some(hint) = hint.filter(|hint| Some(*hint) > newest)
            && is_there(backend, hint)?
        {
            newest = Some(hint);
        }
        let Some(newest) = newest else { return Ok(None) };
        // Where the listing was in order nothing follows, and the entry is what is needed next.
        let (follows, bytes) = backend.both(
            || newest.0.checked_add(1).map_or(Ok(false), |next| is_there(backend, TimeId(next))),
            || backend.get(&root_path(newest), ROOT_ENTRY_LEN_MAX).ok(),
        );
        match follows? {
            false => Ok(Some(Newest { number: newest, bytes })),
            true => Ok(Some(Newest { number: gallop(backend, TimeId(newest.0 + 1))?, bytes: None })),
        }
    }
}

fn is_there(backend: &Backend, number: TimeId) -> Result<bool> {
    backend.byte_len(&root_path(number)).map(|len| len.is_some())
}

/// The highest number among the first names of the listing.
fn first_listed(backend: &Backend) -> Result<Option<TimeId>> {
    let mut newest = None;
    let mut seen = 0;
    backend.list("root", |path| {
        newest = newest.max(parse_root_path(path));
        seen += 1;
        // Names are such that the newest sorts first; a store that lists in another order is asked beyond the hint.
        seen < 16
    })?;
    Ok(newest)
}

/// Looks for the highest number by asking for names above `from`, in growing steps and then by halves.
fn gallop(backend: &Backend, from: TimeId) -> Result<TimeId> {
    let is_there = |number: Option<u64>| match number {
        Some(number) => is_there(backend, TimeId(number)),
        None => Ok(false),
    };
    let (mut low, mut step) = (from.0, 1u64);
    while is_there(low.checked_add(step))? {
        low += step;
        step = step.saturating_mul(2);
    }
    let mut high = low.saturating_add(step);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if is_there(Some(middle))? { low = middle } else { high = middle }
    }
    Ok(TimeId(low))
}

/// Entries, of which those that will be needed are read at once from a place that is far away.
pub(super) struct EntryReader<'a> {
    backend: &'a Backend,
    ready: HashMap<TimeId, Bytes>,
}

impl EntryReader<'_> {
    pub(super) fn read(&mut self, number: TimeId) -> Result<ReadEntry> {
        match self.ready.remove(&number) {
            Some(bytes) => decode_entry(self.backend, number, &bytes),
            None => read_entry(self.backend, number),
        }
    }

    /// Reads what stands between an entry and the root state that it names, and that state, whose bytes it returns. What
    /// cannot be had this way is left to whoever needs it.
    pub(super) fn fetch_back_to(&mut self, number: TimeId, place: Option<StatePlace>) -> Option<Bytes> {
        if self.backend.kind() != PlaceKind::Remote {
            return None;
        }
        let lowest = number.0.saturating_sub(STATE_EVERY);
        let first = place.map_or(lowest, |place| place.covers.0.saturating_add(1).max(lowest));
        let numbers: Vec<TimeId> = (first..number.0).map(TimeId).collect();
        let paths: Vec<String> = numbers.iter().map(|number| root_path(*number)).collect();
        let backend = self.backend;
        let (entries, state) = backend.both(
            || backend.get_all(&paths, ROOT_ENTRY_LEN_MAX).unwrap_or_default(),
            || place.and_then(|place| stored_state(backend, &place).ok()),
        );
        let found = numbers.into_iter().zip(entries);
        self.ready.extend(found.filter_map(|(number, bytes)| Some((number, bytes?))));
        state
    }
}

/// The bytes of a root state as they stand in its pack.
pub(super) fn stored_state(backend: &Backend, place: &StatePlace) -> Result<Bytes> {
    let end = place.byte_offset.saturating_add(place.stored_len);
    backend.get_range(&pack_path(place.pack), place.byte_offset..end)
}

/// What stands under which number.
pub(super) struct Numbers<'a> {
    backend: &'a Backend,
    pub(super) entries: EntryReader<'a>,
    /// All numbers, read when first needed: only damage needs them.
    descending: Option<Vec<TimeId>>,
}

impl<'a> Numbers<'a> {
    pub(super) fn new(backend: &'a Backend, newest: Newest) -> Self {
        let ready = newest.bytes.map(|bytes| (newest.number, bytes)).into_iter().collect();
        Numbers { backend, entries: EntryReader { backend, ready }, descending: None }
    }

    /// The highest number below `number`.
    pub(super) fn below(&mut self, number: TimeId) -> Result<Option<TimeId>> {
        if self.descending.is_none() {
            self.descending = Some(all_numbers(self.backend)?);
        }
        let all = self.descending.as_deref().unwrap_or_default();
        Ok(all.get(all.partition_point(|other| *other >= number)).copied())
    }
}

/// All numbers under which something stands, descending.
pub(super) fn all_numbers(backend: &Backend) -> Result<Vec<TimeId>> {
    let mut all = Vec::new();
    backend.list("root", |path| {
        all.extend(parse_root_path(path));
        true
    })?;
    all.sort_unstable_by(|a, b| b.cmp(a));
    Ok(all)
}
