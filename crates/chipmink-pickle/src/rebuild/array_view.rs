//! numpy arrays that show part of a buffer: one of their own, a region, or the memory of another object.
//!
//! They are made through numpy's own table of C functions, which can place an array of any strides anywhere. So
//! everything is checked here first: what an array reaches lies inside the memory of an object that it keeps alive, and
//! memory of object references is shown only as such.

use super::containers::wrong_frame;
use super::error::{Failure, Result};
use super::frame::Build;
use super::loader::{Loader, Step};
use super::numpy::Numpy;
use chipmink_format::tag;
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyMemoryView, PyString};
use smallvec::SmallVec;
use std::os::raw::{c_int, c_void};

/// numpy's own bound on dimensions.
const MAX_DIMENSIONS: u8 = 64;
/// Longest chain of bases that is followed.
const MAX_BASES: usize = 64;

const WRITEABLE: c_int = 0x400;

/// `PyArray_NewFromDescr`.
type NewFromDescr = unsafe extern "C" fn(
    *mut ffi::PyTypeObject,
    *mut ffi::PyObject,
    c_int,
    *const isize,
    *const isize,
    *mut c_void,
    c_int,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;
/// `PyArray_SetBaseObject`.
type SetBaseObject = unsafe extern "C" fn(*mut ffi::PyObject, *mut ffi::PyObject) -> c_int;

/// Places of the two in numpy's table of C functions, the same since numpy 1.7 (`__multiarray_api.h`).
const NEW_FROM_DESCR: usize = 94;
const SET_BASE_OBJECT: usize = 282;

/// Functions of numpy's C interface.
#[derive(Clone, Copy)]
pub(super) struct NumpyCalls {
    new_from_descr: NewFromDescr,
    set_base_object: SetBaseObject,
}

impl NumpyCalls {
    pub(super) fn find(py: Python<'_>) -> PyResult<Self> {
        let table = api_table(py)?;
        // SAFETY: numpy's table has more than 282 entries, whose places and types are part of its binary interface, and
        // it lives as long as the process.
        unsafe {
            Ok(NumpyCalls {
                new_from_descr: std::mem::transmute::<*const c_void, NewFromDescr>(
                    *table.add(NEW_FROM_DESCR),
                ),
                set_base_object: std::mem::transmute::<*const c_void, SetBaseObject>(
                    *table.add(SET_BASE_OBJECT),
                ),
            })
        }
    }
}

/// numpy's table of C functions. It lives as long as the process.
pub(super) fn api_table(py: Python<'_>) -> PyResult<*const *const c_void> {
    let module = match py.import("numpy._core._multiarray_umath") {
        Ok(module) => module,
        Err(_) => py.import("numpy.core._multiarray_umath")?,
    };
    let capsule = module.getattr("_ARRAY_API")?;
    // SAFETY: the capsule has no name; its pointer is null with an exception if it is no such capsule.
    let table = unsafe { ffi::PyCapsule_GetPointer(capsule.as_ptr(), std::ptr::null()) };
    if table.is_null() {
        return Err(PyErr::fetch(py));
    }
    Ok(table.cast::<*const c_void>().cast_const())
}

/// An array on its way.
pub(super) struct ArrayView<'py> {
    /// It came to exist while its parts were read: they are dropped and a reference follows.
    again: bool,
    dtype: Option<Bound<'py, PyAny>>,
    is_writable: bool,
    shape: SmallVec<[isize; 4]>,
    strides: SmallVec<[isize; 4]>,
    /// From the first byte of the object that is read last.
    distance: i64,
}

/// Bytes that an object keeps alive.
struct Memory<'py> {
    object: Bound<'py, PyAny>,
    start: usize,
    byte_len: usize,
    is_writable: bool,
    has_references: bool,
}

impl<'py> Memory<'py> {
    /// That of a new array of bytes.
    fn of_array(object: Bound<'py, PyAny>) -> Self {
        let (start, byte_len) = super::numpy::memory(&object);
        Memory { object, start: start as usize, byte_len, is_writable: true, has_references: false }
    }
}

impl<'py> Loader<'py, '_> {
    pub(super) fn begin_array_view(&mut self, again: bool) -> Result<Step<'py>> {
        self.open_later(Build::ArrayView(Box::new(ArrayView {
            again,
            dtype: None,
            is_writable: false,
            shape: SmallVec::new(),
            strides: SmallVec::new(),
            distance: 0,
        })))
    }

    pub(super) fn fill_array_view(&mut self, top: usize) -> Result<()> {
        loop {
            let step = match self.delivered.take() {
                Some(value) => Step::Value(value),
                None => self.value(0)?,
            };
            let Step::Value(value) = step else { return Ok(()) };
            self.absorb(top);
            let Build::ArrayView(view) = &self.stack[top].build else { return Err(wrong_frame()) };
            if view.dtype.is_some() {
                // The object whose memory is shown.
                if view.again {
                    self.stack[top].build = Build::Again;
                    return self.fill_again();
                }
                let distance = view.distance;
                let (memory, first) = self.memory_of(&value)?;
                return self.end_array_view(top, &memory, first.wrapping_add_signed(distance as isize));
            }
            let dtype = self.as_dtype(value)?;
            if self.view_header(top, dtype)? {
                return Ok(());
            }
        }
    }

    /// Reads what stands behind the dtype; returns whether the array is done with that.
    fn view_header(&mut self, top: usize, dtype: Bound<'py, PyAny>) -> Result<bool> {
        let Build::ArrayView(view) = &self.stack[top].build else { return Err(wrong_frame()) };
        let again = view.again;
        let layout = ArrayView { dtype: Some(dtype), ..self.layout(again)? };
        let kind = self.at.reader.byte()?;
        let Build::ArrayView(view) = &mut self.stack[top].build else { return Err(wrong_frame()) };
        **view = layout;
        let (memory, first) = match kind {
            tag::ARRAY_SHARED => {
                view.distance = tag::unzigzag(self.at.reader.varint()?);
                return Ok(false);
            }
            _ if again => {
                return Err(Failure::damaged("an array that exists already brings bytes of its own"));
            }
            tag::ARRAY_INLINE => {
                let offset = self.at.reader.size()?;
                let byte_len = self.at.reader.size()?;
                if byte_len > self.at.reader.remaining() {
                    return Err(Failure::damaged("an array's bytes do not fit the pod"));
                }
                let memory = self.new_memory(byte_len)?;
                let content = self.at.reader.take(byte_len)?;
                if byte_len > 0 {
                    // SAFETY: new memory of so many bytes, known to nobody else.
                    unsafe {
                        std::ptr::copy_nonoverlapping(content.as_ptr(), memory.start as *mut u8, byte_len);
                    }
                }
                let first = memory.start.saturating_add(offset);
                (memory, first)
            }
            tag::ARRAY_REGION => {
                let ordinal = self.at.reader.size()?;
                let view = self.at.reader.size()?;
                let place = self.region_place(ordinal, view)?;
                let (region, byte_len, offset) = (place.region, place.byte_len, place.byte_offset);
                if region.views.len() > 1 {
                    let base = self.region_base(ordinal)?;
                    let (memory, start) = self.memory_of(&base)?;
                    self.end_array_view(top, &memory, start.saturating_add(offset))?;
                    return Ok(true);
                }
                let make = |_: &mut Self, numpy: &Numpy<'py>| Ok(numpy.empty.call1((byte_len, "u1"))?);
                if let Some(object) = self.mapped_array(region, make)? {
                    let memory = Memory::of_array(object);
                    let first = memory.start + offset;
                    self.end_array_view(top, &memory, first)?;
                    return Ok(true);
                }
                let memory = self.new_memory(byte_len)?;
                if byte_len > 0 {
                    // SAFETY: new memory of so many bytes, known to nobody else, of an allocator that the compiler knows
                    // nothing of; `memory` keeps it.
                    let into = unsafe { std::slice::from_raw_parts_mut(memory.start as *mut u8, byte_len) };
                    self.read_region(ordinal, region, into)?;
                }
                let first = memory.start + offset;
                (memory, first)
            }
            other => return Err(Failure::damaged(format!("an array's content is of kind {other}"))),
        };
        self.end_array_view(top, &memory, first)?;
        Ok(true)
    }

    /// New memory, as an array of bytes.
    fn new_memory(&mut self, byte_len: usize) -> Result<Memory<'py>> {
        let memory = Memory::of_array(self.numpy()?.empty.call1((byte_len, "u1"))?);
        if memory.byte_len != byte_len {
            return Err(PyValueError::new_err("numpy.empty made an array of another size").into());
        }
        Ok(memory)
    }

    /// The memory in which an object's first byte lies, and where that is.
    fn memory_of(&mut self, object: &Bound<'py, PyAny>) -> Result<(Memory<'py>, usize)> {
        let numpy = self.numpy()?;
        let mut owner = object.clone();
        let mut first = None;
        for _ in 0..MAX_BASES {
            if !owner.is_instance(&numpy.ndarray)? {
                break;
            }
            first = first.or(Some(super::numpy::memory(&owner).0 as usize));
            let base = owner.getattr("base")?;
            if base.is_none() {
                let has_references = owner.getattr("dtype")?.getattr("hasobject")?.is_truthy()?;
                let is_whole = owner.getattr("flags")?.getattr("forc")?.is_truthy()?;
                if !is_whole {
                    return Err(Failure::damaged("an array shows memory of one that has gaps"));
                }
                let byte_len = owner.getattr("nbytes")?.extract::<usize>()?;
                let start = super::numpy::memory(&owner).0 as usize;
                let memory = Memory { object: owner, start, byte_len, is_writable: true, has_references };
                return Ok((memory, first.unwrap_or(start)));
            }
            owner = base;
        }
        if owner.is_instance(&numpy.ndarray)? {
            return Err(Failure::damaged("an array shows memory behind too many others"));
        }
        // The memory view holds the export, so that the memory stays where it is.
        let export = PyMemoryView::from(&owner)?;
        let buffer = PyUntypedBuffer::get(export.as_any())?;
        if !buffer.is_c_contiguous() && !buffer.is_fortran_contiguous() {
            return Err(Failure::damaged("an array shows memory of an object that has it in pieces"));
        }
        if names_references(buffer.format().to_bytes()) {
            return Err(Failure::damaged("an array shows references as bytes"));
        }
        let start = buffer.buf_ptr() as usize;
        let memory = Memory {
            object: export.into_any(),
            start,
            byte_len: buffer.len_bytes(),
            is_writable: !buffer.readonly(),
            has_references: false,
        };
        Ok((memory, first.unwrap_or(start)))
    }

    /// An array of references that shows part of a run of them, which follow.
    pub(super) fn begin_object_view(&mut self) -> Result<Step<'py>> {
        let dtype = self.as_dtype(PyString::intern(self.py, "O").into_any())?;
        let mut view = self.layout(false)?;
        let word = size_of::<usize>();
        for stride in &mut view.strides {
            *stride =
                stride.checked_mul(word as isize).ok_or_else(|| Failure::damaged("an array is too large"))?;
        }
        let offset = self.at.reader.size()?.checked_mul(word);
        let count = self.at.reader.size()?;
        self.take_element_room(count)?;
        let array = self.numpy()?.empty.call1((count, &dtype))?;
        let start = super::numpy::memory(&array).0 as usize;
        let byte_len = count * word;
        let memory =
            Memory { object: array.clone(), start, byte_len, is_writable: true, has_references: true };
        let first = offset.and_then(|offset| start.checked_add(offset));
        let first = first.ok_or_else(|| Failure::damaged("an array reaches beyond its buffer"))?;
        let made = self.place_array(&view, dtype, &memory, first)?;
        self.open(&made.clone(), Build::ObjectArray { array, made, next: 0, count, writable: true })
    }

    /// Writability, shape and strides.
    fn layout(&mut self, again: bool) -> Result<ArrayView<'py>> {
        let reader = &mut self.at.reader;
        let (writable, dimensions) = (reader.byte()?, reader.byte()?);
        if writable > 1 || dimensions > MAX_DIMENSIONS {
            return Err(Failure::damaged("an array's writability or number of dimensions is none"));
        }
        let (mut shape, mut strides) = (SmallVec::new(), SmallVec::new());
        for _ in 0..dimensions {
            let len = reader.size()?;
            shape.push(isize::try_from(len).map_err(|_| Failure::damaged("an array is too large"))?);
            strides.push(tag::unzigzag(reader.varint()?) as isize);
        }
        Ok(ArrayView { again, dtype: None, is_writable: writable == 1, shape, strides, distance: 0 })
    }

    /// Makes the array of the frame, whose first element lies at `first`.
    fn end_array_view(&mut self, top: usize, memory: &Memory<'py>, first: usize) -> Result<()> {
        let build = std::mem::replace(&mut self.stack[top].build, Build::Again);
        let Build::ArrayView(mut view) = build else { return Err(wrong_frame()) };
        let Some(dtype) = view.dtype.take() else { return Err(wrong_frame()) };
        let array = self.place_array(&view, dtype, memory, first)?;
        self.number(&array)?;
        self.close(array)
    }

    /// An array whose first element lies at `first`.
    fn place_array(
        &mut self,
        view: &ArrayView<'py>,
        dtype: Bound<'py, PyAny>,
        memory: &Memory<'py>,
        first: usize,
    ) -> Result<Bound<'py, PyAny>> {
        let calls = match self.numpy_calls {
            Some(calls) => calls,
            None => *self.numpy_calls.insert(NumpyCalls::find(self.py)?),
        };
        let ndarray = self.numpy()?.ndarray;
        let item_len = dtype.getattr("itemsize")?.extract::<usize>()?;
        let has_references = dtype.getattr("hasobject")?.is_truthy()?;
        let word = size_of::<usize>();
        let is_aligned = (first - memory.start.min(first)).is_multiple_of(word)
            && view.strides.iter().all(|stride| stride.unsigned_abs().is_multiple_of(word));
        let is_plain_object = has_references && dtype.getattr("str")?.eq("|O")?;
        if has_references != memory.has_references
            || (has_references && !(is_plain_object && is_aligned && self.holds_plain_objects(memory)?))
        {
            return Err(Failure::damaged("an array shows references as bytes, or bytes as references"));
        }
        if view.is_writable && !memory.is_writable {
            return Err(Failure::damaged("a writable array shows memory that is not"));
        }
        if !reaches_only(view, item_len, first, memory) {
            return Err(Failure::damaged("an array reaches beyond its buffer"));
        }
        let flags = if view.is_writable { WRITEABLE } else { 0 };
        // SAFETY: the class `numpy.ndarray`; a dtype, of which a new reference is given away; shape and strides of the
        // announced number; all that they reach is memory of `memory.object`, which becomes the base.
        let array = unsafe {
            (calls.new_from_descr)(
                ndarray.as_ptr().cast(),
                dtype.into_ptr(),
                view.shape.len() as c_int,
                view.shape.as_ptr(),
                view.strides.as_ptr(),
                first as *mut c_void,
                flags,
                std::ptr::null_mut(),
            )
        };
        let array = super::object::own(self.py, array)?;
        // SAFETY: a new array without a base; a new reference to the base is given away.
        let status = unsafe { (calls.set_base_object)(array.as_ptr(), memory.object.clone().into_ptr()) };
        super::object::done(self.py, status)?;
        Ok(array)
    }

    fn holds_plain_objects(&self, memory: &Memory<'py>) -> Result<bool> {
        Ok(memory.object.getattr("dtype")?.getattr("str")?.eq("|O")?)
    }
}

/// Whether a format of the buffer protocol has object references among its items. Names of fields stand between colons.
fn names_references(format: &[u8]) -> bool {
    let outside = format.split(|byte| *byte == b':').step_by(2);
    outside.flatten().any(|byte| *byte == b'O')
}

/// Whether all items lie inside the memory.
fn reaches_only(view: &ArrayView<'_>, item_len: usize, first: usize, memory: &Memory<'_>) -> bool {
    let end = memory.start as i128 + memory.byte_len as i128;
    let (mut from, mut to) = (first as i128, first as i128);
    if view.shape.contains(&0) || item_len == 0 {
        return memory.start as i128 <= from && to <= end;
    }
    for (len, stride) in view.shape.iter().zip(&view.strides) {
        let reach = (*len as i128 - 1) * *stride as i128;
        if reach < 0 { from += reach } else { to += reach }
    }
    memory.start as i128 <= from && to + item_len as i128 <= end
}
