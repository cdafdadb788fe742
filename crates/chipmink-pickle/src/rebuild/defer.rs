//! Dict keys and set members whose hash needs state that is still to be restored.
//!
//! A graph may hold an object that is a key of a dict that the object itself leads to. Its `__hash__` looks at
//! attributes, so the key can be inserted only once they are set. Such an item, and every later one of its container
//! (a dict keeps its order), waits for the outermost unfinished frame that the key refers to.
//!
//! 1. Items are inserted in the order in which they were read, over all containers that wait for the same frame: what
//!    a key contains is complete before the key is inserted.
//! 2. If a frame that is waited for turns out to lead further out itself, its items wait for that frame instead.

use super::error::{Failure, Result};
use super::loader::Loader;
use super::memo::Mark;
use super::object;
use pyo3::ffi;
use pyo3::prelude::*;

/// What an item goes into.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Dict,
    Set,
    FrozenSet,
    /// Any object with `__setitem__`.
    Mapping,
}

/// An item that waits.
pub(super) struct Waiting<'py> {
    /// The position among all items that ever waited.
    order: u64,
    place: Place,
    container: Bound<'py, PyAny>,
    key: Bound<'py, PyAny>,
    value: Option<Bound<'py, PyAny>>,
}

impl<'py> Loader<'py, '_> {
    /// Inserts an item now, or lets it wait if its key or an item before it must.
    ///
    /// `key_mark`: what the key leads to; `wait`: what the container's items wait for, which may move outwards.
    pub(super) fn place(
        &mut self,
        place: Place,
        container: &Bound<'py, PyAny>,
        key: Bound<'py, PyAny>,
        value: Option<Bound<'py, PyAny>>,
        key_mark: Mark,
        wait: &mut Mark,
    ) -> Result<()> {
        if !key_mark.is_settled() && !object::hash_is_settled(&key) {
            *wait = wait.outer(key_mark);
        }
        if wait.is_settled() {
            return self.insert(place, container, &key, value.as_ref());
        }
        let item = Waiting { order: self.waited, place, container: container.clone(), key, value };
        self.waited += 1;
        self.waiting.entry(wait.depth).or_default().push(item);
        Ok(())
    }

    /// The frame at `depth` is done: inserts what waited for it, unless it leads further out, to `mark`.
    pub(super) fn settle(&mut self, depth: u32, mark: Mark) -> Result<()> {
        let Some(mut items) = self.waiting.remove(&depth) else { return Ok(()) };
        if !mark.is_settled() {
            self.waiting.entry(mark.depth).or_default().append(&mut items);
            return Ok(());
        }
        items.sort_by_key(|item| item.order);
        for item in items {
            self.insert(item.place, &item.container, &item.key, item.value.as_ref())?;
        }
        Ok(())
    }

    fn insert(
        &self,
        place: Place,
        container: &Bound<'py, PyAny>,
        key: &Bound<'py, PyAny>,
        value: Option<&Bound<'py, PyAny>>,
    ) -> Result<()> {
        match (place, value) {
            (Place::Dict, Some(value)) => object::dict_set(self.py, container, key, value),
            (Place::Set, None) => object::set_add(self.py, container, key),
            (Place::FrozenSet, None) => object::frozenset_add(self.py, container, key),
            (Place::Mapping, Some(value)) => {
                // SAFETY: all three are alive.
                let status =
                    unsafe { ffi::PyObject_SetItem(container.as_ptr(), key.as_ptr(), value.as_ptr()) };
                object::done(self.py, status)
            }
            _ => Err(Failure::damaged("an item has no value, or one too many")),
        }
    }
}
