//! Which objects are saved by name, and under which.
//!
//! An object is saved by name if its module is imported, is not `__main__` nor the namespace being saved, and holds the
//! very object under the name. The answer is asked once per object and walk: a class defined again is another object.

use crate::py::Obj;
use chipmink_types::GlobalName;
use hashbrown::HashMap;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyModule, PyString};

/// Number of a name in the session's register of names.
pub(crate) type GlobalId = u32;

/// Python code would have to run to answer: the walk must take its references first.
pub(crate) struct NeedsHold;

/// The register of names, and the answers of the present walk.
pub(crate) struct Names {
    ids: HashMap<GlobalName, GlobalId>,
    names: Vec<GlobalName>,
    answers: HashMap<usize, Option<GlobalId>>,
    last: (usize, Option<GlobalId>),
    modules: Py<PyDict>,
    namespace: usize,
}

impl Names {
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        Ok(Names {
            ids: HashMap::new(),
            names: Vec::new(),
            answers: HashMap::new(),
            last: (0, None),
            modules: py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?.unbind(),
            namespace: 0,
        })
    }

    pub(crate) fn begin_walk(&mut self, namespace: Option<Obj>) {
        self.answers.clear();
        self.last = (0, None);
        self.namespace = namespace.map_or(0, Obj::addr);
    }

    /// The name of a number given out by [`Names::id`].
    pub(crate) fn name(&self, id: GlobalId) -> &GlobalName {
        &self.names[id as usize]
    }

    /// The number of a name.
    pub(crate) fn id(&mut self, name: GlobalName) -> GlobalId {
        if let Some(id) = self.ids.get(&name) {
            return *id;
        }
        let id = self.names.len() as GlobalId;
        self.names.push(name.clone());
        self.ids.insert(name, id);
        id
    }

    /// The answer if it was asked in this walk already.
    #[inline(always)]
    pub(crate) fn known(&mut self, object: Obj) -> Option<Option<GlobalId>> {
        if self.last.0 == object.addr() {
            return Some(self.last.1);
        }
        let answer = *self.answers.get(&object.addr())?;
        self.last = (object.addr(), answer);
        Some(answer)
    }

    /// Remembers an answer for the rest of the walk; the walk keeps `object` alive.
    pub(crate) fn remember(&mut self, object: Obj, answer: Option<GlobalId>) {
        self.answers.insert(object.addr(), answer);
        self.last = (object.addr(), answer);
    }

    /// Whether asking for the name of this class or function may run Python code.
    pub(crate) fn may_run_python(object: Obj) -> bool {
        if object.is_function() {
            return false;
        }
        // SAFETY: live types; only pointers are compared.
        unsafe {
            !object.is_class()
                || (*object.ty()).tp_getattro.map(|f| f as usize)
                    != ffi::PyType_Type.tp_getattro.map(|f| f as usize)
        }
    }

    /// The name under which a class or function can be imported, if there is one.
    ///
    /// # Errors
    /// [`NeedsHold`] if Python code would have to run and `held` says that it must not yet.
    pub(crate) fn importable(
        &mut self,
        object: &Bound<'_, PyAny>,
        held: bool,
    ) -> Result<Option<GlobalId>, NeedsHold> {
        if !held && Self::may_run_python(Obj::of(object)) {
            return Err(NeedsHold);
        }
        let attribute = |name: &str| object.getattr(name).ok()?.cast_into::<PyString>().ok();
        match (attribute("__module__"), attribute("__qualname__")) {
            (Some(module), Some(qualname)) => self.holds(object, &module, &qualname, held),
            _ => Ok(None),
        }
    }

    /// The number of `module.qualname` if exactly `object` stands there.
    ///
    /// # Errors
    /// As [`Names::importable`].
    pub(crate) fn holds(
        &mut self,
        object: &Bound<'_, PyAny>,
        module: &Bound<'_, PyString>,
        qualname: &Bound<'_, PyString>,
        held: bool,
    ) -> Result<Option<GlobalId>, NeedsHold> {
        let py = object.py();
        let (Ok(module_name), Ok(path)) = (module.to_str(), qualname.to_str()) else { return Ok(None) };
        if module_name == "__main__" || path.contains("<locals>") {
            return Ok(None);
        }
        let Ok(Some(holder)) = self.modules.bind(py).get_item(module) else { return Ok(None) };
        if let Ok(module) = holder.cast::<PyModule>()
            && module.dict().as_ptr() as usize == self.namespace
        {
            return Ok(None);
        }
        let mut found = holder;
        for part in path.split('.') {
            let quiet = match found.cast::<PyModule>() {
                Ok(module) => module.dict().contains(part).unwrap_or(false),
                Err(_) => !Self::may_run_python(Obj::of(&found)),
            };
            if !quiet && !held {
                return Err(NeedsHold);
            }
            found = match found.getattr(part) {
                Ok(next) => next,
                Err(_) => return Ok(None),
            };
        }
        Ok(found
            .is(object)
            .then(|| self.id(GlobalName { module: module_name.to_owned(), qualname: path.to_owned() })))
    }
}
