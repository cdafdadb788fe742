//! Builds the emulated driver of `tests/emulator` and puts it where the real one would be looked for.

use chipmink_cuda::{CompilerOptions, Context, Pipeline, PipelineOptions};
use std::ffi::{CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Bytes of a piece of scratch or pinned memory that holds two chunks, the least there can be.
pub(crate) const LEAST: u64 = 2 * 64 * 1024;

type LaunchFn = unsafe extern "C" fn(*const c_char, u32, u32, *mut *mut c_void) -> c_int;

/// The emulated driver, for one test at a time: its failures and counts are those of the process.
pub(crate) struct Emulator {
    driver: &'static libloading::Library,
    compiler: &'static libloading::Library,
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

/// `None`: there is no C++ compiler; the reason was printed.
pub(crate) fn emulator() -> Option<Emulator> {
    static LOADED: OnceLock<Option<(libloading::Library, libloading::Library)>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| {
        let driver = build(&["kernels.cpp", "driver.cpp"], "libcuda.so")?;
        let compiler = build(&["nvrtc.cpp"], "libnvrtc.so")?;
        // SAFETY: libraries that were just made, without initialisers. They have the names for which the driver and NVRTC
        // are looked, so those are found from now on.
        Some(unsafe {
            (libloading::Library::new(driver).unwrap(), libloading::Library::new(compiler).unwrap())
        })
    });
    let Some((driver, compiler)) = loaded else {
        eprintln!("skipped: there is no C++ compiler (c++) to build the emulated driver with");
        return None;
    };
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let emulator = Emulator { driver, compiler, _alone: alone };
    emulator.heal();
    Some(emulator)
}

fn build(sources: &[&str], name: &str) -> Option<PathBuf> {
    if Command::new("c++").arg("--version").output().is_err() {
        return None;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(std::process::id().to_string());
    std::fs::create_dir_all(&folder).unwrap();
    let library = folder.join(name);
    let made = Command::new("c++")
        .args(["-std=c++17", "-O2", "-Wall", "-Wno-unknown-pragmas", "-shared", "-fPIC"])
        .arg(format!("-Wl,-soname,{name}"))
        .arg("-I")
        .arg(root.join("kernels/cuda"))
        .args(sources.iter().map(|source| root.join("tests/emulator").join(source)))
        .arg("-o")
        .arg(&library)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(library)
}

impl Emulator {
    fn function<T: Copy>(&self, name: &str) -> T {
        let name = CString::new(name).unwrap();
        // SAFETY: each caller names the type that the function has in driver.cpp or nvrtc.cpp.
        unsafe {
            let found = self.driver.get::<T>(name.as_bytes_with_nul());
            *found.or_else(|_| self.compiler.get::<T>(name.as_bytes_with_nul())).unwrap()
        }
    }

    /// Draws the order of events from now on.
    pub(crate) fn seed(&self, seed: u64) {
        // SAFETY: as `function` says; so below.
        unsafe { self.function::<unsafe extern "C" fn(u64)>("emulated_seed")(seed) }
    }

    /// The n-th call of a function from now on fails.
    pub(crate) fn fail(&self, call: &str, nth: i64, code: i32) {
        let call = CString::new(call).unwrap();
        // SAFETY: as above.
        unsafe {
            self.function::<unsafe extern "C" fn(*const c_char, i64, i32)>("emulated_fail")(
                call.as_ptr(),
                nth,
                code,
            );
        }
    }

    /// Nothing fails any more.
    pub(crate) fn heal(&self) {
        // SAFETY: as above.
        unsafe { self.function::<unsafe extern "C" fn()>("emulated_heal")() }
    }

    /// How often a function was called.
    pub(crate) fn calls(&self, call: &str) -> u64 {
        let call = CString::new(call).unwrap();
        // SAFETY: as above.
        unsafe {
            self.function::<unsafe extern "C" fn(*const c_char) -> u64>("emulated_calls")(call.as_ptr())
        }
    }

    fn count(&self, name: &str) -> u64 {
        // SAFETY: as above.
        unsafe { self.function::<unsafe extern "C" fn() -> u64>(name)() }
    }

    /// Bytes that went from the device to the host.
    pub(crate) fn copied(&self) -> u64 {
        self.count("emulated_copied")
    }

    /// Buffers, streams and events that were not given back.
    pub(crate) fn alive(&self) -> u64 {
        self.count("emulated_alive")
    }

    /// How often kernels were compiled.
    pub(crate) fn compiled(&self) -> u64 {
        self.count("emulated_compiled")
    }

    /// A stream of the program.
    pub(crate) fn stream(&self) -> u64 {
        let mut stream = 0u64;
        // SAFETY: as above; a handle is written.
        let result = unsafe {
            self.function::<unsafe extern "C" fn(*mut u64, u32) -> c_int>("cuStreamCreate")(&mut stream, 1)
        };
        assert_eq!(result, 0);
        stream
    }

    pub(crate) fn destroy(&self, stream: u64) {
        type Call = unsafe extern "C" fn(u64) -> c_int;
        // SAFETY: as above.
        let result = unsafe { self.function::<Call>("cuStreamDestroy_v2")(stream) };
        assert_eq!(result, 0);
    }

    pub(crate) fn synchronize(&self, stream: u64) {
        type Call = unsafe extern "C" fn(u64) -> c_int;
        // SAFETY: as above.
        let result = unsafe { self.function::<Call>("cuStreamSynchronize")(stream) };
        assert_eq!(result, 0);
    }

    /// Whether the stream is recorded into a graph.
    pub(crate) fn capture(&self, stream: u64, is_capturing: bool) {
        // SAFETY: as above.
        unsafe {
            self.function::<unsafe extern "C" fn(u64, c_int)>("emulated_capture")(
                stream,
                is_capturing.into(),
            );
        }
    }

    /// All streams share one queue of the device, until [`Emulator::heal`].
    pub(crate) fn share_one_queue(&self) {
        // SAFETY: as above.
        unsafe { self.function::<unsafe extern "C" fn(c_int)>("emulated_one_queue")(1) }
    }

    /// Lets each of these bytes grow when the stream comes to it.
    pub(crate) fn train(&self, stream: u64, address: u64, byte_len: u64, by: u8) {
        type Train = unsafe extern "C" fn(u64, u64, u64, u8) -> c_int;
        // SAFETY: as above; the caller's memory outlives the stream's work.
        assert_eq!(unsafe { self.function::<Train>("emulated_train")(stream, address, byte_len, by) }, 0);
    }

    /// Runs a kernel at once. Parameters are words, of which a kernel reads as many bytes as it needs.
    pub(crate) fn launch(&self, kernel: &str, grid: u32, block: u32, parameters: &[u64]) {
        let mut words = parameters.to_vec();
        let mut places: Vec<*mut c_void> = words.iter_mut().map(|word| (&raw mut *word).cast()).collect();
        let kernel = CString::new(kernel).unwrap();
        // SAFETY: as above; little-endian words hold shorter numbers at their beginning.
        let found = unsafe {
            self.function::<LaunchFn>("emulated_launch")(kernel.as_ptr(), grid, block, places.as_mut_ptr())
        };
        assert_eq!(found, 1);
    }

    pub(crate) fn context(&self, ordinal: i32) -> Arc<Context> {
        Context::open(ordinal).unwrap()
    }

    /// A pipeline of the first device.
    pub(crate) fn pipeline(&self, scratch_len: u64, block_len: u64, chunk_capacity: u32) -> Pipeline {
        Pipeline::new(&self.context(0), options(scratch_len, block_len, chunk_capacity)).unwrap()
    }
}

pub(crate) fn options(scratch_len: u64, block_len: u64, chunk_capacity: u32) -> PipelineOptions {
    PipelineOptions {
        scratch_len,
        block_len,
        block_count: 2,
        chunk_capacity,
        allocator: None,
        compiler: CompilerOptions::default(),
        patience: Duration::from_secs(10),
    }
}
