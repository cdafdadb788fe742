//! A program whose state lies on a device, for the tests of the pipeline.

use super::emulator::Emulator;
use chipmink_cuda::{Capture, CudaError, DeviceRegion, Fence, Found, Pipeline, Release};
use chipmink_digest::Grid;
use chipmink_testkit::Random;
use chipmink_types::Digest;
use std::ops::Range;

/// Tensors of a program, and what their bytes are when all that was enqueued has been done.
pub(crate) struct Training {
    pub(crate) stream: u64,
    tensors: Vec<(Vec<u8>, usize)>,
    pub(crate) state: Vec<Vec<u8>>,
}

impl Training {
    /// Tensors of so many bytes each, at any alignment.
    pub(crate) fn new(emulator: &Emulator, random: &mut Random, lens: &[usize]) -> Self {
        let tensors: Vec<(Vec<u8>, usize)> =
            lens.iter().map(|len| (random.bytes(len + 64), random.below(33))).collect();
        let state =
            tensors.iter().zip(lens).map(|((memory, at), len)| memory[*at..at + len].to_vec()).collect();
        Training { stream: emulator.stream(), tensors, state }
    }

    pub(crate) fn regions(&self) -> Vec<DeviceRegion> {
        let region = |((memory, at), state): (&(Vec<u8>, usize), &Vec<u8>)| DeviceRegion {
            address: memory.as_ptr() as u64 + *at as u64,
            grid: Grid::run(state.len() as u64),
        };
        self.tensors.iter().zip(&self.state).map(region).collect()
    }

    /// Enqueues a change of some bytes of one tensor.
    pub(crate) fn step(&mut self, emulator: &Emulator, random: &mut Random) {
        let tensor = random.below(self.state.len());
        let len = self.state[tensor].len();
        if len == 0 {
            return;
        }
        let start = random.below(len);
        let end = (start + 1 + random.below(3000)).min(len);
        let by = 1 + random.below(255) as u8;
        let address = self.regions()[tensor].address + start as u64;
        emulator.train(self.stream, address, (end - start) as u64, by);
        self.state[tensor][start..end].iter_mut().for_each(|byte| *byte = byte.wrapping_add(by));
    }

    /// Enqueues a change of each byte.
    pub(crate) fn grow(&mut self, emulator: &Emulator, by: u8) {
        for tensor in 0..self.state.len() {
            self.grow_one(emulator, tensor, 0..self.state[tensor].len(), by);
        }
    }

    /// Enqueues a change of some bytes of a tensor.
    pub(crate) fn grow_one(&mut self, emulator: &Emulator, tensor: usize, bytes: Range<usize>, by: u8) {
        let address = self.regions()[tensor].address + bytes.start as u64;
        emulator.train(self.stream, address, bytes.len() as u64, by);
        self.state[tensor][bytes].iter_mut().for_each(|byte| *byte = byte.wrapping_add(by));
    }

    pub(crate) fn begin(
        &self,
        pipeline: &Pipeline,
        release: Release,
        fence: Fence,
    ) -> Result<Capture, CudaError> {
        // SAFETY: the tensors outlive all that is enqueued, since `drop` waits; only `step` writes to them.
        unsafe { pipeline.begin(&self.regions(), &[self.stream], Box::new(()), release, fence) }
    }

    /// Waits for the program's own work.
    pub(crate) fn finish(self, emulator: &Emulator) {
        emulator.synchronize(self.stream);
        emulator.destroy(self.stream);
        for ((memory, at), state) in self.tensors.iter().zip(&self.state) {
            assert!(memory[*at..at + state.len()] == state[..], "training itself must not be disturbed");
        }
    }
}

/// What has been stored of a program: what a reader would put together.
#[derive(Clone, Default)]
pub(crate) struct Stored(std::collections::HashMap<Digest, Vec<u8>>);

impl Stored {
    /// Takes what is dirty. Each chunk must have the digest that is said.
    pub(crate) fn take(&mut self, capture: &mut Capture) -> Result<Found, CudaError> {
        capture.take(&mut |staged| {
            assert_eq!(staged.digest, chipmink_digest::digest(staged.bytes));
            self.0.insert(staged.digest, staged.bytes.to_vec());
            Ok(())
        })
    }

    /// Whether the chunks that a capture names are stored and are these bytes.
    pub(crate) fn has(&self, capture: &Capture, state: &[Vec<u8>]) -> bool {
        (0..state.len()).all(|region| {
            let chunks = capture.digests(region);
            let joined: Option<Vec<&[u8]>> =
                chunks.iter().map(|digest| self.0.get(digest).map(Vec::as_slice)).collect();
            joined.is_some_and(|joined| joined.concat() == state[region])
        })
    }
}
