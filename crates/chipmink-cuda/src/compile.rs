//! Compiles the kernels for a device, once in the life of a machine.
//!
//! 1. What is in the cache counts only if its digest is right. The cache may be emptied, or shared by processes, at any time.
//! 2. A cache that cannot be read or written costs a compilation (about five seconds) and nothing else.

use crate::{CudaError, Result};
use chipmink_digest::digest;
use chipmink_types::DIGEST_LEN;
use cudarc::nvrtc::{result, sys};
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Where the compiler may be, and where its results are kept.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CompilerOptions {
    /// Files of NVRTC to try first, as a wheel brings them; then those that the system finds are tried.
    pub libraries: Vec<PathBuf>,
    /// A folder for what was compiled; `None`: nothing is kept.
    pub cache: Option<PathBuf>,
}

const STANDARD: &str = "--std=c++17";

/// Code for devices of an architecture (major and minor number): from the cache, else compiled.
///
/// # Errors
/// When there is no compiler, or it fails.
pub fn compiled_kernels(capability: (i32, i32), options: &CompilerOptions) -> Result<Vec<u8>> {
    let arch = format!("sm_{}{}", capability.0, capability.1);
    let file = options.cache.as_ref().map(|folder| folder.join(cache_name(&arch)));
    if let Some(image) = file.as_deref().and_then(read_cached) {
        return Ok(image);
    }
    load_compiler(options)?;
    let image = compile(&arch)?;
    if let Some(file) = &file {
        // Invariant 2.
        let _ = write_cached(file, &image);
    }
    Ok(image)
}

/// Version of the compiler that would be used.
///
/// # Errors
/// When there is none.
pub fn compiler_version(options: &CompilerOptions) -> Result<(i32, i32)> {
    load_compiler(options)?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is loaded; it writes two numbers.
    let answer = unsafe { sys::nvrtcVersion(&mut major, &mut minor) };
    match answer {
        sys::nvrtcResult::NVRTC_SUCCESS => Ok((major, minor)),
        failure => Err(CudaError::NoCompiler { reason: format!("{failure:?}") }),
    }
}

fn cache_name(arch: &str) -> String {
    let key = digest(format!("{STANDARD}\n{arch}\n{}", chipmink_kernels::SOURCE).as_bytes());
    format!("kernels-{arch}-{key}.cubin")
}

/// A file is the digest of an image and then the image.
fn read_cached(file: &Path) -> Option<Vec<u8>> {
    let mut content = std::fs::read(file).ok()?;
    let (head, image) = content.split_first_chunk::<DIGEST_LEN>()?;
    if digest(image).as_bytes() != head {
        return None;
    }
    content.drain(..DIGEST_LEN);
    Some(content)
}

fn write_cached(file: &Path, image: &[u8]) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let unfinished = file.with_extension(format!("{}.unfinished", std::process::id()));
    std::fs::write(&unfinished, [digest(image).as_bytes().as_slice(), image].concat())?;
    std::fs::rename(&unfinished, file)
}

fn load_compiler(options: &CompilerOptions) -> Result<()> {
    static LOADED: Mutex<bool> = Mutex::new(false);
    let mut is_loaded = LOADED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if *is_loaded {
        return Ok(());
    }
    for file in options.libraries.iter().filter(|file| file.exists()) {
        // SAFETY: NVRTC's initialisers may run in any process; a caller that names another library asks for it.
        if let Ok(library) = unsafe { libloading::Library::new(file) } {
            // It stays loaded, so that it is found by its name from now on.
            std::mem::forget(library);
            break;
        }
    }
    // SAFETY: as above.
    if !unsafe { sys::is_culib_present() } {
        let files = options.libraries.iter().map(|file| file.display().to_string());
        let tried: Vec<_> = files.chain(["libnvrtc by its name".to_owned()]).collect();
        return Err(CudaError::NoCompiler { reason: format!("tried {}", tried.join(", ")) });
    }
    *is_loaded = true;
    Ok(())
}

/// A program of the compiler, which is destroyed when it is dropped.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by `create_program` and destroyed once.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

fn compile(arch: &str) -> Result<Vec<u8>> {
    let failed = |log: String| CudaError::Compile { arch: arch.to_owned(), log };
    let source = CString::new(chipmink_kernels::SOURCE).expect("the sources have no zero");
    let program = result::create_program(&source, Some(c"chipmink.cu"));
    let program = Program(program.map_err(|error| failed(error.to_string()))?);
    let options = [format!("--gpu-architecture={arch}"), STANDARD.to_owned()];
    // SAFETY: the program is alive.
    if let Err(error) = unsafe { result::compile_program(program.0, &options) } {
        // SAFETY: as above.
        let log = unsafe { result::get_program_log(program.0) }.unwrap_or_default();
        let log: Vec<u8> = log.into_iter().map(|c| c as u8).take_while(|c| *c != 0).collect();
        return Err(failed(format!("{error}: {}", String::from_utf8_lossy(&log).trim())));
    }
    let mut byte_len = 0usize;
    // SAFETY: the program was compiled; the library writes one number.
    let sized = unsafe { sys::nvrtcGetCUBINSize(program.0, &mut byte_len) };
    sized.result().map_err(|error| failed(error.to_string()))?;
    let mut image = vec![0u8; byte_len];
    // SAFETY: so many bytes are there.
    let given = unsafe { sys::nvrtcGetCUBIN(program.0, image.as_mut_ptr().cast()) };
    given.result().map_err(|error| failed(error.to_string()))?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_image_comes_back_and_a_damaged_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("below").join(cache_name("sm_90"));
        assert_eq!(read_cached(&file), None);
        write_cached(&file, b"image").unwrap();
        assert_eq!(read_cached(&file).unwrap(), b"image");
        let mut content = std::fs::read(&file).unwrap();
        *content.last_mut().unwrap() ^= 1;
        std::fs::write(&file, &content).unwrap();
        assert_eq!(read_cached(&file), None);
        std::fs::write(&file, b"short").unwrap();
        assert_eq!(read_cached(&file), None);
    }

    #[test]
    fn another_architecture_is_another_file() {
        assert_ne!(cache_name("sm_80"), cache_name("sm_90"));
    }
}
