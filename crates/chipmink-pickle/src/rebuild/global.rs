//! Objects saved by name.

use super::error::{Failure, Result};
use super::loader::Loader;
use super::options::full_name;
use chipmink_types::GlobalName;
use pyo3::exceptions::{PyAttributeError, PyModuleNotFoundError};
use pyo3::prelude::*;
use pyo3::types::PyModule;

impl<'py, 'a> Loader<'py, 'a> {
    /// The object that the pod being read means by a global ordinal.
    #[inline(always)]
    pub(super) fn global(&mut self, ordinal: u64) -> Result<Bound<'py, PyAny>> {
        let known = usize::try_from(ordinal).ok().and_then(|at| self.active.last()?.globals.get(at)?.clone());
        match known {
            Some(object) => Ok(object),
            None => self.find_global(ordinal),
        }
    }

    #[cold]
    #[inline(never)]
    fn find_global(&mut self, ordinal: u64) -> Result<Bound<'py, PyAny>> {
        let globals = &self.current_plan()?.globals;
        let index =
            usize::try_from(ordinal).ok().filter(|&index| index < globals.len()).ok_or_else(|| {
                Failure::damaged(format!("global {ordinal} is referred to, of {}", globals.len()))
            })?;
        let object = self.resolve(&globals[index])?;
        let used = &mut self.current()?.globals;
        if used.len() <= index {
            used.resize(index + 1, None);
        }
        used[index] = Some(object.clone());
        Ok(object)
    }

    /// Imports the module and walks to the object; once for each name and load.
    pub(super) fn resolve(&mut self, name: &'a GlobalName) -> Result<Bound<'py, PyAny>> {
        if let Some(object) = self.globals.get(name) {
            return Ok(object.clone());
        }
        if let Some(restriction) = &self.restriction {
            restriction.before_import(self.py, name)?;
        }
        let mut object = match PyModule::import(self.py, name.module.as_str()) {
            Ok(module) => module.into_any(),
            // A module that is not here has a placeholder; what a part of it was cannot be known.
            Err(error)
                if name.qualname.is_empty() && error.is_instance_of::<PyModuleNotFoundError>(self.py) =>
            {
                self.py.import("chipmink._rebuild")?.call_method1("import_module", (&name.module,))?
            }
            Err(error) => return Err(error.into()),
        };
        if !name.qualname.is_empty() {
            for part in name.qualname.split('.') {
                let found = if part == "<locals>" { None } else { object.getattr_opt(part)? };
                object = found.ok_or_else(|| {
                    PyAttributeError::new_err(format!(
                        "cannot find {}: {} has no attribute {part:?}; is it the version of the library that saved it?",
                        full_name(&name.module, &name.qualname),
                        name.module,
                    ))
                })?;
            }
        }
        if let Some(restriction) = &mut self.restriction {
            restriction.after_import(self.py, name, &object)?;
        }
        self.globals.insert(name, object.clone());
        Ok(object)
    }
}
