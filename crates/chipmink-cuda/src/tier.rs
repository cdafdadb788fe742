//! The devices of a process as [`DeviceMemory`]: a pipeline for each, made when its memory is captured first.
//!
//! Spans that are deferred have a pipeline of their own, so that what must wait at once waits for little.

use crate::{
    Capture, CaptureFence, Context, CudaError, DeviceRegion, Fence, Pipeline, PipelineOptions, Release,
    Result,
};
use chipmink_digest::Grid;
use chipmink_types::{
    BlobError, DeviceCapture, DeviceChunk, DeviceError, DeviceFence, DeviceMemory, DeviceSpan, Digest, Hold,
    TakeChunk,
};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Makes the options of a device's pipeline, given its number.
type MakeOptions = dyn Fn(i32) -> PipelineOptions + Send;

/// A device, and whether it is about its deferred spans.
type Key = (i32, bool);

/// All devices, each with what was saved of it by one source of saves.
pub struct DeviceTier {
    make_options: Box<MakeOptions>,
    pipelines: BTreeMap<Key, Pipeline>,
    /// What is known of the devices is not stored any more where it was.
    must_forget: Arc<AtomicBool>,
}

impl fmt::Debug for DeviceTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceTier").field("pipelines", &self.pipelines.keys()).finish_non_exhaustive()
    }
}

/// The spans of one pipeline.
struct Part {
    key: Key,
    /// Their indices.
    spans: Vec<usize>,
    regions: Vec<DeviceRegion>,
    streams: Vec<u64>,
}

fn parts_of(spans: &[DeviceSpan]) -> Vec<Part> {
    let mut by_key: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
    for (at, span) in spans.iter().enumerate() {
        by_key.entry((span.device, span.is_deferred)).or_default().push(at);
    }
    let part = |(key, here): (Key, Vec<usize>)| {
        let region =
            |at: &usize| DeviceRegion { address: spans[*at].address, grid: Grid::run(spans[*at].byte_len) };
        let mut streams: Vec<u64> = here.iter().flat_map(|at| spans[*at].streams.iter().copied()).collect();
        streams.sort_unstable();
        streams.dedup();
        Part { key, regions: here.iter().map(region).collect(), spans: here, streams }
    };
    by_key.into_iter().map(part).collect()
}

impl DeviceTier {
    /// Touches no device.
    pub fn new(make_options: impl Fn(i32) -> PipelineOptions + Send + 'static) -> Self {
        DeviceTier {
            make_options: Box::new(make_options),
            pipelines: BTreeMap::new(),
            must_forget: Arc::default(),
        }
    }

    /// The pipeline of a device. If the device has no room for scratch memory, one without.
    fn pipeline(&mut self, key: Key) -> Result<&Pipeline> {
        let device = key.0;
        if !self.pipelines.contains_key(&key) {
            let context = Context::open(device)?;
            let made = match Pipeline::new(&context, (self.make_options)(device)) {
                Err(CudaError::OutOfMemory { .. }) => {
                    Pipeline::new(&context, PipelineOptions { scratch_len: 0, ..(self.make_options)(device) })
                }
                other => other,
            };
            self.pipelines.insert(key, made?);
        }
        Ok(&self.pipelines[&key])
    }

    fn forget_if_told(&mut self) -> Result<()> {
        if self.must_forget.swap(false, Ordering::Relaxed) {
            self.pipelines.values().try_for_each(Pipeline::forget)?;
        }
        Ok(())
    }
}

impl DeviceMemory for DeviceTier {
    fn capture(&mut self, spans: &[DeviceSpan], hold: Hold) -> Result<Box<dyn DeviceCapture>, DeviceError> {
        self.forget_if_told().map_err(failed)?;
        let release = match hold {
            Hold::Caller => Release::ByCaller,
            Hold::Streams => Release::WhenStaged,
        };
        let mut captures = Vec::new();
        let mut places = vec![(0, 0); spans.len()];
        for part in parts_of(spans) {
            let pipeline = self.pipeline(part.key).map_err(failed)?;
            // Streams are told below, or not at all: while the caller holds the program, a stream that waits for the host could
            // only stand in the way of the copies that it waits for.
            // SAFETY: the caller of this function keeps the memory, and the program writes to it in the streams named.
            let begun =
                unsafe { pipeline.begin(&part.regions, &part.streams, Box::new(()), release, Fence::Later) };
            for (number, span) in part.spans.iter().enumerate() {
                places[*span] = (captures.len(), number);
            }
            captures.push((begun.map_err(failed)?, part));
        }
        let is_held_by_streams =
            hold == Hold::Streams && !captures.iter().any(|(capture, _)| capture.expects_late());
        for (capture, part) in &mut captures {
            match is_held_by_streams {
                true if !part.key.1 => capture.fence(&part.streams).map_err(failed)?,
                true => {}
                false => capture.release_by_caller(),
            }
        }
        let must_forget = self.must_forget.clone();
        Ok(Box::new(Captures { captures, places, is_held_by_streams, must_forget }))
    }

    fn recognise(
        &mut self,
        spans: &[DeviceSpan],
        is_stored: &mut dyn FnMut(&Digest) -> bool,
    ) -> Result<u64, DeviceError> {
        self.forget_if_told().map_err(failed)?;
        let mut byte_len = 0;
        for part in parts_of(spans) {
            let pipeline = self.pipeline(part.key).map_err(failed)?;
            // SAFETY: as in `capture`.
            let known = unsafe { pipeline.recognise(&part.regions, &part.streams, is_stored) };
            let known = known.map_err(failed)?;
            byte_len += part
                .spans
                .iter()
                .zip(known)
                .filter(|(_, known)| *known)
                .map(|(at, _)| spans[*at].byte_len)
                .sum::<u64>();
        }
        Ok(byte_len)
    }
}

fn failed(error: CudaError) -> DeviceError {
    DeviceError::Device(error.to_string())
}

impl DeviceFence for CaptureFence {
    fn device(&self) -> i32 {
        CaptureFence::device(self)
    }

    fn wait(&self, streams: &[u64]) -> Result<(), DeviceError> {
        CaptureFence::wait(self, streams).map_err(failed)
    }
}

/// Captures of several devices at about one moment, each with its spans.
struct Captures {
    captures: Vec<(Capture, Part)>,
    /// For each span the capture that has it, and its number there.
    places: Vec<(usize, usize)>,
    is_held_by_streams: bool,
    must_forget: Arc<AtomicBool>,
}

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

impl DeviceCapture for Captures {
    fn is_held_by_streams(&self) -> bool {
        self.is_held_by_streams
    }

    fn fences(&self) -> Vec<Box<dyn DeviceFence>> {
        let deferred = self.captures.iter().filter(|(_, part)| part.key.1);
        deferred.map(|(capture, _)| Box::new(capture.fence_later()) as Box<dyn DeviceFence>).collect()
    }

    fn known(&self, span: usize) -> Option<Vec<Digest>> {
        let (at, number) = *self.places.get(span)?;
        self.captures[at].0.known(number)
    }

    fn take(&mut self, take: &mut TakeChunk<'_>) -> Result<(), DeviceError> {
        for (capture, part) in &mut self.captures {
            capture.take(&mut |staged| {
                let (span, ordinal) = (part.spans[staged.region], staged.ordinal);
                let chunk = DeviceChunk { span, ordinal, digest: staged.digest, bytes: staged.bytes };
                take(chunk).map_err(Stopped::Blob)
            })?;
        }
        Ok(())
    }

    fn fetch(&mut self, chunks: &[(usize, u64)], take: &mut TakeChunk<'_>) -> Result<(), DeviceError> {
        let mut wanted: Vec<Vec<(usize, u64)>> = vec![Vec::new(); self.captures.len()];
        for (span, ordinal) in chunks {
            let place = self.places.get(*span).copied();
            let (at, number) =
                place.ok_or_else(|| DeviceError::Device(format!("there is no span {span}")))?;
            wanted[at].push((number, *ordinal));
        }
        for ((capture, part), wanted) in
            self.captures.iter_mut().zip(wanted).filter(|(_, wanted)| !wanted.is_empty())
        {
            if capture.is_released() {
                // The next save must bring it all, since what this one counted on was swept.
                self.must_forget.store(true, Ordering::Relaxed);
            }
            capture.fetch(&wanted, &mut |staged| {
                let (span, ordinal) = (part.spans[staged.region], staged.ordinal);
                let chunk = DeviceChunk { span, ordinal, digest: staged.digest, bytes: staged.bytes };
                take(chunk).map_err(Stopped::Blob)
            })?;
        }
        Ok(())
    }

    fn let_go(&mut self) -> Result<(), DeviceError> {
        // Each is let go, also if another fails.
        let mut done = Ok(());
        for (capture, _) in &mut self.captures {
            let here = capture.let_go().map_err(failed);
            done = done.and(here);
        }
        done
    }

    fn adopt(self: Box<Self>) {
        for (capture, _) in self.captures {
            // A pipeline that cannot adopt has forgotten all: the next save finds everything dirty.
            let _ = capture.adopt();
        }
    }
}
