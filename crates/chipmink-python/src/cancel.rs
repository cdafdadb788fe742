//! What cancels a save from another thread.

use pyo3::prelude::*;

/// Tells a save to give up.
#[pyclass(frozen, module = "chipmink._chipmink")]
pub(crate) struct Cancel(pub(crate) chipmink::Cancel);

#[pymethods]
impl Cancel {
    #[new]
    fn new() -> Self {
        Cancel(chipmink::Cancel::default())
    }

    /// Tells it; what is published by then stands.
    fn cancel(&self) {
        self.0.cancel();
    }
}
