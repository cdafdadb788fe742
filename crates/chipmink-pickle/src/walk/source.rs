//! A namespace as a source of saves: which variables are walked, in which order, and what becomes of those that fail.

use super::adopt::Pending;
use super::earlier::Earlier;
use super::ndarray::numpy_types;
use super::session::PySession;
use super::shadow::may_hold;
use super::tracker::Plan;
use super::walker::{Step, Stop, Walker};
use super::witness::{ATTEMPTS, RareSwitching};
use crate::py::Obj;
use chipmink_types::{
    BlobSink, GlobalName, GraphSource, SkippedVariable, VariableRoot, WalkError, WalkOutcome, WalkRequest,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyModule};

/// An atom up to this many encoded bytes stands in the manifest itself.
const INLINE_BYTES: usize = 64;

/// A live namespace together with what the session knows of it.
pub struct PySource<'a, 'py> {
    py: Python<'py>,
    session: &'a mut PySession,
    namespace: Bound<'py, PyDict>,
}

impl PySession {
    /// The namespace as a source of saves.
    pub fn source<'a, 'py>(&'a mut self, namespace: &Bound<'py, PyDict>) -> PySource<'a, 'py> {
        PySource { py: namespace.py(), session: self, namespace: namespace.clone() }
    }

    /// Takes what the last walk learned as known. `ticket` is the outcome's.
    pub fn adopt(&mut self, py: Python<'_>, ticket: u64) {
        match self.pending.take() {
            Some(pending) if pending.ticket == ticket => self.take_over(py, pending),
            // Nothing was walked, so nothing was learned.
            None if ticket == 0 => {}
            _ => self.forget(),
        }
    }

    /// Forgets what the last walk learned.
    pub fn discard(&mut self) {
        self.forget();
    }
}

impl GraphSource for PySource<'_, '_> {
    fn walk(&mut self, request: &WalkRequest<'_>, sink: &mut dyn BlobSink) -> Result<WalkOutcome, WalkError> {
        for attempt in 1.. {
            // Threads that have not let the walk be so far get their turns less often.
            let _rare_switching = (attempt == ATTEMPTS).then(|| RareSwitching::begin(self.py));
            self.session.keeps_interpreter = attempt == ATTEMPTS;
            match self.try_walk(request, sink) {
                Ok(outcome) if outcome.unsteady.is_empty() || attempt == ATTEMPTS => return Ok(outcome),
                Ok(_) => self.session.forget(),
                Err(error) => {
                    self.session.forget();
                    return Err(error);
                }
            }
        }
        unreachable!("the last attempt returns")
    }

    fn adopt(&mut self, outcome: WalkOutcome) {
        self.session.adopt(self.py, outcome.ticket);
    }

    fn discard(&mut self, _outcome: WalkOutcome) {
        self.session.discard();
    }

    fn reset(&mut self) {
        self.session.forget();
    }

    fn aside(&self, work: &mut (dyn FnMut() + Send)) {
        self.py.detach(work);
    }
}

impl PySource<'_, '_> {
    fn try_walk(
        &mut self,
        request: &WalkRequest<'_>,
        sink: &mut dyn BlobSink,
    ) -> Result<WalkOutcome, WalkError> {
        match self.walk_once(request, request.accessed, true, sink)? {
            Turn::Done(outcome) => Ok(*outcome),
            Turn::Again(walked) => {
                let accessed = request.accessed.map(|_| walked.as_slice());
                match self.walk_once(request, accessed, false, sink)? {
                    Turn::Done(outcome) => Ok(*outcome),
                    Turn::Again(_) => {
                        Err(WalkError::Source("a walk was repeated twice; please report this".to_owned()))
                    }
                }
            }
        }
    }

    fn walk_once(
        &mut self,
        request: &WalkRequest<'_>,
        accessed: Option<&[String]>,
        may_repeat: bool,
        sink: &mut dyn BlobSink,
    ) -> Result<Turn, WalkError> {
        let py = self.py;
        let dict = Obj::of(self.namespace.as_any());
        let mut variables = Vec::new();
        let mut bad_name = None;
        let plan = {
            let mut collect = || {
                let (found, bad) = collect(py, dict);
                variables.clone_from(&found);
                bad_name = bad;
                found
            };
            self.session.tracker.plan(py, dict, accessed, &mut collect)
        };
        if let Some(type_name) = bad_name {
            return Err(WalkError::Source(format!(
                "a name of the namespace is not a plain str but of type {type_name}; remove it or rename it"
            )));
        }
        let active = match plan {
            Plan::Nothing => {
                let outcome = WalkOutcome { is_unchanged: true, ..WalkOutcome::default() };
                return Ok(Turn::Done(Box::new(outcome)));
            }
            Plan::Walk(active) => active,
        };
        // Python code may run from now on, and change the namespace.
        let _held: Vec<Bound<'_, PyAny>> = variables.iter().map(|(_, value)| value.bound(py)).collect();
        let some_inactive = self.session.tracker.has_inactive();
        let begun = self.session.context(py, Some(dict));
        let begun = begun.and_then(|context| Ok((context, numpy_types(py)?, in_order(py, &variables)?)));
        let (context, numpy, order) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                self.session.exception = Some(error);
                return Err(WalkError::Interrupted);
            }
        };
        let known_pods = self.session.pods.len();
        let mut walker = Walker::new(py, self.session, sink, Some(dict), context, false, numpy);
        walker.some_inactive = some_inactive;
        walker.earlier = Earlier::new(request.earlier);
        walker.memory.may_repeat = may_repeat;
        for (_, value) in &variables {
            // The namespace itself may change as soon as Python code runs.
            value.incref();
            walker.kept.push(*value);
        }
        let mut roots = vec![None; variables.len()];
        for i in order {
            let (name, value) = &variables[i];
            if active[i] {
                roots[i] = Some(walker.variable(i as u32, name, *value)?);
            }
        }
        walker.walk_activated(&variables, &mut roots)?;
        while walker.activate_users_of_changed_definitions(&roots)? {
            walker.walk_activated(&variables, &mut roots)?;
        }
        if let Some(hints) = walker.shared_otherwise() {
            let walked = variables.iter().zip(&roots).filter(|(_, root)| root.is_some());
            let walked = walked.map(|((name, _), _)| name.clone()).collect();
            walker.abandon(known_pods);
            self.session.hints = hints;
            return Ok(Turn::Again(walked));
        }
        walker.finish(&variables, roots).map(|outcome| Turn::Done(Box::new(outcome)))
    }
}

/// What a walk came to.
enum Turn {
    Done(Box<WalkOutcome>),
    /// Objects share memory otherwise than it was taken: the same variables must be walked again, and no others.
    Again(Vec<String>),
}

/// The order in which variables are walked: that of the namespace, but dicts that were used as globals first. The functions that
/// were made in one are bound to it if it is met before them.
fn in_order(py: Python<'_>, variables: &[(String, Obj)]) -> PyResult<Vec<usize>> {
    let mut order: Vec<usize> = (0..variables.len()).collect();
    let mut is_other = Vec::with_capacity(variables.len());
    for (_, value) in variables {
        let bound = value.bound(py);
        let dict = bound.cast_exact::<PyDict>().ok();
        let is_globals = dict.map(|dict| dict.contains(pyo3::intern!(py, "__builtins__"))).transpose()?;
        is_other.push(is_globals != Some(true));
    }
    order.sort_by_key(|i| is_other[*i]);
    Ok(order)
}

/// The names and values of a namespace, in order; the type of the first name that is no str.
fn collect(py: Python<'_>, dict: Obj) -> (Vec<(String, Obj)>, Option<String>) {
    let mut variables = Vec::with_capacity(dict.dict_len());
    let mut position = 0;
    let mut bad = None;
    while let Some((key, value)) = dict.dict_next(&mut position) {
        if !key.is_str() {
            bad.get_or_insert_with(|| crate::py::type_name(&key.bound(py)));
            continue;
        }
        match key.str_text(py) {
            Ok(name) => variables.push((name, value)),
            Err(_) => {
                bad.get_or_insert_with(|| "str with lone surrogates".to_owned());
            }
        }
    }
    (variables, bad)
}

/// What a variable's walk came to.
#[derive(Clone)]
pub(crate) enum Walked {
    /// Stored in full in the manifest.
    Root(VariableRoot),
    /// Pod and export slot.
    Pod(u32, u32),
}

impl Walker<'_, '_> {
    /// Walks a variable. A failure that is its own is part of the answer.
    pub(crate) fn variable(&mut self, index: u32, name: &str, value: Obj) -> Result<Walked, WalkError> {
        self.variable = index;
        self.earlier.enter(name);
        self.culprit = None;
        self.witness_variable(index);
        let mark = self.variable_mark(value);
        let (stubs, witnessed) = (self.stubs.len(), self.witnessed());
        let walked = match interpreter_name(self.py, name, value) {
            Some(name) => Ok(Walked::Root(VariableRoot::Named(name))),
            None => self.walk_value(value),
        };
        match walked {
            Ok(walked) => {
                if let Err(Stop::Fatal(error)) = self.flush() {
                    return Err(error);
                }
                Ok(walked)
            }
            Err(Stop::Fatal(error)) => Err(error),
            // Wherever Python code ran, an interrupt ends the walk, not the variable.
            Err(Stop::Variable(error)) if self.is_interrupt(&error) => {
                self.session.exception = Some(error);
                Err(WalkError::Interrupted)
            }
            Err(Stop::Variable(error)) => {
                let path = self.path();
                let skipped = self.describe(path, value, &error);
                self.roll_back(&mark);
                self.stubs.truncate(stubs);
                self.give_up_witness(witnessed);
                Ok(Walked::Root(VariableRoot::Skipped(skipped)))
            }
            Err(Stop::Miss(_) | Stop::Break(_)) => Err(WalkError::Source(format!(
                "the walk of variable {name:?} lost its place; please report this"
            ))),
        }
    }

    fn walk_value(&mut self, value: Obj) -> Step<Walked> {
        if let Some(bytes) = self.inline(value) {
            return Ok(Walked::Root(VariableRoot::Inline(bytes)));
        }
        if let Ok(module) = value.bound(self.py).cast::<PyModule>()
            && is_imported(module)?
        {
            let name = module.name()?.to_string();
            return Ok(Walked::Root(VariableRoot::Named(GlobalName {
                module: name,
                qualname: String::new(),
            })));
        }
        let is_nameable = value.is_class() || value.is_function();
        if is_nameable && let Some(id) = self.global_of(value)? {
            return Ok(Walked::Root(VariableRoot::Named(self.session.names.name(id).clone())));
        }
        if let Some(entry) = self.session.memo.get(value.addr()) {
            let slot = self.export_slot(value, entry.pod);
            return Ok(Walked::Pod(entry.pod, slot));
        }
        let pod = self.begin_variable(value)?;
        Ok(Walked::Pod(pod, 0))
    }

    /// The encoded value of an atom that is small enough for the manifest.
    fn inline(&mut self, value: Obj) -> Option<Vec<u8>> {
        let is_small = value.is_atom() && may_hold(value);
        if !is_small && !super::shadow::is_singleton(value) {
            return None;
        }
        let mut builder = self.spare.pop().unwrap_or_default();
        builder.reset();
        builder.buf.clear();
        let written = if value.is_atom() {
            builder.atom_in_full(value)
        } else {
            use chipmink_format::tag;
            builder.byte(match () {
                () if value.is_ellipsis() => tag::ELLIPSIS,
                () if value.is_not_implemented() => tag::NOT_IMPLEMENTED,
                () => tag::EMPTY_TUPLE,
            });
            true
        };
        let bytes = (written && builder.buf.len() <= INLINE_BYTES).then(|| builder.buf.clone());
        self.spare.push(builder);
        bytes
    }

    /// Walks the variables whose objects were met although they were to be left alone.
    fn walk_activated(
        &mut self,
        variables: &[(String, Obj)],
        roots: &mut [Option<Walked>],
    ) -> Result<(), WalkError> {
        while let Some(group) = self.activated.pop() {
            let names = self.session.tracker.names(group).to_vec();
            for name in names {
                if let Some(i) = variables.iter().position(|(known, _)| *known == name)
                    && roots[i].is_none()
                {
                    roots[i] = Some(self.variable(i as u32, &name, variables[i].1)?);
                }
            }
        }
        Ok(())
    }

    fn describe(&self, path: String, value: Obj, error: &PyErr) -> SkippedVariable {
        let py = self.py;
        let reduced = self.stack.iter().rev().find_map(|frame| match frame.kind {
            super::frames::FrameKind::Reduce { object } => Some(object),
            _ => None,
        });
        let culprit = self.culprit.or(reduced).unwrap_or(value);
        let type_name = crate::py::type_name(&culprit.bound(py));
        let text = error.value(py).str().map(|text| text.to_string()).unwrap_or_default();
        let first_line = text.lines().next().unwrap_or("").chars().take(400).collect::<String>();
        let kind = error.get_type(py).name().map(|name| name.to_string()).unwrap_or_default();
        SkippedVariable { path, type_name, reason: format!("{kind}: {first_line}") }
    }
}

/// Whether a module is one that an import finds, and not one that the program has made itself.
fn is_imported(module: &Bound<'_, PyModule>) -> PyResult<bool> {
    let py = module.py();
    let dict = module.dict();
    let Some(name) = dict.get_item("__name__")? else { return Ok(false) };
    let modules = py.import("sys")?.getattr("modules")?;
    let is_listed = modules.get_item(name).is_ok_and(|found| found.is(module));
    Ok(is_listed || dict.get_item("__spec__")?.is_some_and(|spec| !spec.is_none()))
}

/// Names that the interpreter puts into every module: the interpreter's own objects are saved by name.
fn interpreter_name(py: Python<'_>, name: &str, value: Obj) -> Option<GlobalName> {
    let (module, qualname) = match name {
        "__builtins__" => ("builtins", "__dict__"),
        "__loader__" | "__spec__" => ("__main__", name),
        _ => return None,
    };
    let modules = py.import("sys").ok()?.getattr("modules").ok()?;
    let there = modules.get_item(module).ok()?.getattr(qualname).ok()?;
    let is_it = !there.is_none() && there.as_ptr() == value.ptr();
    is_it.then(|| GlobalName { module: module.to_owned(), qualname: qualname.to_owned() })
}

impl Drop for Pending {
    fn drop(&mut self) {
        for (_, walked) in &self.variables {
            if let Some((value, _)) = walked {
                value.decref();
            }
        }
    }
}
