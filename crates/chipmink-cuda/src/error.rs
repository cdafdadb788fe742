//! What can go wrong between the host and a device.

/// A failure of the device tier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// There is no driver, or it finds no device.
    #[error(
        "no CUDA driver can be used: {reason}; memory of devices is copied to the host before it is digested"
    )]
    NoDriver {
        /// What was looked for.
        reason: String,
    },
    /// There is no compiler for the kernels.
    #[error("NVRTC was not found, so no kernel can be compiled: {reason}; install nvidia-cuda-nvrtc")]
    NoCompiler {
        /// Where it was looked for.
        reason: String,
    },
    /// The kernels do not compile for a device.
    #[error("the kernels do not compile for {arch}: {log}; report it with the version of NVRTC")]
    Compile {
        /// The architecture, e.g. `sm_90`.
        arch: String,
        /// What the compiler said.
        log: String,
    },
    /// A call of the driver failed.
    #[error("{call} failed on device {device}: {message}")]
    Driver {
        /// The function of the driver.
        call: &'static str,
        /// Ordinal of the device.
        device: i32,
        /// Number of the failure.
        code: u32,
        /// What the driver says of it.
        message: String,
    },
    /// The device, or the context of the process on it, works no more.
    #[error("device {device} was lost in {call}: {message}; nothing was saved of it, start the process anew")]
    Lost {
        /// The function of the driver that found it out.
        call: &'static str,
        /// Ordinal of the device.
        device: i32,
        /// What the driver says of it.
        message: String,
    },
    /// There is no room for what is made once, at construction or for another set of tensors.
    #[error("no room for {byte_len} bytes of {what} on device {device}; make the scratch memory smaller")]
    OutOfMemory {
        /// What was to be allocated.
        what: &'static str,
        /// Bytes.
        byte_len: u64,
        /// Ordinal of the device.
        device: i32,
    },
    /// A stream of the program is being captured into a graph.
    #[error("a stream of device {device} is being captured into a CUDA graph; save outside of the capture")]
    Capturing {
        /// Ordinal of the device.
        device: i32,
    },
    /// The capture before has neither been taken nor dropped.
    #[error("the last save of device {device} is still under way; wait for it")]
    Busy {
        /// Ordinal of the device.
        device: i32,
    },
    /// More than a table can number.
    #[error("{chunk_count} chunks on one device, at most {most} can be saved at once")]
    TooManyChunks {
        /// Chunks that were asked for.
        chunk_count: u64,
        /// The bound.
        most: u64,
    },
    /// The device did not come to copies for which streams of the program were waiting.
    #[error(
        "device {device} did not read what had changed while the program's streams waited for it; they were let go, and nothing \
         was saved: give the save more scratch memory, or let it hold the program itself"
    )]
    Overdue {
        /// Ordinal of the device.
        device: i32,
    },
    /// Live memory cannot be read any more, since the program was let go on.
    #[error("memory of device {device} was released to the program before all of it was read; save again")]
    Released {
        /// Ordinal of the device.
        device: i32,
    },
}

/// The result of this crate's functions.
pub type Result<T, E = CudaError> = std::result::Result<T, E>;
