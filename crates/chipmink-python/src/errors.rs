//! Errors of the crates beneath as exceptions of `chipmink._errors`.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// The exception of that name from `chipmink._errors`.
pub(crate) fn exception(name: &str, message: &str) -> PyErr {
    Python::attach(|py| {
        let made = py
            .import("chipmink._errors")
            .and_then(|module| module.getattr(name))
            .and_then(|class| class.call1((message,)));
        match made {
            Ok(value) => PyErr::from_value(value),
            Err(_) => PyRuntimeError::new_err(message.to_owned()),
        }
    })
}

/// Bytes that do not make sense.
pub(crate) fn damaged(error: impl std::fmt::Display) -> PyErr {
    exception("DamagedError", &error.to_string())
}
