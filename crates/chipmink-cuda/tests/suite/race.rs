//! A program that goes on training while it is saved.

use super::emulator::{Emulator, LEAST, emulator};
use super::training::{Stored, Training};
use chipmink_cuda::{Fence, Release};
use chipmink_testkit::Random;

/// Saves again and again while steps are enqueued. Returns how many saves were not the state at their step.
fn wrong_saves(emulator: &Emulator, seed: u64, scratch: u64, is_fenced: bool) -> usize {
    emulator.seed(seed);
    let mut random = Random::new(seed);
    let pipeline = emulator.pipeline(scratch, LEAST, 64);
    let mut training = Training::new(emulator, &mut random, &[150_000, 7, 66_000, 200_000]);
    let mut stored = Stored::default();
    let mut wrong = 0;
    for _ in 0..8 {
        (0..random.below(4)).for_each(|_| training.step(emulator, &mut random));
        let mut capture = training.begin(&pipeline, Release::WhenStaged, Fence::Later).unwrap();
        let state = training.state.clone();
        if is_fenced {
            capture.fence(&[training.stream]).unwrap();
        }
        // The program does not wait for the save.
        (0..random.below(12)).for_each(|_| training.step(emulator, &mut random));
        let mut changed = stored.clone();
        changed.take(&mut capture).unwrap();
        wrong += usize::from(!changed.has(&capture, &state));
        if random.below(4) > 0 {
            capture.adopt().unwrap();
            stored = changed;
        }
    }
    training.finish(emulator);
    wrong
}

#[test]
fn every_save_is_the_state_at_its_own_step() {
    let Some(emulator) = emulator() else { return };
    for seed in 0..30 {
        // All fits in the staging area, or hardly anything does, or there is no scratch memory.
        let scratch = [16 * LEAST, LEAST, 0][seed as usize % 3];
        assert_eq!(wrong_saves(&emulator, seed, scratch, true), 0, "seed {seed}");
    }
}

/// The control: what the fence prevents does happen without it.
#[test]
fn without_a_fence_saves_are_torn() {
    let Some(emulator) = emulator() else { return };
    for scratch in [16 * LEAST, LEAST, 0] {
        let wrong: usize = (0..5).map(|seed| wrong_saves(&emulator, seed, scratch, false)).sum();
        assert!(wrong > 0, "{scratch} bytes of scratch memory");
    }
}

#[test]
fn a_capture_that_is_dropped_lets_the_program_go_on() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(3);
    for (release, scratch) in
        [(Release::WhenStaged, LEAST), (Release::ByCaller, LEAST), (Release::WhenStaged, 16 * LEAST)]
    {
        let pipeline = emulator.pipeline(scratch, LEAST, 64);
        let mut training = Training::new(&emulator, &mut random, &[500_000]);
        let capture = training.begin(&pipeline, release, Fence::Now).unwrap();
        (0..4).for_each(|_| training.step(&emulator, &mut random));
        drop(capture);
        training.finish(&emulator);
    }
}

#[test]
fn what_keeps_the_memory_is_let_go_when_it_was_read() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(4);
    let pipeline = emulator.pipeline(16 * LEAST, LEAST, 64);
    let training = Training::new(&emulator, &mut random, &[500_000]);
    let keep = std::sync::Arc::new(());
    // SAFETY: as in `Training::begin`.
    let capture = unsafe {
        let (regions, keep) = (training.regions(), Box::new(keep.clone()));
        pipeline.begin(&regions, &[training.stream], keep, Release::WhenStaged, Fence::Now)
    };
    let mut capture = capture.unwrap();
    assert_eq!(std::sync::Arc::strong_count(&keep), 2);
    let mut is_first = true;
    capture
        .take(&mut |_| {
            // All was staged at once, so the first chunk comes when nothing is read any more.
            if std::mem::take(&mut is_first) {
                assert_eq!(std::sync::Arc::strong_count(&keep), 1);
            }
            Ok::<_, chipmink_cuda::CudaError>(())
        })
        .unwrap();
    drop(capture);
    training.finish(&emulator);
}
