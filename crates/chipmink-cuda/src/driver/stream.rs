//! Streams: own ones, and those of the program.

use super::{Context, Event};
use crate::{CudaError, Result};
use cudarc::driver::sys::{self, CUstream, CUstreamCaptureMode, CUstreamCaptureStatus};
use std::sync::Arc;

/// A stream by its handle, of which nothing is owned. 0 is the legacy default stream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct StreamHandle(pub u64);

impl StreamHandle {
    pub(crate) fn raw(self) -> CUstream {
        self.0 as usize as CUstream
    }

    /// That work is not being recorded into a graph instead of being done.
    pub(crate) fn refuse_capture(self, context: &Context) -> Result<()> {
        let _current = context.current()?;
        let mut status = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        // SAFETY: the program's stream is alive, as its caller promises; the driver writes one number.
        context.check("cuStreamIsCapturing", unsafe { sys::cuStreamIsCapturing(self.raw(), &mut status) })?;
        match status {
            CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE => Ok(()),
            _ => Err(CudaError::Capturing { device: context.ordinal() }),
        }
    }

    /// Lets what comes later in the stream wait for an event that was recorded.
    pub(crate) fn wait(self, context: &Context, event: &Event) -> Result<()> {
        let _current = context.current()?;
        // SAFETY: stream and event are alive; the driver keeps what it needs of the event.
        context.check("cuStreamWaitEvent", unsafe { sys::cuStreamWaitEvent(self.raw(), event.raw(), 0) })
    }

    /// Lets what comes later in the stream wait until a word of mapped memory is at least `value`, as numbers that wrap.
    pub(crate) fn wait_word(self, context: &Context, address: u64, value: u32) -> Result<()> {
        let _current = context.current()?;
        let flags = sys::CUstreamWaitValue_flags::CU_STREAM_WAIT_VALUE_GEQ as u32;
        // SAFETY: the word is mapped, aligned, and outlives the wait: its owner writes it before it is dropped.
        context.check("cuStreamWaitValue32", unsafe {
            sys::cuStreamWaitValue32_v2(self.raw(), address, value, flags)
        })
    }
}

/// A stream of our own, which waits for no other unless told.
#[derive(Debug)]
pub(crate) struct Stream {
    context: Arc<Context>,
    raw: CUstream,
}

// SAFETY: streams may be used from any thread; the driver guards them.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self> {
        let _current = context.current()?;
        let mut raw = std::ptr::null_mut();
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the context is current; the driver writes a handle.
        context.check("cuStreamCreate", unsafe { sys::cuStreamCreate(&mut raw, flags) })?;
        Ok(Stream { context: context.clone(), raw })
    }

    pub(crate) fn handle(&self) -> StreamHandle {
        StreamHandle(self.raw as usize as u64)
    }

    /// Waits in this thread until all that was enqueued has been done.
    pub(crate) fn synchronize(&self) -> Result<()> {
        let _current = self.context.current()?;
        // SAFETY: the stream is alive.
        self.context.check("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(self.raw) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Ok(_current) = self.context.current() {
            // SAFETY: the stream is ours and not used again; the driver lets go of it when its work is done.
            let _ = unsafe { sys::cuStreamDestroy_v2(self.raw) };
        }
    }
}

/// Lets this thread make calls that would spoil the capture of a graph in another one's stream, which is none of ours.
/// Returns what gives the thread its old mode back.
pub(crate) fn relax_capture(context: &Context) -> Result<Relaxed> {
    let mut mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
    // SAFETY: the driver is loaded and exchanges one number of this thread.
    context.check("cuThreadExchangeStreamCaptureMode", unsafe {
        sys::cuThreadExchangeStreamCaptureMode(&mut mode)
    })?;
    Ok(Relaxed(mode, std::marker::PhantomData))
}

/// Gives the thread its mode of capture back when it is dropped.
pub(crate) struct Relaxed(CUstreamCaptureMode, std::marker::PhantomData<*const ()>);

impl Drop for Relaxed {
    fn drop(&mut self) {
        let mut mode = self.0;
        // SAFETY: as in `relax_capture`, in the same thread, since this cannot be sent to another.
        let _ = unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) };
    }
}
