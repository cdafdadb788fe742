//! Memory that other processes share: read through the kernel, at every save, never where it is mapped.
//!
//! 1. What is digested and stored is a copy. Another process may have written meanwhile, so that the bytes of two chunks may
//!    be of two moments; within a chunk, too.
//! 2. Nothing is believed unchanged because nobody here wrote to it: pods with such memory have no shadow, and their
//!    variables are walked in every save, whatever was accessed.
//! 3. A segment that ends too early fails its variable, with a reason. Nothing names what was stored of it until then.

use super::exports::Exported;
use super::memory::Span;
use super::ndarray;
use super::regions::{Content, root_of};
use super::walker::{Step, Walker};
use crate::py::Obj;
use chipmink_digest::Grid;
use chipmink_format::tag;
use chipmink_types::{Digest, RegionOutline, SharedBytes};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;

/// What an object that owns the memory of arrays has to do with other processes.
#[derive(Clone, Copy)]
pub(crate) enum Owning {
    /// Nothing: it is a value that has its memory.
    Alone,
    /// It is no value itself: its memory is a file's, or it stands in a stream.
    File,
    /// They share its memory, for which the object stands.
    Shared(Obj, Span),
}

impl Walker<'_, '_> {
    /// Whether other processes share the memory of an object that owns an array's. In a stream mapped memory is no value,
    /// whoever else has it mapped: only what arrays show of it is stored.
    pub(crate) fn owning(&mut self, base: Obj) -> Step<Owning> {
        let is_stream = self.stream.is_some();
        if let Some(known) = self.owning.get(&base.addr()) {
            return Ok(*known);
        }
        let py = self.py;
        let ty = base.ty_addr();
        let may_share = match self.sharing_types.get(&ty) {
            Some(known) => *known,
            None => {
                self.hold();
                let class = base.class().bound(py);
                let rules = self.session.reducers.bind(py);
                let question = if is_stream { "is_mapping" } else { "may_share_memory" };
                let answer = rules.getattr(question)?.call1((&class,))?.is_truthy()?;
                self.own(class);
                self.sharing_types.insert(ty, answer);
                answer
            }
        };
        if !may_share {
            return Ok(Owning::Alone);
        }
        if is_stream {
            return Ok(Owning::File);
        }
        self.hold();
        let rules = self.session.reducers.bind(py);
        let answer = rules.getattr("shared_owner")?.call1((base.bound(py),))?;
        let (object, span): (Option<Bound<'_, PyAny>>, Option<(usize, usize)>) = answer.extract()?;
        let owning = match (object, span) {
            (Some(object), Some((start, byte_len))) => {
                Owning::Shared(self.own(object), Span { start, end: start.saturating_add(byte_len) })
            }
            (Some(_), None) => Owning::Alone,
            (None, _) => Owning::File,
        };
        // The address means this object until the walk ends.
        self.keep(base);
        self.owning.insert(base.addr(), owning);
        Ok(owning)
    }

    /// Writes the bytes of shared memory as a buffer. `marker`: a `chipmink._markers.SharedBytes`.
    pub(crate) fn shared_bytes(&mut self, marker: Obj) -> Step {
        let py = self.py;
        self.hold();
        self.no_shadow();
        let marker_bound = marker.bound(py);
        let address: usize = marker_bound.getattr("address")?.extract()?;
        let byte_len: usize = marker_bound.getattr("byte_len")?.extract()?;
        let owner = marker_bound.getattr("owner")?;
        // With an export it can neither be closed nor resized here.
        // SAFETY: alive.
        let exports = unsafe { ffi::PyObject_CheckBuffer(owner.as_ptr()) } != 0;
        let export =
            exports.then(|| Exported::contiguous(Obj::of(&owner), ffi::PyBUF_FULL_RO)).transpose()?;
        let end = address.checked_add(byte_len);
        if let (Some(export), Some(end)) = (&export, end)
            && !export.span().holds(Span { start: address, end })
        {
            return Err(PyValueError::new_err("shared memory was mapped elsewhere while it was saved").into());
        }
        let number = self.shared_content(address, byte_len, false)?;
        drop(export);
        self.memoize(marker, number);
        Ok(())
    }

    /// Writes a buffer over memory that other processes share, by value. Returns its memo number; `None`: it is none.
    pub(crate) fn shared_buffer(
        &mut self,
        exporter: Obj,
        span: Span,
        is_read_only: bool,
    ) -> Step<Option<u32>> {
        let ndarray = self.session.kinds.ndarray();
        let (base, _) = ndarray::owner(self.py, exporter, ndarray);
        if span.is_empty()
            || base.is_bytearray()
            || ndarray::is_array(base, ndarray)
            || !matches!(self.owning(base)?, Owning::Shared(..))
        {
            return Ok(None);
        }
        self.no_shadow();
        self.shared_content(span.start, span.len(), is_read_only).map(Some)
    }

    /// Writes bytes of shared memory that lie at an address. Returns their memo number.
    fn shared_content(&mut self, address: usize, byte_len: usize, is_read_only: bool) -> Step<u32> {
        let Some(shared) = &self.session.shared else {
            return Err(PyOSError::new_err("shared memory cannot be read here").into());
        };
        let source = shared.open(address, byte_len).map_err(unreadable)?;
        self.visits[self.current as usize].is_shared = true;
        if byte_len >= tag::REGION_THRESHOLD {
            let region = self.shared_region(&*source, byte_len)?;
            let kind = if is_read_only { tag::REGION_BYTES } else { tag::REGION_BYTEARRAY };
            return Ok(self.write_region(kind, region));
        }
        let mut bytes = vec![0; byte_len];
        source.read_at(0, &mut bytes).map_err(unreadable)?;
        let builder = self.builder();
        builder.bytes(&[tag::BUFFER, u8::from(is_read_only)]);
        builder.varint(byte_len as u64);
        builder.bytes(&bytes);
        Ok(builder.take_number())
    }

    /// Stores shared memory as a region of the current pod. Returns its ordinal there.
    fn shared_region(&mut self, source: &dyn SharedBytes, byte_len: usize) -> Step<u32> {
        let content = Content::run(Span { start: 0, end: byte_len });
        let ordinal = self.builder().regions.len();
        let pod = self.current_pod();
        let known = self.session.pod(pod).and_then(|state| state.record.regions.get(ordinal).cloned());
        let mut record = content.record();
        if !self.memory.is_survey {
            let grid = Grid::of(&record).map_err(|error| {
                PyValueError::new_err(format!("a region of {byte_len} bytes of shared memory: {error}"))
            })?;
            let previous = known.as_ref().and_then(|known| super::regions::previous_version(known, &record));
            self.sink.begin_region(&RegionOutline { chunk_count: grid.chunk_count(), previous });
            record.root = self.store_shared(source, &grid, previous.map(|(root, _)| root))?;
        }
        self.builder().regions.push(record);
        Ok(ordinal as u32)
    }

    /// Reads, digests and stores chunk by chunk.
    fn store_shared(&mut self, source: &dyn SharedBytes, grid: &Grid, known: Option<Digest>) -> Step<Digest> {
        let mut digests = Vec::with_capacity(grid.chunk_count() as usize);
        let mut chunk = Vec::new();
        for (i, (offset, len)) in grid.chunks().enumerate() {
            if i % 1024 == 1023 {
                self.check_signals()?;
            }
            chunk.resize(len as usize, 0);
            source.read_at(offset, &mut chunk).map_err(unreadable)?;
            let digest = chipmink_digest::digest(&chunk);
            if !self.holds(&digest) {
                self.put_chunk(i as u64, digest, &chunk)?;
            }
            self.stats.region_bytes += len;
            digests.push(digest);
        }
        match known {
            Some(known) if root_of(&digests) == known => Ok(known),
            _ => self.store_tree(&digests),
        }
    }
}

fn unreadable(error: std::io::Error) -> PyErr {
    PyOSError::new_err(error.to_string())
}

/// Memory that an array shows is not there any more.
pub(crate) fn shrunk() -> PyErr {
    PyOSError::new_err("an array reaches beyond its shared memory; it was shrunk by another process")
}
