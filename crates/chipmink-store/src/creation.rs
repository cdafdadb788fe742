//! Making a repository.

use crate::backend::Backend;
use crate::error::{Result, StoreError};
use crate::log::{Log, note_boot};
use crate::options::StoreOptions;
use crate::random;
use bytes::Bytes;
use chipmink_format::{RootEntry, root_path};
use chipmink_types::{RepositoryId, TimeId, WriteId};
use std::sync::Barrier;
use std::time::{SystemTime, UNIX_EPOCH};

/// Writers of the race. Fewer let stores pass that look before they write.
const WRITERS: usize = 16;

/// Writes entry 0, which says that there is a repository.
pub(crate) fn create(backend: &Backend, options: &StoreOptions) -> Result<()> {
    let there = || StoreError::AlreadyThere { place: backend.label().to_owned() };
    if Log::open(backend, options.trust())?.is_some() {
        return Err(there());
    }
    backend.make_directories(&["packs", "root"])?;
    backend.clean();
    let mut entry = RootEntry::new(TimeId(0), RepositoryId(random::bytes()), WriteId(random::bytes()));
    entry.published_at = now_micros();
    entry.is_synced = options.durable;
    note_boot(&mut entry, backend);
    race(backend)?;
    let bytes = Bytes::from(entry.encode());
    match backend.create(&root_path(TimeId(0)), bytes.clone()) {
        Ok(()) => Ok(()),
        Err(error) => {
            // An answer decides nothing: what stands there does.
            match backend.get(&root_path(TimeId(0)), bytes.len() as u64) {
                Ok(found) if found == bytes => Ok(()),
                Ok(_) => Err(there()),
                Err(_) if matches!(error, object_store::Error::AlreadyExists { .. }) => Err(there()),
                Err(_) => Err(backend.write_error("creating the repository", error)),
            }
        }
    }
}

/// Lets several writers create one name at the same time; exactly one must be told that it has.
pub(crate) fn race(backend: &Backend) -> Result<()> {
    // The name is no number, so that nobody takes it for an entry.
    let backend = &backend.relaxed();
    let path = format!(
        "root/probe-{}",
        random::bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    );
    let start = Barrier::new(WRITERS);
    let answers: Vec<object_store::Result<()>> = std::thread::scope(|scope| {
        let write = |writer: usize| {
            let (path, start) = (&path, &start);
            scope.spawn(move || {
                let bytes = Bytes::from(vec![writer as u8; 64]);
                start.wait();
                backend.create(path, bytes)
            })
        };
        let writers: Vec<_> = (0..WRITERS).map(write).collect();
        let lost =
            |_| Err(object_store::Error::Generic { store: "chipmink", source: "a thread died".into() });
        writers.into_iter().map(|writer| writer.join().unwrap_or_else(lost)).collect()
    });
    let winners = answers.iter().filter(|answer| answer.is_ok()).count();
    let stands = backend.get(&path, 64);
    let _ = backend.delete(&path);
    let place = || backend.label().to_owned();
    match (winners, stands) {
        (1, Ok(found)) => {
            let winner = answers.iter().position(Result::is_ok).unwrap_or(WRITERS);
            if found == vec![winner as u8; 64] {
                return Ok(());
            }
            Err(StoreError::Unconditional { place: place(), writers: WRITERS, winners: WRITERS })
        }
        (0, _) => {
            let mut failures = answers.into_iter().filter_map(Result::err);
            let failure = failures.find(|error| !matches!(error, object_store::Error::AlreadyExists { .. }));
            match failure {
                Some(error) => Err(backend.write_error("testing conditional writes", error)),
                None => Err(StoreError::Unconditional { place: place(), writers: WRITERS, winners: 0 }),
            }
        }
        (1, Err(error)) => Err(error),
        (winners, _) => Err(StoreError::Unconditional { place: place(), writers: WRITERS, winners }),
    }
}

/// Microseconds since 1970-01-01 UTC.
pub(crate) fn now_micros() -> i64 {
    let age = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_micros());
    i64::try_from(age).unwrap_or(i64::MAX)
}
