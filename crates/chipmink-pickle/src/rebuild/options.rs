//! What a caller may ask of a load.

use super::error::{RebuildError, Result};
use super::mapped::MapRegions;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use std::collections::HashSet;

/// How a rebuild is to be done.
#[derive(Default)]
pub struct RebuildOptions {
    /// What may be resolved and called; `None`: anything, as pickle does.
    pub allow: Option<Allowlist>,
    /// The dict that by-value functions are bound to; `None`: a fresh one.
    pub namespace: Option<Py<PyDict>>,
    /// Maps the regions of large arrays; `None`: all are read.
    pub mapper: Option<Box<dyn MapRegions>>,
    /// Where live classes and functions may be found that are used again if they equal stored ones; `None`: each is made
    /// anew. Without effect beside `allow`.
    pub live: Option<LiveDefinitions>,
}

/// Live definitions that a load may use.
pub struct LiveDefinitions {
    /// The namespace that they are of.
    pub namespace: Py<PyDict>,
    /// Whether its functions count, too. If not, only its classes do, with the functions in them.
    pub functions: bool,
}

/// What a restricted load may resolve and call.
///
/// 1. A name is asked about before its module is imported, and again, under the found object's own module and
///    qualname, before the object is used.
/// 2. Only what was found so may be called. Once `chipmink._rebuild.make_class` or `make_function` is granted, anything may
///    be called that the bytes can make: what these make could call it, too.
/// 3. `__setstate__` of a class is a name of its own: `module.Class.__setstate__`.
pub struct Allowlist {
    rule: Rule,
}

enum Rule {
    Names(HashSet<String>),
    Predicate(Py<PyAny>),
}

impl Allowlist {
    /// Grants exactly these `module.qualname`.
    pub fn of_names(names: impl IntoIterator<Item = String>) -> Self {
        Allowlist { rule: Rule::Names(names.into_iter().collect()) }
    }

    /// Grants what `predicate(module, qualname)` is true for. A module itself has an empty qualname.
    pub fn of_predicate(predicate: Py<PyAny>) -> Self {
        Allowlist { rule: Rule::Predicate(predicate) }
    }

    /// Makes one of a callable, or else of an iterable of names.
    ///
    /// # Errors
    /// When it is neither, or a name is no str.
    pub fn from_python(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        if value.is_callable() {
            return Ok(Self::of_predicate(value.clone().unbind()));
        }
        if value.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err(format!(
                "names are allowed as a list of str: [{}]",
                value.repr()?
            )));
        }
        let names = value.try_iter()?.map(|name| name?.extract::<String>()).collect::<PyResult<Vec<_>>>()?;
        Ok(Self::of_names(names))
    }

    /// Whether `module.qualname` is granted.
    pub(super) fn grants(&self, py: Python<'_>, module: &str, qualname: &str) -> PyResult<bool> {
        match &self.rule {
            Rule::Names(names) => Ok(names.contains(&full_name(module, qualname))),
            Rule::Predicate(predicate) => predicate.bind(py).call1((module, qualname))?.is_truthy(),
        }
    }

    /// # Errors
    /// Unless it is granted.
    pub(super) fn check(&self, py: Python<'_>, module: &str, qualname: &str) -> Result<()> {
        if self.grants(py, module, qualname)? {
            return Ok(());
        }
        Err(RebuildError::Refused { name: full_name(module, qualname), place: String::new() }.into())
    }
}

/// `module.qualname`, or the module alone.
pub(super) fn full_name(module: &str, qualname: &str) -> String {
    if qualname.is_empty() { module.to_owned() } else { format!("{module}.{qualname}") }
}
