//! Memory of devices: met during the walk, captured at its end, all of it at one moment.
//!
//! 1. A pod names a region by ordinal and its row says the content, so a pod can be finished before the content is known. Until
//!    then the root of the region is [`PENDING`].
//! 2. Nothing of the walk is put together before every pending region has its root. If that fails, the walk fails.
//! 3. Memory is captured after the last Python code of the walk has run. Nothing live is read any more from then on but what
//!    was captured, so who waits for that is told ([`PySession::when_captured`]): at once if streams hold the program from that, else when
//!    all is stored. Other threads run while chunks are stored.
//! 4. Pods with such memory have no shadow: their bytes are produced anew in each walk that comes to them.

use super::frames::{Mode, Visit};
use super::regions::{Content, previous_version, root_of};
use super::ties::VisitIndex;
use super::walker::{Step, Walker};
use crate::py::Obj;
use chipmink_digest::Grid;
use chipmink_format::tag;
use chipmink_types::{
    BlobError, BlobKind, BlobSink, DeviceCapture, DeviceChunk, DeviceError, DeviceFence, DeviceSpan, Digest,
    Hold, RegionOutline, RegionRecord, WalkError,
};
use hashbrown::HashMap;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// The root of a region whose content is not known yet.
const PENDING: Digest = Digest::xxh3([0; 16]);

/// A region that is on a device.
pub(crate) struct DeviceRegion {
    pod: u32,
    ordinal: usize,
    span: DeviceSpan,
}

/// A span that is captured, and what becomes of it.
struct Captured {
    grid: Grid,
    /// What was stored in its place last.
    previous: Option<(Digest, u64)>,
    digests: Vec<Digest>,
    /// Whether a chunk was taken.
    is_met: Vec<bool>,
    root: Option<Digest>,
}

impl Walker<'_, '_> {
    /// Writes the bytes of a device as a region, which is stored when the walk ends. `marker`: a
    /// `chipmink._markers.DeviceBytes`.
    pub(crate) fn device_bytes(&mut self, marker: Obj) -> Step {
        self.no_shadow();
        let bound = marker.bound(self.py);
        let span = DeviceSpan {
            device: bound.getattr("device")?.extract()?,
            address: bound.getattr("address")?.extract()?,
            byte_len: bound.getattr("byte_len")?.extract()?,
            streams: bound.getattr("streams")?.extract()?,
            is_deferred: bound.getattr("is_deferred")?.extract()?,
        };
        if self.session.device.is_none() || self.stream.is_some() {
            return Err(PyValueError::new_err("memory of a device cannot be captured here").into());
        }
        // Shorter ones, too: to have them in the pod, the walk would have to wait for the device.
        if span.byte_len == 0 {
            return Err(PyValueError::new_err("memory of a device without a byte is no region").into());
        }
        // What owns the memory lives as long as the marker.
        self.keep(marker);
        let record = RegionRecord {
            byte_len: span.byte_len,
            root: PENDING,
            ..Content::run(super::memory::Span { start: 0, end: 0 }).record()
        };
        let pod = self.current_pod();
        let builder = self.builder();
        builder.regions.push(record);
        let ordinal = builder.regions.len() - 1;
        let number = self.write_region(tag::REGION_BYTEARRAY, ordinal as u32);
        self.devices.push(DeviceRegion { pod, ordinal, span });
        self.memoize(marker, number);
        Ok(())
    }

    /// Captures and stores the memory of devices that the walk has met, and completes the records of its regions. `is_steady`:
    /// the walk will not be made again.
    pub(crate) fn store_devices(
        &mut self,
        visits: &mut [Visit],
        index: &VisitIndex,
        is_steady: bool,
    ) -> Result<Option<Box<dyn DeviceCapture>>, WalkError> {
        let mut regions = std::mem::take(&mut self.devices);
        // Of what was written again after the walk went back, the last counts.
        let mut last: HashMap<(u32, usize), usize> = HashMap::new();
        for (at, region) in regions.iter().enumerate() {
            last.insert((region.pod, region.ordinal), at);
        }
        let mut at = 0;
        regions.retain(|region| {
            at += 1;
            last[&(region.pod, region.ordinal)] == at - 1
                && record_of(visits, index, region)
                    .is_some_and(|record| record.root == PENDING && record.byte_len == region.span.byte_len)
        });
        let mut told = if is_steady { self.session.captured.take() } else { None };
        if regions.is_empty() {
            self.tell(&mut told, Vec::new())?;
            return Ok(None);
        }
        let mut spans: Vec<DeviceSpan> = Vec::new();
        let mut by_span: HashMap<DeviceSpan, usize> = HashMap::new();
        let mut captured = Vec::new();
        let mut places = Vec::with_capacity(regions.len());
        for region in &regions {
            let at = *by_span.entry(region.span.clone()).or_insert_with(|| {
                spans.push(region.span.clone());
                spans.len() - 1
            });
            places.push(at);
            if at == captured.len() {
                let known = self.session.pod(region.pod);
                let known = known.and_then(|state| state.record.regions.get(region.ordinal));
                let now = record_of(visits, index, region);
                let previous = known.zip(now).and_then(|(known, now)| previous_version(known, now));
                captured.push(Captured::new(region.span.byte_len, previous));
            }
        }
        let Some(device) = &mut self.session.device else {
            return Err(WalkError::Source("memory of a device cannot be captured here".to_owned()));
        };
        let hold = if told.is_some() { Hold::Streams } else { Hold::Caller };
        let mut capture = device.capture(&spans, hold).map_err(failed)?;
        if capture.is_held_by_streams() {
            self.tell(&mut told, capture.fences())?;
        }
        let sink = &mut *self.sink;
        let stored = self.py.detach(|| store(&mut *capture, &mut captured, sink));
        stored.map_err(failed)?;
        capture.let_go().map_err(failed)?;
        self.tell(&mut told, Vec::new())?;
        self.stats.region_bytes += spans.iter().map(|span| span.byte_len).sum::<u64>();
        for (region, at) in regions.iter().zip(places) {
            if let (Some(record), Some(root)) = (record_mut(visits, index, region), captured[at].root) {
                record.root = root;
            }
        }
        Ok(Some(capture))
    }

    fn tell(
        &mut self,
        told: &mut Option<WhenCaptured>,
        fences: Vec<Box<dyn DeviceFence>>,
    ) -> Result<(), WalkError> {
        let Some(told) = told.take() else { return Ok(()) };
        told(self.py, fences).map_err(|error| {
            self.session.exception = Some(error);
            WalkError::Interrupted
        })
    }
}

/// What is called when nothing live is read any more, with what the program must let its streams wait for before it writes to
/// memory that is deferred.
pub type WhenCaptured = Box<dyn FnOnce(Python<'_>, Vec<Box<dyn DeviceFence>>) -> PyResult<()> + Send>;

fn failed(error: DeviceError) -> WalkError {
    match error {
        DeviceError::Blob(error) => WalkError::Blob(error),
        other => WalkError::Source(other.to_string()),
    }
}

fn record_of<'a>(visits: &'a [Visit], index: &VisitIndex, region: &DeviceRegion) -> Option<&'a RegionRecord> {
    match &visits.get(index.get(region.pod)?)?.mode {
        Mode::Written(finished) => finished.tables.regions.get(region.ordinal),
        _ => None,
    }
}

fn record_mut<'a>(
    visits: &'a mut [Visit],
    index: &VisitIndex,
    region: &DeviceRegion,
) -> Option<&'a mut RegionRecord> {
    match &mut visits.get_mut(index.get(region.pod)?)?.mode {
        Mode::Written(finished) => finished.tables.regions.get_mut(region.ordinal),
        _ => None,
    }
}

impl Captured {
    fn new(byte_len: u64, previous: Option<(Digest, u64)>) -> Self {
        Captured { grid: Grid::run(byte_len), previous, digests: Vec::new(), is_met: Vec::new(), root: None }
    }

    fn begin(&self, sink: &mut dyn BlobSink) {
        sink.begin_region(&RegionOutline { chunk_count: self.grid.chunk_count(), previous: self.previous });
    }

    /// Chunks that were not taken and that the sink does not hold. None, if the region is what it was.
    fn missing(&self, sink: &mut dyn BlobSink) -> Vec<u64> {
        let is_same = self.previous == Some((root_of(&self.digests), self.grid.chunk_count()));
        let unmet = self.digests.iter().zip(&self.is_met).enumerate().filter(|(_, (_, is_met))| !**is_met);
        match is_same {
            true => Vec::new(),
            false => unmet.filter(|(_, (digest, _))| !sink.holds(digest)).map(|(at, _)| at as u64).collect(),
        }
    }

    /// Stores the tree, all chunks being stored or held.
    fn end(&mut self, sink: &mut dyn BlobSink) -> Result<(), BlobError> {
        let root = super::regions::put_tree(&self.digests, |digest, bytes| {
            sink.put(BlobKind::DigestNode, digest, bytes)
        })?;
        sink.end_region(root);
        self.root = Some(root);
        Ok(())
    }

    fn put(&mut self, chunk: DeviceChunk<'_>, sink: &mut dyn BlobSink) -> Result<(), BlobError> {
        let at = chunk.ordinal as usize;
        (self.digests[at], self.is_met[at]) = (chunk.digest, true);
        sink.put_chunk(chunk.ordinal, chunk.digest, chunk.bytes).map(drop)
    }
}

/// Stores what was captured, span by span.
fn store(
    capture: &mut dyn DeviceCapture,
    captured: &mut [Captured],
    sink: &mut dyn BlobSink,
) -> Result<(), DeviceError> {
    for (at, span) in captured.iter_mut().enumerate() {
        let count = span.grid.chunk_count() as usize;
        span.digests = capture.known(at).unwrap_or_else(|| vec![PENDING; count]);
        span.is_met = vec![false; count];
    }
    let mut present: Option<usize> = None;
    capture.take(&mut |chunk| {
        if present != Some(chunk.span) {
            if let Some(before) = present.replace(chunk.span) {
                finish_if_whole(&mut captured[before], sink)?;
            }
            captured[chunk.span].begin(sink);
        }
        captured[chunk.span].put(chunk, sink)
    })?;
    if let Some(last) = present {
        finish_if_whole(&mut captured[last], sink)?;
    }
    for (at, span) in captured.iter_mut().enumerate().filter(|(_, span)| span.root.is_none()) {
        let wanted: Vec<(usize, u64)> = span.missing(sink).into_iter().map(|ordinal| (at, ordinal)).collect();
        span.begin(sink);
        capture.fetch(&wanted, &mut |chunk| span.put(chunk, sink))?;
        span.end(sink)?;
    }
    Ok(())
}

/// Ends a region of which all changed chunks were put, if it needs no others.
fn finish_if_whole(span: &mut Captured, sink: &mut dyn BlobSink) -> Result<(), BlobError> {
    match span.missing(sink).is_empty() {
        true => span.end(sink),
        false => Ok(()),
    }
}
