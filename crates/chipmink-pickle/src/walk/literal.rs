//! Values: immutable descriptions, such as dtypes and types of columns, which each pod has for itself as it has its atoms.
//!
//! The reducers say of a value with which call it is made again, from nothing but atoms, classes saved by name, plain
//! containers of them, and other such calls. So it is written without entering the memo: objects that name equal
//! descriptions are not connected by them, and a library may share its descriptions as it likes.
//!
//! 1. What is written of a value is a function of what the reducers said, never of who else refers to it.
//! 2. Within a pod a value is written once, so there it is one object again.

use super::kinds::Kind;
use super::walker::{Step, Walker};
use crate::py::Obj;
use chipmink_format::tag;
use chipmink_types::GlobalName;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

/// Deepest nesting of a description that is written.
const MAX_DEPTH: u32 = 200;

impl Walker<'_, '_> {
    /// Writes a value, or a reference to it in this pod.
    pub(crate) fn start_value(&mut self, object: Obj) -> Step {
        self.no_shadow();
        match self.literal_of(object)? {
            Some(literal) => self.write_value(object, literal),
            None => self.start_reduce(object, Kind::Reduce),
        }
    }

    /// What the reducers say of a value; `None`: that it is an object like others.
    fn literal_of(&mut self, object: Obj) -> Step<Option<Obj>> {
        if let Some(known) = self.literals.get(&object.addr()) {
            return Ok(*known);
        }
        self.hold();
        let bound = object.bound(self.py);
        let said = self.session.reducers.bind(self.py).call_method1("value_of", (&bound,))?;
        self.own(bound);
        let literal = (!said.is_none()).then(|| self.own(said));
        self.literals.insert(object.addr(), literal);
        Ok(literal)
    }

    /// Writes `literal`, which is kept, for an object that is kept.
    pub(crate) fn write_value(&mut self, object: Obj, literal: Obj) -> Step {
        if let Some(number) = self.builder().local_number(object) {
            self.builder().reference(number);
            return Ok(());
        }
        self.write_literal(literal, 0)?;
        let builder = self.builder();
        let number = builder.next - 1;
        builder.set_local_number(object, number);
        Ok(())
    }

    fn write_literal(&mut self, literal: Obj, depth: u32) -> Step {
        let bound = literal.bound(self.py);
        if depth > MAX_DEPTH {
            return Err(impossible("is nested too deep"));
        }
        if literal.is_atom() {
            return match self.builder().atom(literal) {
                true => Ok(()),
                false => Err(impossible("has an atom of 64 KiB or more")),
            };
        }
        if let Ok(items) = bound.cast_exact::<PyTuple>() {
            return self.write_literal_tuple(items, depth);
        }
        if let Ok(items) = bound.cast_exact::<PyList>() {
            self.builder().tag_varint(tag::LIST, items.len() as u64);
            self.builder().take_number();
            for item in items {
                self.write_literal_part(item, depth)?;
            }
            return Ok(());
        }
        if let Ok(items) = bound.cast_exact::<PyDict>() {
            self.builder().tag_varint(tag::DICT, items.len() as u64);
            self.builder().take_number();
            for (key, value) in items {
                self.write_literal_part(key, depth)?;
                self.write_literal_part(value, depth)?;
            }
            return Ok(());
        }
        if literal.is_class() || literal.is_function() {
            return match self.global_of(literal)? {
                Some(id) => {
                    self.builder().global(id);
                    Ok(())
                }
                None => Err(impossible("names a class or function that no import finds")),
            };
        }
        let Ok(callable) = bound.getattr(pyo3::intern!(self.py, "callable")) else {
            return Err(impossible("has a part that is none"));
        };
        self.write_call(&callable, &bound.getattr(pyo3::intern!(self.py, "arguments"))?, depth)
    }

    fn write_literal_tuple(&mut self, items: &Bound<'_, PyTuple>, depth: u32) -> Step {
        if items.is_empty() {
            self.builder().byte(tag::EMPTY_TUPLE);
            return Ok(());
        }
        self.builder().tag_varint(tag::TUPLE, items.len() as u64);
        for item in items {
            self.write_literal_part(item, depth)?;
        }
        self.builder().take_number();
        Ok(())
    }

    fn write_literal_part(&mut self, part: Bound<'_, PyAny>, depth: u32) -> Step {
        // A part of what is kept; containers of literals are made for them and do not change.
        self.write_literal(Obj::of(&part), depth + 1)
    }

    /// An object saved by name, or one that a call of it makes.
    fn write_call(&mut self, callable: &Bound<'_, PyAny>, arguments: &Bound<'_, PyAny>, depth: u32) -> Step {
        let name: String = callable.cast::<PyString>().map_err(PyErr::from)?.extract()?;
        let Some((module, qualname)) = name.split_once(':') else {
            return Err(impossible("names no module"));
        };
        let id =
            self.session.names.id(GlobalName { module: module.to_owned(), qualname: qualname.to_owned() });
        if arguments.is_none() {
            self.builder().global(id);
            return Ok(());
        }
        self.builder().bytes(&[tag::REDUCE, 0]);
        self.builder().global(id);
        self.write_literal_tuple(arguments.cast_exact::<PyTuple>().map_err(PyErr::from)?, depth)?;
        self.builder().take_number();
        Ok(())
    }
}

fn impossible(reason: &str) -> super::walker::Stop {
    pyo3::exceptions::PyValueError::new_err(format!("what a reducer says of a value {reason}")).into()
}
