//! Memory of the host that goes to a device.

use super::emulator::emulator;
use chipmink_cuda::{CudaError, Upload, Uploader};
use chipmink_testkit::Random;

#[test]
fn pieces_of_any_length_arrive_after_what_stood_in_the_stream() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(1);
    for (seed, lanes) in [(1, 1), (2, 3), (3, 4)] {
        emulator.seed(seed);
        let mut uploader = Uploader::new(&emulator.context(0), lanes, 1000).unwrap();
        let stream = emulator.stream();
        let sources: Vec<Vec<u8>> = [0, 1, 999, 1000, 1001, 12_345].map(|len| random.bytes(len)).into();
        let targets: Vec<Vec<u8>> = sources.iter().map(|source| random.bytes(source.len())).collect();
        let mut pieces = Vec::new();
        for (source, target) in sources.iter().zip(&targets) {
            let (to, from) = (target.as_ptr() as u64, source.as_ptr() as u64);
            // What the program still writes there must not come behind.
            emulator.train(stream, to, target.len() as u64, 7);
            pieces.push(Upload { to, from, byte_len: source.len() as u64 });
        }
        // SAFETY: all of it outlives the call.
        unsafe { uploader.upload(&pieces, &[stream]) }.unwrap();
        assert_eq!(sources, targets);
        // SAFETY: as above.
        unsafe { uploader.upload(&[], &[stream]) }.unwrap();
        emulator.synchronize(stream);
        emulator.destroy(stream);
    }
}

#[test]
fn a_device_that_fails_and_a_stream_that_is_captured_are_reported() {
    let Some(emulator) = emulator() else { return };
    let mut uploader = Uploader::new(&emulator.context(0), 2, 1000).unwrap();
    let (source, target) = (vec![1u8; 5000], vec![0u8; 5000]);
    let piece = Upload { to: target.as_ptr() as u64, from: source.as_ptr() as u64, byte_len: 5000 };
    emulator.fail("cuMemcpyHtoDAsync_v2", 3, 1);
    // SAFETY: both outlive the call; so below.
    let failed = unsafe { uploader.upload(&[piece], &[]) };
    assert!(matches!(failed, Err(CudaError::Driver { call: "cuMemcpyHtoDAsync", .. })), "{failed:?}");
    let stream = emulator.stream();
    emulator.capture(stream, true);
    // SAFETY: as above.
    let failed = unsafe { uploader.upload(&[piece], &[stream]) };
    assert!(matches!(failed, Err(CudaError::Capturing { .. })), "{failed:?}");
    emulator.capture(stream, false);
    emulator.destroy(stream);
    // SAFETY: as above.
    unsafe { uploader.upload(&[piece], &[]) }.unwrap();
    assert_eq!(source, target);
}
