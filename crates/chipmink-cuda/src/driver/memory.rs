//! Memory on the device and pinned memory of the host.
//!
//! 1. Nothing here is a slice while a device may write to it: [`PinnedBuffer::bytes`] is unsafe, and its callers show that the
//!    copy has come to its end.
//! 2. Memory of the device is allocated by a [`DeviceAllocator`], so that it can come from the pool of the program.

use super::{Context, StreamHandle};
use crate::{CudaError, Result};
use cudarc::driver::sys;
use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Memory of a device, with what keeps it allocated.
pub struct Allocation {
    /// Of its first byte, aligned to 256.
    pub address: u64,
    /// Gives the memory back when it is dropped.
    pub owner: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allocation").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Allocates memory of a device. It is asked at construction and when there are more chunks than ever, never in a save of
/// what was saved before.
pub trait DeviceAllocator: Send + Sync + fmt::Debug {
    /// Bytes that nobody else uses until the owner is dropped, in any stream: what a pool hands out for one stream must be waited for.
    ///
    /// # Errors
    /// When there is no room.
    fn allocate(&self, byte_len: u64) -> Result<Allocation>;
}

/// Asks the driver.
#[derive(Debug)]
pub struct DriverAllocator(Arc<Context>);

impl DriverAllocator {
    /// Of one device.
    pub fn new(context: &Arc<Context>) -> Self {
        DriverAllocator(context.clone())
    }
}

impl DeviceAllocator for DriverAllocator {
    fn allocate(&self, byte_len: u64) -> Result<Allocation> {
        let _current = self.0.current()?;
        let mut address = 0;
        // SAFETY: the context is current; the driver writes an address.
        let result = unsafe { sys::cuMemAlloc_v2(&mut address, byte_len as usize) };
        if result == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            let device = self.0.ordinal();
            return Err(CudaError::OutOfMemory { what: "device memory", byte_len, device });
        }
        self.0.check("cuMemAlloc", result)?;
        Ok(Allocation { address, owner: Box::new(DriverMemory { context: self.0.clone(), address }) })
    }
}

struct DriverMemory {
    context: Arc<Context>,
    address: u64,
}

impl Drop for DriverMemory {
    fn drop(&mut self) {
        if let Ok(_current) = self.context.current() {
            // SAFETY: allocated by `allocate` and freed once; the driver waits for what still uses it.
            let _ = unsafe { sys::cuMemFree_v2(self.address) };
        }
    }
}

/// A piece of device memory with its length.
#[derive(Debug)]
pub(crate) struct DeviceBuffer {
    context: Arc<Context>,
    allocation: Allocation,
    byte_len: u64,
}

impl DeviceBuffer {
    pub(crate) fn new(
        context: &Arc<Context>,
        allocator: &dyn DeviceAllocator,
        what: &'static str,
        byte_len: u64,
    ) -> Result<Self> {
        let allocation = allocator.allocate(byte_len.max(1)).map_err(|error| match error {
            CudaError::OutOfMemory { byte_len, device, .. } => {
                CudaError::OutOfMemory { what, byte_len, device }
            }
            other => other,
        })?;
        Ok(DeviceBuffer { context: context.clone(), allocation, byte_len })
    }

    pub(crate) fn address(&self) -> u64 {
        self.allocation.address
    }

    pub(crate) fn byte_len(&self) -> u64 {
        self.byte_len
    }

    /// Copies to the beginning of the buffer. The bytes have left `from` when this returns.
    pub(crate) fn write(&self, stream: StreamHandle, byte_offset: u64, from: &[u8]) -> Result<()> {
        assert!(byte_offset + from.len() as u64 <= self.byte_len, "what is written must fit");
        let _current = self.context.current()?;
        // SAFETY: it fits, as asserted. `from` is not pinned, and the driver copies such memory before it returns.
        self.context.check("cuMemcpyHtoDAsync", unsafe {
            sys::cuMemcpyHtoDAsync_v2(
                self.address() + byte_offset,
                from.as_ptr().cast(),
                from.len(),
                stream.raw(),
            )
        })
    }

    /// Sets bytes.
    pub(crate) fn fill(&self, stream: StreamHandle, range: Range<u64>, value: u8) -> Result<()> {
        assert!(range.start <= range.end && range.end <= self.byte_len, "what is filled must be inside");
        if range.is_empty() {
            return Ok(());
        }
        let _current = self.context.current()?;
        // SAFETY: inside, as asserted.
        self.context.check("cuMemsetD8Async", unsafe {
            let (address, len) = (self.address() + range.start, range.end - range.start);
            sys::cuMemsetD8Async(address, value, len as usize, stream.raw())
        })
    }

    /// Copies a part to another buffer of the device.
    pub(crate) fn copy_to(
        &self,
        stream: StreamHandle,
        range: Range<u64>,
        to: &DeviceBuffer,
        to_offset: u64,
    ) -> Result<()> {
        let len = range.end - range.start;
        assert!(range.end <= self.byte_len && to_offset + len <= to.byte_len, "what is copied must fit");
        if len == 0 {
            return Ok(());
        }
        let _current = self.context.current()?;
        // SAFETY: both parts are inside, as asserted, and the buffers are two.
        self.context.check("cuMemcpyDtoDAsync", unsafe {
            let (to, from) = (to.address() + to_offset, self.address() + range.start);
            sys::cuMemcpyDtoDAsync_v2(to, from, len as usize, stream.raw())
        })
    }

    /// Copies a part to pinned memory. It is there when the stream has come to the copy.
    pub(crate) fn read(
        &self,
        stream: StreamHandle,
        range: Range<u64>,
        into: &PinnedBuffer,
        into_offset: u64,
    ) -> Result<()> {
        let len = range.end - range.start;
        assert!(range.end <= self.byte_len && into_offset + len <= into.byte_len, "what is read must fit");
        if len == 0 {
            return Ok(());
        }
        let _current = self.context.current()?;
        // SAFETY: both parts are inside, as asserted; nobody has a slice of the pinned part, by its invariant.
        self.context.check("cuMemcpyDtoHAsync", unsafe {
            let to = into.pointer.add(into_offset as usize).cast();
            sys::cuMemcpyDtoHAsync_v2(to, self.address() + range.start, len as usize, stream.raw())
        })
    }
}

/// Pinned memory of the host, mapped for the devices. It is not write-combined, since the processor reads it.
#[derive(Debug)]
pub(crate) struct PinnedBuffer {
    context: Arc<Context>,
    pointer: *mut u8,
    device_address: u64,
    byte_len: u64,
}

// SAFETY: it is plain memory; who may read it when is settled by `bytes`.
unsafe impl Send for PinnedBuffer {}
// SAFETY: as above.
unsafe impl Sync for PinnedBuffer {}

impl PinnedBuffer {
    pub(crate) fn new(context: &Arc<Context>, what: &'static str, byte_len: u64) -> Result<Self> {
        let byte_len = byte_len.max(1);
        let _current = context.current()?;
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE | sys::CU_MEMHOSTALLOC_DEVICEMAP;
        let mut pointer = std::ptr::null_mut();
        // SAFETY: the context is current; the driver writes a pointer.
        let result = unsafe { sys::cuMemHostAlloc(&mut pointer, byte_len as usize, flags) };
        if result == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return Err(CudaError::OutOfMemory { what, byte_len, device: context.ordinal() });
        }
        context.check("cuMemHostAlloc", result)?;
        let mut buffer =
            PinnedBuffer { context: context.clone(), pointer: pointer.cast(), device_address: 0, byte_len };
        // SAFETY: the memory was allocated as mapped; the driver writes an address.
        context.check("cuMemHostGetDevicePointer", unsafe {
            sys::cuMemHostGetDevicePointer_v2(&mut buffer.device_address, pointer, 0)
        })?;
        // SAFETY: so many bytes were allocated, and nobody else knows of them. From here on none is uninitialised.
        unsafe { std::ptr::write_bytes(buffer.pointer, 0, byte_len as usize) };
        Ok(buffer)
    }

    /// Where a device sees the memory.
    pub(crate) fn device_address(&self) -> u64 {
        self.device_address
    }

    /// A part of the memory.
    ///
    /// # Safety
    /// As long as the slice lives, no device writes to the part: what was enqueued to do so has been done.
    pub(crate) unsafe fn bytes(&self, range: Range<u64>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.byte_len, "a part must be inside");
        // SAFETY: inside, initialised, and by the caller's promise not written to.
        unsafe {
            std::slice::from_raw_parts(
                self.pointer.add(range.start as usize),
                (range.end - range.start) as usize,
            )
        }
    }

    /// Copies so many bytes to the beginning of the memory.
    ///
    /// # Safety
    /// They can be read, and are elsewhere; nobody else uses this memory until this returns, and no device does.
    pub(crate) unsafe fn fill_from(&self, from: *const u8, byte_len: u64) {
        assert!(byte_len <= self.byte_len, "what is copied must fit");
        // SAFETY: it fits, as asserted; the rest is the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(from, self.pointer, byte_len as usize) };
    }

    /// The first word, which devices and the host both write.
    pub(crate) fn word(&self) -> &std::sync::atomic::AtomicU32 {
        assert!(self.byte_len >= 4, "a word has four bytes");
        // SAFETY: there are four bytes, aligned as all that the driver allocates; all of the host's accesses are atomic.
        unsafe { &*self.pointer.cast() }
    }
}

/// Copies from the beginning of pinned memory to a device. It is there when the stream has come to the copy.
///
/// # Safety
/// The place is allocated, and until then nobody else uses it or writes to the pinned memory.
pub(crate) unsafe fn copy_to_device(
    context: &Context,
    stream: StreamHandle,
    to: u64,
    from: &PinnedBuffer,
    byte_len: u64,
) -> Result<()> {
    assert!(byte_len <= from.byte_len, "what is copied must be inside");
    let _current = context.current()?;
    // SAFETY: inside, as asserted; the rest is the caller's promise.
    context.check("cuMemcpyHtoDAsync", unsafe {
        sys::cuMemcpyHtoDAsync_v2(to, from.pointer.cast(), byte_len as usize, stream.raw())
    })
}

impl Drop for PinnedBuffer {
    fn drop(&mut self) {
        if let Ok(_current) = self.context.current() {
            // SAFETY: allocated by `new` and freed once; who enqueued copies has waited for them.
            let _ = unsafe { sys::cuMemFreeHost(self.pointer.cast()) };
        }
    }
}
