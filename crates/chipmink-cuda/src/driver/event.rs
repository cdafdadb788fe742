//! Events: marks in streams that others wait for.

use super::{Context, StreamHandle};
use crate::Result;
use cudarc::driver::sys::{self, CUevent};
use std::sync::Arc;

/// A mark in a stream. It measures no time.
#[derive(Debug)]
pub(crate) struct Event {
    context: Arc<Context>,
    raw: CUevent,
}

// SAFETY: events may be used from any thread; the driver guards them.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self> {
        let _current = context.current()?;
        let mut raw = std::ptr::null_mut();
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
        // SAFETY: the context is current; the driver writes a handle.
        context.check("cuEventCreate", unsafe { sys::cuEventCreate(&mut raw, flags) })?;
        Ok(Event { context: context.clone(), raw })
    }

    pub(crate) fn raw(&self) -> CUevent {
        self.raw
    }

    /// Marks the place that a stream has reached when all that is in it now has been done.
    pub(crate) fn record(&self, stream: StreamHandle) -> Result<()> {
        let _current = self.context.current()?;
        // SAFETY: both are alive and of one context.
        self.context.check("cuEventRecord", unsafe { sys::cuEventRecord(self.raw, stream.raw()) })
    }

    /// Waits in this thread until the mark was reached; at once if it was never made.
    pub(crate) fn synchronize(&self) -> Result<()> {
        let _current = self.context.current()?;
        // SAFETY: the event is alive.
        self.context.check("cuEventSynchronize", unsafe { sys::cuEventSynchronize(self.raw) })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if let Ok(_current) = self.context.current() {
            // SAFETY: the event is ours and not used again; the driver keeps it until its mark was reached.
            let _ = unsafe { sys::cuEventDestroy_v2(self.raw) };
        }
    }
}
