//! Reading the items of a dict in place.
//!
//! CPython keeps a dict's items in a dense array behind the hash index. Reading it directly saves a call for each item, and
//! lets the walk ask for the memory of items further on. The layout is private to CPython; 3.11 to 3.13 agree. It is
//! believed only if, when a session begins, it gives what `PyDict_Next` gives for a dict of each kind.

use crate::py::{Obj, prefetch};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::atomic::{AtomicBool, Ordering};

static IS_KNOWN: AtomicBool = AtomicBool::new(false);

/// Keys of a table with any keys, and with `str` keys only: `dk_kind`. The third kind keeps its values elsewhere.
const GENERAL: u8 = 0;
const UNICODE: u8 = 1;

/// `PyDictObject`.
#[repr(C)]
struct Dict {
    head: ffi::PyObject,
    used: isize,
    version: u64,
    keys: *const Keys,
    values: *const std::ffi::c_void,
}

/// `PyDictKeysObject`, up to the hash index, behind which the items stand.
#[repr(C)]
struct Keys {
    refcount: isize,
    log2_size: u8,
    log2_index_bytes: u8,
    kind: u8,
    version: u32,
    usable: isize,
    item_count: isize,
}

/// The items of a dict's table; some may be vacant.
#[derive(Clone, Copy)]
pub(crate) struct Items {
    first: *const *mut ffi::PyObject,
    /// Words of an item: hash, key and value, or key and value.
    stride: usize,
    len: usize,
}

impl Items {
    /// The dict's items, if its layout is known and they stand in its own table.
    #[inline(always)]
    pub(crate) fn of(dict: Obj) -> Option<Items> {
        if !IS_KNOWN.load(Ordering::Relaxed) {
            return None;
        }
        // SAFETY: a dict whose layout was found to be as declared.
        let dict = unsafe { &*dict.ptr().cast::<Dict>() };
        if !dict.values.is_null() {
            return None;
        }
        // SAFETY: every dict has a table.
        let keys = unsafe { &*dict.keys };
        let stride = match keys.kind {
            GENERAL => 3,
            UNICODE => 2,
            _ => return None,
        };
        let index = (&raw const *keys).cast::<u8>().wrapping_add(size_of::<Keys>());
        let first = index.wrapping_add(1 << keys.log2_index_bytes).cast::<*mut ffi::PyObject>();
        Some(Items { first, stride, len: keys.item_count as usize })
    }

    /// Places in the table, vacant ones included.
    #[inline(always)]
    pub(crate) fn len(self) -> usize {
        self.len
    }

    /// Key and value at a place of the table.
    #[inline(always)]
    fn at(self, place: usize) -> (*mut ffi::PyObject, *mut ffi::PyObject) {
        let value = self.first.wrapping_add(place * self.stride + self.stride - 1);
        // SAFETY: the table holds `len` items, and the caller keeps `place` below that.
        let key = unsafe { *value.wrapping_sub(1) };
        // SAFETY: as above.
        (key, unsafe { *value })
    }

    /// The next item at or after `position`, which moves on, as `PyDict_Next` moves it.
    #[inline(always)]
    pub(crate) fn next(self, position: &mut ffi::Py_ssize_t) -> Option<(Obj, Obj)> {
        let mut place = *position as usize;
        while place < self.len {
            let (key, value) = self.at(place);
            place += 1;
            if !value.is_null() {
                *position = place as ffi::Py_ssize_t;
                // SAFETY: an item's key and value are objects, which the dict owns.
                return Some(unsafe { (Obj::from_ptr(key), Obj::from_ptr(value)) });
            }
        }
        None
    }

    /// The value at a place, if it is a dict.
    #[inline(always)]
    pub(crate) fn dict_at(self, place: usize) -> Option<Obj> {
        if place >= self.len {
            return None;
        }
        let (_, value) = self.at(place);
        if value.is_null() {
            return None;
        }
        // SAFETY: an item's value is an object, which the dict owns.
        let value = unsafe { Obj::from_ptr(value) };
        value.is_dict().then_some(value)
    }

    /// Asks for the memory of the key and the value at a place, if there is one. Gives the value's address.
    #[inline(always)]
    pub(crate) fn prefetch(self, place: usize) -> Option<usize> {
        if place >= self.len {
            return None;
        }
        let (key, value) = self.at(place);
        prefetch(key.cast());
        prefetch(value.cast());
        Some(value as usize)
    }
}

impl Obj {
    /// Asks for the memory of a dict's table.
    #[inline(always)]
    pub(crate) fn prefetch_table(self) {
        if IS_KNOWN.load(Ordering::Relaxed) {
            // SAFETY: a dict whose layout was found to be as declared.
            let keys: *const u8 = unsafe { (*self.ptr().cast::<Dict>()).keys }.cast();
            prefetch(keys);
            prefetch(keys.wrapping_add(64));
        }
    }
}

/// Finds out whether dicts of this interpreter are laid out as declared here.
pub(crate) fn probe(py: Python<'_>) -> PyResult<()> {
    if IS_KNOWN.load(Ordering::Relaxed) {
        return Ok(());
    }
    let texts = PyDict::new(py);
    let mixed = PyDict::new(py);
    for number in 0..300 {
        texts.set_item(format!("key {number}"), number)?;
        mixed.set_item(number, format!("value {number}"))?;
    }
    for number in [0, 7, 8, 299] {
        texts.del_item(format!("key {number}"))?;
        mixed.del_item(number)?;
    }
    let small = PyDict::new(py);
    small.set_item("only", py.None())?;
    let dicts = [PyDict::new(py), small, texts, mixed];
    let is_private_table = |dict: &Bound<'_, PyDict>| {
        // SAFETY: word 5 of a dict object is within it in every supported version.
        unsafe { (*dict.as_ptr().cast::<Dict>()).values.is_null() }
    };
    if !dicts.iter().all(is_private_table) {
        return Ok(());
    }
    IS_KNOWN.store(true, Ordering::Relaxed);
    let all_agree = dicts.iter().all(|dict| {
        let object = Obj::of(dict.as_any());
        let Some(items) = Items::of(object) else { return false };
        items.len <= 400 && {
            let (mut here, mut there) = (0, 0);
            loop {
                let (read, told) = (items.next(&mut here), object.dict_next_by_call(&mut there));
                if read.map(|(key, value)| (key.addr(), value.addr()))
                    != told.map(|(key, value)| (key.addr(), value.addr()))
                    || (read.is_some() && here != there)
                {
                    return false;
                }
                if read.is_none() {
                    return true;
                }
            }
        }
    });
    IS_KNOWN.store(all_agree, Ordering::Relaxed);
    Ok(())
}
