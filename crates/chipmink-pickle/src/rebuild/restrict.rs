//! Keeps a restricted load to its allowlist; the rules are those of [`Allowlist`].

use super::error::{RebuildError, Result};
use super::options::{Allowlist, full_name};
use chipmink_types::GlobalName;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyModule, PyType};
use std::collections::HashMap;

/// The module of the functions that make classes and functions by value.
const BY_VALUE: &str = "chipmink._rebuild";

/// An allowlist at work.
pub(super) struct Restriction<'a> {
    allow: &'a Allowlist,
    /// Addresses of the objects that were found under a granted name, with a reference that keeps each address theirs.
    granted: HashMap<usize, Py<PyAny>>,
}

impl<'a> Restriction<'a> {
    pub(super) fn new(allow: &'a Allowlist) -> Self {
        Restriction { allow, granted: HashMap::new() }
    }

    /// # Errors
    /// When the name is not granted.
    pub(super) fn before_import(&self, py: Python<'_>, name: &GlobalName) -> Result<()> {
        self.allow.check(py, &name.module, &name.qualname)
    }

    /// # Errors
    /// When the object's own name is another, and not granted.
    pub(super) fn after_import(
        &mut self,
        py: Python<'_>,
        name: &GlobalName,
        object: &Bound<'_, PyAny>,
    ) -> Result<()> {
        let (module, qualname) = match own_name(object)? {
            Some((module, qualname)) => (module.unwrap_or_else(|| name.module.clone()), qualname),
            None => (name.module.clone(), name.qualname.clone()),
        };
        if module != name.module || qualname != name.qualname {
            self.allow.check(py, &module, &qualname)?;
        }
        self.granted.insert(object.as_ptr() as usize, object.clone().unbind());
        Ok(())
    }

    /// # Errors
    /// When the object may not be called.
    pub(super) fn before_call(&self, py: Python<'_>, callable: &Bound<'_, PyAny>) -> Result<()> {
        if self.granted.contains_key(&(callable.as_ptr() as usize))
            || self.allow.grants(py, BY_VALUE, "make_class")?
            || self.allow.grants(py, BY_VALUE, "make_function")?
        {
            return Ok(());
        }
        let name = match own_name(callable)? {
            Some((module, qualname)) => full_name(&module.unwrap_or_default(), &qualname),
            None => format!("calling an object of type {}", callable.get_type().fully_qualified_name()?),
        };
        Err(RebuildError::Refused { name, place: String::new() }.into())
    }

    /// # Errors
    /// When code of an object's class that restores state may not be called.
    pub(super) fn before_setstate(&self, py: Python<'_>, object: &Bound<'_, PyAny>) -> Result<()> {
        let class = object.get_type();
        let (module, qualname) = (class.module()?.to_string(), class.qualname()?.to_string());
        self.allow.check(py, &module, &format!("{qualname}.__setstate__"))
    }
}

/// The module, if it says so, and qualname by which an object calls itself; `None` if it has no name of its own.
///
/// Only classes, modules, and builtin or Python functions are asked: what another object says of itself means nothing.
fn own_name(object: &Bound<'_, PyAny>) -> Result<Option<(Option<String>, String)>> {
    if let Ok(module) = object.cast::<PyModule>() {
        return Ok(Some((Some(module.name()?.to_string()), String::new())));
    }
    if let Ok(class) = object.cast::<PyType>() {
        return Ok(Some((Some(class.module()?.to_string()), class.qualname()?.to_string())));
    }
    // SAFETY: alive.
    let is_function = unsafe {
        ffi::PyFunction_Check(object.as_ptr()) != 0 || ffi::PyCFunction_Check(object.as_ptr()) != 0
    };
    if !is_function {
        return Ok(None);
    }
    let module = object.getattr_opt("__module__")?.and_then(|module| module.extract::<String>().ok());
    let qualname = object.getattr("__qualname__")?.extract::<String>()?;
    Ok(Some((module, qualname)))
}
