//! Shapes: the class and attribute names of plain instances, made ready once for each load.

use super::error::{Failure, RebuildError, Result};
use super::loader::Loader;
use super::object;
use super::options::full_name;
use super::pods::Offer;
use super::reduce::no_class;
use chipmink_types::ShapeClass;
use hashbrown::HashMap;
use pyo3::exceptions::PyAttributeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple, PyType};
use std::cell::Cell;
use std::rc::Rc;

/// A class and the names of the attributes that its instances get.
pub(super) struct Shape<'py> {
    class: Bound<'py, PyType>,
    /// Interned: names in `__dict__`, then names of slots.
    pub(super) names: Vec<Bound<'py, PyAny>>,
    /// How many of `names` go into `__dict__`.
    dict_len: usize,
    /// Whether a name of `__dict__` is also that of a descriptor of the class, so that setting the attribute would not
    /// reach `__dict__`.
    through_dict: bool,
    /// What sets an instance's `__dict__` as a whole, whatever the class makes of that name; `None`: instances have none.
    dict_descriptor: Option<Bound<'py, PyAny>>,
    empty_tuple: Bound<'py, PyTuple>,
    /// Whether `object.__new__` has accepted the class.
    is_proved: Cell<bool>,
}

/// The shapes that a load has met, over all its pods.
#[derive(Default)]
pub(super) struct ShapeTable<'py> {
    by_content: HashMap<(usize, Vec<usize>, usize), Rc<Shape<'py>>>,
}

/// What reading a shape ordinal leads to.
pub(super) enum ShapeStep<'py> {
    Shape(Rc<Shape<'py>>),
    /// Its class is in a pod that must run first.
    RunFirst(usize),
}

impl<'py> Shape<'py> {
    pub(super) fn has_dict_names(&self) -> bool {
        self.dict_len > 0
    }

    /// A new instance without attributes, made as `object.__new__(cls)` makes it.
    #[inline(always)]
    pub(super) fn instance(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        if !self.is_proved.get() {
            // The method checks what the bare slot function does not: that the class has no base laid out otherwise.
            let object = py.get_type::<PyAny>().call_method1("__new__", (&self.class,))?;
            self.is_proved.set(true);
            return Ok(object);
        }
        // SAFETY: reading a static of the interpreter.
        let Some(new) = (unsafe { ffi::PyBaseObject_Type.tp_new }) else {
            return Err(Failure::damaged("object has no __new__"));
        };
        // SAFETY: `object.__new__` has made an instance of this class before, and a class's layout never changes; the
        // arguments are an empty tuple and no keywords.
        object::own(py, unsafe {
            new(self.class.as_type_ptr(), self.empty_tuple.as_ptr(), std::ptr::null_mut())
        })
    }

    /// Makes `dict` itself the instance's `__dict__`.
    pub(super) fn set_dict(
        &self,
        py: Python<'py>,
        object: &Bound<'py, PyAny>,
        dict: &Bound<'py, PyAny>,
    ) -> Result<()> {
        let Some(descriptor) = &self.dict_descriptor else {
            let name = self.class.fully_qualified_name()?;
            return Err(PyAttributeError::new_err(format!("instances of {name} have no __dict__ now")).into());
        };
        // SAFETY: a live descriptor.
        let Some(set) = (unsafe { (*ffi::Py_TYPE(descriptor.as_ptr())).tp_descr_set }) else {
            return Err(Failure::damaged("__dict__ cannot be set"));
        };
        // SAFETY: the slot of the descriptor's own type; it refuses an object of another class, and what is no dict.
        object::done(py, unsafe { set(descriptor.as_ptr(), object.as_ptr(), dict.as_ptr()) })
    }

    /// Sets the attribute with the `index`-th name, without calling any code of the class.
    #[inline(always)]
    pub(super) fn set(
        &self,
        py: Python<'py>,
        object: &Bound<'py, PyAny>,
        index: usize,
        value: &Bound<'py, PyAny>,
    ) -> Result<()> {
        let name = &self.names[index];
        if self.through_dict && index < self.dict_len {
            return object::dict_set(py, &own_dict(py, object)?, name, value);
        }
        // SAFETY: all are alive; this is what `object.__setattr__` does.
        object::done(py, unsafe {
            ffi::PyObject_GenericSetAttr(object.as_ptr(), name.as_ptr(), value.as_ptr())
        })
    }
}

/// The descriptor of `__dict__` of the class, or nearest base, that gave its instances one.
///
/// (`PyObject_GenericSetDict` would need none, but does not know the inline attributes of 3.13.)
fn dict_descriptor<'py>(py: Python<'py>, class: &Bound<'py, PyType>) -> Result<Option<Bound<'py, PyAny>>> {
    for base in class.mro().iter() {
        let names = base.getattr("__dict__")?;
        let Some(found) = names.call_method1("get", ("__dict__",)).ok().filter(|found| !found.is_none())
        else {
            continue;
        };
        // SAFETY: alive.
        if unsafe { ffi::Py_TYPE(found.as_ptr()) } == &raw mut ffi::PyGetSetDescr_Type
            && !base.is(py.get_type::<PyType>())
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// An instance's own `__dict__`.
pub(super) fn own_dict<'py>(py: Python<'py>, object: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
    // SAFETY: alive; returns a new reference, or null with an exception if instances have no dict.
    object::own(py, unsafe { ffi::PyObject_GenericGetDict(object.as_ptr(), std::ptr::null_mut()) })
}

impl<'py, 'a> Loader<'py, 'a> {
    /// The shape that the pod being read means by an ordinal.
    #[inline(always)]
    pub(super) fn shape(&mut self, ordinal: u64) -> Result<ShapeStep<'py>> {
        let known = usize::try_from(ordinal).ok().and_then(|at| self.active.last()?.shapes.get(at)?.clone());
        match known {
            Some(shape) => Ok(ShapeStep::Shape(shape)),
            None => self.find_shape(ordinal),
        }
    }

    #[cold]
    #[inline(never)]
    fn find_shape(&mut self, ordinal: u64) -> Result<ShapeStep<'py>> {
        let shapes = &self.current_plan()?.shapes;
        let index = usize::try_from(ordinal).ok().filter(|&index| index < shapes.len()).ok_or_else(|| {
            Failure::damaged(format!("shape {ordinal} is referred to, of {}", shapes.len()))
        })?;
        let described = &shapes[index];
        let class = match described.class {
            ShapeClass::Global(global) => self.global(u64::from(global))?,
            ShapeClass::Dependency(slot, export) => {
                let position = self.dependency(u64::from(slot))?;
                match self.export(position, u64::from(export))? {
                    Offer::Object(entry) => entry.object,
                    Offer::NotRun => return Ok(ShapeStep::RunFirst(position)),
                }
            }
        };
        let class = class.cast_into::<PyType>().map_err(|error| no_class(&error.into_inner()))?;
        let names = described.dict_names.iter().chain(&described.slot_names);
        let names: Vec<_> = names.map(|name| PyString::intern(self.py, name).into_any()).collect();
        let key = (
            class.as_ptr() as usize,
            names.iter().map(|name| name.as_ptr() as usize).collect(),
            described.dict_names.len(),
        );
        let shape = match self.shapes.by_content.get(&key) {
            Some(shape) => shape.clone(),
            None => {
                let shape = Rc::new(self.make_shape(class, names, described.dict_names.len())?);
                self.shapes.by_content.insert(key, shape.clone());
                shape
            }
        };
        let used = &mut self.current()?.shapes;
        if used.len() <= index {
            used.resize(index + 1, None);
        }
        used[index] = Some(shape.clone());
        Ok(ShapeStep::Shape(shape))
    }

    fn make_shape(
        &self,
        class: Bound<'py, PyType>,
        names: Vec<Bound<'py, PyAny>>,
        dict_len: usize,
    ) -> Result<Shape<'py>> {
        let ty = class.as_type_ptr();
        let is_data_descriptor = |name: &Bound<'py, PyAny>| {
            object::type_lookup(self.py, ty, name).is_some_and(|found| {
                // SAFETY: the type of a live object is alive.
                unsafe { (*ffi::Py_TYPE(found.as_ptr())).tp_descr_set.is_some() }
            })
        };
        // SAFETY: a live class.
        let has_dict = unsafe { (*ty).tp_dictoffset != 0 };
        let through_dict = has_dict && names[..dict_len].iter().any(is_data_descriptor);
        let by_descriptor = if has_dict { &names[dict_len..] } else { &names[..] };
        for name in by_descriptor {
            let Some(found) = object::type_lookup(self.py, ty, name) else { continue };
            // SAFETY: as above.
            let (is_member, is_data) = unsafe {
                let found_type = ffi::Py_TYPE(found.as_ptr());
                (found_type == &raw mut ffi::PyMemberDescr_Type, (*found_type).tp_descr_set.is_some())
            };
            if is_data && !is_member && self.restriction.is_some() {
                let class_name = full_name(&class.module()?.to_string(), &class.qualname()?.to_string());
                return Err(RebuildError::Refused {
                    name: format!("{class_name}.{name}"),
                    place: String::new(),
                }
                .into());
            }
        }
        let dict_descriptor =
            if has_dict && dict_len == 0 { dict_descriptor(self.py, &class)? } else { None };
        Ok(Shape {
            class,
            dict_descriptor,
            names,
            dict_len,
            through_dict,
            empty_tuple: PyTuple::empty(self.py),
            is_proved: Cell::new(false),
        })
    }
}
