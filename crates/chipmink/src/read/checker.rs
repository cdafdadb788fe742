//! [`MapChecker`]: what loads have mapped, checked by one thread while the program goes on.
//!
//! 1. There is one thread however many loads there are, and none while there is nothing to check.
//! 2. The pages of what was loaded last are looked up before anything is checked: the program is about to read them.
//! 3. What was dropped unchecked is no longer checked: nobody could hear of its damage.

use super::mapped::Unchecked;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Chunks checked between two looks at what else there is to do: some milliseconds.
const CHUNKS_AT_ONCE: usize = 256;

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
