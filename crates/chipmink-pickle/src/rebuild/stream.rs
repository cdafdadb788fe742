//! Loads one object from the stream that `dumps` made of it.

use super::error::{RebuildError, Result};
use super::loader::Loader;
use super::options::{Allowlist, RebuildOptions};
use super::pause::CollectorPause;
use super::supply::{Streamed, StreamedRegion};
use bytes::Bytes;
use chipmink_format::{StreamParts, decode_stream};
use chipmink_types::{Digest, GridKind, LoadPod, LoadRoot, LoadShape, RegionRecord};
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;

/// Makes the object of a stream again.
///
/// `buffers` gives the out-of-band buffers in the order in which `dumps` handed them out; `allow` restricts what may be
/// imported and called.
///
/// # Errors
/// When the bytes are no stream, are damaged, name what is not allowed, lack a buffer, or code that they name raises.
pub fn loads(
    py: Python<'_>,
    data: &[u8],
    buffers: Option<&Bound<'_, PyAny>>,
    allow: Option<Allowlist>,
) -> PyResult<Py<PyAny>> {
    let parts = decode_stream(data).map_err(|error| RebuildError::Stream(error).into_exception(py))?;
    let _pause = CollectorPause::begin(py);
    let pods = describe(&parts);
    let root = LoadRoot::Pod(parts.root.0 as usize, parts.root.1);
    let options = RebuildOptions { allow, ..RebuildOptions::default() };
    let outside = take_buffers(py, &parts, buffers)?;
    // SAFETY: the supply, and the loader that takes bytes from it, are gone before this function returns, and so before
    // `data` is; neither hands `Bytes` to anybody else.
    let mut supply = unsafe { supply(&parts, outside) };
    let mut loader = Loader::new(py, &pods, &mut supply, &options);
    loader.stream_root(&root).map(Bound::unbind).map_err(|failure| loader.explain(failure))
}

impl<'py, 'a> Loader<'py, 'a> {
    fn stream_root(&mut self, root: &'a LoadRoot) -> Result<Bound<'py, PyAny>> {
        for position in 0..self.plan.len() {
            self.run_pod(position)?;
        }
        self.root(root)
    }
}

/// The stream's pods as a plan has them. Streams name no digests: those given here are never looked at.
fn describe(parts: &StreamParts<'_>) -> Vec<LoadPod> {
    let no_digest = Digest::xxh3([0; 16]);
    let pods = parts.pods.iter().map(|pod| LoadPod {
        digest: no_digest,
        byte_len: pod.bytes.len() as u64,
        exports: pod.exports.clone(),
        dependencies: pod.dependencies.iter().map(|&position| position as usize).collect(),
        globals: pod.globals.clone(),
        shapes: pod
            .shapes
            .iter()
            .map(|shape| LoadShape {
                class: shape.class,
                dict_names: shape.dict_names.clone(),
                slot_names: shape.slot_names.clone(),
            })
            .collect(),
        regions: pod
            .regions
            .iter()
            .map(|region| RegionRecord {
                grid: GridKind::Run,
                row_len: 0,
                first_chunk_len: 0,
                byte_len: region.byte_len,
                buffer_id: 0,
                root: no_digest,
                views: region.views.clone(),
            })
            .collect(),
        side: pod.side.as_ref().map(|side| Bytes::copy_from_slice(side)),
    });
    pods.collect()
}

/// One buffer for each region that is not in the stream, in order.
fn take_buffers<'py>(
    py: Python<'py>,
    parts: &StreamParts<'_>,
    buffers: Option<&Bound<'py, PyAny>>,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let wanted = parts.pods.iter().flat_map(|pod| &pod.regions).filter(|region| region.content.is_none());
    let mut given = buffers.map(|buffers| buffers.try_iter()).transpose()?;
    let mut taken = Vec::new();
    for _ in wanted {
        let Some(buffer) = given.as_mut().and_then(Iterator::next) else {
            let why = match buffers {
                Some(_) => {
                    "`buffers` gives fewer buffers than `buffer_callback` was given when the stream was made"
                }
                None => "the stream was made with `buffer_callback`: give `buffers` what it was given",
            };
            let class = py.import("pickle")?.getattr("UnpicklingError")?;
            return Err(PyErr::from_value(class.call1((why,))?));
        };
        let buffer = buffer?;
        // SAFETY: alive.
        if unsafe { ffi::PyObject_CheckBuffer(buffer.as_ptr()) } == 0 {
            let name = buffer.get_type().fully_qualified_name()?;
            return Err(PyTypeError::new_err(format!("`buffers` gives a {name}, which is no buffer")));
        }
        taken.push(buffer);
    }
    Ok(taken)
}

/// Bytes that somebody else keeps alive.
struct Borrowed(*const u8, usize);

// SAFETY: only a pointer and a length; whoever makes one answers for the memory (see `lend`).
unsafe impl Send for Borrowed {}

impl AsRef<[u8]> for Borrowed {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: made of a slice that is still borrowed (see `lend`).
        unsafe { std::slice::from_raw_parts(self.0, self.1) }
    }
}

/// The slice without its lifetime.
///
/// # Safety
/// Every clone of the result must be gone before the slice's borrow ends.
unsafe fn lend(slice: &[u8]) -> Bytes {
    Bytes::from_owner(Borrowed(slice.as_ptr(), slice.len()))
}

/// # Safety
/// What is made of `parts` must be gone before the bytes that `parts` was decoded from are.
unsafe fn supply<'py>(parts: &StreamParts<'_>, outside: Vec<Bound<'py, PyAny>>) -> Streamed<'py> {
    let mut outside = outside.into_iter();
    let pods = parts.pods.iter().map(|pod| {
        let regions = pod.regions.iter().map(|region| match &region.content {
            // SAFETY: promised by the caller.
            Some(content) => StreamedRegion::Inline(unsafe { lend(content) }),
            None => match outside.next() {
                Some(buffer) => StreamedRegion::Outside(buffer),
                None => StreamedRegion::Inline(Bytes::new()),
            },
        });
        let regions = regions.collect();
        // SAFETY: promised by the caller.
        (unsafe { lend(&pod.bytes) }, regions)
    });
    Streamed { pods: pods.collect() }
}
