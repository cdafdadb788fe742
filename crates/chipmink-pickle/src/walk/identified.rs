//! Objects that are handles of something elsewhere, of which a number that lies in them says all.
//!
//! A rule says of the first object with a number how it is made again: a call with atoms. What it said is written for every
//! object with that number, in this walk and in later ones, without asking it again.
//!
//! 1. Where the number lies is found by looking for it in an object whose rule has just said it, and must be the only place.
//! 2. What rules said holds as long as the context's `epoch` stays: it names all that their answers depend on besides.
//! 3. Only atoms are held.

use super::kinds::Kind;
use super::names::GlobalId;
use super::walker::{Step, Walker};
use crate::py::Obj;
use chipmink_format::tag;
use hashbrown::HashMap;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

/// So many answers are kept: 300 bytes each.
const KEPT_MAX: usize = 1 << 18;
/// Shorter numbers could stand in an object by chance.
const SHORTEST: usize = 16;
/// Longer atoms may be regions, which take another way.
const LONGEST_ATOM: usize = 4096;

/// Where objects of a type have their number.
struct Place {
    byte_offset: usize,
    byte_len: usize,
    /// Held, so that the address stays the type's.
    _class: Py<PyAny>,
}

/// What is made of an object: the call, and its arguments.
struct Answer {
    callable: GlobalId,
    arguments: Py<PyTuple>,
}

/// What rules said of objects with numbers.
#[derive(Default)]
pub(crate) struct Identified {
    epoch: u64,
    /// The present walk has asked for the epoch.
    is_current: bool,
    /// By the address of the type.
    places: HashMap<usize, Place>,
    answers: HashMap<(usize, Box<[u8]>), Answer>,
}

impl Identified {
    pub(crate) fn begin_walk(&mut self) {
        self.is_current = false;
    }

    /// Bytes held.
    pub(crate) fn byte_len(&self) -> u64 {
        self.answers.len() as u64 * 300
    }

    fn number_of(&self, object: Obj) -> Option<&[u8]> {
        let place = self.places.get(&object.ty_addr())?;
        // SAFETY: instances of the type, which is held, have so many bytes there; see `learn`. They are read at once.
        let bytes = unsafe {
            std::slice::from_raw_parts(object.ptr().cast::<u8>().add(place.byte_offset), place.byte_len)
        };
        Some(bytes)
    }

    /// Finds where an object has its number. Returns whether that is known.
    fn learn(&mut self, object: &Bound<'_, PyAny>, number: &[u8]) -> bool {
        let here = Obj::of(object);
        if let Some(known) = self.number_of(here) {
            return known == number;
        }
        let start = size_of::<ffi::PyObject>();
        // SAFETY: a live type.
        let room = unsafe { (*here.ty()).tp_basicsize } as usize;
        if number.len() < SHORTEST || room < start + number.len() {
            return false;
        }
        // SAFETY: an instance has as many bytes as its type says, and nothing else runs meanwhile.
        let body = unsafe { std::slice::from_raw_parts(here.ptr().cast::<u8>().add(start), room - start) };
        let mut found = body.windows(number.len()).enumerate().filter(|(_, part)| *part == number);
        let (Some((at, _)), None) = (found.next(), found.next()) else { return false };
        let class = object.get_type().into_any().unbind();
        self.places
            .insert(here.ty_addr(), Place { byte_offset: start + at, byte_len: number.len(), _class: class });
        true
    }
}

impl<'py> Walker<'_, 'py> {
    /// Writes an object of which its number says all.
    pub(crate) fn start_identified(&mut self, object: Obj) -> Step {
        self.no_shadow();
        let py = self.py;
        if !self.session.identified.is_current {
            self.hold();
            let epoch: u64 = self.context.bind(py).getattr("epoch")?.extract()?;
            let identified = &mut self.session.identified;
            if identified.epoch != epoch {
                identified.answers.clear();
            }
            (identified.epoch, identified.is_current) = (epoch, true);
        }
        let known = self.session.identified.number_of(object).and_then(|number| {
            let answer = self.session.identified.answers.get(&(object.ty_addr(), number.into()))?;
            Some((answer.callable, answer.arguments.clone_ref(py)))
        });
        if let Some((callable, arguments)) = known {
            self.keep(object);
            return self.write_identified(object, callable, arguments.bind(py));
        }
        self.hold();
        self.keep(object);
        self.culprit = Some(object);
        let value = self.reduce_value(object, Kind::Registered)?;
        let Some((callable, arguments)) = self.call_of_atoms(&value)? else {
            return self.reduced(object, Kind::Registered, value);
        };
        let number = arguments.get_item(1).ok().and_then(|number| number.cast_into_exact::<PyBytes>().ok());
        let bound = object.bound(py);
        let identified = &mut self.session.identified;
        if let Some(number) = number
            && identified.learn(&bound, number.as_bytes())
        {
            if identified.answers.len() >= KEPT_MAX {
                identified.answers.clear();
            }
            let answer = Answer { callable, arguments: arguments.clone().unbind() };
            identified.answers.insert((object.ty_addr(), number.as_bytes().into()), answer);
        }
        self.culprit = None;
        self.write_identified(object, callable, &arguments)
    }

    /// The parts of a reduce value that is nothing but a call of something saved by name with short atoms.
    fn call_of_atoms(&mut self, value: &Bound<'py, PyAny>) -> Step<Option<(GlobalId, Bound<'py, PyTuple>)>> {
        let Ok(parts) = value.cast_exact::<PyTuple>() else { return Ok(None) };
        if parts.len() != 2 {
            return Ok(None);
        }
        let Ok(arguments) = parts.get_item(1)?.cast_into_exact::<PyTuple>() else { return Ok(None) };
        let is_short = |atom: &Obj| {
            let bytes = match (atom.is_str(), atom.is_bytes()) {
                (true, _) => atom.str_len() * atom.str_width(),
                (_, true) => atom.bytes_slice().len(),
                _ => 0,
            };
            atom.is_atom() && bytes <= LONGEST_ATOM && (!atom.is_int() || atom.small_int().is_some())
        };
        if arguments.is_empty() || !Obj::of(arguments.as_any()).tuple_items().iter().all(is_short) {
            return Ok(None);
        }
        let callable = parts.get_item(0)?;
        Ok(self.global_of(Obj::of(&callable))?.map(|id| (id, arguments)))
    }

    /// As a reduce value is written, with what its parts are known to be.
    fn write_identified(&mut self, object: Obj, callable: GlobalId, arguments: &Bound<'py, PyTuple>) -> Step {
        // Long atoms are known again by their addresses, so they must outlive the walk.
        self.own(arguments.clone().into_any());
        let builder = self.builder();
        builder.bytes(&[tag::REDUCE, 0]);
        builder.global(callable);
        builder.tag_varint(tag::TUPLE, arguments.len() as u64);
        for atom in Obj::of(arguments.as_any()).tuple_items() {
            builder.atom(*atom);
        }
        builder.take_number();
        let number = builder.take_number();
        self.memoize(object, number);
        Ok(())
    }
}
