//! What a namespace's dict went through since a moment in the past.
//!
//! CPython 3.11 numbers every state of a dict: an equal number is an equal dict. From 3.12 on a callback is told of every
//! change; all sessions share one, because an interpreter has eight. Without one nothing is proved, which costs time only.

use crate::py::Obj;
use pyo3::prelude::*;
use std::collections::HashSet;

/// What has changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Changes {
    /// Nothing at all: not even the order.
    Nothing,
    #[cfg_attr(not(Py_3_12), expect(dead_code, reason = "the number of a dict's state tells no names"))]
    /// At most these names were bound, bound anew or deleted.
    Names(HashSet<String>),
    /// Anything may have.
    Anything,
}

#[cfg(not(Py_3_12))]
mod version {
    use super::*;

    /// A dict and the number of its state.
    pub(crate) struct Watch {
        dict: usize,
        version: u64,
    }

    impl Watch {
        /// Begins to look at a dict.
        pub(crate) fn begin(_py: Python<'_>, dict: Obj) -> Option<Self> {
            Some(Watch { dict: dict.addr(), version: dict.dict_version() })
        }

        /// What has changed in `dict` since.
        pub(crate) fn changes(&self, _py: Python<'_>, dict: Obj) -> Changes {
            // Numbers are unique over all dicts, so another one at the same address has another.
            match dict.addr() == self.dict && dict.dict_version() == self.version {
                true => Changes::Nothing,
                false => Changes::Anything,
            }
        }
    }
}

#[cfg(Py_3_12)]
mod callback {
    use super::*;
    use pyo3::ffi;
    use std::ffi::c_int;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    // Include/cpython/dictobject.h
    type Callback =
        unsafe extern "C" fn(c_int, *mut ffi::PyObject, *mut ffi::PyObject, *mut ffi::PyObject) -> c_int;
    const ADDED: c_int = 0;
    const MODIFIED: c_int = 1;
    const DELETED: c_int = 2;
    const DEALLOCATED: c_int = 5;

    unsafe extern "C" {
        fn PyDict_AddWatcher(callback: Callback) -> c_int;
        fn PyDict_ClearWatcher(watcher: c_int) -> c_int;
        fn PyDict_Watch(watcher: c_int, dict: *mut ffi::PyObject) -> c_int;
        fn PyDict_Unwatch(watcher: c_int, dict: *mut ffi::PyObject) -> c_int;
    }

    /// More names than this are anything.
    const MAX_NAMES: usize = 4096;

    /// All watches of the process. Locked only by attached threads, for moments in which no Python code runs.
    static WATCHES: Mutex<Watches> = Mutex::new(Watches { watcher: None, serial: 0, entries: Vec::new() });

    struct Watches {
        /// The interpreter's number for our callback, while there are entries.
        watcher: Option<c_int>,
        serial: u64,
        entries: Vec<Entry>,
    }

    struct Entry {
        serial: u64,
        /// 0 once the dict is gone.
        dict: usize,
        anything: bool,
        /// Keys of changed items, held: exact str.
        keys: hashbrown::HashSet<usize>,
        last: usize,
    }

    fn watches() -> MutexGuard<'static, Watches> {
        WATCHES.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A dict whose changes are noted.
    pub(crate) struct Watch {
        serial: u64,
    }

    impl Watch {
        /// Begins to note changes of a dict. `None`: other libraries have taken all callbacks.
        pub(crate) fn begin(_py: Python<'_>, dict: Obj) -> Option<Self> {
            let mut watches = watches();
            let watcher = match watches.watcher {
                Some(watcher) => watcher,
                None => {
                    // SAFETY: the thread is attached; the callback is a function of this library, which is never unloaded.
                    let watcher = unsafe { PyDict_AddWatcher(note) };
                    if watcher < 0 {
                        // SAFETY: the thread is attached.
                        unsafe { ffi::PyErr_Clear() };
                        return None;
                    }
                    *watches.watcher.insert(watcher)
                }
            };
            watches.serial += 1;
            let serial = watches.serial;
            let (keys, dict_address) = (hashbrown::HashSet::new(), dict.addr());
            watches.entries.push(Entry { serial, dict: dict_address, anything: false, keys, last: 0 });
            let watch = Watch { serial };
            // SAFETY: a live dict, and a watcher that was given out to us.
            if unsafe { PyDict_Watch(watcher, dict.ptr()) } < 0 {
                // SAFETY: the thread is attached.
                unsafe { ffi::PyErr_Clear() };
                drop(watches);
                return None;
            }
            Some(watch)
        }

        /// What has changed in `dict` since.
        pub(crate) fn changes(&self, py: Python<'_>, dict: Obj) -> Changes {
            let watches = watches();
            let entry = watches.entries.iter().find(|entry| entry.serial == self.serial);
            let Some(entry) = entry.filter(|entry| entry.dict == dict.addr() && !entry.anything) else {
                return Changes::Anything;
            };
            if entry.keys.is_empty() {
                return Changes::Nothing;
            }
            let text = |key: &usize| {
                // SAFETY: the entry holds its keys.
                let key = unsafe { Obj::from_ptr(*key as *mut ffi::PyObject) };
                key.str_text(py).ok()
            };
            entry.keys.iter().map(text).collect::<Option<_>>().map_or(Changes::Anything, Changes::Names)
        }
    }

    impl Drop for Watch {
        fn drop(&mut self) {
            // Without an interpreter there is no dict any more.
            Python::try_attach(|_| {
                let mut watches = watches();
                let at = watches.entries.iter().position(|entry| entry.serial == self.serial);
                let Some(entry) = at.map(|at| watches.entries.swap_remove(at)) else { return };
                let Some(watcher) = watches.watcher else { return };
                if entry.dict != 0 && watches.entries.iter().all(|other| other.dict != entry.dict) {
                    // SAFETY: a live dict (the callback would have said so if it had gone), and our watcher.
                    if unsafe { PyDict_Unwatch(watcher, entry.dict as *mut ffi::PyObject) } < 0 {
                        // SAFETY: the thread is attached.
                        unsafe { ffi::PyErr_Clear() };
                    }
                }
                if watches.entries.is_empty() {
                    watches.watcher = None;
                    // SAFETY: our watcher, which no dict names any more.
                    if unsafe { PyDict_ClearWatcher(watcher) } < 0 {
                        // SAFETY: the thread is attached.
                        unsafe { ffi::PyErr_Clear() };
                    }
                }
                drop(watches);
                release(entry);
            });
        }
    }

    fn release(entry: Entry) {
        for key in entry.keys {
            // SAFETY: the entry owned a reference to its keys; the thread is attached.
            unsafe { Obj::from_ptr(key as *mut ffi::PyObject) }.decref();
        }
    }

    /// Is told of a change before it happens.
    unsafe extern "C" fn note(
        event: c_int,
        dict: *mut ffi::PyObject,
        key: *mut ffi::PyObject,
        _value: *mut ffi::PyObject,
    ) -> c_int {
        let mut watches = watches();
        for entry in watches.entries.iter_mut().filter(|entry| entry.dict == dict as usize) {
            match event {
                ADDED | MODIFIED | DELETED if !key.is_null() => entry.changed(key),
                DEALLOCATED => {
                    entry.dict = 0;
                    entry.anything = true;
                }
                _ => entry.anything = true,
            }
        }
        0
    }

    impl Entry {
        #[inline]
        fn changed(&mut self, key: *mut ffi::PyObject) {
            if self.last == key as usize || self.anything {
                return;
            }
            // SAFETY: the interpreter passes a live key.
            let key = unsafe { Obj::from_ptr(key) };
            if !key.is_str() || self.keys.len() >= MAX_NAMES {
                self.anything = true;
                return;
            }
            if self.keys.insert(key.addr()) {
                key.incref();
            }
            self.last = key.addr();
        }
    }
}

#[cfg(Py_3_12)]
pub(crate) use callback::Watch;
#[cfg(not(Py_3_12))]
pub(crate) use version::Watch;
