//! How streams of the program wait for a capture, and what keeps them from waiting for ever.
//!
//! 1. If all chunks fit in the staging area, streams wait for an event that was recorded: the driver knows that order.
//! 2. Else they wait for a word of mapped memory. A kernel that was enqueued before the wait writes it if all that changed was
//!    staged. If not, the host must enqueue copies behind the wait, and there the driver knows of no order: where streams
//!    share one queue of the device (`CUDA_DEVICE_MAX_CONNECTIONS=1`, or more streams than queues) the copies stand behind the wait,
//!    and a call of the program that waits for its stream may keep the driver locked. So this way is taken only if what
//!    changed will probably fit, and [`Patience`] ends the wait if the device does not move.

use super::Inner;
use crate::driver::StreamHandle;
use crate::{CudaError, Result};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Lets streams wait until a capture has read what they are about to write. It may outlive the capture.
#[derive(Clone)]
pub struct CaptureFence(pub(super) Arc<State>);

pub(super) struct State {
    pub inner: Arc<Inner>,
    pub serial: u32,
    pub is_bounded: bool,
    /// A stream waits, or has waited, for the word.
    pub is_awaited: AtomicBool,
}

impl fmt::Debug for CaptureFence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureFence").field("serial", &self.0.serial).finish_non_exhaustive()
    }
}

impl CaptureFence {
    /// Lets what the program enqueues later on these streams of the device wait until its memory is no longer read. If that
    /// was so long ago, they do not wait.
    ///
    /// # Errors
    /// When a stream is being captured into a graph, or the device fails.
    pub fn wait(&self, streams: &[u64]) -> Result<()> {
        let State { inner, serial, is_bounded, is_awaited } = &*self.0;
        for stream in streams {
            let stream = StreamHandle(*stream);
            stream.refuse_capture(&inner.context)?;
            if *is_bounded {
                // If it was recorded again since, for a later capture, the stream waits for that one.
                stream.wait(&inner.context, &inner.read)?;
            } else {
                is_awaited.store(true, Ordering::SeqCst);
                stream.wait_word(&inner.context, inner.word.device_address(), *serial)?;
            }
        }
        Ok(())
    }

    /// The device.
    pub fn device(&self) -> i32 {
        self.0.inner.device()
    }
}

/// Watches how long the device keeps the host waiting while streams wait for the host.
pub(super) struct Patience {
    shared: Arc<Shared>,
    watcher: Option<JoinHandle<()>>,
}

struct Shared {
    fence: CaptureFence,
    present: Mutex<Present>,
    changed: Condvar,
    is_over: AtomicBool,
}

#[derive(Default)]
struct Present {
    waiting_since: Option<Instant>,
    is_done: bool,
}

impl Patience {
    /// Watches the capture of a fence. If there is no thread to be had for it, nobody watches.
    pub(super) fn begin(fence: &CaptureFence, patience: Duration) -> Self {
        let shared = Arc::new(Shared {
            fence: fence.clone(),
            present: Mutex::default(),
            changed: Condvar::new(),
            is_over: AtomicBool::new(false),
        });
        let watched = shared.clone();
        let watcher = std::thread::Builder::new()
            .name("chipmink device".to_owned())
            .spawn(move || watched.watch(patience))
            .ok();
        Patience { shared, watcher }
    }

    /// What the device comes to.
    ///
    /// # Errors
    /// The failure, or that the streams were let go meanwhile.
    pub(super) fn wait_for<T>(&self, device: impl FnOnce() -> Result<T>) -> Result<T> {
        self.shared.set_waiting(Some(Instant::now()));
        let done = device();
        self.shared.set_waiting(None);
        match self.shared.is_over.load(Ordering::SeqCst) {
            true => Err(CudaError::Overdue { device: self.shared.fence.device() }),
            false => done,
        }
    }
}

impl Shared {
    fn set_waiting(&self, since: Option<Instant>) {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).waiting_since = since;
        self.changed.notify_one();
    }

    fn watch(&self, patience: Duration) {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        while !present.is_done {
            let State { inner, serial, .. } = &*self.fence.0;
            let waited = present.waiting_since.map(|since| since.elapsed());
            if inner.word.word().load(Ordering::Acquire) == *serial {
                // All was read, and nobody waits any more.
                return;
            }
            if waited.is_some_and(|waited| waited >= patience)
                && self.fence.0.is_awaited.load(Ordering::SeqCst)
            {
                // First this, so that nobody takes for good what was read after the streams went on.
                self.is_over.store(true, Ordering::SeqCst);
                inner.word.word().store(*serial, Ordering::Release);
                return;
            }
            let left = waited.map_or(patience, |waited| patience.saturating_sub(waited));
            // A wait that nobody needs yet is looked at again soon.
            let left = left.max(Duration::from_millis(10));
            let woken = self.changed.wait_timeout(present, left);
            present = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        self.shared.present.lock().unwrap_or_else(PoisonError::into_inner).is_done = true;
        self.shared.changed.notify_one();
        if let Some(watcher) = self.watcher.take() {
            // It makes no call of the driver, so it ends.
            let _ = watcher.join();
        }
    }
}

/// Whether the environment leaves the device so few queues that streams of the program may share one with ours.
pub(super) fn shares_queues() -> bool {
    let named = std::env::var("CUDA_DEVICE_MAX_CONNECTIONS").ok();
    named.and_then(|text| text.trim().parse::<u32>().ok()).is_some_and(|count| count < 4)
}
