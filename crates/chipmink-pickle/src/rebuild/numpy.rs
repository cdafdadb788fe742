//! numpy arrays, filled in place.
//!
//! A new array's memory is reached through the first fields of numpy's array struct, which every extension compiled
//! against numpy 1 or 2 reads in the same way (`PyArray_DATA` and its like are macros).

use super::containers::wrong_frame;
use super::error::{Failure, RebuildError, Result};
use super::frame::Build;
use super::loader::{Loader, Step};
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use std::os::raw::{c_char, c_int};

/// Names of numpy that a load uses.
#[derive(Clone)]
pub(super) struct Numpy<'py> {
    pub(super) ndarray: Bound<'py, PyAny>,
    pub(super) empty: Bound<'py, PyAny>,
    dtype: Bound<'py, PyAny>,
}

/// How `PyArrayObject` begins.
#[repr(C)]
struct ArrayFields {
    head: ffi::PyObject,
    data: *mut c_char,
    dimension_count: c_int,
    dimensions: *mut isize,
}

/// numpy's own bound on dimensions.
const MAX_DIMENSIONS: u8 = 64;

/// What stands before the elements of an array.
struct Header {
    order: u8,
    is_writable: bool,
    shape: Vec<u64>,
}

impl Header {
    /// How many elements the shape has.
    fn count(&self) -> Result<usize> {
        let count = self.shape.iter().try_fold(1u64, |count, &dimension| count.checked_mul(dimension));
        count
            .and_then(|count| usize::try_from(count).ok())
            .ok_or_else(|| Failure::damaged("an array is too large"))
    }
}

/// Where the first item of an array lies, and how many there are, as it is now.
pub(super) fn memory(array: &Bound<'_, PyAny>) -> (*mut u8, usize) {
    // SAFETY: the caller passes an ndarray; its first fields are fixed by numpy's binary interface, and
    // `dimensions` points at `dimension_count` numbers.
    unsafe {
        let fields = &*array.as_ptr().cast::<ArrayFields>();
        let mut count = 1usize;
        for i in 0..fields.dimension_count {
            count = count.saturating_mul((*fields.dimensions.add(i as usize)).cast_unsigned());
        }
        (fields.data.cast::<u8>(), count)
    }
}

impl<'py> Loader<'py, '_> {
    pub(super) fn numpy(&mut self) -> Result<Numpy<'py>> {
        if let Some(numpy) = &self.numpy {
            return Ok(numpy.clone());
        }
        let module = self.py.import("numpy")?;
        let numpy = Numpy {
            ndarray: module.getattr("ndarray")?,
            empty: module.getattr("empty")?,
            dtype: module.getattr("dtype")?,
        };
        Ok(self.numpy.insert(numpy).clone())
    }

    /// The dtype that a value is, or names.
    pub(super) fn as_dtype(&mut self, value: Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        let numpy = self.numpy()?;
        if value.is_instance(&numpy.dtype)? {
            Ok(value)
        } else if value.is_exact_instance_of::<PyString>() {
            self.dtype_of(&numpy, &value)
        } else {
            Err(Failure::damaged("an array's dtype is none"))
        }
    }

    fn array_header(&mut self) -> Result<Header> {
        let reader = &mut self.at.reader;
        let order = reader.byte()?;
        let writable = reader.byte()?;
        let dimension_count = reader.byte()?;
        if !matches!(order, b'C' | b'F') || writable > 1 || dimension_count > MAX_DIMENSIONS {
            return Err(Failure::damaged("an array's order, writability or number of dimensions is none"));
        }
        let shape = (0..dimension_count).map(|_| reader.varint()).collect::<Result<Vec<_>>>()?;
        Ok(Header { order, is_writable: writable == 1, shape })
    }

    /// The dtype that a string describes. Short strings are one object each, so the last is mostly asked for again.
    fn dtype_of(&mut self, numpy: &Numpy<'py>, text: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        if let Some((known, dtype)) = &self.last_dtype
            && known.is(text)
        {
            return Ok(dtype.clone());
        }
        let dtype = numpy.dtype.call1((text,))?;
        self.last_dtype = Some((text.clone(), dtype.clone()));
        Ok(dtype)
    }

    /// A new array with undefined content (null pointers or `None` for objects).
    fn empty_array(&mut self, dtype: &Bound<'py, PyAny>, header: &Header) -> Result<Bound<'py, PyAny>> {
        let numpy = self.numpy()?;
        let shape = PyTuple::new(self.py, &header.shape)?;
        let order = PyString::intern(self.py, if header.order == b'F' { "F" } else { "C" });
        let array = numpy.empty.call1((shape, dtype, order))?;
        if !array.get_type().is(&numpy.ndarray) {
            return Err(PyValueError::new_err("numpy.empty did not return a numpy.ndarray").into());
        }
        Ok(array)
    }

    /// Goes on when the dtype is there: the rest of the array follows.
    pub(super) fn fill_array(&mut self) -> Result<()> {
        let step = match self.delivered.take() {
            Some(dtype) => Step::Value(dtype),
            None => self.value(0)?,
        };
        let Step::Value(dtype) = step else { return Ok(()) };
        self.take_mark();
        let dtype = self.as_dtype(dtype)?;
        // Bytes of the stream must never become object pointers.
        if dtype.getattr("hasobject")?.is_truthy()? {
            return Err(Failure::damaged("an array of bytes has a dtype with objects"));
        }
        let header = self.array_header()?;
        let item_len = dtype.getattr("itemsize")?.extract::<usize>()?;
        let byte_len = header.count()?.checked_mul(item_len).filter(|&len| isize::try_from(len).is_ok());
        let byte_len = byte_len.ok_or_else(|| Failure::damaged("an array is too large"))?;
        let array = match self.at.reader.byte()? {
            0 => {
                let announced = self.at.reader.size()?;
                if announced != byte_len || byte_len > self.at.reader.remaining() {
                    return Err(Failure::damaged("an array's bytes do not fit its shape"));
                }
                let array = self.empty_array(&dtype, &header)?;
                let content = self.at.reader.take(byte_len)?;
                if !content.is_empty() {
                    check_len(&array, byte_len)?;
                    // SAFETY: a new contiguous array of `byte_len` bytes without objects, known to nobody else.
                    unsafe { std::ptr::copy_nonoverlapping(content.as_ptr(), memory(&array).0, byte_len) };
                }
                array
            }
            1 => {
                let region = self.at.reader.size()?;
                let view = self.at.reader.size()?;
                self.region_array(region, view, &dtype, &header, byte_len)?
            }
            other => return Err(Failure::damaged(format!("an array's content is of kind {other}"))),
        };
        if !header.is_writable {
            array.getattr("flags")?.setattr("writeable", false)?;
        }
        self.number(&array)?;
        self.close(array)
    }

    /// An array whose bytes are a region, or part of one.
    fn region_array(
        &mut self,
        ordinal: usize,
        view: usize,
        dtype: &Bound<'py, PyAny>,
        header: &Header,
        byte_len: usize,
    ) -> Result<Bound<'py, PyAny>> {
        let place = self.region_place(ordinal, view)?;
        let region = place.region;
        let is_outside = self.outside(ordinal)?.is_some();
        // (numpy itself checks the length of a buffer that the caller passed.)
        let end = place.byte_offset.checked_add(byte_len);
        if !is_outside && end.is_none_or(|end| end > place.byte_len) {
            return Err(Failure::damaged("an array reaches beyond its region"));
        }
        let is_whole = byte_len == place.byte_len && region.views.len() == 1;
        if is_whole && byte_len > 0 && !is_outside {
            if let Some(array) = self.mapped_array(region, |loader, _| loader.empty_array(dtype, header))? {
                return Ok(array);
            }
            let array = self.empty_array(dtype, header)?;
            check_len(&array, byte_len)?;
            // SAFETY: a new contiguous array of `byte_len` bytes without objects, known to nobody else, that lives until
            // the slice is gone. Its memory comes from an allocator that the compiler knows nothing of.
            let into = unsafe { std::slice::from_raw_parts_mut(memory(&array).0, byte_len) };
            self.read_region(ordinal, region, into)?;
            return Ok(array);
        }
        let base = self.region_base(ordinal)?;
        let options = PyDict::new(self.py);
        options.set_item("dtype", dtype)?;
        options.set_item("buffer", base)?;
        options.set_item("offset", place.byte_offset)?;
        options.set_item("order", if header.order == b'F' { "F" } else { "C" })?;
        Ok(self.numpy()?.ndarray.call((PyTuple::new(self.py, &header.shape)?,), Some(&options))?)
    }

    /// The object whose buffer is a region that several arrays, or an array and its reader, share.
    pub(super) fn region_base(&mut self, ordinal: usize) -> Result<Bound<'py, PyAny>> {
        if let Some(object) = self.outside(ordinal)? {
            return Ok(object);
        }
        if let Some((_, base)) = self.current()?.regions.iter().find(|(known, _)| *known == ordinal) {
            return Ok(base.clone());
        }
        let base = self.region_bytearray(ordinal)?;
        self.current()?.regions.push((ordinal, base.clone()));
        Ok(base)
    }

    /// Lets an array announce so many objects, each of which takes a byte of the pod.
    pub(super) fn take_element_room(&mut self, count: usize) -> Result<()> {
        self.at.element_room = self
            .at
            .element_room
            .checked_sub(count)
            .filter(|_| count <= self.at.reader.remaining())
            .ok_or_else(|| Failure::damaged("an array announces more objects than there are bytes"))?;
        Ok(())
    }

    pub(super) fn begin_object_array(&mut self) -> Result<Step<'py>> {
        let header = self.array_header()?;
        let count = header.count()?;
        self.take_element_room(count)?;
        let dtype = PyString::intern(self.py, "O").into_any();
        let array = self.empty_array(&dtype, &header)?;
        let (made, writable) = (array.clone(), header.is_writable);
        self.open(&array.clone(), Build::ObjectArray { array, made, next: 0, count, writable })
    }

    pub(super) fn fill_object_array(&mut self, top: usize) -> Result<()> {
        let Build::ObjectArray { array, made, next, count, writable } = &self.stack[top].build else {
            return Err(wrong_frame());
        };
        let (array, made, mut next, count, writable) =
            (array.clone(), made.clone(), *next, *count, *writable);
        let mut delivered = self.delivered.take();
        while next < count {
            if next % (1 << 16) == 0 {
                self.check_signals()?;
            }
            let step = match delivered.take() {
                Some(value) => Step::Value(value),
                None => self.value(0)?,
            };
            let Step::Value(value) = step else {
                let Build::ObjectArray { next: kept, .. } = &mut self.stack[top].build else {
                    return Err(wrong_frame());
                };
                *kept = next;
                return Ok(());
            };
            self.absorb(top);
            // Code that ran since the last element may have resized the array.
            let (data, present) = memory(&array);
            if present != count {
                return Err(PyValueError::new_err("an array was resized while it was being restored").into());
            }
            // SAFETY: element `next` of a contiguous array of `count` object pointers: null, or a reference that the array
            // owns; it now owns the new one instead, and the old is dropped after.
            unsafe {
                let slot = data.cast::<*mut ffi::PyObject>().add(next);
                let old = std::ptr::replace(slot, value.into_ptr());
                ffi::Py_XDECREF(old);
            }
            next += 1;
        }
        if !writable {
            made.getattr("flags")?.setattr("writeable", false)?;
        }
        self.close(made)
    }
}

/// # Errors
/// When an array that numpy made does not have the size it was asked for.
fn check_len(array: &Bound<'_, PyAny>, byte_len: usize) -> Result<()> {
    let present = array.getattr("nbytes")?.extract::<usize>()?;
    if present != byte_len {
        let reason = format!("numpy made an array of {present} bytes where {byte_len} were asked for");
        return Err(RebuildError::Plan(reason).into());
    }
    Ok(())
}
