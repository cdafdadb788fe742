//! The kernels, loaded on a device, as functions.

use super::{Context, StreamHandle};
use crate::Result;
use chipmink_kernels::layout;
use cudarc::driver::sys::{self, CUfunction, CUmodule};
use std::ffi::{CString, c_void};
use std::sync::Arc;

/// The kernels on one device. What the addresses mean, each kernel's source says.
#[derive(Debug)]
pub(crate) struct Kernels {
    context: Arc<Context>,
    module: CUmodule,
    digest: CUfunction,
    compare: CUfunction,
    compact: CUfunction,
    adopt: CUfunction,
    gather: CUfunction,
    confirm: CUfunction,
    release: CUfunction,
}

// SAFETY: functions of a module may be launched from any thread; the driver guards them.
unsafe impl Send for Kernels {}
// SAFETY: as above.
unsafe impl Sync for Kernels {}

/// The list of dirty chunks, and a part of it that is staged together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// Address of the descriptors.
    pub chunks: u64,
    /// Address of the list.
    pub dirty: u64,
    /// Address of its totals.
    pub totals: u64,
    /// The first entry.
    pub first: u32,
    /// The byte offset of that entry.
    pub byte_offset: u64,
    /// Address of the staging area.
    pub staging: u64,
    /// Its bytes.
    pub capacity: u64,
}

/// Addresses of parameters, as a launch takes them.
macro_rules! parameters {
    ($($value:expr),+) => { [$((&raw mut $value).cast::<c_void>()),+] };
}

impl Kernels {
    /// Loads what the compiler made.
    pub(crate) fn load(context: &Arc<Context>, image: &[u8]) -> Result<Self> {
        let _current = context.current()?;
        let mut module = std::ptr::null_mut();
        // SAFETY: the image is one that NVRTC made, or a file of the cache whose digest was right; the driver checks it.
        context.check("cuModuleLoadData", unsafe {
            sys::cuModuleLoadData(&mut module, image.as_ptr().cast())
        })?;
        let find = |name: &str| {
            let name = CString::new(name).expect("names of kernels have no zero");
            let mut function = std::ptr::null_mut();
            // SAFETY: the module is loaded; the driver writes a handle.
            context.check("cuModuleGetFunction", unsafe {
                sys::cuModuleGetFunction(&mut function, module, name.as_ptr())
            })?;
            Ok::<_, crate::CudaError>(function)
        };
        Ok(Kernels {
            digest: find(layout::DIGEST)?,
            compare: find(layout::COMPARE)?,
            compact: find(layout::COMPACT)?,
            adopt: find(layout::ADOPT)?,
            gather: find(layout::GATHER)?,
            confirm: find(layout::CONFIRM)?,
            release: find(layout::RELEASE)?,
            context: context.clone(),
            module,
        })
    }

    /// # Safety
    /// Until the stream has done it: the descriptors' memory can be read, and `digests` has all of their slots.
    pub(crate) unsafe fn digest(
        &self,
        stream: StreamHandle,
        mut chunks: u64,
        mut count: u32,
        mut digests: u64,
    ) -> Result<()> {
        let grid = count.div_ceil(layout::DIGEST_BLOCK / 32);
        let mut parameters = parameters!(chunks, count, digests);
        // SAFETY: the parameters are those of the kernel; the rest is the caller's promise.
        unsafe { self.launch(self.digest, grid, layout::DIGEST_BLOCK, stream, &mut parameters) }
    }

    /// # Safety
    /// Until the stream has done it: the tables have all slots of the descriptors, and `masks` a bit for each.
    pub(crate) unsafe fn compare(
        &self,
        stream: StreamHandle,
        mut chunks: u64,
        mut count: u32,
        mut digests: u64,
        mut previous: u64,
        mut masks: u64,
    ) -> Result<()> {
        let grid = count.div_ceil(layout::COMPARE_BLOCK);
        let mut parameters = parameters!(chunks, count, digests, previous, masks);
        // SAFETY: as in `digest`.
        unsafe { self.launch(self.compare, grid, layout::COMPARE_BLOCK, stream, &mut parameters) }
    }

    /// # Safety
    /// As [`Kernels::compare`]; `dirty` has room for all descriptors, `totals` for its structure.
    #[expect(clippy::too_many_arguments, reason = "they are the kernel's")]
    pub(crate) unsafe fn compact(
        &self,
        stream: StreamHandle,
        mut chunks: u64,
        mut count: u32,
        mut digests: u64,
        mut masks: u64,
        mut capacity: u64,
        mut dirty: u64,
        mut totals: u64,
    ) -> Result<()> {
        let mut parameters = parameters!(chunks, count, digests, masks, capacity, dirty, totals);
        // SAFETY: as in `digest`.
        unsafe { self.launch(self.compact, 1, layout::COMPACT_BLOCK, stream, &mut parameters) }
    }

    /// # Safety
    /// As [`Kernels::compare`].
    pub(crate) unsafe fn adopt(
        &self,
        stream: StreamHandle,
        mut chunks: u64,
        mut count: u32,
        mut digests: u64,
        mut previous: u64,
    ) -> Result<()> {
        let grid = count.div_ceil(layout::COMPARE_BLOCK);
        let mut parameters = parameters!(chunks, count, digests, previous);
        // SAFETY: as in `digest`.
        unsafe { self.launch(self.adopt, grid, layout::COMPARE_BLOCK, stream, &mut parameters) }
    }

    /// # Safety
    /// Until the stream has done it: the memory of the chunks in this part can be read, and the staging area is nobody
    /// else's.
    pub(crate) unsafe fn gather(&self, stream: StreamHandle, mut part: Part) -> Result<()> {
        let mut parameters = parameters!(
            part.chunks,
            part.dirty,
            part.totals,
            part.first,
            part.byte_offset,
            part.staging,
            part.capacity
        );
        // Enough blocks to fill the device; they take turns.
        let grid = 8 * self.context.info().processor_count;
        // SAFETY: as in `digest`.
        unsafe { self.launch(self.gather, grid, layout::GATHER_BLOCK, stream, &mut parameters) }
    }

    /// # Safety
    /// As [`Kernels::gather`]; `digests` has all slots.
    pub(crate) unsafe fn confirm(
        &self,
        stream: StreamHandle,
        mut part: Part,
        mut digests: u64,
    ) -> Result<()> {
        let mut parameters = parameters!(
            part.chunks,
            part.dirty,
            part.totals,
            part.first,
            part.byte_offset,
            part.staging,
            part.capacity,
            digests
        );
        let grid = 3 * self.context.info().processor_count;
        // SAFETY: as in `digest`.
        unsafe { self.launch(self.confirm, grid, layout::DIGEST_BLOCK, stream, &mut parameters) }
    }

    /// # Safety
    /// `totals` and the mapped `word` outlive the launch.
    pub(crate) unsafe fn release(
        &self,
        stream: StreamHandle,
        mut totals: u64,
        mut word: u64,
        mut value: u32,
    ) -> Result<()> {
        let mut parameters = parameters!(totals, word, value);
        // SAFETY: as in `digest`; of the 32 threads each writes the same.
        unsafe { self.launch(self.release, 1, 32, stream, &mut parameters) }
    }

    unsafe fn launch(
        &self,
        function: CUfunction,
        grid: u32,
        block: u32,
        stream: StreamHandle,
        parameters: &mut [*mut c_void],
    ) -> Result<()> {
        let _current = self.context.current()?;
        // SAFETY: the function is of a loaded module, and the driver copies the parameters before it returns; what they
        // point to is the caller's promise.
        self.context.check("cuLaunchKernel", unsafe {
            sys::cuLaunchKernel(
                function,
                grid,
                1,
                1,
                block,
                1,
                1,
                0,
                stream.raw(),
                parameters.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        })
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        if let Ok(_current) = self.context.current() {
            // SAFETY: loaded by `load`; whoever launched something has waited for it.
            let _ = unsafe { sys::cuModuleUnload(self.module) };
        }
    }
}
