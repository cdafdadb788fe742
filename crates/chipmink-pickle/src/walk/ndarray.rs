//! The layout of numpy's arrays, read in place.
//!
//! The head of the array object is part of numpy's binary interface since 1.7; it is compared with a live array before
//! anything relies on it. Nothing here runs Python code.

use super::memory::Span;
use crate::py::Obj;
use pyo3::exceptions::{PyAttributeError, PyLookupError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;

/// The head of numpy's array object.
#[repr(C)]
pub(crate) struct ArrayObject {
    head: ffi::PyObject,
    pub data: *mut u8,
    pub nd: i32,
    dimensions: *const isize,
    strides: *const isize,
    pub base: *mut ffi::PyObject,
    pub descr: *mut ffi::PyObject,
    flags: i32,
}

const C_CONTIGUOUS: i32 = 0x1;
const F_CONTIGUOUS: i32 = 0x2;
const WRITEABLE: i32 = 0x400;

/// Longest chain of bases that is followed.
const MAX_BASES: usize = 64;

/// Addresses of `numpy.ndarray` and of the metaclass of dtypes, if numpy has been imported and its arrays have the
/// layout that is read here; else 0.
///
/// # Errors
/// What a signal handler of the program raised meanwhile.
pub(crate) fn numpy_types(py: Python<'_>) -> PyResult<(usize, usize)> {
    match check_layout(py) {
        // Not imported, only half imported, or another module of that name.
        Err(error)
            if error.is_instance_of::<PyLookupError>(py)
                || error.is_instance_of::<PyAttributeError>(py)
                || error.is_instance_of::<PyTypeError>(py) =>
        {
            Ok((0, 0))
        }
        answer => answer,
    }
}

fn check_layout(py: Python<'_>) -> PyResult<(usize, usize)> {
    let modules = py.import("sys")?.getattr("modules")?;
    let numpy = modules.get_item("numpy")?;
    let ty = numpy.getattr("ndarray")?;
    let sample = numpy.call_method1("zeros", ((2, 3), "i2"))?;
    let array = view(Obj::of(&sample));
    let descr = sample.getattr("dtype")?;
    let data: usize = sample.getattr("ctypes")?.getattr("data")?.extract()?;
    let as_expected = array.nd == 2
        && array.data as usize == data
        && array.descr == descr.as_ptr()
        && array.base.is_null()
        && array.flags & (C_CONTIGUOUS | WRITEABLE) == C_CONTIGUOUS | WRITEABLE
        && array.dimensions() == [2, 3]
        && array.strides() == [6, 2];
    super::scalars::Scalars::learn(py)?;
    let meta = descr.get_type().get_type().as_ptr() as usize;
    Ok(if as_expected { (ty.as_ptr() as usize, meta) } else { (0, 0) })
}

/// The array behind an object that is a `numpy.ndarray` or an instance of a subclass.
pub(crate) fn view<'a>(array: Obj) -> &'a ArrayObject {
    // SAFETY: an array, whose layout was checked when the walk began; it is alive.
    unsafe { &*array.ptr().cast::<ArrayObject>() }
}

impl ArrayObject {
    pub(crate) fn dimensions(&self) -> &[isize] {
        self.numbers(self.dimensions)
    }

    /// Bytes from one item to the next, in each dimension.
    pub(crate) fn strides(&self) -> &[isize] {
        self.numbers(self.strides)
    }

    fn numbers(&self, from: *const isize) -> &[isize] {
        if self.nd <= 0 || from.is_null() {
            return &[];
        }
        // SAFETY: dimensions and strides have `nd` entries.
        unsafe { std::slice::from_raw_parts(from, self.nd as usize) }
    }

    pub(crate) fn item_count(&self) -> usize {
        self.dimensions().iter().map(|len| *len as usize).product()
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.flags & WRITEABLE != 0
    }

    /// The order in which the items lie one after another without a gap, if there is one.
    pub(crate) fn order(&self) -> Option<u8> {
        if self.flags & C_CONTIGUOUS != 0 {
            Some(b'C')
        } else if self.flags & F_CONTIGUOUS != 0 {
            Some(b'F')
        } else {
            None
        }
    }

    /// The memory that its items reach; empty if there are none.
    pub(crate) fn span(&self, item_len: usize) -> Span {
        let first = self.data as usize;
        if self.item_count() == 0 || item_len == 0 {
            return Span { start: first, end: first };
        }
        let (mut start, mut end) = (first, first + item_len);
        for (len, stride) in self.dimensions().iter().zip(self.strides()) {
            let reach = (len - 1).wrapping_mul(*stride);
            if reach < 0 {
                start = start.wrapping_add_signed(reach);
            } else {
                end = end.wrapping_add_signed(reach);
            }
        }
        Span { start, end }
    }

    /// Shape, order, writability and, if asked for, strides: in one word.
    pub(crate) fn fingerprint(&self, has_strides: bool) -> u64 {
        let mut bytes = Vec::with_capacity(80);
        for len in self.dimensions() {
            bytes.extend_from_slice(&len.to_le_bytes());
        }
        if has_strides {
            for stride in self.strides() {
                bytes.extend_from_slice(&stride.to_le_bytes());
            }
        }
        bytes.extend_from_slice(&(self.flags & (C_CONTIGUOUS | F_CONTIGUOUS | WRITEABLE)).to_le_bytes());
        super::regions::digest_words(&chipmink_digest::digest(&bytes))[0]
    }

    /// The items of a contiguous object array.
    pub(crate) fn object_items<'a>(&self) -> &'a [Obj] {
        let len = self.item_count();
        if len == 0 || self.data.is_null() {
            return &[];
        }
        // SAFETY: an aligned, contiguous array of references (checked by the callers); items are never null once an array
        // is visible to Python code, and `Obj` has the layout of a pointer.
        unsafe { std::slice::from_raw_parts(self.data.cast::<Obj>(), len) }
    }
}

/// The object that owns the memory of an array in the end: its base's base, and so on, through memory views; and the
/// last array on the way there.
pub(crate) fn owner(py: Python<'_>, array: Obj, ndarray: usize) -> (Obj, Obj) {
    let (mut object, mut last) = (array, array);
    for _ in 0..MAX_BASES {
        let next = if is_array(object, ndarray) {
            last = object;
            view(object).base
        } else if object.is_memoryview() {
            // A getter in C; a released view has no object any more.
            match object.bound(py).getattr(pyo3::intern!(py, "obj")) {
                Ok(exporter) if !exporter.is_none() => exporter.as_ptr(),
                _ => return (object, last),
            }
        } else {
            return (object, last);
        };
        if next.is_null() {
            return (object, last);
        }
        // SAFETY: the array, or the view, keeps it alive.
        object = unsafe { Obj::from_ptr(next) };
    }
    (object, last)
}

/// Whether an object is an array of any subclass.
pub(crate) fn is_array(object: Obj, ndarray: usize) -> bool {
    // SAFETY: live types; only the method resolution order is looked at.
    object.ty_addr() == ndarray
        || (ndarray != 0
            && unsafe { ffi::PyType_IsSubtype(object.ty(), ndarray as *mut ffi::PyTypeObject) } != 0)
}
