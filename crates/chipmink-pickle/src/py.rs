//! The few facts about CPython's objects that a walk reads without calling Python.
//!
//! Invariant: an [`Obj`] is made only of a pointer to an object that is alive, and is used only while the thread that
//! made it is attached to the interpreter and somebody who outlives the use owns a reference. A walk guarantees it: the
//! namespace owns everything reachable while no Python code runs, and before Python code may run the walk takes
//! references of its own (`Walker::hold`). All layouts read here are those of CPython 3.11 to 3.13 with the GIL.

use pyo3::ffi;
use pyo3::prelude::*;
use std::os::raw::c_int;

// Exported by CPython 3.11 to 3.13, for its own pickle module among others, but not declared by pyo3.
unsafe extern "C" {
    fn _PySet_NextEntry(
        set: *mut ffi::PyObject,
        position: *mut ffi::Py_ssize_t,
        key: *mut *mut ffi::PyObject,
        hash: *mut ffi::Py_hash_t,
    ) -> c_int;
    fn _PyLong_NumBits(value: *mut ffi::PyObject) -> usize;
    #[cfg(not(Py_3_13))]
    fn _PyLong_AsByteArray(
        value: *mut ffi::PyObject,
        bytes: *mut u8,
        n: usize,
        little_endian: c_int,
        is_signed: c_int,
    ) -> c_int;
    #[cfg(Py_3_13)]
    fn _PyLong_AsByteArray(
        value: *mut ffi::PyObject,
        bytes: *mut u8,
        n: usize,
        little_endian: c_int,
        is_signed: c_int,
        with_exceptions: c_int,
    ) -> c_int;
    fn PyOS_InterruptOccurred() -> c_int;
    fn _PyType_Lookup(ty: *mut ffi::PyTypeObject, name: *mut ffi::PyObject) -> *mut ffi::PyObject;
}

/// A live Python object, borrowed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Obj(*mut ffi::PyObject);

/// Whether a type is exactly the named static type.
macro_rules! exact {
    ($($name:ident => $ty:ident),* $(,)?) => {
        $(#[inline(always)]
        pub(crate) fn $name(self) -> bool {
            self.ty() == &raw mut ffi::$ty
        })*
    };
}

impl Obj {
    /// # Safety
    /// `pointer` is not null, and the module's invariant holds for it.
    #[inline(always)]
    pub(crate) unsafe fn from_ptr(pointer: *mut ffi::PyObject) -> Self {
        debug_assert!(!pointer.is_null());
        Obj(pointer)
    }

    #[inline(always)]
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> Self {
        Obj(object.as_ptr())
    }

    #[inline(always)]
    pub(crate) fn ptr(self) -> *mut ffi::PyObject {
        self.0
    }

    #[inline(always)]
    pub(crate) fn addr(self) -> usize {
        self.0 as usize
    }

    #[inline(always)]
    pub(crate) fn ty(self) -> *mut ffi::PyTypeObject {
        // SAFETY: the object is alive (module invariant).
        unsafe { ffi::Py_TYPE(self.0) }
    }

    /// Its type, as an object.
    #[inline(always)]
    pub(crate) fn class(self) -> Obj {
        Obj(self.ty().cast())
    }

    #[inline(always)]
    pub(crate) fn ty_addr(self) -> usize {
        self.ty() as usize
    }

    exact! {
        is_str => PyUnicode_Type, is_int => PyLong_Type, is_float => PyFloat_Type, is_bytes => PyBytes_Type,
        is_bool => PyBool_Type, is_complex => PyComplex_Type, is_tuple => PyTuple_Type, is_list => PyList_Type,
        is_dict => PyDict_Type, is_set => PySet_Type, is_frozenset => PyFrozenSet_Type,
        is_bytearray => PyByteArray_Type, is_memoryview => PyMemoryView_Type, is_function => PyFunction_Type,
    }

    /// Whether it is an instance of `type` or of a metaclass.
    #[inline(always)]
    pub(crate) fn is_class(self) -> bool {
        // SAFETY: the object is alive.
        unsafe { ffi::PyType_Check(self.0) != 0 }
    }

    #[inline(always)]
    pub(crate) fn is_none(self) -> bool {
        // SAFETY: None is immortal.
        self.0 == unsafe { ffi::Py_None() }
    }

    #[inline(always)]
    pub(crate) fn is_ellipsis(self) -> bool {
        // SAFETY: immortal.
        self.0 == unsafe { ffi::Py_Ellipsis() }
    }

    #[inline(always)]
    pub(crate) fn is_not_implemented(self) -> bool {
        // SAFETY: immortal.
        self.0 == unsafe { ffi::Py_NotImplemented() }
    }

    /// Whether it is an exact immutable atom: only its value counts, never its identity.
    #[inline(always)]
    pub(crate) fn is_atom(self) -> bool {
        self.is_str()
            || self.is_int()
            || self.is_float()
            || self.is_bytes()
            || self.is_none()
            || self.is_bool()
            || self.is_complex()
    }

    #[inline(always)]
    pub(crate) fn refcount(self) -> isize {
        // SAFETY: the object is alive.
        unsafe { ffi::Py_REFCNT(self.0) as isize }
    }

    #[inline(always)]
    pub(crate) fn incref(self) {
        // SAFETY: the object is alive and the interpreter attached.
        unsafe { ffi::Py_INCREF(self.0) }
    }

    /// Gives up a reference taken by [`Obj::incref`].
    #[inline(always)]
    pub(crate) fn decref(self) {
        // SAFETY: the caller owns a reference (every use pairs with an `incref` or a new reference).
        unsafe { ffi::Py_DECREF(self.0) }
    }

    pub(crate) fn bound<'py>(self, py: Python<'py>) -> Bound<'py, PyAny> {
        // SAFETY: the object is alive; `py` proves that the interpreter is attached.
        unsafe { Bound::from_borrowed_ptr(py, self.0) }
    }

    #[inline(always)]
    pub(crate) fn float_value(self) -> f64 {
        debug_assert!(self.is_float());
        // SAFETY: an exact float.
        unsafe { ffi::PyFloat_AS_DOUBLE(self.0) }
    }

    pub(crate) fn complex_value(self) -> (f64, f64) {
        // SAFETY: an exact complex; these never fail on one.
        unsafe { (ffi::PyComplex_RealAsDouble(self.0), ffi::PyComplex_ImagAsDouble(self.0)) }
    }

    #[inline(always)]
    pub(crate) fn is_true(self) -> bool {
        // SAFETY: True is immortal.
        self.0 == unsafe { ffi::Py_True() }
    }

    /// The value of an exact int of at most one digit (below 2^30), read in place.
    #[inline(always)]
    pub(crate) fn small_int(self) -> Option<i64> {
        debug_assert!(self.is_int());
        // SAFETY: an exact int: after the two header words comes the tag (3.12+) or signed size (3.11), then digits of
        // 30 bits in u32; a digit is allocated even for zero.
        let (tag, digit) = unsafe {
            let words = self.0.cast::<isize>();
            (*words.add(2), i64::from(*words.add(3).cast::<u32>()))
        };
        #[cfg(Py_3_12)]
        {
            if tag >> 3 > 1 {
                return None;
            }
            Some(match tag & 3 {
                0 => digit,
                1 => 0,
                _ => -digit,
            })
        }
        #[cfg(not(Py_3_12))]
        match tag {
            0 => Some(0),
            1 => Some(digit),
            -1 => Some(-digit),
            _ => None,
        }
    }

    /// The value of an exact int if it fits.
    #[inline]
    pub(crate) fn int_value(self) -> Option<i64> {
        if let Some(value) = self.small_int() {
            return Some(value);
        }
        let mut overflow: c_int = 0;
        // SAFETY: an exact int; overflow is reported, never raised.
        let value = unsafe { ffi::PyLong_AsLongLongAndOverflow(self.0, &mut overflow) };
        (overflow == 0).then_some(value)
    }

    #[inline(always)]
    pub(crate) fn bytes_slice<'a>(self) -> &'a [u8] {
        debug_assert!(self.is_bytes());
        // SAFETY: an exact bytes object; its content never changes, and it outlives the use (module invariant).
        unsafe {
            std::slice::from_raw_parts(
                ffi::PyBytes_AS_STRING(self.0).cast::<u8>(),
                ffi::Py_SIZE(self.0) as usize,
            )
        }
    }

    /// Content of a bytearray: valid only until Python code runs.
    pub(crate) fn bytearray_slice<'a>(self) -> &'a [u8] {
        // SAFETY: an exact bytearray; no Python code runs while the slice is in use.
        unsafe {
            std::slice::from_raw_parts(
                ffi::PyByteArray_AsString(self.0).cast::<u8>().cast_const(),
                ffi::PyByteArray_Size(self.0) as usize,
            )
        }
    }

    #[inline(always)]
    pub(crate) fn str_len(self) -> usize {
        // SAFETY: an exact str.
        unsafe { ffi::PyUnicode_GET_LENGTH(self.0) as usize }
    }

    #[inline(always)]
    pub(crate) fn str_is_ascii(self) -> bool {
        // SAFETY: an exact str; exact strs of these versions are always ready, and ASCII ones compact.
        unsafe { ffi::PyUnicode_IS_COMPACT_ASCII(self.0) != 0 }
    }

    /// Bytes of a code point: 1, 2 or 4; the narrowest that fits.
    #[inline(always)]
    pub(crate) fn str_width(self) -> usize {
        // SAFETY: an exact str.
        unsafe { ffi::PyUnicode_KIND(self.0) as usize }
    }

    /// The code points in native order, `str_width` bytes each.
    #[inline(always)]
    pub(crate) fn str_raw<'a>(self) -> &'a [u8] {
        debug_assert!(self.is_str());
        // SAFETY: an exact str; its content never changes and it outlives the use.
        unsafe {
            std::slice::from_raw_parts(
                ffi::PyUnicode_DATA(self.0).cast::<u8>().cast_const(),
                self.str_len() * self.str_width(),
            )
        }
    }

    /// Whether a str is interned, so that equal names are one object.
    #[inline(always)]
    pub(crate) fn str_is_interned(self) -> bool {
        // SAFETY: an exact str: after header, length and hash (32 bytes) stands the state, whose lowest two bits say so.
        unsafe { *self.0.cast::<u8>().add(32).cast::<u32>() & 3 != 0 }
    }

    /// A copy of a str's text; lone surrogates are an error.
    pub(crate) fn str_text(self, py: Python<'_>) -> PyResult<String> {
        self.bound(py).extract::<String>()
    }

    #[inline(always)]
    pub(crate) fn list_len(self) -> usize {
        // SAFETY: a list.
        unsafe { ffi::PyList_GET_SIZE(self.0) as usize }
    }

    /// # Panics
    /// Never; `index` must be below the list's present length.
    #[inline(always)]
    pub(crate) fn list_item(self, index: usize) -> Obj {
        debug_assert!(index < self.list_len());
        // SAFETY: in bounds; items of a list that Python code can see are never null.
        unsafe { Obj(*(*self.0.cast::<ffi::PyListObject>()).ob_item.add(index)) }
    }

    /// Pointers of the items: valid until Python code runs.
    #[inline(always)]
    pub(crate) fn list_items<'a>(self) -> &'a [Obj] {
        let len = self.list_len();
        if len == 0 {
            return &[];
        }
        // SAFETY: `ob_item` has `len` live pointers; `Obj` has the layout of one; no Python code runs in between.
        unsafe {
            std::slice::from_raw_parts((*self.0.cast::<ffi::PyListObject>()).ob_item.cast::<Obj>(), len)
        }
    }

    #[inline(always)]
    pub(crate) fn tuple_len(self) -> usize {
        // SAFETY: a tuple.
        unsafe { ffi::PyTuple_GET_SIZE(self.0) as usize }
    }

    #[inline(always)]
    pub(crate) fn tuple_items<'a>(self) -> &'a [Obj] {
        // SAFETY: a tuple's items stand in it and never change once Python code can see it.
        unsafe {
            std::slice::from_raw_parts(
                (&raw const (*self.0.cast::<ffi::PyTupleObject>()).ob_item).cast::<Obj>(),
                self.tuple_len(),
            )
        }
    }

    #[inline(always)]
    pub(crate) fn dict_len(self) -> usize {
        // SAFETY: a dict.
        unsafe { ffi::PyDict_Size(self.0) as usize }
    }

    /// The next item at or after `position`, which moves on.
    #[inline(always)]
    pub(crate) fn dict_next(self, position: &mut ffi::Py_ssize_t) -> Option<(Obj, Obj)> {
        match crate::dict_table::Items::of(self) {
            Some(items) => items.next(position),
            None => self.dict_next_by_call(position),
        }
    }

    /// As [`Obj::dict_next`], by CPython itself.
    pub(crate) fn dict_next_by_call(self, position: &mut ffi::Py_ssize_t) -> Option<(Obj, Obj)> {
        let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: a dict; `PyDict_Next` checks the position against the present table.
        (unsafe { ffi::PyDict_Next(self.0, position, &mut key, &mut value) } != 0)
            .then_some((Obj(key), Obj(value)))
    }

    /// Number that changes with every change of the dict, unique over all dicts (3.11 only; 0 elsewhere).
    #[inline(always)]
    pub(crate) fn dict_version(self) -> u64 {
        #[cfg(Py_3_12)]
        {
            0
        }
        #[cfg(not(Py_3_12))]
        // SAFETY: in 3.11 `ma_version_tag` is the fourth word of a dict.
        unsafe {
            *self.0.cast::<u64>().add(3)
        }
    }

    #[inline(always)]
    pub(crate) fn set_len(self) -> usize {
        // SAFETY: a set or frozenset.
        unsafe { ffi::PySet_GET_SIZE(self.0) as usize }
    }

    /// Members in the order of the table.
    #[inline(always)]
    pub(crate) fn set_next(self, position: &mut ffi::Py_ssize_t) -> Option<Obj> {
        let mut key = std::ptr::null_mut();
        let mut hash: ffi::Py_hash_t = 0;
        // SAFETY: a set or frozenset.
        (unsafe { _PySet_NextEntry(self.0, position, &mut key, &mut hash) } != 0).then_some(Obj(key))
    }

    /// Whether the type gives its instances a `__dict__`.
    #[inline(always)]
    pub(crate) fn has_dict(self) -> bool {
        // SAFETY: the type of a live object is alive.
        unsafe { (*self.ty()).tp_dictoffset != 0 }
    }

    /// How many slots an instance without a `__dict__` has room for.
    #[inline(always)]
    pub(crate) fn slot_room(self) -> usize {
        if self.has_dict() {
            return 0;
        }
        // SAFETY: the type of a live object is alive, and `object` is static.
        let len = unsafe { (*self.ty()).tp_basicsize - ffi::PyBaseObject_Type.tp_basicsize };
        len.max(0).cast_unsigned() / size_of::<usize>()
    }

    /// The `__dict__` of an instance whose type has one, borrowed from the instance. `None` after an error, which is
    /// cleared.
    #[inline]
    pub(crate) fn instance_dict(self) -> Option<Obj> {
        if !self.has_dict() {
            return None;
        }
        // SAFETY: returns a new reference or null with an exception.
        unsafe {
            let dict = ffi::PyObject_GenericGetDict(self.0, std::ptr::null_mut());
            if dict.is_null() {
                ffi::PyErr_Clear();
                return None;
            }
            // The instance keeps its own reference.
            ffi::Py_DECREF(dict);
            Some(Obj(dict))
        }
    }
}

/// `tp_version_tag`: changes whenever the class is edited; 0 means unknown.
#[inline(always)]
pub(crate) fn type_version(ty: *mut ffi::PyTypeObject) -> u32 {
    // SAFETY: the type of a live object is alive.
    unsafe { (*ty).tp_version_tag }
}

/// `module.qualname` of a type, for messages.
pub(crate) fn type_name(object: &Bound<'_, PyAny>) -> String {
    let ty = object.get_type();
    match ty.fully_qualified_name() {
        Ok(name) => name.to_string(),
        Err(_) => "<unnamed type>".to_owned(),
    }
}

/// What `name`, an interned str, means in the classes of `ty`'s method resolution order; runs no Python code.
///
/// Gives the type a version tag if it had none and one can be had.
pub(crate) fn type_lookup(ty: *mut ffi::PyTypeObject, name: Obj) -> Option<Obj> {
    // SAFETY: the type of a live object is alive; the result is borrowed from the type.
    let found = unsafe { _PyType_Lookup(ty, name.ptr()) };
    (!found.is_null()).then_some(Obj(found))
}

/// Two's complement of an exact int, little-endian, as short as can be.
pub(crate) fn int_to_bytes(object: Obj) -> Vec<u8> {
    debug_assert!(object.is_int());
    // SAFETY: an exact int.
    let bits = unsafe { _PyLong_NumBits(object.ptr()) };
    // One bit more for the sign; exactly -2^(8k-1) needs a byte less, which is trimmed below.
    let mut bytes = vec![0u8; bits / 8 + 1];
    // SAFETY: an exact int that fits into so many bytes.
    let _fits = unsafe {
        #[cfg(not(Py_3_13))]
        {
            _PyLong_AsByteArray(object.ptr(), bytes.as_mut_ptr(), bytes.len(), 1, 1)
        }
        #[cfg(Py_3_13)]
        {
            _PyLong_AsByteArray(object.ptr(), bytes.as_mut_ptr(), bytes.len(), 1, 1, 0)
        }
    };
    while let [.., before, last] = bytes[..] {
        if (last == 0 && before < 0x80) || (last == 0xFF && before >= 0x80) {
            bytes.pop();
        } else {
            break;
        }
    }
    bytes
}

/// Asks for the memory at an address, which need not be valid.
#[inline(always)]
pub(crate) fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Whether Ctrl-C came, which is taken back by asking. No Python code runs.
pub(crate) fn take_interrupt() -> bool {
    // SAFETY: the interpreter is attached; off the main thread it answers no.
    unsafe { PyOS_InterruptOccurred() != 0 }
}

/// Lets the next look for signals find the interrupt that [`take_interrupt`] took.
pub(crate) fn give_interrupt_back() {
    // SAFETY: may be called at any time.
    unsafe { ffi::PyErr_SetInterrupt() }
}
