//! What this machine offers, for whoever wonders why something is slow or missing.

use chipmink_cuda::{
    Allocation, CompilerOptions, Context, CudaError, DeviceAllocator, DeviceInfo, DriverAllocator,
    compiler_version, device_count, driver_version,
};

/// What was found. Each `Err` says why there is none.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Examination {
    /// Version of chipmink.
    pub version: &'static str,
    /// System and processor, e.g. `linux x86_64`.
    pub system: String,
    /// Whether the kernel tells which pages were written (`track_pages`).
    pub dirty_pages: Result<(), String>,
    /// Whether memory that processes share can be saved and loaded.
    pub shared_memory: Result<(), String>,
    /// Version of the CUDA driver, as 1000 * major + 10 * minor.
    pub driver: Result<i32, String>,
    /// The devices.
    pub devices: Vec<Result<DeviceInfo, String>>,
    /// Major and minor version of NVRTC, which compiles the kernels.
    pub compiler: Result<(i32, i32), String>,
}

/// Looks at the machine. It loads libraries, and opens the contexts of devices.
pub fn examine(compiler: &CompilerOptions) -> Examination {
    let shared_memory = match cfg!(target_os = "linux") {
        true if std::path::Path::new("/dev/shm").is_dir() => Ok(()),
        true => Err("there is no /dev/shm".to_owned()),
        false => Err("it is saved on Linux only".to_owned()),
    };
    let driver = driver_version().map_err(|error| error.to_string());
    let devices = device_count().unwrap_or(0);
    let device =
        |ordinal| Context::open(ordinal).map(|found| found.info().clone()).map_err(|error| error.to_string());
    Examination {
        version: env!("CARGO_PKG_VERSION"),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        dirty_pages: chipmink_shm::live_digests().unavailable().map_or(Ok(()), Err),
        shared_memory,
        driver,
        devices: (0..devices).map(device).collect(),
        compiler: compiler_version(compiler).map_err(|error| error.to_string()),
    }
}

/// Why memory of a device cannot be digested where it lies; `None`: it can. Compiles the kernels if nobody did before.
pub fn device_unusable(device: i32, compiler: &CompilerOptions) -> Option<String> {
    let usable = Context::open(device)
        .and_then(|context| chipmink_cuda::compiled_kernels(context.info().capability, compiler));
    usable.err().map(|error| error.to_string())
}

/// Memory of a device from its driver, for an allocator that has no pool of its own to ask.
///
/// # Errors
/// When there is no such device, or no room on it.
pub fn allocate_by_driver(device: i32, byte_len: u64) -> Result<Allocation, CudaError> {
    DriverAllocator::new(&Context::open(device)?).allocate(byte_len)
}
