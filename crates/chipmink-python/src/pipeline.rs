//! Captures of device memory for Python code that saves in two steps: enqueue while the program waits, copy while it goes on.

use chipmink::{
    Capture, CudaError, DeviceContext, DeviceRegion, Fence, Found, Grid, Pipeline, PipelineOptions, Release,
};
use pyo3::exceptions::{PyMemoryError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) fn raise(error: CudaError) -> PyErr {
    match error {
        CudaError::OutOfMemory { .. } => PyMemoryError::new_err(error.to_string()),
        CudaError::Busy { .. }
        | CudaError::Capturing { .. }
        | CudaError::Overdue { .. }
        | CudaError::Released { .. } => PyRuntimeError::new_err(error.to_string()),
        other => PyOSError::new_err(other.to_string()),
    }
}

/// What captures regions of one device. All that it needs is allocated when it is made.
#[pyclass(frozen, module = "chipmink._chipmink")]
pub(crate) struct DevicePipeline(Pipeline);

#[pymethods]
impl DevicePipeline {
    #[new]
    #[pyo3(signature = (device, *, scratch_len=256 << 20, block_len=32 << 20, block_count=4, chunk_capacity=1 << 18))]
    fn new(
        py: Python<'_>,
        device: i32,
        scratch_len: u64,
        block_len: u64,
        block_count: u32,
        chunk_capacity: u32,
    ) -> PyResult<Self> {
        let options = PipelineOptions {
            scratch_len,
            block_len,
            block_count,
            chunk_capacity,
            ..crate::device::options(py, device)
        };
        let made = py.detach(|| Pipeline::new(&DeviceContext::open(device)?, options));
        made.map(DevicePipeline).map_err(raise)
    }

    /// Captures memory, given by address and length, as it is when the streams have come to this point. `keep` keeps it
    /// alive until it has been read; until the capture is released, nothing writes to it but what waits for that.
    #[pyo3(signature = (regions, streams, keep, *, fence=true))]
    fn begin(
        &self,
        py: Python<'_>,
        regions: Vec<(u64, u64)>,
        streams: Vec<u64>,
        keep: Py<PyAny>,
        fence: bool,
    ) -> PyResult<DeviceCapture> {
        let regions: Vec<DeviceRegion> = regions
            .into_iter()
            .map(|(address, byte_len)| DeviceRegion { address, grid: Grid::run(byte_len) })
            .collect();
        let fence = if fence { Fence::Now } else { Fence::Later };
        let begun = py.detach(|| {
            // SAFETY: who calls this names memory that `keep` keeps alive, and all streams that write to it.
            unsafe { self.0.begin(&regions, &streams, Box::new(keep), Release::WhenStaged, fence) }
        });
        let capture = begun.map_err(raise)?;
        Ok(DeviceCapture(Mutex::new(Some(capture))))
    }

    /// Enqueues the digests of what was captured last, for measurements; the caller waits for the stream before anything else.
    fn digest_alone(&self, stream: u64) -> PyResult<()> {
        // SAFETY: who calls this keeps that memory, and waits.
        unsafe { self.0.digest_alone(stream) }.map_err(raise)
    }

    /// Forgets all digests.
    fn forget(&self) -> PyResult<()> {
        self.0.forget().map_err(raise)
    }
}

/// Memory of a device as it was at one moment.
#[pyclass(frozen, module = "chipmink._chipmink")]
pub(crate) struct DeviceCapture(Mutex<Option<Capture>>);

/// Why chunks are no longer taken.
enum Stopped {
    Device(CudaError),
    Python(PyErr),
}

impl From<CudaError> for Stopped {
    fn from(error: CudaError) -> Self {
        Stopped::Device(error)
    }
}

impl DeviceCapture {
    fn lock(&self) -> MutexGuard<'_, Option<Capture>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn over() -> PyErr {
    PyValueError::new_err("the capture is over: it was adopted, or closed")
}

#[pymethods]
impl DeviceCapture {
    /// Lets what the program enqueues later in these streams wait until its memory has been read.
    fn fence(&self, streams: Vec<u64>) -> PyResult<()> {
        self.lock().as_mut().ok_or_else(over)?.fence(&streams).map_err(raise)
    }

    /// Gives every dirty chunk to `take(region, ordinal, digest, content)`; without one, they are only brought to the host.
    /// Returns how many there were, their bytes, and how many did not fit in the staging area.
    #[pyo3(signature = (take=None))]
    fn take(&self, py: Python<'_>, take: Option<Py<PyAny>>) -> PyResult<(u64, u64, u64)> {
        let taken = py.detach(|| {
            let mut guard = self.lock();
            let capture = guard.as_mut().ok_or_else(|| Stopped::Python(over()))?;
            capture.take(&mut |staged| {
                let Some(take) = &take else { return Ok(()) };
                let called = Python::attach(|py| {
                    let digest = PyBytes::new(py, &staged.digest.as_bytes()[1..]);
                    let content = PyBytes::new(py, staged.bytes);
                    take.call1(py, (staged.region, staged.ordinal, digest, content)).map(drop)
                });
                called.map_err(Stopped::Python)
            })
        });
        match taken {
            Ok(Found { dirty_chunks, dirty_bytes, late_chunks, .. }) => {
                Ok((dirty_chunks, dirty_bytes, late_chunks))
            }
            Err(Stopped::Device(error)) => Err(raise(error)),
            Err(Stopped::Python(error)) => Err(error),
        }
    }

    /// XXH3-128 of each chunk of a region, canonical, once the capture has been taken.
    fn digests<'py>(&self, py: Python<'py>, region: usize) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let guard = self.lock();
        let capture = guard.as_ref().ok_or_else(over)?;
        if region >= capture.regions().len() || !capture.is_taken() {
            return Err(PyValueError::new_err("there is no such region, or the capture was not taken"));
        }
        Ok(capture.digests(region).iter().map(|digest| PyBytes::new(py, &digest.as_bytes()[1..])).collect())
    }

    /// What was found is what is known from now on. The capture is over.
    fn adopt(&self, py: Python<'_>) -> PyResult<()> {
        let mut guard = self.lock();
        if !guard.as_ref().ok_or_else(over)?.is_taken() {
            return Err(PyValueError::new_err("what was not taken cannot be adopted"));
        }
        match guard.take() {
            Some(capture) => py.detach(|| capture.adopt()).map_err(raise),
            None => Err(over()),
        }
    }

    /// Gives up the capture, if it was not adopted: what it found is dirty in the next. Streams that wait go on.
    fn close(&self, py: Python<'_>) {
        let capture = self.lock().take();
        py.detach(|| drop(capture));
    }
}
