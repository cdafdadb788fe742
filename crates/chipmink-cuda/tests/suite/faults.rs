//! Devices that fail.

use super::emulator::{LEAST, emulator, options};
use super::training::{Stored, Training};
use chipmink_cuda::{CudaError, Fence, Pipeline, Release};
use chipmink_testkit::Random;

const OUT_OF_MEMORY: i32 = 2;
const INVALID_VALUE: i32 = 1;
const LAUNCH_FAILED: i32 = 719;

#[test]
fn a_save_that_fails_leaves_its_chunks_dirty_and_the_program_running() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(1);
    let calls = [
        "cuLaunchKernel",
        "cuEventRecord",
        "cuStreamWaitEvent",
        "cuStreamWaitValue32_v2",
        "cuMemcpyDtoHAsync_v2",
        "cuMemcpyHtoDAsync_v2",
        "cuMemsetD8Async",
        "cuThreadExchangeStreamCaptureMode",
    ];
    let mut failed = 0;
    for (call, scratch) in calls.iter().flat_map(|call| [(call, LEAST), (call, 16 * LEAST), (call, 0)]) {
        for nth in 1..8 {
            let pipeline = emulator.pipeline(scratch, LEAST, 64);
            let mut training = Training::new(&emulator, &mut random, &[300_000, 40, 70_000]);
            let mut stored = Stored::default();
            for is_failing in [false, true, false] {
                training.step(&emulator, &mut random);
                let mut changed = stored.clone();
                if is_failing {
                    emulator.fail(call, nth, INVALID_VALUE);
                }
                let saved =
                    training.begin(&pipeline, Release::WhenStaged, Fence::Now).and_then(|mut capture| {
                        let state = training.state.clone();
                        training.step(&emulator, &mut random);
                        changed.take(&mut capture)?;
                        assert!(changed.has(&capture, &state), "{call}, call {nth}");
                        capture.adopt()
                    });
                emulator.heal();
                match saved {
                    Ok(()) => stored = changed,
                    Err(error) => {
                        assert!(is_failing, "{error}");
                        assert!(matches!(error, CudaError::Driver { device: 0, code: 1, .. }), "{error}");
                        failed += 1;
                    }
                }
            }
            // The program's stream was not left waiting.
            training.finish(&emulator);
        }
    }
    assert!(failed > 40, "{failed} saves failed");
}

#[test]
fn a_device_that_is_lost_is_told_from_a_failure() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(2);
    for (call, nth) in [("cuLaunchKernel", 2), ("cuEventSynchronize", 1), ("cuEventSynchronize", 2)] {
        let pipeline = emulator.pipeline(LEAST, LEAST, 64);
        let training = Training::new(&emulator, &mut random, &[900_000]);
        emulator.fail(call, nth, LAUNCH_FAILED);
        let saved = training
            .begin(&pipeline, Release::WhenStaged, Fence::Now)
            .and_then(|mut capture| Stored::default().take(&mut capture).map(drop));
        let Err(CudaError::Lost { device: 0, message, .. }) = saved else { panic!("{saved:?}") };
        assert!(message.contains("unspecified launch failure"), "{message}");
        assert!(training.begin(&pipeline, Release::WhenStaged, Fence::Now).is_err());
        emulator.heal();
        training.finish(&emulator);
    }
}

#[test]
fn no_room_is_reported_at_construction_with_what_was_wanted() {
    let Some(emulator) = emulator() else { return };
    let before = emulator.alive();
    let context = emulator.context(0);
    let expected = [
        ("cuMemAlloc_v2", 1, "scratch memory"),
        ("cuMemAlloc_v2", 2, "tables"),
        ("cuMemHostAlloc", 1, "pinned memory"),
        ("cuMemHostAlloc", 2, "pinned memory"),
    ];
    for (call, nth, expected) in expected {
        emulator.fail(call, nth, OUT_OF_MEMORY);
        match Pipeline::new(&context, options(LEAST, LEAST, 64)) {
            Err(CudaError::OutOfMemory { what, device: 0, .. }) => assert_eq!(what, expected),
            other => panic!("{other:?}"),
        }
        emulator.heal();
        assert_eq!(emulator.alive(), before, "what was made before is given back");
    }
}

#[test]
fn tables_that_cannot_grow_leave_the_pipeline_as_it_was() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(3);
    let pipeline = emulator.pipeline(LEAST, LEAST, 2);
    let training = Training::new(&emulator, &mut random, &[900_000]);
    emulator.fail("cuMemAlloc_v2", 1, OUT_OF_MEMORY);
    let refused = training.begin(&pipeline, Release::WhenStaged, Fence::Now);
    assert!(matches!(refused, Err(CudaError::OutOfMemory { what: "tables", .. })), "{refused:?}");
    emulator.heal();
    let mut capture = training.begin(&pipeline, Release::WhenStaged, Fence::Now).unwrap();
    let mut stored = Stored::default();
    stored.take(&mut capture).unwrap();
    assert!(stored.has(&capture, &training.state));
    drop(capture);
    training.finish(&emulator);
}

#[test]
fn a_stream_that_is_being_captured_is_refused_before_anything_is_enqueued() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(4);
    let pipeline = emulator.pipeline(LEAST, LEAST, 64);
    let training = Training::new(&emulator, &mut random, &[100_000]);
    emulator.capture(training.stream, true);
    let before = emulator.calls("cuLaunchKernel");
    let refused = training.begin(&pipeline, Release::WhenStaged, Fence::Now);
    assert_eq!(refused.unwrap_err(), CudaError::Capturing { device: 0 });
    assert_eq!(emulator.calls("cuLaunchKernel"), before);
    emulator.capture(training.stream, false);
    let mut capture = training.begin(&pipeline, Release::WhenStaged, Fence::Later).unwrap();
    emulator.capture(training.stream, true);
    assert_eq!(capture.fence(&[training.stream]), Err(CudaError::Capturing { device: 0 }));
    emulator.capture(training.stream, false);
    drop(capture);
    training.finish(&emulator);
}

#[test]
fn one_capture_is_under_way_at_a_time() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(5);
    let pipeline = emulator.pipeline(LEAST, LEAST, 64);
    let training = Training::new(&emulator, &mut random, &[100_000]);
    let capture = training.begin(&pipeline, Release::WhenStaged, Fence::Now).unwrap();
    let busy = CudaError::Busy { device: 0 };
    assert_eq!(training.begin(&pipeline, Release::WhenStaged, Fence::Now).unwrap_err(), busy);
    assert_eq!(pipeline.forget(), Err(busy));
    drop(capture);
    assert!(training.begin(&pipeline, Release::WhenStaged, Fence::Now).is_ok());
    training.finish(&emulator);
}

#[test]
fn an_error_of_the_caller_ends_the_capture() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(6);
    let pipeline = emulator.pipeline(LEAST, LEAST, 64);
    let training = Training::new(&emulator, &mut random, &[900_000]);
    for most in [0, 1, 3, 9] {
        let mut capture = training.begin(&pipeline, Release::WhenStaged, Fence::Now).unwrap();
        let mut taken = 0;
        let stopped = capture.take(&mut |_| {
            taken += 1;
            if taken > most { Err(CudaError::Released { device: 77 }) } else { Ok(()) }
        });
        assert_eq!(stopped, Err(CudaError::Released { device: 77 }));
    }
    training.finish(&emulator);
}
