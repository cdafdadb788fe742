//! Calls of the CUDA driver, as owned types and functions that return results. The only module that sees the driver.
//!
//! 1. Every call is made with the device's primary context current, the one of PyTorch; the thread's own is put back.
//! 2. Streams of the program are borrowed: they are never destroyed, synchronised or written to, but for waits.
//! 3. No function allocates on the device but [`Context::allocate`].

mod context;
mod event;
mod kernels;
mod memory;
mod stream;

pub use context::{Context, DeviceInfo, device_count, driver_version};
pub(crate) use event::Event;
pub(crate) use kernels::{Kernels, Part};
pub use memory::{Allocation, DeviceAllocator, DriverAllocator};
pub(crate) use memory::{DeviceBuffer, PinnedBuffer, copy_to_device};
pub(crate) use stream::{Stream, StreamHandle, relax_capture};

use crate::{CudaError, Result};
use cudarc::driver::sys::{self, CUresult};
use std::ffi::CStr;
use std::sync::OnceLock;

/// What a call came to, as a result.
pub(crate) fn check(call: &'static str, device: i32, result: CUresult) -> Result<()> {
    use CUresult::*;
    if result == CUDA_SUCCESS {
        return Ok(());
    }
    let message = message_of(result);
    Err(match result {
        CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
        | CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
        | CUDA_ERROR_STREAM_CAPTURE_IMPLICIT => CudaError::Capturing { device },
        CUDA_ERROR_DEINITIALIZED
        | CUDA_ERROR_ECC_UNCORRECTABLE
        | CUDA_ERROR_CONTEXT_IS_DESTROYED
        | CUDA_ERROR_ILLEGAL_ADDRESS
        | CUDA_ERROR_ASSERT
        | CUDA_ERROR_HARDWARE_STACK_ERROR
        | CUDA_ERROR_ILLEGAL_INSTRUCTION
        | CUDA_ERROR_MISALIGNED_ADDRESS
        | CUDA_ERROR_INVALID_ADDRESS_SPACE
        | CUDA_ERROR_INVALID_PC
        | CUDA_ERROR_LAUNCH_FAILED
        | CUDA_ERROR_LAUNCH_TIMEOUT
        | CUDA_ERROR_UNKNOWN => CudaError::Lost { call, device, message },
        _ => CudaError::Driver { call, device, code: result as u32, message },
    })
}

fn message_of(result: CUresult) -> String {
    let mut text: *const std::ffi::c_char = std::ptr::null();
    // SAFETY: the driver is loaded, since it gave the result; it writes a pointer to a constant string, or null.
    let found = unsafe { sys::cuGetErrorString(result, &mut text) };
    if found != CUresult::CUDA_SUCCESS || text.is_null() {
        return format!("error {}", result as u32);
    }
    // SAFETY: a string of the driver's own, which ends with a zero and is never freed.
    let text = unsafe { CStr::from_ptr(text) };
    format!("{} ({})", text.to_string_lossy(), result as u32)
}

/// Loads and initialises the driver, once in the life of the process.
pub(crate) fn ready() -> Result<()> {
    static READY: OnceLock<Result<()>> = OnceLock::new();
    READY
        .get_or_init(|| {
            // SAFETY: loading the driver runs its initialisers, as any use of CUDA in this process does.
            if !unsafe { sys::is_culib_present() } {
                return Err(CudaError::NoDriver { reason: "libcuda was not found".to_owned() });
            }
            // SAFETY: the library is there; the flags must be 0.
            let result = unsafe { sys::cuInit(0) };
            match result {
                CUresult::CUDA_SUCCESS => Ok(()),
                _ => Err(CudaError::NoDriver { reason: message_of(result) }),
            }
        })
        .clone()
}
