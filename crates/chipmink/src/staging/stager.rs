//! [`Stager`]: a thread that makes durable what is staged.

use crate::error::{Error, Result};
use chipmink_shm::pool::{Pool, PoolLease};
use chipmink_store::{Persisted, StagedState, Staging, Store, StoreError, SweepReport, SweepRequest};
use chipmink_types::{Digest, SharedPool, TimeId};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks when nothing is staged, or another process makes it durable.
const IDLE: Duration = Duration::from_millis(50);
/// Between two looks of somebody who waits for another process.
const POLL: Duration = Duration::from_millis(2);
/// Between two tries after a failure, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// Failures that are kept until somebody asks.
const FAILURES_MAX: usize = 16;

/// What is staged and what is durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// Versions that are staged and not durable yet.
    pub staged_versions: u64,
    /// Bytes of these, and of saves under way.
    pub bytes_left: u64,
    /// The newest version that is durable.
    pub durable: TimeId,
    /// Versions that this object has made durable since it was opened, and their bytes.
    pub persisted: (u64, u64),
    /// Why nothing can be made durable at this moment.
    pub failure: Option<String>,
    /// The process that makes versions durable.
    pub persister: Option<u64>,
}

impl Status {
    /// Of a repository without a staging tier.
    pub(crate) fn durable(newest: TimeId) -> Self {
        Status {
            staged_versions: 0,
            bytes_left: 0,
            durable: newest,
            persisted: (0, 0),
            failure: None,
            persister: None,
        }
    }
}

/// Makes durable what is staged, as long as no other process does.
#[derive(Debug)]
pub(crate) struct Stager {
    shared: Arc<Inner>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// A forked child has no such thread, and must not wait for it.
    process: u32,
}

#[derive(Debug)]
struct Inner {
    staging: Staging,
    pool: Pool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    must_end: bool,
    is_woken: bool,
    /// Why the last try failed.
    failure: Option<String>,
    /// What nobody was told yet.
    untold: VecDeque<Error>,
    persisted: (u64, u64),
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each field is whole at any moment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rest(&self, at_most: Duration) {
        let state = self.state();
        if state.is_woken || state.must_end {
            drop(state);
        } else {
            let waited = self.changed.wait_timeout(state, at_most);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
        self.state().is_woken = false;
    }

    fn tell(state: &mut State, error: Error) {
        if state.untold.len() == FAILURES_MAX {
            state.untold.pop_front();
        }
        state.untold.push_back(error);
    }

    fn failed(&self, reason: String) {
        self.staging.note_failure(Some(reason.clone()));
        let mut state = self.state();
        if state.failure.as_ref() != Some(&reason) {
            let place = self.pool.label().to_owned();
            Inner::tell(&mut state, Error::Staging { place, reason: reason.clone() });
            state.failure = Some(reason);
        }
        drop(state);
        self.changed.notify_all();
    }

    fn persisted(&self, persisted: &Persisted) {
        self.staging.note_failure(None);
        let mut state = self.state();
        state.failure = None;
        state.persisted.0 += 1;
        state.persisted.1 += persisted.byte_len;
        if let Some(error) = elsewhere(self.staging.lower().label(), persisted) {
            Inner::tell(&mut state, error);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// One pass; whether there may be more to do at once.
    fn pass(&self, lease: &mut Option<PoolLease>) -> Result<bool> {
        if self.staging.state()?.entries == 0 {
            return Ok(false);
        }
        let stands = match lease {
            Some(lease) => lease.stands()?,
            None => false,
        };
        if !stands {
            *lease = self.pool.lease()?;
            if lease.is_none() {
                return Ok(false);
            }
            self.staging.clean()?;
        }
        match self.staging.persist_next(&mut |_| {})? {
            Some(persisted) => {
                self.persisted(&persisted);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn run(&self) {
        let (mut lease, mut pause) = (None, RETRY.0);
        loop {
            if self.state().must_end {
                return;
            }
            match self.pass(&mut lease) {
                Ok(true) => pause = RETRY.0,
                Ok(false) => self.rest(IDLE),
                Err(error) => {
                    self.failed(error.to_string());
                    self.rest(pause);
                    pause = (pause * 2).min(RETRY.1);
                }
            }
        }
    }
}

/// The error that tells of a version that is not where it was saved to.
pub(super) fn elsewhere(place: &str, persisted: &Persisted) -> Option<Error> {
    if persisted.time == persisted.staged_as && persisted.moved_to.is_none() {
        return None;
    }
    let (staged_as, time) = (persisted.staged_as, persisted.time);
    let what = match &persisted.moved_to {
        Some(moved_to) => format!("staged version {staged_as} went to ref {moved_to:?} as version {time}"),
        None => format!("staged version {staged_as} is version {time} there"),
    };
    Some(Error::PublishedElsewhere { place: place.to_owned(), what })
}

impl Stager {
    pub(crate) fn new(staging: Staging, pool: Pool) -> Self {
        let state = Mutex::default();
        let shared = Arc::new(Inner { staging, pool, state, changed: Condvar::new() });
        let stager = Stager { shared, thread: Mutex::default(), process: std::process::id() };
        stager.wake();
        stager
    }

    fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that something was staged.
    pub(crate) fn wake(&self) {
        if self.process != std::process::id() {
            return;
        }
        let mut thread = self.thread();
        if thread.as_ref().is_none_or(JoinHandle::is_finished) && !self.shared.state().must_end {
            let shared = Arc::clone(&self.shared);
            let started =
                std::thread::Builder::new().name("chipmink-stage".to_owned()).spawn(move || shared.run());
            match started {
                Ok(started) => *thread = Some(started),
                Err(error) => self.shared.failed(format!("no thread could be started: {error}")),
            }
        }
        drop(thread);
        self.shared.state().is_woken = true;
        self.shared.changed.notify_all();
    }

    /// Ends the thread after what it is doing.
    pub(crate) fn stop(&self) {
        if self.process != std::process::id() {
            return;
        }
        self.shared.state().must_end = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread().take() {
            // What it panicked with was printed.
            let _ = thread.join();
        }
    }

    pub(crate) fn status(&self) -> Result<Status> {
        let StagedState { entries, bytes, .. } = self.shared.staging.state()?;
        self.shared.staging.lower().refresh()?;
        let state = self.shared.state();
        Ok(Status {
            staged_versions: entries,
            bytes_left: bytes,
            durable: self.shared.staging.lower().head().number,
            persisted: state.persisted,
            failure: state.failure.clone(),
            persister: self.shared.pool.lease_holder()?,
        })
    }

    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.shared.state().untold.pop_front()
    }

    fn wait_until(&self, at_most: Duration, is_reached: impl Fn() -> Result<bool>) -> Result<bool> {
        let began = Instant::now();
        loop {
            if is_reached()? {
                return Ok(true);
            }
            let left = at_most.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            let state = self.shared.state();
            if let Some(reason) = state.failure.clone() {
                let place = self.shared.pool.label().to_owned();
                return Err(Error::Staging { place, reason });
            }
            let waited = self.shared.changed.wait_timeout(state, POLL.min(left));
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Waits until a version is durable.
    pub(crate) fn wait(&self, time: TimeId, at_most: Duration) -> Result<bool> {
        self.wait_until(at_most, || Ok(self.shared.staging.is_durable(time)?))
    }

    /// Waits until nothing is staged any more.
    pub(crate) fn wait_all(&self, at_most: Duration) -> Result<bool> {
        self.wait_until(at_most, || Ok(self.shared.staging.state()?.entries == 0))
    }

    /// Sweeps below once nothing is staged.
    pub(crate) fn sweep(&self, staged: &Store, request: &SweepRequest) -> Result<SweepReport> {
        loop {
            while !self.wait_all(POLL)? {}
            if let Some(report) = self.shared.staging.sweep(staged, request)? {
                return Ok(report);
            }
        }
    }

    /// Whether a version that is durable is what was staged under its number.
    pub(crate) fn check(&self, time: TimeId, commit: Digest) -> Result<()> {
        let lower = self.shared.staging.lower();
        lower.refresh()?;
        match lower.commit(time) {
            Ok(found) if found.digest() == commit => Ok(()),
            // What was swept was durable before.
            Err(StoreError::Dropped { .. }) => Ok(()),
            _ => Err(Error::PublishedElsewhere {
                place: lower.label().to_owned(),
                what: format!("staged version {time} has another number there"),
            }),
        }
    }
}

impl Drop for Stager {
    fn drop(&mut self) {
        self.stop();
    }
}
