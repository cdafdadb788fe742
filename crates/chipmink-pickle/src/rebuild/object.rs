//! Makes builtin objects through CPython's C API, and fills those that are still being built.
//!
//! Every function here takes pointers that its caller holds references to, and needs the thread to be attached, which
//! the `Python` token proves.

use super::error::{Failure, Result};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::os::raw::c_int;

// Exported by CPython 3.11 to 3.13 for its own extension modules, but not declared by pyo3, or not for each of these.
unsafe extern "C" {
    fn _PyDict_NewPresized(minused: ffi::Py_ssize_t) -> *mut ffi::PyObject;
    fn _PyLong_FromByteArray(
        bytes: *const u8,
        byte_len: usize,
        is_little_endian: c_int,
        is_signed: c_int,
    ) -> *mut ffi::PyObject;
    fn _PyType_Lookup(ty: *mut ffi::PyTypeObject, name: *mut ffi::PyObject) -> *mut ffi::PyObject;
}

/// Takes over a new reference, or the exception that stands in its place.
#[inline(always)]
pub(super) fn own<'py>(py: Python<'py>, pointer: *mut ffi::PyObject) -> Result<Bound<'py, PyAny>> {
    // SAFETY: every caller passes what a C function that returns new references has just returned.
    match unsafe { Bound::from_owned_ptr_or_opt(py, pointer) } {
        Some(object) => Ok(object),
        None => Err(Failure::raised(py)),
    }
}

/// The result of a C function that returns -1 with an exception set.
#[inline(always)]
pub(super) fn done(py: Python<'_>, status: c_int) -> Result<()> {
    if status < 0 { Err(Failure::raised(py)) } else { Ok(()) }
}

#[inline(always)]
pub(super) fn none(py: Python<'_>) -> Bound<'_, PyAny> {
    // SAFETY: `None` lives for ever.
    unsafe { Bound::from_borrowed_ptr(py, ffi::Py_None()) }
}

pub(super) fn ellipsis(py: Python<'_>) -> Bound<'_, PyAny> {
    // SAFETY: it lives for ever.
    unsafe { Bound::from_borrowed_ptr(py, ffi::Py_Ellipsis()) }
}

pub(super) fn not_implemented(py: Python<'_>) -> Bound<'_, PyAny> {
    // SAFETY: it lives for ever.
    unsafe { Bound::from_borrowed_ptr(py, ffi::Py_NotImplemented()) }
}

#[inline(always)]
pub(super) fn boolean(py: Python<'_>, value: bool) -> Bound<'_, PyAny> {
    // SAFETY: both live for ever.
    unsafe { Bound::from_borrowed_ptr(py, if value { ffi::Py_True() } else { ffi::Py_False() }) }
}

#[inline(always)]
pub(super) fn int(py: Python<'_>, value: i64) -> Result<Bound<'_, PyAny>> {
    // SAFETY: the thread is attached.
    own(py, unsafe { ffi::PyLong_FromLongLong(value) })
}

/// An int of its two's complement, little-endian.
pub(super) fn big_int<'py>(py: Python<'py>, bytes: &[u8]) -> Result<Bound<'py, PyAny>> {
    // SAFETY: the slice is valid for its length; little-endian, signed.
    own(py, unsafe { _PyLong_FromByteArray(bytes.as_ptr(), bytes.len(), 1, 1) })
}

#[inline(always)]
pub(super) fn float(py: Python<'_>, value: f64) -> Result<Bound<'_, PyAny>> {
    // SAFETY: the thread is attached.
    own(py, unsafe { ffi::PyFloat_FromDouble(value) })
}

pub(super) fn complex(py: Python<'_>, real: f64, imaginary: f64) -> Result<Bound<'_, PyAny>> {
    // SAFETY: the thread is attached.
    own(py, unsafe { ffi::PyComplex_FromDoubles(real, imaginary) })
}

#[inline(always)]
pub(super) fn bytes<'py>(py: Python<'py>, content: &[u8]) -> Result<Bound<'py, PyAny>> {
    // SAFETY: the slice is valid for its length, which fits isize.
    own(py, unsafe {
        ffi::PyBytes_FromStringAndSize(content.as_ptr().cast(), content.len() as ffi::Py_ssize_t)
    })
}

pub(super) fn bytearray<'py>(py: Python<'py>, content: &[u8]) -> Result<Bound<'py, PyAny>> {
    // SAFETY: as for `bytes`.
    own(py, unsafe {
        ffi::PyByteArray_FromStringAndSize(content.as_ptr().cast(), content.len() as ffi::Py_ssize_t)
    })
}

/// A str of ASCII bytes, which the caller has checked to be ASCII.
#[inline(always)]
pub(super) fn ascii<'py>(py: Python<'py>, content: &[u8]) -> Result<Bound<'py, PyAny>> {
    debug_assert!(content.is_ascii());
    if content.len() < 2 {
        // SAFETY: one byte is one code point; the interpreter has these strings ready.
        return own(py, unsafe {
            ffi::PyUnicode_FromKindAndData(
                ffi::PyUnicode_1BYTE_KIND as c_int,
                content.as_ptr().cast(),
                content.len() as ffi::Py_ssize_t,
            )
        });
    }
    // SAFETY: the thread is attached; a maximum of 127 makes a compact ASCII str.
    let object = own(py, unsafe { ffi::PyUnicode_New(content.len() as ffi::Py_ssize_t, 127) })?;
    // SAFETY: the new str has room for `content.len()` bytes and a terminator that is set already; nobody else has it.
    unsafe {
        let data = ffi::PyUnicode_DATA(object.as_ptr()).cast::<u8>();
        std::ptr::copy_nonoverlapping(content.as_ptr(), data, content.len());
    }
    Ok(object)
}

/// The code points of a str that does not consist of ASCII alone, in a width of 1, 2 or 4 bytes.
///
/// # Errors
/// When a code point is none, or a narrower width would have done.
pub(super) fn wide_str<'py>(py: Python<'py>, width: u8, content: &[u8]) -> Result<Bound<'py, PyAny>> {
    let largest = largest_code_point(width, content)?;
    let count = content.len() / usize::from(width);
    if width == 1 && count == 1 {
        // SAFETY: one byte is one code point; the interpreter has these strings ready.
        return own(py, unsafe {
            ffi::PyUnicode_FromKindAndData(ffi::PyUnicode_1BYTE_KIND as c_int, content.as_ptr().cast(), 1)
        });
    }
    // SAFETY: the thread is attached; `largest` is below 0x110000.
    let object = own(py, unsafe { ffi::PyUnicode_New(count as ffi::Py_ssize_t, largest) })?;
    // SAFETY: `largest` demands exactly `width` bytes for each code point, so the new str has room for `content`; nobody
    // else has it.
    unsafe {
        let data = ffi::PyUnicode_DATA(object.as_ptr()).cast::<u8>();
        std::ptr::copy_nonoverlapping(content.as_ptr(), data, content.len());
    }
    Ok(object)
}

/// The largest code point, checked to demand exactly this width and to exist.
pub(super) fn largest_code_point(width: u8, content: &[u8]) -> Result<u32> {
    let (largest, expected) = match width {
        1 => (content.iter().fold(0, |max, &byte| max | u32::from(byte)), 0x80..=0xFF),
        2 => (
            content
                .chunks_exact(2)
                .fold(0, |max, pair| max.max(u32::from(u16::from_le_bytes([pair[0], pair[1]])))),
            0x100..=0xFFFF,
        ),
        4 => (
            content
                .chunks_exact(4)
                .fold(0, |max, quad| max.max(u32::from_le_bytes([quad[0], quad[1], quad[2], quad[3]]))),
            0x1_0000..=0x10_FFFF,
        ),
        _ => return Err(Failure::damaged(format!("a str has code points of {width} bytes"))),
    };
    if !content.len().is_multiple_of(usize::from(width)) || !expected.contains(&largest) {
        return Err(Failure::damaged(format!("a str's code points do not fit its width of {width} bytes")));
    }
    Ok(if width == 1 { 0xFF } else { largest })
}

/// An empty list with room for `room` items.
#[inline(always)]
pub(super) fn list(py: Python<'_>, room: usize) -> Result<Bound<'_, PyAny>> {
    // SAFETY: the thread is attached; callers bound `room` by the bytes that are left.
    let object = own(py, unsafe { ffi::PyList_New(room as ffi::Py_ssize_t) })?;
    // SAFETY: an exact list that nobody else has; its items are all null, so that none is lost, and `allocated` stays.
    unsafe { (*object.as_ptr().cast::<ffi::PyVarObject>()).ob_size = 0 };
    Ok(object)
}

/// Appends to an exact list, whatever other code has done to it since it was made.
#[inline(always)]
pub(super) fn append(py: Python<'_>, list: &Bound<'_, PyAny>, item: Bound<'_, PyAny>) -> Result<()> {
    let pointer = list.as_ptr();
    // SAFETY: an exact list. Its length and capacity are read anew each time; CPython keeps `ob_item` valid for
    // `allocated` pointers (and `allocated` below the length while it sorts), so a slot below it may be written, and
    // takes over the reference.
    unsafe {
        let fields = pointer.cast::<ffi::PyListObject>();
        let len = ffi::Py_SIZE(pointer);
        if len < (*fields).allocated {
            *(*fields).ob_item.add(len as usize) = item.into_ptr();
            (*pointer.cast::<ffi::PyVarObject>()).ob_size = len + 1;
            return Ok(());
        }
    }
    // SAFETY: both are alive; the list takes its own reference.
    done(py, unsafe { ffi::PyList_Append(pointer, item.as_ptr()) })
}

/// A tuple of these items.
#[inline(always)]
pub(super) fn tuple<'py>(
    py: Python<'py>,
    items: impl ExactSizeIterator<Item = Bound<'py, PyAny>>,
) -> Result<Bound<'py, PyAny>> {
    let len = items.len();
    // SAFETY: the thread is attached; the items exist already, so the length is no guess.
    let object = own(py, unsafe { ffi::PyTuple_New(len as ffi::Py_ssize_t) })?;
    let mut filled = 0;
    for item in items.take(len) {
        // SAFETY: in bounds; a new tuple's items are null; no Python code runs until all are set.
        unsafe { ffi::PyTuple_SET_ITEM(object.as_ptr(), filled, item.into_ptr()) };
        filled += 1;
    }
    debug_assert_eq!(filled as usize, len);
    Ok(object)
}

/// An empty dict; with room for `room` items if the keys will not be strs (a presized table is slower for those).
#[inline(always)]
pub(super) fn dict(py: Python<'_>, room: usize) -> Result<Bound<'_, PyAny>> {
    // SAFETY: the thread is attached; callers bound `room` by the bytes that are left.
    own(py, unsafe {
        if room <= 5 { ffi::PyDict_New() } else { _PyDict_NewPresized(room as ffi::Py_ssize_t) }
    })
}

/// `dict[key] = value` of an exact dict.
#[inline(always)]
pub(super) fn dict_set(
    py: Python<'_>,
    dict: &Bound<'_, PyAny>,
    key: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
) -> Result<()> {
    // SAFETY: all are alive.
    done(py, unsafe { ffi::PyDict_SetItem(dict.as_ptr(), key.as_ptr(), value.as_ptr()) })
}

/// The next item at or after `position`, which moves on. The dict may change in between; items may then be missed.
#[inline(always)]
pub(super) fn dict_next<'py>(
    dict: &Bound<'py, PyDict>,
    position: &mut ffi::Py_ssize_t,
) -> Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: a dict that is alive; the position is checked against the present table.
    if unsafe { ffi::PyDict_Next(dict.as_ptr(), position, &mut key, &mut value) } == 0 {
        return None;
    }
    // SAFETY: both were found in the dict just now, and become references of their own before anything else runs.
    unsafe { Some((Bound::from_borrowed_ptr(dict.py(), key), Bound::from_borrowed_ptr(dict.py(), value))) }
}

pub(super) fn set(py: Python<'_>) -> Result<Bound<'_, PyAny>> {
    // SAFETY: the thread is attached; null means no items.
    own(py, unsafe { ffi::PySet_New(std::ptr::null_mut()) })
}

pub(super) fn frozenset(py: Python<'_>) -> Result<Bound<'_, PyAny>> {
    // SAFETY: as for `set`. (A frozenset that is empty now need not be the shared empty one: 3.11 on makes a new one.)
    own(py, unsafe { ffi::PyFrozenSet_New(std::ptr::null_mut()) })
}

/// Adds to an exact set.
#[inline(always)]
pub(super) fn set_add(py: Python<'_>, set: &Bound<'_, PyAny>, item: &Bound<'_, PyAny>) -> Result<()> {
    // SAFETY: both are alive.
    done(py, unsafe { ffi::PySet_Add(set.as_ptr(), item.as_ptr()) })
}

/// Adds to an exact frozenset that may be known elsewhere already, but whose members were not all ready.
pub(super) fn frozenset_add(py: Python<'_>, set: &Bound<'_, PyAny>, item: &Bound<'_, PyAny>) -> Result<()> {
    // The hash runs first, so that most Python code sees the set under its own type.
    // SAFETY: alive.
    if unsafe { ffi::PyObject_Hash(item.as_ptr()) } == -1 {
        return Err(Failure::raised(py));
    }
    // SAFETY: set and frozenset share one layout and one set of functions, and their types are static, so that the type
    // field holds no reference; `PySet_Add` refuses a frozenset that is shared. `set` keeps the object alive, and the
    // type is put back on every path.
    let status = unsafe {
        let object = set.as_ptr();
        let own_type = ffi::Py_TYPE(object);
        (*object).ob_type = &raw mut ffi::PySet_Type;
        let status = ffi::PySet_Add(object, item.as_ptr());
        (*object).ob_type = own_type;
        status
    };
    done(py, status)
}

/// What `name`, a str, means in the classes of `ty`'s method resolution order; runs no Python code.
pub(super) fn type_lookup<'py>(
    py: Python<'py>,
    ty: *mut ffi::PyTypeObject,
    name: &Bound<'py, PyAny>,
) -> Option<Bound<'py, PyAny>> {
    // SAFETY: both are alive; the result is borrowed from the type, and never an error.
    unsafe { Bound::from_borrowed_ptr_or_opt(py, _PyType_Lookup(ty, name.as_ptr())) }
}

/// Whether hash and equality of an object are settled while objects that it leads to are still being built.
///
/// `true` for objects that compare by identity, for exact atoms, and for small tuples of such.
pub(super) fn hash_is_settled(object: &Bound<'_, PyAny>) -> bool {
    fn settled(object: *mut ffi::PyObject, levels: u32) -> bool {
        // SAFETY: alive: it is the caller's object, or an item of a tuple that is.
        unsafe {
            let ty = ffi::Py_TYPE(object);
            let hash = (*ty).tp_hash.map(|function| function as usize);
            let by_identity = ffi::PyBaseObject_Type.tp_hash.map(|function| function as usize);
            if hash == by_identity
                || ty == &raw mut ffi::PyUnicode_Type
                || ty == &raw mut ffi::PyLong_Type
                || ty == &raw mut ffi::PyFloat_Type
                || ty == &raw mut ffi::PyBytes_Type
                || ty == &raw mut ffi::PyBool_Type
                || object == ffi::Py_None()
            {
                return true;
            }
            ty == &raw mut ffi::PyTuple_Type
                && levels > 0
                && ffi::PyTuple_GET_SIZE(object) <= 16
                && (0..ffi::PyTuple_GET_SIZE(object))
                    .all(|i| settled(ffi::PyTuple_GET_ITEM(object, i), levels - 1))
        }
    }
    settled(object.as_ptr(), 4)
}
