//! Streams that wait for the host, and what becomes of them where that goes wrong.

use super::emulator::{LEAST, emulator, options};
use super::training::{Stored, Training};
use chipmink_cuda::{CudaError, Fence, Pipeline, PipelineOptions, Release};
use chipmink_testkit::Random;
use std::time::Duration;

/// What is changed is more than can be staged, although the save before changed little.
#[test]
fn streams_that_stand_in_the_way_of_what_they_wait_for_are_let_go() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(5);
    let options = PipelineOptions { patience: Duration::from_millis(200), ..options(LEAST, LEAST, 64) };
    let pipeline = Pipeline::new(&emulator.context(0), options).unwrap();
    let mut training = Training::new(&emulator, &mut random, &[1_000_000]);
    let mut stored = Stored::default();
    let mut first = training.begin(&pipeline, Release::WhenStaged, Fence::Later).unwrap();
    assert!(first.expects_late(), "all of it is new, and too much");
    stored.take(&mut first).unwrap();
    first.adopt().unwrap();
    let mut second = training.begin(&pipeline, Release::WhenStaged, Fence::Later).unwrap();
    assert!(second.expects_late(), "as it was in the last save");
    stored.take(&mut second).unwrap();
    second.adopt().unwrap();

    emulator.share_one_queue();
    training.grow(&emulator, 3);
    let mut third = training.begin(&pipeline, Release::WhenStaged, Fence::Now).unwrap();
    assert!(!third.expects_late(), "nothing had changed in the last save");
    training.grow(&emulator, 4);
    let failed = stored.take(&mut third);
    assert!(matches!(failed, Err(CudaError::Overdue { device: 0 })), "{failed:?}");
    drop(third);
    emulator.heal();

    // The next one holds the program itself, and finds all that has changed since the second.
    let mut fourth = training.begin(&pipeline, Release::WhenStaged, Fence::Later).unwrap();
    assert!(fourth.expects_late());
    stored.take(&mut fourth).unwrap();
    assert!(stored.has(&fourth, &training.state));
    fourth.adopt().unwrap();
    training.finish(&emulator);
}

#[test]
fn with_one_queue_a_save_that_holds_the_program_itself_needs_no_luck() {
    let Some(emulator) = emulator() else { return };
    emulator.share_one_queue();
    let mut random = Random::new(6);
    for scratch in [16 * LEAST, LEAST, 0] {
        let pipeline = emulator.pipeline(scratch, LEAST, 64);
        let mut training = Training::new(&emulator, &mut random, &[700_000, 5]);
        let mut stored = Stored::default();
        for _ in 0..3 {
            training.grow(&emulator, 9);
            let mut capture = training.begin(&pipeline, Release::WhenStaged, Fence::Later).unwrap();
            stored.take(&mut capture).unwrap();
            training.grow(&emulator, 1);
            let mut state = training.state.clone();
            state.iter_mut().flatten().for_each(|byte| *byte = byte.wrapping_sub(1));
            assert!(stored.has(&capture, &state));
            capture.adopt().unwrap();
        }
        training.finish(&emulator);
    }
}

#[test]
fn a_fence_that_is_set_later_guards_as_well_and_may_outlive_its_capture() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(7);
    for (seed, scratch) in [(1, 16 * LEAST), (2, LEAST), (3, 0)] {
        emulator.seed(seed);
        let pipeline = emulator.pipeline(scratch, LEAST, 64);
        let mut training = Training::new(&emulator, &mut random, &[400_000]);
        let mut stored = Stored::default();
        let mut fences = Vec::new();
        for _ in 0..4 {
            training.grow(&emulator, 1);
            let mut capture = training.begin(&pipeline, Release::WhenStaged, Fence::Later).unwrap();
            let state = training.state.clone();
            let fence = capture.fence_later();
            fence.wait(&[training.stream]).unwrap();
            training.grow(&emulator, 1);
            stored.take(&mut capture).unwrap();
            assert!(stored.has(&capture, &state));
            capture.adopt().unwrap();
            fences.push(fence);
        }
        drop(pipeline);
        fences.iter().for_each(|fence| fence.wait(&[training.stream]).unwrap());
        training.finish(&emulator);
    }
}

#[test]
fn what_is_stored_already_is_recognised_without_being_copied() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(8);
    let pipeline = emulator.pipeline(16 * LEAST, LEAST, 64);
    let mut training = Training::new(&emulator, &mut random, &[300_000, 200_000, 0]);
    let known: Vec<_> = training.state[0].chunks(64 * 1024).map(chipmink_digest::digest).collect();
    let copied = emulator.copied();
    // SAFETY: the tensors outlive the call, and only `step` writes to them.
    let recognised = unsafe {
        pipeline.recognise(&training.regions(), &[training.stream], &mut |digest| known.contains(digest))
    };
    assert_eq!(recognised.unwrap(), [true, false, true]);
    assert!(emulator.copied() - copied <= 64 * 16);
    training.grow_one(&emulator, 0, 100_000..100_001, 1);
    let mut stored = Stored::default();
    let mut capture = training.begin(&pipeline, Release::WhenStaged, Fence::Now).unwrap();
    let found = stored.take(&mut capture).unwrap();
    assert_eq!(found.dirty_chunks, 1 + 200_000_u64.div_ceil(64 * 1024));
    let now: Vec<_> = training.state[0].chunks(64 * 1024).map(chipmink_digest::digest).collect();
    assert_eq!(capture.digests(0), now);
    drop(capture);
    training.finish(&emulator);
}
