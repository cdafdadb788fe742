//! Where in a variable the rebuild stands, for messages and placeholders: `table["a"][3].conn`.

use super::error::{Cause, Failure, RebuildError, Result};
use super::frame::{Build, Frame};
use super::loader::{Loader, Step};
use chipmink_types::LoadRoot;
use pyo3::exceptions::PyException;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAnyMethods, PyList, PyString};

/// Longer paths are cut in the middle.
const MAX_PARTS: usize = 24;

impl<'py> Loader<'py, '_> {
    /// The path from a variable to the value that is read now. It begins with the path alone if the pods were begun
    /// inside something that no variable of the load is.
    #[cold]
    pub(super) fn path(&self) -> String {
        let first = self.active.first().map(|active| active.position);
        let name = self.variables.iter().find_map(|variable| match variable.root {
            LoadRoot::Pod(position, _) if Some(position) == first => Some(variable.name.as_str()),
            _ => None,
        });
        let mut parts: Vec<String> = Vec::new();
        let mut in_state = false;
        for (depth, frame) in self.stack.iter().enumerate() {
            parts.extend(self.part(frame, depth, in_state));
            in_state = matches!(&frame.build, Build::Reduce(reduction) if reduction.is_at_state());
        }
        let path = if parts.len() <= MAX_PARTS {
            parts.concat()
        } else {
            let (head, tail) = (&parts[..MAX_PARTS / 2], &parts[parts.len() - MAX_PARTS / 2..]);
            format!("{}…{}", head.concat(), tail.concat())
        };
        format!("{}{path}", name.unwrap_or_default())
    }

    fn part(&self, frame: &Frame<'py>, depth: usize, in_state: bool) -> Option<String> {
        match &frame.build {
            Build::List { list, .. } => Some(format!("[{}]", list.cast::<PyList>().ok()?.len())),
            Build::Tuple { start, .. } => {
                let above = self.stack[depth + 1..].iter().find_map(|frame| match frame.build {
                    Build::Tuple { start, .. } => Some(start),
                    _ => None,
                });
                Some(format!("[{}]", above.unwrap_or(self.values.len()).saturating_sub(*start)))
            }
            Build::Dict(build) => match &build.key {
                None => Some(".keys()".to_owned()),
                Some(key) if in_state && key.is_exact_instance_of::<PyString>() => Some(format!(".{key}")),
                Some(key) => Some(format!("[{}]", short(key))),
            },
            Build::Set { .. } => Some("{…}".to_owned()),
            Build::Instance { shape, next, .. } => Some(format!(".{}", shape.names.get(*next)?)),
            Build::InstanceDict { shape, next, .. } => shape.names.get(*next).map(|name| format!(".{name}")),
            Build::ObjectArray { next, .. } => Some(format!(".flat[{next}]")),
            Build::Reduce(_)
            | Build::Pod(_)
            | Build::Again
            | Build::Array
            | Build::ArrayView(_)
            | Build::Stub
            | Build::Refused(_) => None,
        }
    }

    /// Puts a refusal on the stack, so that the frames below say where they stand before it is raised.
    #[cold]
    pub(super) fn refuse_later(&mut self, failure: Failure) -> Result<Step<'py>> {
        match failure.into_cause() {
            Cause::Known(RebuildError::Refused { name, .. }) => self.open_later(Build::Refused(name)),
            cause => Err(cause.into()),
        }
    }

    /// Lets an exception of the program say where it was raised.
    #[cold]
    pub(super) fn note_place(&self, error: &PyErr) {
        let place = self.path();
        if !place.is_empty() {
            note(self.py, error, &place, !self.variables.is_empty());
        }
    }

    /// Adds to a refusal where it happened.
    #[cold]
    pub(super) fn with_place(&self, error: RebuildError) -> RebuildError {
        match error {
            RebuildError::Refused { name, place } if place.is_empty() => {
                let place = self.path();
                let place = if place.is_empty() { place } else { format!(" at {place}") };
                RebuildError::Refused { name, place }
            }
            other => other,
        }
    }
}

fn note(py: Python<'_>, error: &PyErr, place: &str, has_variables: bool) {
    if !error.is_instance_of::<PyException>(py) {
        return;
    }
    let others = if has_variables { "; load the other variables by their names" } else { "" };
    // Without the note, the exception says what it says.
    drop(error.value(py).call_method1("add_note", (format!("raised while {place} was loaded{others}"),)));
}

impl Failure {
    /// Says of a refusal, or of an exception of the program, that the variable itself is what was met.
    #[cold]
    pub(super) fn in_variable(self, variable: &str) -> Self {
        match self.into_cause() {
            Cause::Python(error) => {
                Python::attach(|py| note(py, &error, variable, true));
                error.into()
            }
            Cause::Known(RebuildError::Refused { name, place }) if place.is_empty() => {
                RebuildError::Refused { name, place: format!(" at {variable}") }.into()
            }
            cause => cause.into(),
        }
    }
}

/// The key as one would write it; only atoms are asked, so no code of a program runs.
fn short(key: &Bound<'_, PyAny>) -> String {
    // SAFETY: alive.
    let is_heap = unsafe { (*ffi::Py_TYPE(key.as_ptr())).tp_flags & ffi::Py_TPFLAGS_HEAPTYPE != 0 };
    let text = match (is_heap, crate::py::Obj::of(key).is_atom()) {
        (false, true) => key.repr().map(|text| text.to_string()).unwrap_or_default(),
        _ => crate::py::type_name(key),
    };
    if text.chars().count() > 40 { text.chars().take(39).chain(['…']).collect() } else { text }
}
