//! Fills lists, tuples, dicts, sets and frozensets.

use super::defer::Place;
use super::error::{Failure, Result};
use super::frame::{Build, TupleKind};
use super::loader::{Loader, Step};
use super::memo::Mark;
use super::object;
use super::pods::Run;
use chipmink_format::tag;

/// How often an inner loop lets Ctrl-C in: after each so many items.
const ITEMS_PER_CHECK: usize = 1 << 16;

impl Run {
    /// How many of `count` announced items memory may be reserved for.
    #[inline(always)]
    pub(super) fn reserve(&mut self, count: usize) -> usize {
        let reserved = count.min(self.reader.remaining()).min(self.room);
        self.room -= reserved;
        reserved
    }
}

/// A frame is not of the kind that its filler is for.
#[cold]
pub(super) fn wrong_frame() -> Failure {
    Failure::damaged("the decoder lost track of what it builds; please report this")
}

impl<'py> Loader<'py, '_> {
    pub(super) fn fill_list(&mut self, top: usize) -> Result<()> {
        let py = self.py;
        let Build::List { list, left } = &self.stack[top].build else { return Err(wrong_frame()) };
        let (list, mut left) = (list.clone(), *left);
        if let Some(item) = self.delivered.take() {
            self.absorb(top);
            object::append(py, &list, item)?;
            left -= 1;
        }
        while left > 0 {
            if left.is_multiple_of(ITEMS_PER_CHECK) {
                self.check_signals()?;
            }
            match self.value(left)? {
                Step::Value(item) => {
                    self.absorb(top);
                    object::append(py, &list, item)?;
                    left -= 1;
                }
                Step::Values(count) => {
                    self.absorb(top);
                    let from = self.values.len() - count;
                    for item in self.values.drain(from..) {
                        object::append(py, &list, item)?;
                    }
                    left -= count;
                }
                Step::Opened => {
                    let Build::List { left: kept, .. } = &mut self.stack[top].build else {
                        return Err(wrong_frame());
                    };
                    *kept = left;
                    return Ok(());
                }
            }
        }
        self.close(list)
    }

    pub(super) fn fill_tuple(&mut self, top: usize) -> Result<()> {
        let Build::Tuple { start, left, kind } = self.stack[top].build else { return Err(wrong_frame()) };
        let mut left = left;
        if let Some(item) = self.delivered.take() {
            self.absorb(top);
            self.values.push(item);
            left -= 1;
        }
        while left > 0 {
            if left.is_multiple_of(ITEMS_PER_CHECK) {
                self.check_signals()?;
            }
            match self.value(left)? {
                Step::Value(item) => {
                    self.absorb(top);
                    self.values.push(item);
                    left -= 1;
                }
                Step::Values(count) => {
                    self.absorb(top);
                    left -= count;
                }
                Step::Opened => {
                    let Build::Tuple { left: kept, .. } = &mut self.stack[top].build else {
                        return Err(wrong_frame());
                    };
                    *kept = left;
                    return Ok(());
                }
            }
        }
        match kind {
            TupleKind::Tuple => {
                let tuple = object::tuple(self.py, self.values.drain(start..))?;
                self.number_open(&tuple, self.stack[top].mark)?;
                self.close(tuple)
            }
            TupleKind::FrozenSet => self.close_frozenset(top, start),
            TupleKind::Again => {
                self.values.truncate(start);
                self.stack[top].build = Build::Again;
                self.fill_again()
            }
        }
    }

    /// Reads the reference to an object that came to exist while its parts were read.
    pub(super) fn fill_again(&mut self) -> Result<()> {
        match self.at.reader.peek()? {
            tag::REF | tag::POD | tag::POD_EXPORT => {}
            other => return Err(Failure::damaged(format!("tag {other:#04x} stands where a reference must"))),
        }
        match self.value(0)? {
            Step::Value(object) => {
                let top = self.stack.len() - 1;
                self.absorb(top);
                self.close(object)
            }
            Step::Opened => Ok(()),
            Step::Values(_) => Err(wrong_frame()),
        }
    }

    pub(super) fn fill_dict(&mut self, top: usize) -> Result<()> {
        let py = self.py;
        let Build::Dict(build) = &mut self.stack[top].build else { return Err(wrong_frame()) };
        let (dict, mut left, mut wait) = (build.dict.clone(), build.left, build.wait);
        let (mut key, mut key_mark) = (build.key.take(), build.key_mark);
        let mut delivered = self.delivered.take();
        loop {
            let item_key = match key.take() {
                Some(key) => key,
                None => {
                    if left == 0 {
                        return self.close(dict);
                    }
                    if left.is_multiple_of(ITEMS_PER_CHECK) {
                        self.check_signals()?;
                    }
                    let step = match delivered.take() {
                        Some(object) => Step::Value(object),
                        None => self.value(0)?,
                    };
                    match step {
                        Step::Value(object) => {
                            key_mark = self.mark;
                            self.absorb(top);
                            object
                        }
                        _ => return self.leave_dict(top, left, None, Mark::SETTLED, wait),
                    }
                }
            };
            let step = match delivered.take() {
                Some(object) => Step::Value(object),
                None => self.value(0)?,
            };
            match step {
                Step::Value(value) => {
                    self.absorb(top);
                    if key_mark.is_settled() && wait.is_settled() {
                        object::dict_set(py, &dict, &item_key, &value)?;
                    } else {
                        self.place(Place::Dict, &dict, item_key, Some(value), key_mark, &mut wait)?;
                    }
                    left -= 1;
                }
                _ => return self.leave_dict(top, left, Some(item_key), key_mark, wait),
            }
        }
    }

    /// Puts a dict aside while something in it is built.
    fn leave_dict(
        &mut self,
        top: usize,
        left: usize,
        key: Option<pyo3::Bound<'py, pyo3::PyAny>>,
        key_mark: Mark,
        wait: Mark,
    ) -> Result<()> {
        let Build::Dict(build) = &mut self.stack[top].build else { return Err(wrong_frame()) };
        build.left = left;
        build.key = key;
        build.key_mark = key_mark;
        build.wait = wait;
        Ok(())
    }

    pub(super) fn fill_set(&mut self, top: usize) -> Result<()> {
        let py = self.py;
        let Build::Set { set, left, wait } = &self.stack[top].build else { return Err(wrong_frame()) };
        let (set, mut left, mut wait) = (set.clone(), *left, *wait);
        let mut delivered = self.delivered.take();
        while left > 0 {
            if left.is_multiple_of(ITEMS_PER_CHECK) {
                self.check_signals()?;
            }
            let step = match delivered.take() {
                Some(object) => Step::Value(object),
                None => self.value(left)?,
            };
            match step {
                Step::Value(item) => {
                    let mark = self.mark;
                    self.absorb(top);
                    if mark.is_settled() && wait.is_settled() {
                        object::set_add(py, &set, &item)?;
                    } else {
                        self.place(Place::Set, &set, item, None, mark, &mut wait)?;
                    }
                    left -= 1;
                }
                Step::Values(count) => {
                    let mark = self.mark;
                    self.absorb(top);
                    let from = self.values.len() - count;
                    for item in self.values.split_off(from) {
                        self.place(Place::Set, &set, item, None, mark, &mut wait)?;
                    }
                    left -= count;
                }
                Step::Opened => {
                    let Build::Set { left: kept_left, wait: kept_wait, .. } = &mut self.stack[top].build
                    else {
                        return Err(wrong_frame());
                    };
                    (*kept_left, *kept_wait) = (left, wait);
                    return Ok(());
                }
            }
        }
        self.close(set)
    }

    /// Makes a frozenset of the values from `start` on.
    fn close_frozenset(&mut self, top: usize, start: usize) -> Result<()> {
        let set = object::frozenset(self.py)?;
        let mark = self.stack[top].mark;
        let mut wait = Mark::SETTLED;
        for item in self.values.split_off(start) {
            if mark.is_settled() {
                object::set_add(self.py, &set, &item)?;
            } else {
                self.place(Place::FrozenSet, &set, item, None, mark, &mut wait)?;
            }
        }
        self.number_open(&set, mark)?;
        self.close(set)
    }
}
