//! [`Turns`]: threads of which one runs at a time, in an order that a seed decides.
//!
//! A thread gives its turn away where it calls [`pause`], and only there: code that takes no lock across a pause runs as if
//! every step between two pauses were atomic, and the same seed gives the same interleaving again.

use crate::Random;
use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

#[derive(Debug)]
struct State {
    /// Whose turn it is.
    turn: usize,
    /// Threads that have not ended.
    running: Vec<usize>,
    random: Random,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    passed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Lets a seeded choice of the threads go on.
    fn pass(&self, state: &mut State) {
        if !state.running.is_empty() {
            let next = state.random.below(state.running.len());
            state.turn = state.running[next];
        }
        self.passed.notify_all();
    }

    fn wait(&self, mut state: MutexGuard<'_, State>, thread: usize) {
        while state.turn != thread {
            state = self.passed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }
}

thread_local! {
    static OWN: RefCell<Option<(Arc<Shared>, usize)>> = const { RefCell::new(None) };
}

/// What a thread does.
pub type Work<'a, T> = Box<dyn FnOnce() -> T + Send + 'a>;

/// Threads that take turns.
#[derive(Debug)]
pub struct Turns;

/// Ends a thread's part in the turns, also when it panics.
struct Part;

impl Drop for Part {
    fn drop(&mut self) {
        if let Some((shared, thread)) = OWN.take() {
            let mut state = shared.state();
            state.running.retain(|other| *other != thread);
            shared.pass(&mut state);
        }
    }
}

impl Turns {
    /// Runs these, each in a thread of its own, and returns what they return.
    ///
    /// # Panics
    /// When one of them does.
    pub fn run<'a, T: Send + 'a>(seed: u64, threads: Vec<Work<'a, T>>) -> Vec<T> {
        let running = (0..threads.len()).collect();
        let mut random = Random::new(seed);
        let turn = random.below(threads.len().max(1));
        let shared =
            Arc::new(Shared { state: Mutex::new(State { turn, running, random }), passed: Condvar::new() });
        std::thread::scope(|scope| {
            let start = |(thread, work): (usize, Work<'a, T>)| {
                let shared = Arc::clone(&shared);
                scope.spawn(move || {
                    OWN.set(Some((Arc::clone(&shared), thread)));
                    let _part = Part;
                    shared.wait(shared.state(), thread);
                    work()
                })
            };
            let started: Vec<_> = threads.into_iter().enumerate().map(start).collect();
            let ended: Vec<_> = started.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            ended
                .into_iter()
                .map(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        })
    }
}

/// Gives the turn away, if this thread has part in any; returns whether it has.
pub fn pause() -> bool {
    let Some((shared, thread)) = OWN.with_borrow(Clone::clone) else { return false };
    let mut state = shared.state();
    shared.pass(&mut state);
    shared.wait(state, thread);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interleaving(seed: u64) -> Vec<usize> {
        let seen = Mutex::new(Vec::new());
        let count = |thread: usize| {
            let seen = &seen;
            Box::new(move || {
                for _ in 0..5 {
                    seen.lock().expect("nobody panics").push(thread);
                    pause();
                }
            }) as Work<'_, ()>
        };
        Turns::run(seed, (0..3).map(count).collect());
        seen.into_inner().expect("nobody panics")
    }

    #[test]
    fn a_seed_gives_the_same_order_again_and_another_gives_another() {
        let first = interleaving(1);
        assert_eq!(first.len(), 15);
        assert_eq!(interleaving(1), first);
        assert!((2..10).any(|seed| interleaving(seed) != first));
        assert!(!first.is_sorted(), "the threads take turns: {first:?}");
    }

    #[test]
    fn who_has_no_part_goes_on() {
        assert!(!pause());
    }
}
