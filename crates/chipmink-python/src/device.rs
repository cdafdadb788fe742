//! Memory of devices, as far as it concerns Python: where it is allocated, and what the machine offers.

use chipmink::{
    Allocation, CompilerOptions, CudaError, DeviceAllocator, DeviceTier, Examination, PipelineOptions,
};
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::path::PathBuf;

/// Bytes of device memory for chunks on their way to the host. A save waits for them anyway.
const SCRATCH_LEN: u64 = 64 << 20;
/// Bytes of each of four blocks of pinned memory, of which a GiB takes about a second to make.
const BLOCK_LEN: u64 = 16 << 20;

/// The devices of the process. Nothing of CUDA is touched before memory of one is saved.
pub(crate) fn tier() -> DeviceTier {
    DeviceTier::new(|device| PipelineOptions {
        scratch_len: SCRATCH_LEN,
        block_len: BLOCK_LEN,
        ..Python::attach(|py| options(py, device))
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
