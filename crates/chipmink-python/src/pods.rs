//! `Pods`: what a load reads, from near or from far away.
//!
//! 1. While pods come from far away, other threads run, and Ctrl-C ends the load: nothing more is read then.
//! 2. What is at hand is given without letting others run: to get the interpreter back takes up to 5 ms where one computes.

use bytes::Bytes;
use chipmink::{Cancel, PlanPods};
use chipmink_types::{BlobError, PodSource, RegionRecord};
use pyo3::prelude::*;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// How often a load that waits looks for signals.
const SIGNALS_EVERY: Duration = Duration::from_millis(100);

/// The pods and regions of a load.
pub(crate) struct Pods {
    pods: PlanPods,
    is_far: bool,
    cancel: Cancel,
    /// What a signal handler has raised.
    interrupt: Option<PyErr>,
}

impl Pods {
    pub(crate) fn new(mut pods: PlanPods, is_far: bool, cancel: Option<&Cancel>) -> Self {
        let cancel = cancel.cloned().unwrap_or_default();
        pods.cancel_by(cancel.clone());
        Pods { pods, is_far, cancel, interrupt: None }
    }

    /// What a load came to, unless it was interrupted while it waited.
    pub(crate) fn or_interrupt<T>(&mut self, loaded: PyResult<T>) -> PyResult<T> {
        match self.interrupt.take() {
            Some(interrupt) => Err(interrupt),
            None => loaded,
        }
    }

    /// Reads in another thread, and looks for signals meanwhile.
    fn wait_for<T: Send>(&mut self, read: impl FnOnce(&mut PlanPods) -> T + Send) -> T {
        let Pods { pods, cancel, interrupt, .. } = self;
        let (done, is_done) = channel::<()>();
        let wait = move || {
            std::thread::scope(|scope| {
                let reading = scope.spawn(move || {
                    let _done = done;
                    read(pods)
                });
                while is_done.recv_timeout(SIGNALS_EVERY) == Err(RecvTimeoutError::Timeout) {
                    if interrupt.is_none()
                        && let Err(raised) = Python::attach(|py| py.check_signals())
                    {
                        cancel.cancel();
                        *interrupt = Some(raised);
                    }
                }
                reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        };
        Python::attach(|py| py.detach(wait))
    }
}

impl PodSource for Pods {
    fn pod(&mut self, position: usize) -> Result<Bytes, BlobError> {
        match !self.is_far || self.pods.is_at_hand(position) {
            true => self.pods.pod(position),
            false => self.wait_for(|pods| pods.pod(position)),
        }
    }

    fn read_region(&mut self, region: &RegionRecord, into: &mut [u8]) -> Result<(), BlobError> {
        match self.is_far {
            true => self.wait_for(|pods| pods.read_region(region, into)),
            false => self.pods.read_region(region, into),
        }
    }
}
