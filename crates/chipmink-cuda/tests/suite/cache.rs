//! Kernels are compiled once.

use super::emulator::{LEAST, emulator, options};
use chipmink_cuda::{CompilerOptions, Pipeline, compiler_version};

#[test]
fn a_second_pipeline_finds_what_the_first_compiled() {
    let Some(emulator) = emulator() else { return };
    let folder = tempfile::tempdir().unwrap();
    let compiler = CompilerOptions { libraries: Vec::new(), cache: Some(folder.path().join("cache")) };
    let made = || {
        let options = chipmink_cuda::PipelineOptions { compiler: compiler.clone(), ..options(0, LEAST, 1) };
        let before = emulator.compiled();
        Pipeline::new(&emulator.context(0), options).unwrap();
        emulator.compiled() - before
    };
    assert_eq!(made(), 1);
    assert_eq!(made(), 0);
    let files: Vec<_> = std::fs::read_dir(folder.path().join("cache")).unwrap().collect();
    assert_eq!(files.len(), 1);
    let file = files[0].as_ref().unwrap().path();
    std::fs::write(&file, b"damaged").unwrap();
    assert_eq!(made(), 1);
    assert_eq!(made(), 0);
    // A folder that cannot be made costs a compilation.
    std::fs::remove_dir_all(folder.path().join("cache")).unwrap();
    std::fs::write(folder.path().join("cache"), b"").unwrap();
    assert_eq!(made(), 1);
    assert_eq!(compiler_version(&compiler).unwrap(), (13, 0));
}
