//! Memory of devices, as far as it concerns Python: where it is allocated, and what the machine offers.

use chipmink::{
    Allocation, CompilerOptions, CudaError, DeviceAllocator, DeviceContext, DeviceTier, Examination,
    PipelineOptions, Upload, Uploader,
};
use chipmink_pickle::WhenCaptured;
use pyo3::exceptions::{PyMemoryError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of device memory for chunks on their way to the host. A save waits for them anyway.
const SCRATCH_LEN: u64 = 64 << 20;
/// Bytes of pinned memory, of which a GiB takes about a second to make.
const PINNED_LEN: u64 = 64 << 20;
/// Into so many blocks it is divided: one is filled while another is read.
const BLOCK_COUNT: u32 = 4;

/// The devices of the process, with so many bytes of scratch memory and of pinned memory each. Nothing of CUDA is touched before
/// memory of one is saved.
pub(crate) fn tier(scratch_len: Option<u64>, pinned_len: Option<u64>) -> DeviceTier {
    DeviceTier::new(move |device| PipelineOptions {
        scratch_len: scratch_len.unwrap_or(SCRATCH_LEN),
        block_len: pinned_len.unwrap_or(PINNED_LEN) / u64::from(BLOCK_COUNT),
        block_count: BLOCK_COUNT,
        ..Python::attach(|py| options(py, device))
    })
}

/// What lets streams of the program wait until a save has read what they are about to write.
#[pyclass(frozen, module = "chipmink._chipmink")]
pub(crate) struct DeviceFence(Box<dyn chipmink_types::DeviceFence>);

#[pymethods]
impl DeviceFence {
    /// Number of the device.
    #[getter]
    fn device(&self) -> i32 {
        self.0.device()
    }

    /// Lets all that is enqueued from now on in these streams wait.
    fn wait(&self, streams: Vec<u64>) -> PyResult<()> {
        self.0.wait(&streams).map_err(|error| PyRuntimeError::new_err(error.to_string()))
    }
}

/// Calls a function of Python's with a list of fences.
pub(crate) fn teller(captured: Py<PyAny>) -> WhenCaptured {
    Box::new(move |py, fences| {
        let fences: Vec<DeviceFence> = fences.into_iter().map(DeviceFence).collect();
        captured.call1(py, (fences,)).map(drop)
    })
}

/// What a pipeline takes from the libraries of the program.
pub(crate) fn options(py: Python<'_>, device: i32) -> PipelineOptions {
    PipelineOptions {
        allocator: Some(Box::new(PoolAllocator(device))),
        compiler: compiler(py).unwrap_or_default(),
        ..PipelineOptions::default()
    }
}

fn compiler(py: Python<'_>) -> PyResult<CompilerOptions> {
    let module = py.import("chipmink._device")?;
    let libraries: Vec<PathBuf> = module.getattr("compiler_libraries")?.call0()?.extract()?;
    let cache: Option<PathBuf> = module.getattr("cache_folder")?.call0()?.extract()?;
    Ok(CompilerOptions { libraries, cache })
}

/// Asks the pool of the library that the program uses on a device; if there is none, the driver.
#[derive(Debug)]
struct PoolAllocator(i32);

impl DeviceAllocator for PoolAllocator {
    fn allocate(&self, byte_len: u64) -> Result<Allocation, CudaError> {
        Python::attach(|py| {
            let answer = py
                .import("chipmink._device")
                .and_then(|module| module.getattr("allocate")?.call1((self.0, byte_len)))
                .and_then(|answer| answer.extract::<Option<(u64, Py<PyAny>)>>());
            match answer {
                Ok(Some((address, owner))) => Ok(Allocation { address, owner: Box::new(owner) }),
                Ok(None) => chipmink::allocate_by_driver(self.0, byte_len),
                Err(error) if error.is_instance_of::<PyMemoryError>(py) => {
                    Err(CudaError::OutOfMemory { what: "device memory", byte_len, device: self.0 })
                }
                Err(error) => Err(CudaError::NoDriver { reason: error.to_string() }),
            }
        })
    }
}

/// Why memory of a device cannot be digested where it lies; `None`: it can.
#[pyfunction]
pub(crate) fn device_unusable(
    py: Python<'_>,
    device: i32,
    libraries: Vec<PathBuf>,
    cache: Option<PathBuf>,
) -> Option<String> {
    py.detach(|| chipmink::device_unusable(device, &CompilerOptions { libraries, cache }))
}

/// Bytes of each of two blocks of pinned memory that a thread fills when memory goes to a device, and how many threads there are at most.
const UPLOAD_BLOCK_LEN: u64 = 8 << 20;
const UPLOAD_THREADS_MAX: usize = 4;

type Uploaders = BTreeMap<i32, Arc<Mutex<Uploader>>>;

/// What copies to a device, made when it is needed first. It is kept, since pinned memory takes long to make.
fn uploader(device: i32) -> Result<Arc<Mutex<Uploader>>, CudaError> {
    static MADE: Mutex<Uploaders> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = made.get(&device) {
        return Ok(known.clone());
    }
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() / 2);
    let lanes = threads.clamp(1, UPLOAD_THREADS_MAX);
    let new = Uploader::new(&DeviceContext::open(device)?, lanes, UPLOAD_BLOCK_LEN)?;
    Ok(made.entry(device).or_insert(Arc::new(Mutex::new(new))).clone())
}

/// Copies memory of the host to a device: places on the device, addresses on the host, lengths. What stands in the streams comes
/// before, and all has arrived when this returns. The caller keeps both alive.
#[pyfunction]
pub(crate) fn device_upload(
    py: Python<'_>,
    device: i32,
    pieces: Vec<(u64, u64, u64)>,
    streams: Vec<u64>,
) -> PyResult<()> {
    let piece = |(to, from, byte_len)| Upload { to, from, byte_len };
    let pieces: Vec<Upload> = pieces.into_iter().map(piece).collect();
    let uploaded = py.detach(|| {
        let uploader = uploader(device)?;
        let mut uploader = uploader.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: who calls this has both alive, and names all streams that use the places.
        unsafe { uploader.upload(&pieces, &streams) }
    });
    uploaded.map_err(crate::pipeline::raise)
}

/// What the machine offers: values, or an `Err`'s text under the same name with `_missing`.
#[pyfunction]
pub(crate) fn examine<'py>(py: Python<'py>, libraries: Vec<PathBuf>) -> PyResult<Bound<'py, PyDict>> {
    let found: Examination = py.detach(|| chipmink::examine(&CompilerOptions { libraries, cache: None }));
    let report = PyDict::new(py);
    report.set_item("version", found.version)?;
    report.set_item("system", found.system)?;
    report.set_item("dirty_pages_missing", found.dirty_pages.err())?;
    report.set_item("shared_memory_missing", found.shared_memory.err())?;
    report.set_item(
        "driver",
        found.driver.as_ref().ok().map(|version| (version / 1000, version % 1000 / 10)),
    )?;
    report.set_item("driver_missing", found.driver.err())?;
    report.set_item("nvrtc", found.compiler.as_ref().ok())?;
    report.set_item("nvrtc_missing", found.compiler.err())?;
    let devices = PyList::empty(py);
    for device in found.devices {
        let described = match device {
            Ok(info) => {
                let (major, minor) = info.capability;
                let gibibytes = info.byte_len as f64 / f64::from(1 << 30);
                format!("{}, compute capability {major}.{minor}, {gibibytes:.0} GiB", info.name)
            }
            Err(reason) => reason,
        };
        devices.append(described)?;
    }
    report.set_item("devices", devices)?;
    Ok(report)
}
