//! Objects that say themselves how they are made again: our table of reducers, `copyreg`, `__reduce_ex__(5)`.

use super::frames::{At, Frame, FrameKind};
use super::kinds::Kind;
use super::memory::Span;
use super::ndarray::{is_array, view};
use super::session::NONE;
use super::walker::{Step, Walker};
use crate::py::Obj;
use chipmink_format::tag;
use chipmink_types::SkippedVariable;
use pyo3::exceptions::{PyRecursionError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

/// A reduce value being written. Its objects are kept by the walk.
pub(crate) struct Reduction {
    callable: Obj,
    arguments: Obj,
    state: Option<Obj>,
    list: Option<Obj>,
    dict: Option<Obj>,
    setter: Option<Obj>,
    flags: u8,
    /// Memory that the object exports, and other objects may show.
    exported: Option<Span>,
    /// Where the tag stands.
    at: usize,
    /// The object itself was made by a reducer for this walk alone.
    is_temporary: bool,
    stage: Stage,
}

/// So many reductions must be under way before it is asked whether they ever end.
const UNDER_WAY: usize = 1 << 10;
/// How often an object may be reduced while it is being reduced: once for each container through which it leads to itself.
const ASKED_MAX: usize = 500;
/// How many objects that reducers have made for the walk may stand one inside the other.
const NEW_MAX: usize = 10_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Callable,
    Arguments,
    Created,
    Dict,
    Setter,
    State,
    Done,
}

impl<'py> Walker<'_, 'py> {
    /// Begins an object through its reducer.
    pub(crate) fn start_reduce(&mut self, object: Obj, kind: Kind) -> Step {
        self.no_shadow();
        if let Some(Some(id)) = self.session.names.known(object) {
            self.builder().global(id);
            return Ok(());
        }
        if kind == Kind::PickleBuffer {
            return self.pickle_buffer(object);
        }
        self.hold();
        self.keep(object);
        self.culprit = Some(object);
        let value = self.reduce_value(object, kind)?;
        self.reduced(object, kind, value)
    }

    /// Goes on with what the reducer of an object, which is kept, has answered.
    pub(crate) fn reduced(&mut self, object: Obj, kind: Kind, value: Bound<'py, PyAny>) -> Step {
        if let Ok(name) = value.cast::<PyString>() {
            return self.reduced_to_name(object, kind, &name.clone());
        }
        if value.get_type().name().is_ok_and(|name| name == "Stub") {
            return self.stub(object, &value);
        }
        let parts = value.cast::<PyTuple>().map_err(|_| {
            pickling_error(
                self.py,
                format!(
                    "the reducer of {} returned {}, not a string or tuple",
                    crate::py::type_name(&object.bound(self.py)),
                    crate::py::type_name(&value)
                ),
            )
        })?;
        let reduction = self.parse(object, parts)?;
        self.refuse_endless(object)?;
        self.culprit = None;
        self.own(value.clone());
        let exported = self.stand_in(object, kind, &reduction)?;
        if let Some(span) = exported {
            self.rigid_place(object, span);
        }
        let at = self.builder().buf.len();
        let flags = reduction.flags;
        let builder = self.builder();
        builder.byte(tag::REDUCE);
        builder.byte(flags);
        self.reductions.push(Reduction { at, exported, ..reduction });
        self.push(FrameKind::Reduce { object }, NONE);
        Ok(())
    }

    /// Ends reductions that lead to themselves before any of them is done, or to ever new objects: pickle runs out of stack
    /// there, and here nothing else would end them but memory.
    fn refuse_endless(&self, object: Obj) -> Step {
        let under_way = self.reductions.len();
        if under_way < UNDER_WAY || !under_way.is_power_of_two() {
            return Ok(());
        }
        let is_again =
            |frame: &&Frame| matches!(frame.kind, FrameKind::Reduce { object: other } if other == object);
        let asked = self.stack.iter().filter(is_again).count();
        let new = self.reductions.iter().rev().take_while(|reduction| reduction.is_temporary).count();
        if asked <= ASKED_MAX && new <= NEW_MAX {
            return Ok(());
        }
        let what = if asked > ASKED_MAX { "leads back to it" } else { "leads to ever new objects" };
        let type_name = crate::py::type_name(&object.bound(self.py));
        Err(PyRecursionError::new_err(format!("what the reducer of {type_name} gives {what}, without end"))
            .into())
    }

    /// Whether an object is made again of an array over its memory (one of its rules says so), which others may show as
    /// they may that of plain arrays. Else the memory that it exports.
    fn stand_in(&mut self, object: Obj, kind: Kind, reduction: &Reduction) -> Step<Option<Span>> {
        let ndarray = self.session.kinds.ndarray();
        let arguments = reduction.arguments.bound(self.py).cast_into::<PyTuple>().map_err(PyErr::from)?;
        let plain = arguments.get_item(0).ok().map(|plain| Obj::of(&plain));
        let Some(plain) = plain.filter(|plain| plain.ty_addr() == ndarray && ndarray != 0) else {
            return Ok(self.exporter_memory(object, kind));
        };
        let callables = self.session.reducers.bind(self.py).getattr("STAND_INS")?;
        let callable = reduction.callable.bound(self.py);
        let is_known = callables.try_iter()?.any(|known| known.is_ok_and(|known| known.is(&callable)));
        let first = view(plain).data as usize;
        let is_same = is_known && is_array(object, ndarray) && view(object).data as usize == first;
        let exported = if is_same { None } else { self.exporter_memory(object, kind) };
        if is_same || (is_known && exported.is_some_and(|span| span.start == first)) {
            self.stand_ins.insert(plain.addr(), object);
            return Ok(None);
        }
        Ok(exported)
    }

    pub(crate) fn reduce_value(&mut self, object: Obj, kind: Kind) -> Step<Bound<'py, PyAny>> {
        let py = self.py;
        let bound = object.bound(py);
        let rule = match kind {
            Kind::Class | Kind::Copyreg => None,
            _ => self.rule(object)?,
        };
        let context = self.context.bind(py);
        if kind == Kind::Function {
            // SAFETY: exactly a function, which is alive; a borrowed reference.
            let globals = unsafe { ffi::PyFunction_GetGlobals(object.ptr()) };
            let is_met = self.session.memo.get(globals as usize).is_some();
            context.setattr(pyo3::intern!(py, "has_met_globals"), is_met)?;
        }
        let value = match (rule, kind) {
            (Some(rule), _) => rule.bind(py).call1((&bound, context)),
            (None, Kind::Class) => {
                self.session.reducers.bind(py).getattr("reduce_class")?.call1((&bound, context))
            }
            (None, Kind::Copyreg) => {
                py.import("copyreg")?.getattr("dispatch_table")?.get_item(bound.get_type())?.call1((&bound,))
            }
            _ => bound.call_method1(pyo3::intern!(py, "__reduce_ex__"), (5,)),
        };
        let value = value?;
        if matches!(kind, Kind::Class | Kind::Function) {
            let names: Vec<String> = self.context.bind(py).call_method0("take_names")?.extract()?;
            self.builder().names.extend(names);
        }
        Ok(value)
    }

    /// The rule that the table of reducers has for objects of this type, asked once per walk and type.
    fn rule(&mut self, object: Obj) -> PyResult<Option<Py<PyAny>>> {
        let py = self.py;
        if let Some(known) = self.rules.get(&object.ty_addr()) {
            return Ok(known.as_ref().map(|rule| rule.clone_ref(py)));
        }
        let ty = object.class().bound(py);
        let rule = self.session.reducers.bind(py).getattr("resolve")?.call1((&ty,))?;
        let rule = (!rule.is_none()).then(|| rule.unbind());
        self.rules.insert(object.ty_addr(), rule.as_ref().map(|rule| rule.clone_ref(py)));
        self.own(ty);
        Ok(rule)
    }

    /// Whether the exception asks the program to end, which is not for a variable to swallow.
    pub(crate) fn is_interrupt(&self, error: &PyErr) -> bool {
        error.is_instance_of::<pyo3::exceptions::PyKeyboardInterrupt>(self.py)
            || error.is_instance_of::<pyo3::exceptions::PySystemExit>(self.py)
    }

    fn parse(&mut self, object: Obj, parts: &Bound<'_, PyTuple>) -> Step<Reduction> {
        let py = self.py;
        let type_name = || crate::py::type_name(&object.bound(py));
        let len = parts.len();
        if !(2..=6).contains(&len) {
            return Err(pickling_error(
                py,
                format!("the reducer of {} returned a tuple of {len}, not of 2 to 6", type_name()),
            )
            .into());
        }
        let part = |i: usize| -> Option<Obj> {
            let item = parts.get_item(i).ok()?;
            (!item.is_none()).then(|| Obj::of(&item))
        };
        let (Some(callable), Some(arguments)) = (part(0), part(1)) else {
            return Err(pickling_error(py, format!("the reducer of {} gave no callable", type_name())).into());
        };
        if !callable.bound(py).is_callable() || !arguments.bound(py).is_instance_of::<PyTuple>() {
            return Err(pickling_error(
                py,
                format!("the reducer of {} must give a callable and a tuple of arguments", type_name()),
            )
            .into());
        }
        let (state, list, dict, setter) = (part(2), part(3), part(4), part(5));
        for (items, what) in [(list, "fourth"), (dict, "fifth")] {
            if let Some(items) = items
                && !items.bound(py).hasattr("__next__")?
            {
                return Err(pickling_error(
                    py,
                    format!("the {what} element of the reduce value of {} must be an iterator", type_name()),
                )
                .into());
            }
        }
        if let Some(setter) = setter
            && !setter.bound(py).is_callable()
        {
            return Err(pickling_error(
                py,
                format!("the sixth element of the reduce value of {} must be a callable", type_name()),
            )
            .into());
        }
        let mut flags = 0;
        for (present, flag) in [
            (list.is_some(), tag::REDUCE_LIST),
            (dict.is_some(), tag::REDUCE_DICT),
            (state.is_some(), tag::REDUCE_STATE),
            (state.is_some() && setter.is_some(), tag::REDUCE_SETTER),
        ] {
            if present {
                flags |= flag;
            }
        }
        let mut reduction = Reduction {
            callable,
            arguments,
            state,
            list,
            dict,
            setter,
            flags,
            exported: None,
            at: 0,
            is_temporary: self.is_temporary,
            stage: Stage::Callable,
        };
        self.use_new(object, &mut reduction)?;
        Ok(reduction)
    }

    /// `copyreg.__newobj__` and `__newobj_ex__` become a call of `__new__`, as in pickle.
    fn use_new(&mut self, object: Obj, reduction: &mut Reduction) -> Step {
        let py = self.py;
        let callable = reduction.callable.bound(py);
        let name = callable.getattr_opt(pyo3::intern!(py, "__name__"))?;
        let is = |text: &str| name.as_ref().is_some_and(|name| name.eq(text).unwrap_or(false));
        let (flag, expected) = if is("__newobj__") {
            (tag::REDUCE_NEWOBJ, None)
        } else if is("__newobj_ex__") {
            (tag::REDUCE_NEWOBJ_EX, Some(3))
        } else {
            return Ok(());
        };
        let arguments = reduction.arguments.bound(py).cast_into::<PyTuple>().map_err(PyErr::from)?;
        let fail = |reason: &str| -> Step {
            Err(pickling_error(
                py,
                format!("the reducer of {}: {reason}", crate::py::type_name(&object.bound(py))),
            )
            .into())
        };
        if arguments.is_empty() || expected.is_some_and(|len| arguments.len() != len) {
            return fail("wrong number of arguments for copyreg.__newobj__");
        }
        if flag == tag::REDUCE_NEWOBJ_EX
            && !(arguments.get_item(1)?.is_instance_of::<PyTuple>()
                && arguments.get_item(2)?.is_instance_of::<PyDict>())
        {
            return fail("copyreg.__newobj_ex__ takes a class, a tuple and a dict");
        }
        let class = arguments.get_item(0)?;
        if !class.hasattr("__new__")? {
            return fail("the first argument of copyreg.__newobj__ has no __new__");
        }
        // An object may give itself out as one of another class; what `object` says of it is true.
        if !class.is(&object.bound(py).getattr("__class__")?) && !class.is(object.class().bound(py)) {
            return fail("the first argument of copyreg.__newobj__ is not the object's class");
        }
        reduction.flags |= flag;
        reduction.callable = Obj::of(&class);
        let rest = arguments.get_slice(1, arguments.len()).into_any();
        // Nobody else refers to the class through the new tuple; the reduce value keeps it alive.
        reduction.arguments = self.own(rest);
        Ok(())
    }

    pub(crate) fn step_reduce(&mut self, _top: usize, object: Obj) -> Step {
        let Some(reduction) = self.reductions.last_mut() else {
            unreachable!("a reduce frame owns a reduction");
        };
        match reduction.stage {
            Stage::Callable => {
                reduction.stage = Stage::Arguments;
                let callable = reduction.callable;
                self.value(callable, At::NOWHERE)
            }
            Stage::Arguments => {
                reduction.stage = Stage::Created;
                let arguments = reduction.arguments;
                self.value(arguments, At::NOWHERE)
            }
            Stage::Created => self.reduced_exists(object),
            Stage::Dict => {
                reduction.stage = Stage::Setter;
                let Some(dict) = reduction.dict else { return Ok(()) };
                let mut items = Vec::new();
                let py = self.py;
                for pair in dict.bound(py).try_iter()? {
                    let pair = pair?;
                    let pair = pair.cast_into::<PyTuple>().map_err(PyErr::from)?;
                    if pair.len() != 2 {
                        let text = format!("a dict item of a reduce value has {} parts, not 2", pair.len());
                        return Err(PyValueError::new_err(text).into());
                    }
                    items.push(Obj::of(&pair.get_item(0)?));
                    items.push(Obj::of(&pair.get_item(1)?));
                    self.own(pair.into_any());
                }
                let count = items.len() / 2;
                self.push_values(items, count)
            }
            Stage::Setter => {
                reduction.stage = Stage::State;
                match (reduction.setter, reduction.state) {
                    (Some(setter), Some(_)) => self.value(setter, At::NOWHERE),
                    _ => Ok(()),
                }
            }
            Stage::State => {
                reduction.stage = Stage::Done;
                match reduction.state {
                    Some(state) => self.value(state, At::NOWHERE),
                    None => Ok(()),
                }
            }
            Stage::Done => self.end_reduce(),
        }
    }

    fn end_reduce(&mut self) -> Step {
        self.pop()?;
        self.reductions.pop();
        Ok(())
    }

    fn push_values(&mut self, items: Vec<Obj>, count: usize) -> Step {
        self.builder().varint(count as u64);
        if !items.is_empty() {
            self.sequences.push(items);
            self.is_temporary = true;
            self.push(FrameKind::Values { next: 0, shape: NONE }, NONE);
        }
        Ok(())
    }

    /// Callable and arguments are written: the object exists, unless it came to exist meanwhile.
    fn reduced_exists(&mut self, object: Obj) -> Step {
        if let Some(entry) = self.session.memo.get(object.addr()) {
            let Some(reduction) = self.reductions.last() else { return Ok(()) };
            let (at, flags) = (reduction.at, reduction.flags);
            let builder = self.builder();
            builder.buf[at] = tag::REDUCE_AGAIN;
            builder.buf[at + 1] = flags & (tag::REDUCE_NEWOBJ | tag::REDUCE_NEWOBJ_EX);
            self.end_reduce()?;
            self.made_inside();
            return self.reference(object, entry, At::NOWHERE);
        }
        let number = self.builder().take_number();
        self.is_temporary = self.reductions.last().is_some_and(|reduction| reduction.is_temporary);
        self.memoize(object, number);
        // What is reached from here in other pods refers to it as the next save will.
        let visit = &self.visits[self.current as usize];
        if let (Some(addr), Some(slot)) = (visit.root_addrs.last(), visit.root_slots.last())
            && *addr == object.addr()
        {
            self.session.memo.offer(*addr, visit.pod, *slot);
        }
        if let Some(span) = self.reductions.last().and_then(|reduction| reduction.exported) {
            self.own_rigid(object, span, None);
        }
        let Some(reduction) = self.reductions.last_mut() else { return Ok(()) };
        reduction.stage = Stage::Dict;
        let Some(list) = reduction.list else { return Ok(()) };
        let mut items = Vec::new();
        let py = self.py;
        for item in list.bound(py).try_iter()? {
            let item = item?;
            items.push(self.own(item));
        }
        let count = items.len();
        self.push_values(items, count)
    }

    /// The reducer gave a name: the object is saved by name.
    fn reduced_to_name(&mut self, object: Obj, kind: Kind, name: &Bound<'py, PyString>) -> Step {
        let py = self.py;
        let bound = object.bound(py);
        let text = name.to_string();
        let (module, name) = match text.split_once(':') {
            // One of our own rules, which knows the module.
            Some((module, name)) => (PyString::new(py, module), &PyString::new(py, name)),
            None => {
                let module = py.import("pickle")?.call_method1("whichmodule", (&bound, name))?;
                (module.cast_into::<PyString>().map_err(PyErr::from)?, name)
            }
        };
        let held = self.held;
        let found = self.session.names.holds(&bound, &module, name, held).unwrap_or(None);
        let Some(id) = found else {
            // One of the program's own, which no other program could import.
            let parts = self.session.reducers.bind(py).getattr("unnamed")?;
            let parts = parts.call1((&bound, &module, self.context.bind(py)))?;
            if !parts.is_none() {
                return self.reduced(object, kind, parts);
            }
            let type_name = crate::py::type_name(&bound);
            let text =
                format!("{type_name} is to be saved by name, but {module}.{name} is not the same object");
            return Err(pickling_error(py, text).into());
        };
        self.session.names.remember(object, Some(id));
        self.culprit = None;
        self.builder().global(id);
        Ok(())
    }

    /// Writes a placeholder for an object that cannot be saved.
    fn stub(&mut self, object: Obj, stub: &Bound<'_, PyAny>) -> Step {
        let py = self.py;
        let field = |name: &str| -> PyResult<String> { stub.getattr(name)?.extract() };
        let (kind, type_name, reason) = (field("kind")?, field("type_name")?, field("reason")?);
        if self.stream.is_some() {
            return Err(PyTypeError::new_err(format!("cannot save {type_name} to a stream: {reason}")).into());
        }
        let path = self.path();
        self.culprit = None;
        let builder = self.builder();
        builder.byte(tag::STUB);
        for text in [&kind, &type_name, &reason] {
            super::builder::put_text(&mut builder.buf, py, text);
        }
        let number = builder.take_number();
        self.memoize(object, number);
        self.visits[self.current as usize].is_opaque = true;
        let variable = self.variable;
        self.stubs.push((variable, SkippedVariable { path, type_name, reason }));
        Ok(())
    }
}

/// What pickle raises for a reduce value that makes no sense.
fn pickling_error(py: Python<'_>, text: String) -> PyErr {
    match py.import("pickle").and_then(|pickle| pickle.getattr("PicklingError")?.call1((&text,))) {
        Ok(error) => PyErr::from_value(error),
        Err(_) => PyTypeError::new_err(text),
    }
}
