//! Keeps the cyclic garbage collector from running while a load makes objects by the million.

use pyo3::ffi;
use pyo3::prelude::*;

/// Pauses the collector until it is dropped, if it was on.
pub(super) struct CollectorPause<'py> {
    was_enabled: bool,
    _py: Python<'py>,
}

impl<'py> CollectorPause<'py> {
    pub(super) fn begin(py: Python<'py>) -> Self {
        // SAFETY: the thread is attached.
        CollectorPause { was_enabled: unsafe { ffi::PyGC_Disable() } == 1, _py: py }
    }
}

impl Drop for CollectorPause<'_> {
    fn drop(&mut self) {
        if self.was_enabled {
            // SAFETY: the thread is attached as long as the token lives.
            unsafe { ffi::PyGC_Enable() };
        }
    }
}
