//! The device tier: digests of device memory, computed where it lies, and what changed of it, through pinned buffers.
//!
//! - [`Pipeline`]: what is allocated once per device; [`Pipeline::begin`] makes a [`Capture`] of regions at one moment.
//! - [`Capture`]: hands out the chunks that changed, and the digests of all; then it is adopted or forgotten.
//! - [`CaptureFence`]: lets streams of the program wait until a capture has read what they are about to write.
//! - [`Uploader`]: memory of the host to a device, through pinned blocks.
//! - [`DeviceTier`]: pipelines as the [`chipmink_types::DeviceMemory`] of a walk.
//! - [`Context`], [`device_count`], [`driver_version`], [`compiler_version`]: what there is.
//!
//! It refuses to allocate on a device during a save of what was saved before, to save while a stream is being captured into a
//! graph, and to share memory of devices with other processes.
//!
//! 1. With no driver, or no compiler for the kernels, every function says so; nothing fails to load.
//! 2. The digest of a chunk that is handed out is that of the copy which is handed out.
//! 3. What is known of a device moves with [`Capture::adopt`] alone: a save that fails gives its chunks back as dirty.
//! 4. No stream of the program that was told to wait waits for ever: whatever becomes of a capture, it is released.

mod compile;
mod driver;
mod error;
mod pipeline;
mod tier;
mod upload;

pub use compile::{CompilerOptions, compiled_kernels, compiler_version};
pub use driver::{
    Allocation, Context, DeviceAllocator, DeviceInfo, DriverAllocator, device_count, driver_version,
};
pub use error::{CudaError, Result};
pub use pipeline::{
    Capture, CaptureFence, DeviceRegion, Fence, Found, Pipeline, PipelineOptions, Release, Staged,
};
pub use tier::DeviceTier;
pub use upload::{Upload, Uploader};
