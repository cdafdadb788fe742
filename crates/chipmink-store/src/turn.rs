//! [`Turn`]: the order in which the saves of one process become visible at one place.
//!
//! A place takes one root entry after another. Writers in one process need not race each other for a number: each sends all that
//! can be sent before, then waits for its turn, and hears from those before it what they published.
//!
//! Invariants:
//! 1. Who holds the turn does only what must come after the entry before its own.
//! 2. What one tells the next is an entry that was created, never one that was tried.
//! 3. Correctness does not depend on it: who has another turn for the same place races for numbers, as another process does.

use crate::log::ReadEntry;
use bytes::Bytes;
use chipmink_digest::digest;
use chipmink_format::RootEntry;
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// Entries that are kept for those who come next: who has missed more reads what it missed.
const RECENT: usize = 64;
/// Longest entry that is kept, in bytes.
const RECENT_LEN: usize = 64 << 10;

/// One publication at a time.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    order: Mutex<()>,
    /// What this process has published here of late, oldest first.
    recent: Mutex<VecDeque<ReadEntry>>,
    /// Publications that have begun and not ended.
    coming: AtomicU64,
    /// One of them brings a root state.
    pub(crate) state: Task,
    /// One of them brings a merged index.
    pub(crate) merge: Task,
}

/// Turns, by process and place: a forked child must not wait for a lock of its parent's.
type Turns = HashMap<(u32, String), Weak<Turn>>;

/// The turns that somebody may take.
static TURNS: Mutex<Option<Turns>> = Mutex::new(None);

impl Turn {
    /// The turn that all of this process take at a place.
    pub(crate) fn at(place: &str) -> Arc<Turn> {
        // Held for moments; but in a forked child it may look held for ever.
        let Ok(mut turns) = TURNS.try_lock() else { return Arc::default() };
        let turns = turns.get_or_insert_default();
        let key = (std::process::id(), place.to_owned());
        if let Some(turn) = turns.get(&key).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        turns.insert(key, Arc::downgrade(&turn));
        turn
    }

    /// Says that a publication has begun, until what this returns is dropped.
    pub(crate) fn come(&self) -> Coming<'_> {
        self.coming.fetch_add(1, Ordering::Relaxed);
        Coming(self)
    }

    /// Waits until nobody else holds it.
    pub(crate) fn wait(&self) -> Held<'_> {
        Held { turn: self, _order: self.order.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) }
    }

    /// What this process has published here of late, oldest first.
    pub(crate) fn recent(&self) -> MutexGuard<'_, VecDeque<ReadEntry>> {
        // A panic leaves entries that were created, so they may be used.
        self.recent.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A publication that has begun.
#[derive(Debug)]
pub(crate) struct Coming<'a>(&'a Turn);

impl Coming<'_> {
    /// How many others may publish before this one.
    pub(crate) fn others(&self) -> u64 {
        self.0.coming.load(Ordering::Relaxed).saturating_sub(1)
    }
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.0.coming.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The turn, as long as it is held.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    turn: &'a Turn,
    _order: MutexGuard<'a, ()>,
}

impl Held<'_> {
    /// Tells the others what was created.
    pub(crate) fn tell(&mut self, entry: &RootEntry, bytes: &Bytes) {
        if bytes.len() > RECENT_LEN {
            return;
        }
        let mut recent = self.turn.recent();
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(ReadEntry { entry: entry.clone(), digest: digest(bytes) });
    }
}

/// Something that one of several who publish does for all.
#[derive(Debug, Default)]
pub(crate) struct Task(AtomicBool);

impl Task {
    /// Takes it on, until what this returns is dropped, unless another has.
    pub(crate) fn claim(&self) -> Option<Claim<'_>> {
        (!self.0.swap(true, Ordering::Acquire)).then_some(Claim(self))
    }
}

/// A task that was taken on.
#[derive(Debug)]
pub(crate) struct Claim<'a>(&'a Task);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_turn_for_each_place_as_long_as_somebody_has_it() {
        let first = Turn::at("here");
        assert!(Arc::ptr_eq(&first, &Turn::at("here")));
        assert!(!Arc::ptr_eq(&first, &Turn::at("there")));
        let weak = Arc::downgrade(&first);
        drop(first);
        assert!(weak.upgrade().is_none(), "the list of turns holds none");
    }

    #[test]
    fn a_task_is_taken_on_by_one() {
        let task = Task::default();
        let claim = task.claim();
        assert!(claim.is_some() && task.claim().is_none());
        drop(claim);
        assert!(task.claim().is_some());
    }

    #[test]
    fn who_comes_is_counted() {
        let turn = Turn::default();
        let first = turn.come();
        assert_eq!(first.others(), 0);
        let second = turn.come();
        assert_eq!((first.others(), second.others()), (1, 1));
        drop(first);
        assert_eq!(second.others(), 0);
    }
}
