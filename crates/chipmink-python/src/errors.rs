//! Errors of the crates beneath as exceptions of `chipmink._errors`.

use chipmink::ErrorKind;
use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError};
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

/// What the facade reports.
pub(crate) fn raise(error: chipmink::Error) -> PyErr {
    let name = match error.kind() {
        ErrorKind::NotFound => "NotFoundError",
        ErrorKind::Damaged => "DamagedError",
        ErrorKind::RefMoved => "RefMovedError",
        ErrorKind::OutcomeUnknown => "OutcomeUnknownError",
        ErrorKind::Storage => "StorageError",
        ErrorKind::Unsupported => "UnsupportedError",
        ErrorKind::Busy => "BusyError",
        ErrorKind::Interrupted => return PyKeyboardInterrupt::new_err(error.to_string()),
        _ => "ChipminkError",
    };
    exception(name, &error.to_string())
}

/// Bytes that do not make sense.
pub(crate) fn damaged(error: impl std::fmt::Display) -> PyErr {
    exception("DamagedError", &error.to_string())
}
