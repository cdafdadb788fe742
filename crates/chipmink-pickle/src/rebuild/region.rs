//! Regions: large contents that stand outside the pods, read straight into the object that holds them.

use super::error::{Failure, Result};
use super::loader::Loader;
use super::object;
use chipmink_format::tag;
use chipmink_types::RegionRecord;
use pyo3::ffi;
use pyo3::prelude::*;

/// Where a view's bytes begin.
pub(super) struct RegionPlace<'a> {
    pub(super) region: &'a RegionRecord,
    /// Bytes of the whole region.
    pub(super) byte_len: usize,
    /// First byte of the view; not beyond `byte_len`.
    pub(super) byte_offset: usize,
}

impl<'py, 'a> Loader<'py, 'a> {
    /// The region and view that the pod being read means by these ordinals.
    pub(super) fn region_place(&self, ordinal: usize, view: usize) -> Result<RegionPlace<'a>> {
        let regions = &self.current_plan()?.regions;
        let region = regions.get(ordinal).ok_or_else(|| {
            Failure::damaged(format!("region {ordinal} is referred to, of {}", regions.len()))
        })?;
        let view = region.views.get(view).ok_or_else(|| {
            Failure::damaged(format!(
                "view {view} of region {ordinal} is referred to, of {}",
                region.views.len()
            ))
        })?;
        let byte_len = usize::try_from(region.byte_len).ok().filter(|&len| isize::try_from(len).is_ok());
        let byte_offset = usize::try_from(view.byte_offset).ok().filter(|&offset| Some(offset) <= byte_len);
        match (byte_len, byte_offset) {
            (Some(byte_len), Some(byte_offset)) => Ok(RegionPlace { region, byte_len, byte_offset }),
            _ => Err(Failure::damaged(format!(
                "region {ordinal} is too large, or a view begins beyond its end"
            ))),
        }
    }

    /// The object that the caller of the load passed in place of a region of the pod being read.
    pub(super) fn outside(&mut self, ordinal: usize) -> Result<Option<Bound<'py, PyAny>>> {
        let position = self.current()?.position;
        Ok(self.supply.outside(position, ordinal).cloned())
    }

    /// Fills `into` with a region of the pod being read.
    pub(super) fn read_region(
        &mut self,
        ordinal: usize,
        region: &RegionRecord,
        into: &mut [u8],
    ) -> Result<()> {
        let position = self.current()?.position;
        self.supply.region(position, ordinal, region, into)
    }

    /// A region as an object: from the view's first byte to the region's end.
    pub(super) fn region_object(&mut self) -> Result<Bound<'py, PyAny>> {
        let kind = self.at.reader.byte()?;
        let ordinal = self.at.reader.size()?;
        let view = self.at.reader.size()?;
        let place = self.region_place(ordinal, view)?;
        if let Some(object) = self.outside(ordinal)?
            && matches!(kind, tag::REGION_BYTEARRAY | tag::REGION_BYTES)
            && place.byte_offset == 0
        {
            return Ok(object);
        }
        // A writer may store the same large atom at every place where it stands; in memory it is one object.
        let key = (place.region.root, kind);
        let is_atom = kind != tag::REGION_BYTEARRAY && self.supply.has_digests() && place.byte_offset == 0;
        if is_atom && let Some(object) = self.large_atoms.get(&key) {
            return Ok(object.clone());
        }
        let object = self.new_region_object(kind, ordinal, &place)?;
        if is_atom {
            self.large_atoms.insert(key, object.clone());
        }
        Ok(object)
    }

    fn new_region_object(
        &mut self,
        kind: u8,
        ordinal: usize,
        place: &RegionPlace<'a>,
    ) -> Result<Bound<'py, PyAny>> {
        let py = self.py;
        match kind {
            tag::REGION_BYTEARRAY if place.byte_offset == 0 => self.region_bytearray(ordinal),
            tag::REGION_BYTES if place.byte_offset == 0 => {
                let len = place.byte_len as ffi::Py_ssize_t;
                // SAFETY: null content makes a bytes object to be filled.
                let object =
                    object::own(py, unsafe { ffi::PyBytes_FromStringAndSize(std::ptr::null(), len) })?;
                if place.byte_len > 0 {
                    // SAFETY: a new bytes object of that length, known to nobody else and not the shared empty one.
                    let data = unsafe { ffi::PyBytes_AsString(object.as_ptr()) };
                    self.fill_memory(ordinal, data.cast::<u8>(), place.byte_len)?;
                }
                Ok(object)
            }
            tag::REGION_STR1_ASCII if place.byte_offset == 0 && place.byte_len > 1 => {
                // SAFETY: a maximum of 127 makes a compact ASCII str.
                let object =
                    object::own(py, unsafe { ffi::PyUnicode_New(place.byte_len as ffi::Py_ssize_t, 127) })?;
                // SAFETY: a new str with room for as many bytes, known to nobody else.
                let data = unsafe { ffi::PyUnicode_DATA(object.as_ptr()) };
                let content = self.fill_memory(ordinal, data.cast::<u8>(), place.byte_len)?;
                if !content.is_ascii() {
                    return Err(super::loader::not_ascii());
                }
                Ok(object)
            }
            _ => {
                let content = self.region_copy(ordinal, place)?;
                match kind {
                    tag::REGION_BYTEARRAY => object::bytearray(py, &content),
                    tag::REGION_BYTES => object::bytes(py, &content),
                    tag::REGION_STR1_ASCII if content.is_ascii() => object::ascii(py, &content),
                    tag::REGION_STR1_ASCII => Err(super::loader::not_ascii()),
                    tag::REGION_STR1 => object::wide_str(py, 1, &content),
                    tag::REGION_STR2 => object::wide_str(py, 2, &content),
                    tag::REGION_STR4 => object::wide_str(py, 4, &content),
                    tag::REGION_INT => object::big_int(py, &content),
                    other => Err(Failure::damaged(format!("a region is of kind {other}"))),
                }
            }
        }
    }

    /// A whole region as a bytearray.
    pub(super) fn region_bytearray(&mut self, ordinal: usize) -> Result<Bound<'py, PyAny>> {
        let place = self.region_place_whole(ordinal)?;
        let len = place.byte_len as ffi::Py_ssize_t;
        // SAFETY: null content makes a bytearray to be filled.
        let object =
            object::own(self.py, unsafe { ffi::PyByteArray_FromStringAndSize(std::ptr::null(), len) })?;
        if place.byte_len > 0 {
            // SAFETY: a new bytearray of that length, known to nobody else.
            let data = unsafe { ffi::PyByteArray_AsString(object.as_ptr()) };
            self.fill_memory(ordinal, data.cast::<u8>(), place.byte_len)?;
        }
        Ok(object)
    }

    fn region_place_whole(&self, ordinal: usize) -> Result<RegionPlace<'a>> {
        let place = self.region_place(ordinal, 0)?;
        Ok(RegionPlace { byte_offset: 0, ..place })
    }

    /// The bytes of a region from the view's first on, outside any object.
    fn region_copy(&mut self, ordinal: usize, place: &RegionPlace<'a>) -> Result<Vec<u8>> {
        if let Some(object) = self.outside(ordinal)? {
            let bytes = self.py.get_type::<pyo3::types::PyBytes>().call1((&object,))?;
            let content = bytes.extract::<&[u8]>().map_err(PyErr::from)?;
            return Ok(content.get(place.byte_offset..).unwrap_or_default().to_vec());
        }
        let mut content = Vec::new();
        if content.try_reserve_exact(place.byte_len).is_err() {
            return Err(pyo3::exceptions::PyMemoryError::new_err("a region does not fit the memory").into());
        }
        content.resize(place.byte_len, 0);
        self.read_region(ordinal, place.region, &mut content)?;
        content.drain(..place.byte_offset);
        Ok(content)
    }

    /// Fills `byte_len` bytes at `data` with a region of that length.
    fn fill_memory<'m>(&mut self, ordinal: usize, data: *mut u8, byte_len: usize) -> Result<&'m [u8]> {
        let place = self.region_place_whole(ordinal)?;
        debug_assert_eq!(place.byte_len, byte_len);
        // SAFETY: every caller passes the memory of an object that it has just made with `byte_len` bytes, holds, and has
        // shown to nobody. The memory comes from an allocator that the compiler knows nothing of.
        let into = unsafe { std::slice::from_raw_parts_mut(data, byte_len) };
        self.read_region(ordinal, place.region, into)?;
        Ok(into)
    }
}
