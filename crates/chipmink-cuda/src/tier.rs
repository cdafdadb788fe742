//! The devices of a process as [`DeviceMemory`]: a pipeline for each, made when its memory is captured first.

use crate::{Capture, Context, CudaError, DeviceRegion, Fence, Pipeline, PipelineOptions, Release, Result};
use chipmink_digest::Grid;
use chipmink_types::{
    BlobError, DeviceCapture, DeviceChunk, DeviceError, DeviceMemory, DeviceSpan, Digest, TakeChunk,
};
use std::collections::BTreeMap;
use std::fmt;

/// Makes the options of a device's pipeline, given its number.
type MakeOptions = dyn Fn(i32) -> PipelineOptions + Send;

/// All devices, each with what was saved of it by one source of saves.
pub struct DeviceTier {
    make_options: Box<MakeOptions>,
    pipelines: BTreeMap<i32, Pipeline>,
}

impl fmt::Debug for DeviceTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceTier").field("devices", &self.pipelines.keys()).finish_non_exhaustive()
    }
}

impl DeviceTier {
    /// Touches no device.
    pub fn new(make_options: impl Fn(i32) -> PipelineOptions + Send + 'static) -> Self {
        DeviceTier { make_options: Box::new(make_options), pipelines: BTreeMap::new() }
    }

    /// The pipeline of a device. If the device has no room for scratch memory, one without.
    fn pipeline(&mut self, device: i32) -> Result<&Pipeline> {
        if !self.pipelines.contains_key(&device) {
            let context = Context::open(device)?;
            let made = match Pipeline::new(&context, (self.make_options)(device)) {
                Err(CudaError::OutOfMemory { .. }) => {
                    Pipeline::new(&context, PipelineOptions { scratch_len: 0, ..(self.make_options)(device) })
                }
                other => other,
            };
            self.pipelines.insert(device, made?);
        }
        Ok(&self.pipelines[&device])
    }
}

impl DeviceMemory for DeviceTier {
    fn capture(&mut self, spans: &[DeviceSpan]) -> Result<Box<dyn DeviceCapture>, DeviceError> {
        let mut by_device: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (at, span) in spans.iter().enumerate() {
            by_device.entry(span.device).or_default().push(at);
        }
        let mut captures = Vec::with_capacity(by_device.len());
        for (device, spans_here) in by_device {
            let regions: Vec<DeviceRegion> = spans_here
                .iter()
                .map(|at| DeviceRegion { address: spans[*at].address, grid: Grid::run(spans[*at].byte_len) })
                .collect();
            let mut streams: Vec<u64> =
                spans_here.iter().flat_map(|at| spans[*at].streams.iter().copied()).collect();
            streams.sort_unstable();
            streams.dedup();
            let pipeline = self.pipeline(device).map_err(failed)?;
            // SAFETY: the caller of this function keeps the memory, and the program writes to it in the streams named.
            let capture =
                unsafe { pipeline.begin(&regions, &streams, Box::new(()), Release::ByCaller, Fence::Now) };
            captures.push((capture.map_err(failed)?, spans_here));
        }
        Ok(Box::new(Captures(captures)))
    }
}

fn failed(error: CudaError) -> DeviceError {
    DeviceError::Device(error.to_string())
}

/// Captures of several devices at about one moment, each with the indices of its spans.
struct Captures(Vec<(Capture, Vec<usize>)>);

/// What ends a capture: the device, or who takes the chunks.
enum Stopped {
    Device(CudaError),
    Blob(BlobError),
}

impl From<CudaError> for Stopped {
    fn from(error: CudaError) -> Self {
        Stopped::Device(error)
    }
}

impl From<Stopped> for DeviceError {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Device(error) => failed(error),
            Stopped::Blob(error) => DeviceError::Blob(error),
        }
    }
}

impl Captures {
    /// The capture that has a span, and the number of the span there.
    fn find(&self, span: usize) -> Option<(usize, usize)> {
        let here = |(at, (_, spans)): (usize, &(Capture, Vec<usize>))| {
            Some((at, spans.iter().position(|known| *known == span)?))
        };
        self.0.iter().enumerate().find_map(here)
    }
}

impl DeviceCapture for Captures {
    fn known(&self, span: usize) -> Option<Vec<Digest>> {
        let (at, number) = self.find(span)?;
        self.0[at].0.known(number)
    }

    fn take(&mut self, take: &mut TakeChunk<'_>) -> Result<(), DeviceError> {
        for (capture, spans) in &mut self.0 {
            capture.take(&mut |staged| {
                let (span, ordinal) = (spans[staged.region], staged.ordinal);
                let chunk = DeviceChunk { span, ordinal, digest: staged.digest, bytes: staged.bytes };
                take(chunk).map_err(Stopped::Blob)
            })?;
        }
        Ok(())
    }

    fn fetch(&mut self, chunks: &[(usize, u64)], take: &mut TakeChunk<'_>) -> Result<(), DeviceError> {
        let mut wanted: Vec<Vec<(usize, u64)>> = vec![Vec::new(); self.0.len()];
        for (span, ordinal) in chunks {
            let (at, number) =
                self.find(*span).ok_or_else(|| DeviceError::Device(format!("there is no span {span}")))?;
            wanted[at].push((number, *ordinal));
        }
        for ((capture, spans), wanted) in
            self.0.iter_mut().zip(wanted).filter(|(_, wanted)| !wanted.is_empty())
        {
            capture.fetch(&wanted, &mut |staged| {
                let (span, ordinal) = (spans[staged.region], staged.ordinal);
                let chunk = DeviceChunk { span, ordinal, digest: staged.digest, bytes: staged.bytes };
                take(chunk).map_err(Stopped::Blob)
            })?;
        }
        Ok(())
    }

    fn let_go(&mut self) -> Result<(), DeviceError> {
        // Each is let go, also if another fails.
        let mut done = Ok(());
        for (capture, _) in &mut self.0 {
            let here = capture.let_go().map_err(failed);
            done = done.and(here);
        }
        done
    }

    fn adopt(self: Box<Self>) {
        for (capture, _) in self.0 {
            // A pipeline that cannot adopt has forgotten all: the next save finds everything dirty.
            let _ = capture.adopt();
        }
    }
}
