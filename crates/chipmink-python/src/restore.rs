//! Buffers of live arrays that a checkout makes those of another version, by writing the chunks that differ.
//!
//! 1. All that is to be written was read and checked before the first byte is: applying cannot fail half way, and runs no
//!    Python code in between.

use crate::errors::raise;
use crate::handle::{Handle, closed};
use chipmink_types::RegionRecord;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// The content of a large buffer in a version.
#[pyclass(frozen, module = "chipmink._chipmink")]
pub(crate) struct StoredRegion(pub(crate) RegionRecord);

/// What makes a buffer that of a version.
#[pyclass(frozen, module = "chipmink._chipmink")]
pub(crate) struct Patch {
    buffer: PyBuffer<u8>,
    /// Offset, and the bytes to be written there; within the buffer.
    pieces: Vec<(usize, Vec<u8>)>,
}

#[pymethods]
impl StoredRegion {
    /// What has to be written to a buffer of the region's length to make it equal to the region; `None` if that is more than
    /// half of it.
    fn patch(&self, py: Python<'_>, handle: &Handle, buffer: PyBuffer<u8>) -> PyResult<Option<Patch>> {
        if buffer.readonly() {
            return Err(PyValueError::new_err("a buffer that is to be restored is read-only"));
        }
        let digests = {
            let mut guard = handle.session()?;
            let session = guard.as_mut().ok_or_else(closed)?;
            session.digests_of(py, &buffer, &self.0)?
        };
        let Some(pieces) = py.detach(|| handle.difference(&self.0, &digests)).map_err(raise)? else {
            return Ok(None);
        };
        let within = |(offset, bytes): (u64, Vec<u8>)| {
            let offset = usize::try_from(offset).ok()?;
            let end = offset.checked_add(bytes.len())?;
            (end <= buffer.len_bytes()).then_some((offset, bytes))
        };
        let pieces: Option<Vec<_>> = pieces.into_iter().map(within).collect();
        let pieces = pieces.ok_or_else(|| PyValueError::new_err("a region is longer than its buffer"))?;
        Ok(Some(Patch { buffer, pieces }))
    }
}

/// Writes patches.
#[pyfunction]
pub(crate) fn apply_patches(patches: Vec<PyRef<'_, Patch>>) {
    for patch in patches {
        let start = patch.buffer.buf_ptr().cast::<u8>();
        for (offset, bytes) in &patch.pieces {
            // SAFETY: the export keeps the memory where it is, contiguous and writable; the piece lies within it, and is not
            // part of it. The thread is attached; others that write there meanwhile do so as to any array.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.add(*offset), bytes.len()) };
        }
    }
}
