//! Making a repository.

use crate::backend::Backend;
use crate::compression::PlaceKind;
use crate::error::{Result, StoreError};
use crate::log::{Log, note_boot};
use crate::options::StoreOptions;
use crate::random;
use crate::remote::{FailureKind, RemoteFailure};
use bytes::Bytes;
use chipmink_format::{ConditionalWrites, RootEntry, root_path};
use chipmink_types::{RepositoryId, TimeId, WriteId};
use std::sync::Barrier;
use std::time::{SystemTime, UNIX_EPOCH};

/// Writers of the race. Fewer let stores pass that look before they write.
const WRITERS: usize = 16;

/// Races of a service that must all have one winner. Services that look before they write have one by chance in one race of
/// fifty or so (s3s-fs 0.14.1, on two cores).
const RACES: usize = 3;

/// How often a race is run that decides nothing: a request that was sent twice can lose against itself.
const TRIALS: usize = 3;

/// Writes entry 0, which says that there is a repository. Returns what was found out of conditional writes.
pub(crate) fn create(backend: &Backend, options: &StoreOptions) -> Result<ConditionalWrites> {
    let there = || StoreError::AlreadyThere { place: backend.label().to_owned() };
    if Log::open(backend, options.trust())?.is_some() {
        return Err(there());
    }
    backend.make_directories(&["packs", "root"])?;
    backend.clean();
    let repository = options.repository.unwrap_or_else(|| RepositoryId(random::bytes()));
    let mut entry = RootEntry::new(TimeId(0), repository, WriteId(random::bytes()));
    entry.published_at = now_micros();
    entry.is_synced = options.durable;
    note_boot(&mut entry, backend);
    let verdict = verdict(backend, options)?;
    let bytes = Bytes::from(entry.encode());
    match backend.create_entry(&root_path(TimeId(0)), bytes.clone(), verdict) {
        Ok(()) => Ok(verdict),
        Err(error) => {
            // An answer decides nothing: what stands there does.
            match backend.get(&root_path(TimeId(0)), bytes.len() as u64) {
                Ok(found) if found == bytes => Ok(verdict),
                Ok(_) => Err(there()),
                Err(_) if matches!(error, object_store::Error::AlreadyExists { .. }) => Err(there()),
                Err(_) => Err(backend.write_error("creating the repository", error)),
            }
        }
    }
}

/// What the place does with conditional writes.
///
/// # Errors
/// When it does not honour them, unless this is said to be the only writer.
pub(crate) fn verdict(backend: &Backend, options: &StoreOptions) -> Result<ConditionalWrites> {
    // What this machine does itself is known: one race finds out whether a file system is what it says.
    let races = if backend.kind() == PlaceKind::Remote { RACES } else { 1 };
    match (0..races).try_for_each(|_| decide(backend)) {
        Ok(()) => Ok(ConditionalWrites::Honoured),
        Err(StoreError::Unconditional { .. }) if options.single_writer => Ok(ConditionalWrites::Broken),
        Err(error) => Err(error),
    }
}

/// Runs a race until it decides something.
fn decide(backend: &Backend) -> Result<()> {
    let mut outcome = race(backend);
    for _ in 1..TRIALS {
        if !matches!(outcome, Err(StoreError::Unconditional { winners: 0, is_known: true, .. })) {
            break;
        }
        outcome = race(backend);
    }
    outcome
}

/// Lets several writers create one name at the same time; exactly one must be told that it has.
fn race(backend: &Backend) -> Result<()> {
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
    let stands = backend.get(&path, 64);
    let _ = backend.delete(&path);
    judge(backend, answers, stands)
}

/// What the answers of a race mean, and what stands under its name.
fn judge(backend: &Backend, answers: Vec<object_store::Result<()>>, stands: Result<Bytes>) -> Result<()> {
    let winners = answers.iter().filter(|answer| answer.is_ok()).count();
    let unconditional = |winners, is_known| StoreError::Unconditional {
        place: backend.label().to_owned(),
        writers: WRITERS,
        winners,
        is_known,
    };
    match (winners, stands) {
        (1, Ok(found)) => {
            let winner = answers.iter().position(Result::is_ok).unwrap_or(WRITERS);
            if found == vec![winner as u8; 64] {
                return Ok(());
            }
            Err(unconditional(WRITERS, true))
        }
        (0, _) => {
            let mut failures = answers.into_iter().filter_map(Result::err);
            let failure = failures.find(|error| !matches!(error, object_store::Error::AlreadyExists { .. }));
            match failure {
                Some(error) if is_unknown_request(&error) => Err(unconditional(0, false)),
                Some(error) => Err(backend.write_error("testing conditional writes", error)),
                None => Err(unconditional(0, true)),
            }
        }
        (1, Err(error)) => Err(error),
        (winners, _) => Err(unconditional(winners, true)),
    }
}

/// Whether a service says that it does not know conditional writes.
fn is_unknown_request(error: &object_store::Error) -> bool {
    RemoteFailure::of(error).is_some_and(|failure| failure.kind == FailureKind::Unsupported)
        || matches!(error, object_store::Error::NotImplemented { .. })
}

/// Microseconds since 1970-01-01 UTC.
pub(crate) fn now_micros() -> i64 {
    let age = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_micros());
    i64::try_from(age).unwrap_or(i64::MAX)
}
