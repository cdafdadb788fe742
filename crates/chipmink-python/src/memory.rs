//! What kind of memory an object has.

use pyo3::buffer::PyUntypedBuffer;
use pyo3::prelude::*;

/// Address and length, kind of the memory there, device and inode, where the address lies in the file, and its path.
type MappingOf = (usize, usize, &'static str, u64, u64, u64, Option<String>);

/// What is mapped where a buffer, or an address, lies; `None` if nothing is, or the system does not say. `whole`: the
/// address and length of all that is mapped there, as far as the file reaches.
#[pyfunction]
#[pyo3(signature = (of, whole=false))]
pub(crate) fn mapping_of(of: &Bound<'_, PyAny>, whole: bool) -> PyResult<Option<MappingOf>> {
    let (address, byte_len) = match of.extract::<usize>() {
        Ok(address) => (address, 0),
        Err(_) => {
            let buffer = PyUntypedBuffer::get(of)?;
            (buffer.buf_ptr() as usize, buffer.len_bytes())
        }
    };
    describe(address, byte_len, whole)
}

#[cfg(target_os = "linux")]
fn describe(address: usize, byte_len: usize, whole: bool) -> PyResult<Option<MappingOf>> {
    let mapping = chipmink::mapping_at(address)
        .map_err(|error| pyo3::exceptions::PyOSError::new_err(error.to_string()))?;
    Ok(mapping.map(|mapping| {
        let kind = match mapping.kind {
            chipmink::MappingKind::Private => "private",
            chipmink::MappingKind::Shared => "shared",
            chipmink::MappingKind::File => "file",
        };
        let (address, byte_len) = match whole {
            true => (mapping.range.start, mapping.reach()),
            false => (address, byte_len),
        };
        let device = u64::from(mapping.device.0) << 32 | u64::from(mapping.device.1);
        let within = (address - mapping.range.start) as u64;
        let byte_offset = mapping.byte_offset.saturating_add(within);
        (address, byte_len, kind, device, mapping.inode, byte_offset, mapping.path)
    }))
}

#[cfg(not(target_os = "linux"))]
fn describe(_address: usize, _byte_len: usize, _whole: bool) -> PyResult<Option<MappingOf>> {
    Ok(None)
}
