//! [`Pace`]: how far a transfer is, how fast it may be, and whether it goes on.

use super::Watch;
use super::options::{Phase, TransferProgress};
use crate::error::{Result, StoreError};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest sleep between two looks at whether to go on.
const SLICE: Duration = Duration::from_millis(50);

/// Shared by the threads of a transfer.
#[derive(Debug)]
pub(crate) struct Pace {
    limit: Option<u64>,
    /// When the next byte may be moved.
    next: Mutex<Instant>,
    phase: Mutex<Phase>,
    done: AtomicU64,
    total: AtomicU64,
    is_stopped: AtomicBool,
}

impl Pace {
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Pace {
            limit: limit.map(|limit| limit.max(1)),
            next: Mutex::new(Instant::now()),
            phase: Mutex::default(),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            is_stopped: AtomicBool::new(false),
        }
    }

    pub(crate) fn begin(&self, phase: Phase, done: u64, total: u64) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, done: u64) {
        self.done.fetch_add(done, Ordering::Relaxed);
    }

    pub(crate) fn progress(&self) -> TransferProgress {
        TransferProgress {
            phase: *self.phase.lock().unwrap_or_else(PoisonError::into_inner),
            done: self.done.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
        }
    }

    /// Ends what the other threads do, soon.
    pub(crate) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// The error if it was stopped.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_stopped.load(Ordering::Relaxed) { Err(StoreError::Stopped) } else { Ok(()) }
    }

    /// Tells the caller how far it is.
    pub(crate) fn tell(&self, watch: &mut Watch<'_>) -> Result<()> {
        if !watch(&self.progress()) {
            self.stop();
        }
        self.check()
    }

    /// Waits until so many bytes may be moved.
    pub(crate) fn take(&self, byte_len: u64) -> Result<()> {
        let Some(limit) = self.limit else { return self.check() };
        let start = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let start = (*next).max(Instant::now());
            *next = start + Duration::from_secs_f64(byte_len as f64 / limit as f64);
            start
        };
        loop {
            self.check()?;
            match start.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => std::thread::sleep(left.min(SLICE)),
                _ => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_kept_by_all_threads_together() {
        let pace = Pace::new(Some(1_000_000));
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10).for_each(|_| pace.take(10_000).unwrap()));
            }
        });
        // The first piece need not wait.
        assert!(began.elapsed() >= Duration::from_millis(380), "{:?}", began.elapsed());
    }

    #[test]
    fn who_stops_it_waits_for_nobody() {
        let pace = Pace::new(Some(1));
        pace.take(1_000_000).unwrap();
        let began = Instant::now();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| pace.take(1));
            std::thread::sleep(Duration::from_millis(20));
            pace.stop();
            assert!(matches!(waiting.join().unwrap(), Err(StoreError::Stopped)));
        });
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
