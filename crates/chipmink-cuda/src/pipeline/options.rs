//! What a pipeline is made of, and how a capture behaves.

use crate::CompilerOptions;
use crate::driver::DeviceAllocator;
use chipmink_digest::Grid;
use std::time::Duration;

/// Contiguous memory of one device that is saved as one region.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DeviceRegion {
    /// Of its first byte; any alignment.
    pub address: u64,
    /// Its length, and where its chunks begin.
    pub grid: Grid,
}

impl DeviceRegion {
    /// As many chunks as its grid has, if that can be counted on a device.
    pub(crate) fn chunk_count(&self) -> u32 {
        u32::try_from(self.grid.chunk_count()).unwrap_or(u32::MAX)
    }
}

/// What is allocated once per device.
#[derive(Debug)]
pub struct PipelineOptions {
    /// Bytes of device memory into which dirty chunks are copied, so that the program can go on before they have left the
    /// device; 0: they are copied into mapped pinned memory at once.
    pub scratch_len: u64,
    /// Bytes of each block of pinned memory; at least two chunks.
    pub block_len: u64,
    /// Blocks of pinned memory, at least two.
    pub block_count: u32,
    /// Chunks for which there are tables from the start. More make them grow, once, before a save.
    pub chunk_capacity: u32,
    /// Where the memory of the device comes from; `None`: from the driver.
    pub allocator: Option<Box<dyn DeviceAllocator>>,
    /// How the kernels are compiled.
    pub compiler: CompilerOptions,
    /// How long the device may keep the host waiting while streams of the program wait for the host, before these are let go
    /// and the capture has failed.
    pub patience: Duration,
}

impl Default for PipelineOptions {
    /// 256 MiB of scratch memory and four pinned blocks of 32 MiB: pinned memory costs about a second per GiB to make, and
    /// copies of 32 MiB reach the full speed of the link.
    fn default() -> Self {
        PipelineOptions {
            scratch_len: 256 << 20,
            block_len: 32 << 20,
            block_count: 4,
            chunk_capacity: 1 << 18,
            allocator: None,
            compiler: CompilerOptions::default(),
            patience: Duration::from_secs(10),
        }
    }
}

/// When the program may write to what was captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Release {
    /// As soon as all dirty chunks are staged.
    WhenStaged,
    /// When [`super::Capture::release`] is called: until then chunks that are not dirty can be read, too.
    ByCaller,
}

/// When the streams of the program are told to wait for that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fence {
    /// Before [`super::Pipeline::begin`] returns.
    Now,
    /// By [`super::Capture::fence`], before the program enqueues anything that writes.
    Later,
}
