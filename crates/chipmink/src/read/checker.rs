//! [`MapChecker`]: what loads have mapped, checked by one thread while the program goes on.
//!
//! 1. There is one thread however many loads there are, and none while there is nothing to check.
//! 2. The pages of what was loaded last are looked up before anything is checked: the program is about to read them.
//! 3. What was dropped unchecked is no longer checked: nobody could hear of its damage.

use super::mapped::Unchecked;
use chipmink_types::BlobError;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Chunks checked between two looks at what else there is to do: some milliseconds.
const CHUNKS_AT_ONCE: usize = 256;

/// Threads that check at once what is waited for. More do not make memory any faster.
const THREADS_MAX: usize = 4;

/// Compares all chunks with their digests, for somebody who waits for it.
///
/// # Errors
/// For a chunk that is not what was stored, or cannot be read.
pub(super) fn check_at_once(unchecked: &[Unchecked]) -> Result<(), BlobError> {
    let parts: Vec<(&Unchecked, Range<usize>)> = unchecked
        .iter()
        .flat_map(|unchecked| {
            let count = unchecked.chunk_count();
            let starts = (0..count).step_by(CHUNKS_AT_ONCE);
            starts.map(move |start| (unchecked, start..(start + CHUNKS_AT_ONCE).min(count)))
        })
        .collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((unchecked, part)) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
            unchecked.check_part(part.clone())?;
        }
        Ok(())
    };
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get()).min(THREADS_MAX);
    let helpers = (parts.len() / 2).min(processors - 1);
    std::thread::scope(|scope| {
        let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
        // With fewer threads it takes longer.
        let helpers: Vec<_> = (0..helpers).filter_map(spawn).collect();
        let mut result = work();
        for helper in helpers {
            result = result.and(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        result
    })
}

/// Something to check, and what errors call it.
type Job = (String, Arc<Unchecked>);

#[derive(Debug, Default)]
struct State {
    /// Pages to be looked up.
    ahead: VecDeque<Arc<Unchecked>>,
    jobs: VecDeque<Job>,
    /// Process in which a thread works on them. A forked child has it not.
    works_in: Option<u32>,
    damage: Option<String>,
    is_dropped: bool,
}

/// Checks what loads have mapped, in the background.
#[derive(Debug, Default)]
pub struct MapChecker(Arc<Mutex<State>>);

impl MapChecker {
    /// Has it checked soon; `label` is what a message calls it.
    pub fn check_later(&self, label: String, unchecked: Unchecked) {
        let unchecked = Arc::new(unchecked);
        let mut state = held(&self.0);
        state.ahead.push_back(Arc::clone(&unchecked));
        state.jobs.push_back((label, unchecked));
        if state.works_in == Some(std::process::id()) {
            return;
        }
        state.works_in = Some(std::process::id());
        drop(state);
        let in_thread = Arc::clone(&self.0);
        let started =
            std::thread::Builder::new().name("chipmink-check".to_owned()).spawn(move || work(&in_thread));
        if started.is_err() {
            work(&self.0);
        }
    }

    /// What was found since this was last asked: the first of it.
    pub fn take_damage(&self) -> Option<String> {
        held(&self.0).damage.take()
    }
}

impl Drop for MapChecker {
    fn drop(&mut self) {
        let mut state = held(&self.0);
        state.ahead.clear();
        state.jobs.clear();
        state.is_dropped = true;
    }
}

fn held(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Each change of it is whole before the lock is given back.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Until there is nothing to do.
fn work(state: &Mutex<State>) {
    let mut current: Option<(Job, usize)> = None;
    loop {
        let next = {
            let mut state = held(state);
            if state.is_dropped {
                return;
            }
            if let Some(unchecked) = state.ahead.pop_front() {
                Err(unchecked)
            } else if let Some(job) = current.take().or_else(|| Some((state.jobs.pop_front()?, 0))) {
                Ok(job)
            } else {
                state.works_in = None;
                return;
            }
        };
        match next {
            Err(unchecked) => unchecked.fault_ahead(),
            Ok((job, at)) => {
                let end = (at + CHUNKS_AT_ONCE).min(job.1.chunk_count());
                match job.1.check_part(at..end) {
                    Err(error) => {
                        held(state).damage.get_or_insert(format!("{}: {error}", job.0));
                    }
                    Ok(()) if end < job.1.chunk_count() => current = Some((job, end)),
                    Ok(()) => {}
                }
            }
        }
    }
}
