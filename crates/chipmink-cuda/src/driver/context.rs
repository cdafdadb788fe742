//! A device's primary context.

use super::{check, ready};
use crate::{CudaError, Result};
use cudarc::driver::sys::{self, CUcontext, CUdevice, CUdevice_attribute};
use std::ffi::CStr;
use std::marker::PhantomData;
use std::sync::Arc;

/// What the driver says of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceInfo {
    /// Its number.
    pub ordinal: i32,
    /// As the vendor calls it.
    pub name: String,
    /// Major and minor number of its architecture.
    pub capability: (i32, i32),
    /// Bytes of memory.
    pub byte_len: u64,
    /// Processors.
    pub processor_count: u32,
}

/// Version of the driver, as 1000 * major + 10 * minor.
///
/// # Errors
/// When there is no driver.
pub fn driver_version() -> Result<i32> {
    ready()?;
    let mut version = 0;
    // SAFETY: the driver is loaded and writes one number.
    check("cuDriverGetVersion", -1, unsafe { sys::cuDriverGetVersion(&mut version) })?;
    Ok(version)
}

/// How many devices there are.
///
/// # Errors
/// When there is no driver.
pub fn device_count() -> Result<i32> {
    ready()?;
    let mut count = 0;
    // SAFETY: the driver is loaded and writes one number.
    check("cuDeviceGetCount", -1, unsafe { sys::cuDeviceGetCount(&mut count) })?;
    Ok(count)
}

/// The primary context of a device, which all libraries of the process share. It is held as long as this lives.
#[derive(Debug)]
pub struct Context {
    info: DeviceInfo,
    device: CUdevice,
    context: CUcontext,
}

// SAFETY: a context may be made current in any thread, and the driver guards its own state.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Opens the primary context of a device.
    ///
    /// # Errors
    /// When there is no driver or no such device.
    pub fn open(ordinal: i32) -> Result<Arc<Self>> {
        let count = device_count()?;
        if !(0..count).contains(&ordinal) {
            return Err(CudaError::NoDriver { reason: format!("there is no device {ordinal}, of {count}") });
        }
        let mut device = 0;
        // SAFETY: the driver is ready; it writes a handle.
        check("cuDeviceGet", ordinal, unsafe { sys::cuDeviceGet(&mut device, ordinal) })?;
        let info = info_of(ordinal, device)?;
        let mut context = std::ptr::null_mut();
        // SAFETY: the device exists; the reference is given back in `drop`.
        check("cuDevicePrimaryCtxRetain", ordinal, unsafe {
            sys::cuDevicePrimaryCtxRetain(&mut context, device)
        })?;
        Ok(Arc::new(Context { info, device, context }))
    }

    /// What the driver says of the device.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// The device's number.
    pub fn ordinal(&self) -> i32 {
        self.info.ordinal
    }

    pub(crate) fn check(&self, call: &'static str, result: sys::CUresult) -> Result<()> {
        check(call, self.ordinal(), result)
    }

    /// Makes the context that of the thread, until what is returned is dropped.
    pub(crate) fn current(&self) -> Result<Current<'_>> {
        // SAFETY: the context is retained.
        self.check("cuCtxPushCurrent", unsafe { sys::cuCtxPushCurrent_v2(self.context) })?;
        Ok(Current(PhantomData))
    }
}

fn info_of(ordinal: i32, device: CUdevice) -> Result<DeviceInfo> {
    use CUdevice_attribute::*;
    let attribute = |attribute| {
        let mut value = 0;
        // SAFETY: the device exists; the driver writes one number.
        check("cuDeviceGetAttribute", ordinal, unsafe {
            sys::cuDeviceGetAttribute(&mut value, attribute, device)
        })?;
        Ok(value)
    };
    let mut name = [0; 128];
    // SAFETY: so many bytes are there, and the driver ends the string with a zero within them.
    check("cuDeviceGetName", ordinal, unsafe { sys::cuDeviceGetName(name.as_mut_ptr(), 128, device) })?;
    let mut byte_len = 0usize;
    // SAFETY: the driver writes one number.
    check("cuDeviceTotalMem", ordinal, unsafe { sys::cuDeviceTotalMem_v2(&mut byte_len, device) })?;
    // SAFETY: as above, it ends within the array.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
    Ok(DeviceInfo {
        ordinal,
        name,
        capability: (
            attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        byte_len: byte_len as u64,
        processor_count: attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.max(1) as u32,
    })
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: gives back the reference of `open`. Nothing of this crate that needs the context outlives it. What the
        // call answers changes nothing any more.
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

/// The thread has the context of a device; it gets its own back when this is dropped.
pub(crate) struct Current<'a>(PhantomData<(&'a Context, *const ())>);

impl Drop for Current<'_> {
    fn drop(&mut self) {
        let mut popped = std::ptr::null_mut();
        // SAFETY: `current` has pushed one in this thread, since this cannot be sent to another.
        let _ = unsafe { sys::cuCtxPopCurrent_v2(&mut popped) };
    }
}
