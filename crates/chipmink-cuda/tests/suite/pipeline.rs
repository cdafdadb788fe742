//! The way from device memory to chunks.

use super::emulator::{LEAST, emulator, options};
use super::training::{Stored, Training};
use chipmink_cuda::{CudaError, DeviceRegion, Fence, Pipeline, Release};
use chipmink_digest::{CHUNK_LEN, Grid};
use chipmink_testkit::Random;
use chipmink_types::GridKind;

const LENS: [usize; 7] = [5, 0, 65_536, 300_000, 70_000, 1, 131_072];

#[test]
fn a_capture_finds_what_changed_since_the_last_that_was_adopted() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(1);
    for (scratch, block) in [(8 * LEAST, LEAST), (LEAST, LEAST), (0, LEAST), (4 * LEAST, 8 * LEAST)] {
        let pipeline = emulator.pipeline(scratch, block, 64);
        let mut training = Training::new(&emulator, &mut random, &LENS);
        let mut stored = Stored::default();
        for round in 0..12 {
            let release = if round % 3 == 0 { Release::ByCaller } else { Release::WhenStaged };
            let mut capture = training.begin(&pipeline, release, Fence::Now).unwrap();
            let state = training.state.clone();
            let mut changed = stored.clone();
            let found = changed.take(&mut capture).unwrap();
            assert!(changed.has(&capture, &state), "round {round}, {scratch} bytes of scratch memory");
            match round {
                0 => assert_eq!(found.dirty_bytes, LENS.iter().sum::<usize>() as u64),
                2 => assert_eq!(found.dirty_bytes, 0, "nothing was done since the last round"),
                _ => assert!(found.dirty_chunks <= 8),
            }
            // Every fourth save fails after all: its chunks are dirty in the next.
            if round % 4 != 3 {
                capture.adopt().unwrap();
                stored = changed;
            }
            for _ in 0..if round == 1 { 0 } else { 2 } {
                training.step(&emulator, &mut random);
            }
        }
        training.finish(&emulator);
    }
}

#[test]
fn the_second_save_allocates_nothing_and_copies_little_more_than_what_changed() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(2);
    let pipeline = emulator.pipeline(4 * LEAST, LEAST, 4096);
    let mut training = Training::new(&emulator, &mut random, &[40 * CHUNK_LEN as usize]);
    let mut stored = Stored::default();
    let mut save = |training: &Training| {
        let mut capture = training.begin(&pipeline, Release::WhenStaged, Fence::Now).unwrap();
        let found = stored.take(&mut capture).unwrap();
        capture.adopt().unwrap();
        found
    };
    save(&training);
    let calls = |name: &str| emulator.calls(name);
    let made = ["cuMemAlloc_v2", "cuMemHostAlloc", "cuStreamCreate", "cuEventCreate", "cuMemcpyHtoDAsync_v2"];
    let before = made.map(calls);
    let (copied, waits) = (emulator.copied(), calls("cuStreamSynchronize"));
    training.step(&emulator, &mut random);
    let found = save(&training);
    assert!(found.dirty_chunks >= 1);
    assert_eq!(made.map(calls), before);
    assert_eq!(calls("cuStreamSynchronize"), waits + 1, "the copies' stream, when the capture is dropped");
    let report = 16 + 32 * 40;
    assert_eq!(emulator.copied() - copied, found.dirty_bytes + report);
    training.finish(&emulator);
}

#[test]
fn more_chunks_than_ever_make_the_tables_grow_and_keep_what_they_know() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(3);
    let pipeline = emulator.pipeline(4 * LEAST, LEAST, 2);
    let training =
        Training::new(&emulator, &mut random, &[3 * CHUNK_LEN as usize, 20 * CHUNK_LEN as usize, 9]);
    let all = training.regions();
    let dirty = |regions: &[DeviceRegion]| {
        // SAFETY: as in `Training::begin`.
        let capture = unsafe {
            let (release, fence) = (Release::WhenStaged, Fence::Now);
            pipeline.begin(regions, &[training.stream], Box::new(()), release, fence)
        };
        let mut capture = capture.unwrap();
        let found = Stored::default().take(&mut capture).unwrap();
        capture.adopt().unwrap();
        found.dirty_chunks
    };
    assert_eq!(dirty(&all[..1]), 3);
    assert_eq!(dirty(&all), 21);
    // What is not captured for a while stays known as long as there is room.
    assert_eq!(dirty(&all[2..]), 0);
    assert_eq!(dirty(&all), 0);
    pipeline.forget().unwrap();
    assert_eq!(dirty(&all), 24);
    training.finish(&emulator);
}

#[test]
fn the_chunks_are_those_of_the_grid() {
    let Some(emulator) = emulator() else { return };
    let pipeline = emulator.pipeline(4 * LEAST, LEAST, 64);
    let memory = Random::new(4).bytes(400_000);
    let row = CHUNK_LEN + 100;
    let grids = [
        Grid::new(GridKind::Rows, row, 0, 3 * row).unwrap(),
        Grid::new(GridKind::Shard, 0, 1000, 100_000).unwrap(),
    ];
    let regions = grids.map(|grid| DeviceRegion { address: memory.as_ptr() as u64 + 1, grid });
    // SAFETY: nobody writes to the memory, and it outlives the capture.
    let capture = unsafe { pipeline.begin(&regions, &[], Box::new(()), Release::WhenStaged, Fence::Now) };
    let mut capture = capture.unwrap();
    Stored::default().take(&mut capture).unwrap();
    for (region, grid) in grids.iter().enumerate() {
        let expected: Vec<_> = grid
            .chunks()
            .map(|(at, len)| chipmink_digest::digest(&memory[1 + at as usize..1 + (at + len) as usize]))
            .collect();
        assert_eq!(capture.digests(region), expected);
    }
}

#[test]
fn what_was_stored_before_can_be_seeded() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(5);
    let pipeline = emulator.pipeline(4 * LEAST, LEAST, 4);
    let mut training = Training::new(&emulator, &mut random, &[200_000, 500_000]);
    for (region, state) in training.regions().iter().zip(&training.state) {
        let chunks = region.grid.chunks().map(|(at, len)| &state[at as usize..(at + len) as usize]);
        pipeline.seed(region, &chunks.map(chipmink_digest::digest).collect::<Vec<_>>()).unwrap();
    }
    training.step(&emulator, &mut random);
    let mut capture = training.begin(&pipeline, Release::WhenStaged, Fence::Now).unwrap();
    let found = Stored::default().take(&mut capture).unwrap();
    assert!((1..=2).contains(&found.dirty_chunks), "{found:?}");
    drop(capture);
    training.finish(&emulator);
}

#[test]
fn chunks_that_are_not_dirty_can_be_fetched_until_the_program_is_let_go() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(6);
    for scratch in [LEAST, 0] {
        let pipeline = emulator.pipeline(scratch, LEAST, 64);
        let mut training = Training::new(&emulator, &mut random, &[400_000, 70_000]);
        let mut stored = Stored::default();
        let mut first = training.begin(&pipeline, Release::WhenStaged, Fence::Now).unwrap();
        stored.take(&mut first).unwrap();
        first.adopt().unwrap();

        let mut capture = training.begin(&pipeline, Release::ByCaller, Fence::Now).unwrap();
        let state = training.state.clone();
        (0..5).for_each(|_| training.step(&emulator, &mut random));
        Stored::default().take(&mut capture).unwrap();
        let wanted = [(1, 1), (0, 0), (0, 6), (0, 3), (1, 0)];
        let mut found = Vec::new();
        capture
            .fetch(&wanted, &mut |staged| {
                let start = staged.ordinal as usize * CHUNK_LEN as usize;
                assert!(staged.bytes == &state[staged.region][start..start + staged.bytes.len()]);
                assert_eq!(staged.digest, capture_digest(&state[staged.region], staged.ordinal));
                found.push((staged.region, staged.ordinal));
                Ok::<_, CudaError>(())
            })
            .unwrap();
        assert_eq!(found, wanted);
        assert!(stored.has(&capture, &state));
        capture.let_go().unwrap();
        let late = capture.fetch(&wanted, &mut |_| Ok::<_, CudaError>(()));
        assert_eq!(late, Err(CudaError::Released { device: 0 }));
        capture.adopt().unwrap();
        training.finish(&emulator);
    }
}

fn capture_digest(state: &[u8], ordinal: u64) -> chipmink_types::Digest {
    let start = (ordinal * CHUNK_LEN) as usize;
    chipmink_digest::digest(&state[start..(start + CHUNK_LEN as usize).min(state.len())])
}

#[test]
fn devices_have_tables_of_their_own() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(7);
    let pipelines =
        [0, 1].map(|ordinal| Pipeline::new(&emulator.context(ordinal), options(LEAST, LEAST, 64)).unwrap());
    let training = Training::new(&emulator, &mut random, &[100_000]);
    for round in 0..2 {
        let captures =
            pipelines.each_ref().map(|p| training.begin(p, Release::WhenStaged, Fence::Now).unwrap());
        for mut capture in captures {
            let found = Stored::default().take(&mut capture).unwrap();
            assert_eq!(found.dirty_chunks, if round == 0 { 2 } else { 0 });
            capture.adopt().unwrap();
        }
    }
    training.finish(&emulator);
}

#[test]
fn all_is_given_back() {
    let Some(emulator) = emulator() else { return };
    let before = emulator.alive();
    let mut random = Random::new(8);
    let pipeline = emulator.pipeline(LEAST, LEAST, 1);
    let training = Training::new(&emulator, &mut random, &[300_000]);
    let capture = training.begin(&pipeline, Release::WhenStaged, Fence::Now).unwrap();
    drop(pipeline);
    drop(capture);
    training.finish(&emulator);
    assert_eq!(emulator.alive(), before);
}

#[test]
fn a_device_that_is_not_there_is_refused() {
    let Some(emulator) = emulator() else { return };
    assert!(matches!(chipmink_cuda::Context::open(2), Err(CudaError::NoDriver { .. })));
    assert_eq!(emulator.context(1).info().capability, (9, 0));
}
