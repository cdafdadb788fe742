//! `dumps` and `loads`.

use chipmink_format::stream_len as format_stream_len;
use chipmink_pickle::rebuild::Allowlist;
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Encodes an object graph as a self-contained stream.
#[pyfunction]
#[pyo3(signature = (obj, buffer_callback=None))]
pub(crate) fn dumps<'py>(
    obj: &Bound<'py, PyAny>,
    buffer_callback: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = chipmink_pickle::dumps(obj.py(), obj, buffer_callback)?;
    Ok(PyBytes::new(obj.py(), &bytes))
}

/// Makes the object of a stream again.
#[pyfunction]
#[pyo3(signature = (data, buffers=None, allow=None))]
pub(crate) fn loads(
    data: &Bound<'_, PyAny>,
    buffers: Option<&Bound<'_, PyAny>>,
    allow: Option<&Bound<'_, PyAny>>,
) -> PyResult<Py<PyAny>> {
    let py = data.py();
    let allow = allow.map(Allowlist::from_python).transpose()?;
    if let Ok(bytes) = data.cast::<PyBytes>() {
        return chipmink_pickle::loads(py, bytes.as_bytes(), buffers, allow);
    }
    // The code that a stream names could write into any other buffer while it is being read.
    let copy = PyBuffer::<u8>::get(data)?.to_vec(py)?;
    chipmink_pickle::loads(py, &copy, buffers, allow)
}

/// The length in bytes of the stream that `head` begins.
#[pyfunction]
pub(crate) fn stream_len(head: &[u8]) -> PyResult<u64> {
    format_stream_len(head).map_err(crate::errors::damaged)
}
