//! Reduced objects: a callable, its arguments, and what is done to the result, as in pickle.

use super::containers::wrong_frame;
use super::defer::Place;
use super::error::{Failure, Result};
use super::frame::Build;
use super::loader::{Loader, Step};
use super::memo::Mark;
use super::object;
use chipmink_format::tag;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple, PyType};

/// At most this many items are given to one call of `extend`, as pickle does.
const BATCH_LEN: usize = 1000;

const KNOWN_FLAGS: u8 = tag::REDUCE_NEWOBJ
    | tag::REDUCE_NEWOBJ_EX
    | tag::REDUCE_LIST
    | tag::REDUCE_DICT
    | tag::REDUCE_STATE
    | tag::REDUCE_SETTER;

/// Where a reduction stands: what its next value is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Callable,
    Arguments,
    List(usize),
    Key(usize),
    Value(usize),
    Setter,
    State,
}

/// A reduced object on its way.
pub(super) struct Reduction<'py> {
    flags: u8,
    /// The object exists already: nothing is called, a reference follows.
    again: bool,
    part: Part,
    callable: Option<Bound<'py, PyAny>>,
    pub(super) object: Option<Bound<'py, PyAny>>,
    /// List items that have not been handed over yet.
    batch: Vec<Bound<'py, PyAny>>,
    key: Option<Bound<'py, PyAny>>,
    key_mark: Mark,
    wait: Mark,
    setter: Option<Bound<'py, PyAny>>,
}

impl Reduction<'_> {
    /// Whether the state is read next.
    pub(super) fn is_at_state(&self) -> bool {
        self.part == Part::State
    }
}

impl<'py> Loader<'py, '_> {
    pub(super) fn begin_reduction(&mut self, again: bool) -> Result<Step<'py>> {
        let flags = self.at.reader.byte()?;
        let both_new = tag::REDUCE_NEWOBJ | tag::REDUCE_NEWOBJ_EX;
        let allowed = if again { both_new } else { KNOWN_FLAGS };
        let setter_alone = flags & tag::REDUCE_SETTER != 0 && flags & tag::REDUCE_STATE == 0;
        if flags & !allowed != 0 || flags & both_new == both_new || setter_alone {
            return Err(Failure::damaged(format!("a reduced object has the flags {flags:#04x}")));
        }
        self.open_later(Build::Reduce(Box::new(Reduction {
            flags,
            again,
            part: Part::Callable,
            callable: None,
            object: None,
            batch: Vec::new(),
            key: None,
            key_mark: Mark::SETTLED,
            wait: Mark::SETTLED,
            setter: None,
        })))
    }

    pub(super) fn fill_reduction(&mut self, top: usize) -> Result<()> {
        let mut delivered = self.delivered.take();
        loop {
            let part = self.reduction(top)?.part;
            match part {
                Part::List(0) => {
                    self.hand_over(top)?;
                    self.after_list(top)?;
                    continue;
                }
                Part::Key(0) => {
                    if self.after_dict(top)? {
                        return Ok(());
                    }
                    continue;
                }
                Part::State if delivered.is_none() => {
                    let reduction = self.reduction(top)?;
                    if let (Some(object), Some(setter)) = (reduction.object.clone(), reduction.setter.clone())
                        && self.fill_segment(&object, &setter)?
                    {
                        return self.close(object);
                    }
                }
                _ => {}
            }
            let step = match delivered.take() {
                Some(value) => Step::Value(value),
                None => self.value(0)?,
            };
            let Step::Value(value) = step else { return Ok(()) };
            let mark = self.mark;
            self.absorb(top);
            let reduction = self.reduction(top)?;
            match part {
                Part::Callable => {
                    reduction.callable = Some(value);
                    reduction.part = Part::Arguments;
                }
                Part::Arguments => {
                    if reduction.again {
                        self.stack[top].build = Build::Again;
                        return self.fill_again();
                    }
                    if self.create(top, value)? {
                        return Ok(());
                    }
                }
                Part::List(left) => {
                    reduction.part = Part::List(left - 1);
                    reduction.batch.push(value);
                    if reduction.batch.len() == BATCH_LEN {
                        self.check_signals()?;
                        self.hand_over(top)?;
                    }
                }
                Part::Key(left) => {
                    reduction.key = Some(value);
                    reduction.key_mark = mark;
                    reduction.part = Part::Value(left);
                }
                Part::Value(left) => {
                    reduction.part = Part::Key(left - 1);
                    let (Some(key), Some(object)) = (reduction.key.take(), reduction.object.clone()) else {
                        return Err(wrong_frame());
                    };
                    let (key_mark, mut wait) = (reduction.key_mark, reduction.wait);
                    let is_dict = object.is_exact_instance_of::<PyDict>();
                    let place = if is_dict { Place::Dict } else { Place::Mapping };
                    self.place(place, &object, key, Some(value), key_mark, &mut wait)?;
                    self.reduction(top)?.wait = wait;
                }
                Part::Setter => {
                    reduction.setter = Some(value);
                    reduction.part = Part::State;
                }
                Part::State => {
                    let (Some(object), setter) = (reduction.object.clone(), reduction.setter.take()) else {
                        return Err(wrong_frame());
                    };
                    match setter {
                        Some(setter) => {
                            self.before_call(&setter)?;
                            setter.call1((&object, value))?;
                        }
                        None => self.set_state(&object, &value)?,
                    }
                    return self.close(object);
                }
            }
        }
    }

    fn reduction(&mut self, top: usize) -> Result<&mut Reduction<'py>> {
        match self.stack.get_mut(top).map(|frame| &mut frame.build) {
            Some(Build::Reduce(reduction)) => Ok(reduction),
            _ => Err(wrong_frame()),
        }
    }

    pub(super) fn before_call(&self, callable: &Bound<'py, PyAny>) -> Result<()> {
        match &self.restriction {
            Some(restriction) => restriction.before_call(self.py, callable),
            None => Ok(()),
        }
    }

    /// Calls what makes the object, which takes its memo number; returns whether the object is done with that.
    fn create(&mut self, top: usize, arguments: Bound<'py, PyAny>) -> Result<bool> {
        let reduction = self.reduction(top)?;
        let flags = reduction.flags;
        let Some(callable) = reduction.callable.take() else { return Err(wrong_frame()) };
        self.before_call(&callable)?;
        let Ok(arguments) = arguments.cast_into_exact::<PyTuple>() else {
            return Err(Failure::damaged("the arguments of a reduced object are no tuple"));
        };
        let object = if flags & tag::REDUCE_NEWOBJ != 0 {
            self.call_new(&callable, &arguments, None)?
        } else if flags & tag::REDUCE_NEWOBJ_EX != 0 {
            let (arguments, keywords) = arguments
                .extract::<(Bound<'py, PyTuple>, Bound<'py, PyDict>)>()
                .map_err(|_| Failure::damaged("the arguments of a reduced object are no tuple and dict"))?;
            self.call_new(&callable, &arguments, Some(&keywords))?
        } else {
            callable.call1(arguments)?
        };
        let mark = Mark { depth: top as u32, serial: self.stack[top].serial };
        let memo = self.number_open(&object, mark)?;
        self.stack[top].memo = memo;
        if flags & (tag::REDUCE_LIST | tag::REDUCE_DICT | tag::REDUCE_STATE) == 0 {
            self.close(object)?;
            return Ok(true);
        }
        self.reduction(top)?.object = Some(object);
        if flags & tag::REDUCE_LIST != 0 {
            let count = self.at.reader.count()?;
            self.reduction(top)?.part = Part::List(count);
            return Ok(false);
        }
        self.after_list(top)?;
        Ok(false)
    }

    /// `class.__new__(class, *arguments, **keywords)`, through the class's own slot as pickle does it.
    fn call_new(
        &self,
        class: &Bound<'py, PyAny>,
        arguments: &Bound<'py, PyTuple>,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> Result<Bound<'py, PyAny>> {
        let Ok(class) = class.cast::<PyType>() else {
            return Err(no_class(class));
        };
        let ty = class.as_type_ptr();
        // SAFETY: a live class.
        let Some(new) = (unsafe { (*ty).tp_new }) else {
            let name = class.fully_qualified_name()?;
            return Err(PyTypeError::new_err(format!("cannot create instances of {name}")).into());
        };
        let keywords = keywords.map_or(std::ptr::null_mut(), |keywords| keywords.as_ptr());
        // SAFETY: a class's own `tp_new` takes the class, a tuple, and a dict or null.
        object::own(self.py, unsafe { new(ty, arguments.as_ptr(), keywords) })
    }

    /// Goes on to the dict items, or to what follows them.
    fn after_list(&mut self, top: usize) -> Result<()> {
        let has_dict = self.reduction(top)?.flags & tag::REDUCE_DICT != 0;
        let count = if has_dict { self.at.reader.count()? } else { 0 };
        self.reduction(top)?.part = Part::Key(count);
        Ok(())
    }

    /// Goes on to the state; without one the object is done, which is returned.
    fn after_dict(&mut self, top: usize) -> Result<bool> {
        let reduction = self.reduction(top)?;
        if reduction.flags & tag::REDUCE_STATE == 0 {
            let Some(object) = reduction.object.take() else { return Err(wrong_frame()) };
            self.close(object)?;
            return Ok(true);
        }
        let has_setter = reduction.flags & tag::REDUCE_SETTER != 0;
        reduction.part = if has_setter { Part::Setter } else { Part::State };
        Ok(false)
    }

    /// Gives the object the list items that have been read, as pickle does: by `extend` if there is one, else by
    /// `append`.
    fn hand_over(&mut self, top: usize) -> Result<()> {
        let py = self.py;
        let reduction = self.reduction(top)?;
        let batch = std::mem::take(&mut reduction.batch);
        let Some(object) = reduction.object.clone() else { return Err(wrong_frame()) };
        if batch.is_empty() {
            return Ok(());
        }
        if object.is_exact_instance_of::<PyList>() {
            for item in batch {
                object::append(py, &object, item)?;
            }
            return Ok(());
        }
        match object.getattr_opt("extend")? {
            Some(extend) => {
                extend.call1((PyList::new(py, batch)?,))?;
            }
            None => {
                let append = object.getattr("append")?;
                for item in batch {
                    append.call1((item,))?;
                }
            }
        }
        Ok(())
    }

    /// Restores state as pickle does: `__setstate__` if there is one, else attributes from a dict, or from a pair of
    /// dicts of which the second is for slots.
    fn set_state(&mut self, object: &Bound<'py, PyAny>, state: &Bound<'py, PyAny>) -> Result<()> {
        let py = self.py;
        if let Some(setstate) = object.getattr_opt("__setstate__")? {
            if let Some(restriction) = &self.restriction {
                restriction.before_setstate(py, object)?;
            }
            setstate.call1((state,))?;
            return Ok(());
        }
        let (attributes, slots) = match state.cast::<PyTuple>() {
            Ok(pair) if pair.len() == 2 => (pair.get_item(0)?, Some(pair.get_item(1)?)),
            _ => (state.clone(), None),
        };
        if !attributes.is_none() {
            let attributes = attributes
                .cast::<PyDict>()
                .map_err(|_| PyValueError::new_err("state is not a dictionary"))?;
            if let Some(restriction) = &self.restriction
                && has_own_dict_attribute(object)
            {
                restriction.before_setstate(py, object)?;
            }
            let dict = object.getattr("__dict__")?;
            let is_dict = dict.is_exact_instance_of::<PyDict>();
            let mut position = 0;
            while let Some((key, value)) = object::dict_next(attributes, &mut position) {
                let key = match key.cast_exact::<PyString>() {
                    Ok(name) => interned(py, name),
                    Err(_) => key.clone(),
                };
                if is_dict {
                    object::dict_set(py, &dict, &key, &value)?;
                } else {
                    dict.set_item(key, value)?;
                }
            }
        }
        let Some(slots) = slots.filter(|slots| !slots.is_none()) else { return Ok(()) };
        let slots =
            slots.cast::<PyDict>().map_err(|_| PyValueError::new_err("slot state is not a dictionary"))?;
        if let Some(restriction) = &self.restriction
            && !sets_plainly(object, slots)
        {
            restriction.before_setstate(py, object)?;
        }
        let mut position = 0;
        while let Some((name, value)) = object::dict_next(slots, &mut position) {
            // SAFETY: all are alive; a name that is no str is refused there.
            object::done(py, unsafe {
                ffi::PyObject_SetAttr(object.as_ptr(), name.as_ptr(), value.as_ptr())
            })?;
        }
        Ok(())
    }
}

/// What a saved object is an instance of is something else now.
#[cold]
pub(super) fn no_class(found: &Bound<'_, PyAny>) -> Failure {
    let what = found.repr().map_or_else(|_| "an object".to_owned(), |text| text.to_string());
    PyTypeError::new_err(format!("the class of a saved object is no class now, but {what}")).into()
}

/// Whether reading `object.__dict__` may run code of the class.
fn has_own_dict_attribute(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: alive.
    let ty = unsafe { ffi::Py_TYPE(object.as_ptr()) };
    // SAFETY: the type of a live object is alive.
    let by_default = unsafe { (*ty).tp_getattro.map(|function| function as usize) };
    if by_default != Some(ffi::PyObject_GenericGetAttr as *const () as usize) {
        return true;
    }
    let name = PyString::intern(object.py(), "__dict__").into_any();
    object::type_lookup(object.py(), ty, &name).is_none_or(|found| {
        // SAFETY: alive.
        unsafe { ffi::Py_TYPE(found.as_ptr()) != &raw mut ffi::PyGetSetDescr_Type }
    })
}

/// Whether setting these attributes runs no code of the class.
fn sets_plainly(object: &Bound<'_, PyAny>, names: &Bound<'_, PyDict>) -> bool {
    // SAFETY: alive.
    let ty = unsafe { ffi::Py_TYPE(object.as_ptr()) };
    // SAFETY: the type of a live object is alive.
    let by_default = unsafe { (*ty).tp_setattro.map(|function| function as usize) };
    by_default == Some(ffi::PyObject_GenericSetAttr as *const () as usize)
        && names.keys().iter().all(|name| {
            name.is_exact_instance_of::<PyString>()
                && object::type_lookup(object.py(), ty, &name).is_none_or(|found| {
                    // SAFETY: alive.
                    unsafe {
                        let found_type = ffi::Py_TYPE(found.as_ptr());
                        found_type == &raw mut ffi::PyMemberDescr_Type || (*found_type).tp_descr_set.is_none()
                    }
                })
        })
}

/// The one object that all equal attribute names share.
fn interned<'py>(py: Python<'py>, name: &Bound<'py, PyString>) -> Bound<'py, PyAny> {
    let mut pointer = name.clone().into_ptr();
    // SAFETY: a new reference to an exact str, which the call swaps for one to the interned str.
    unsafe {
        ffi::PyUnicode_InternInPlace(&mut pointer);
        Bound::from_owned_ptr(py, pointer)
    }
}
