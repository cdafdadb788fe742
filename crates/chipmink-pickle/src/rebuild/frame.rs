//! What is being built: one frame for each object under construction, on a stack of the loader's own.
//!
//! Python graphs nest deeper than any thread's stack, so a rebuild never recurses.

use super::array_view::ArrayView;
use super::memo::Mark;
use super::pods::Run;
use super::reduce::Reduction;
use super::shape::Shape;
use pyo3::prelude::*;
use std::rc::Rc;

/// Stands for "not kept in the memo".
pub(super) const NOT_KEPT: u32 = u32::MAX;

/// One object under construction.
pub(super) struct Frame<'py> {
    /// Tells this frame from all others that stood at its depth.
    pub(super) serial: u32,
    /// The object's position in the memo of the running pod, or [`NOT_KEPT`].
    pub(super) memo: u32,
    /// The outermost unfinished frame that anything inside refers to.
    pub(super) mark: Mark,
    pub(super) build: Build<'py>,
}

/// How far an object has come.
///
/// `left` counts the values that are still to be read, `next` the ones that have been.
pub(super) enum Build<'py> {
    /// A pod: root values up to the end of its bytes. Holds what goes on when it is done.
    Pod(Box<Run>),
    List {
        list: Bound<'py, PyAny>,
        left: usize,
    },
    /// Items stand in the loader's value stack from `start` on.
    Tuple {
        start: usize,
        left: usize,
        kind: TupleKind,
    },
    Dict(DictBuild<'py>),
    Set {
        set: Bound<'py, PyAny>,
        left: usize,
        wait: Mark,
    },
    Instance {
        object: Bound<'py, PyAny>,
        shape: Rc<Shape<'py>>,
        next: usize,
    },
    /// After the slots comes the dict.
    InstanceDict {
        object: Bound<'py, PyAny>,
        shape: Rc<Shape<'py>>,
        next: usize,
    },
    Reduce(Box<Reduction<'py>>),
    /// The reference that stands for an object that came to exist while its parts were read.
    Again,
    /// A numpy array whose dtype is being read.
    Array,
    /// The placeholder of an object that could not be saved.
    Stub,
    /// What a restricted load refused: an error, as soon as it is looked at.
    Refused(String),
    /// An array that shows part of a buffer.
    ArrayView(Box<ArrayView<'py>>),
    ObjectArray {
        /// Takes the elements.
        array: Bound<'py, PyAny>,
        /// What is being made: the same, or an array that shows part of it.
        made: Bound<'py, PyAny>,
        next: usize,
        count: usize,
        writable: bool,
    },
}

/// What the items of a tuple frame are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TupleKind {
    /// They become a tuple.
    Tuple,
    /// They become the members of a frozenset.
    FrozenSet,
    /// They are dropped; a reference follows.
    Again,
}

/// A dict on its way.
pub(super) struct DictBuild<'py> {
    pub(super) dict: Bound<'py, PyAny>,
    pub(super) left: usize,
    /// A key whose value has not been read yet.
    pub(super) key: Option<Bound<'py, PyAny>>,
    pub(super) key_mark: Mark,
    /// The frame that further items wait for, because an item before them does.
    pub(super) wait: Mark,
}

impl<'py> Frame<'py> {
    /// The object, if it exists already.
    pub(super) fn object(&self) -> Option<&Bound<'py, PyAny>> {
        match &self.build {
            Build::List { list, .. } => Some(list),
            Build::Dict(build) => Some(&build.dict),
            Build::Set { set, .. } => Some(set),
            Build::Instance { object, .. } | Build::InstanceDict { object, .. } => Some(object),
            Build::Reduce(reduction) => reduction.object.as_ref(),
            Build::ObjectArray { made, .. } => Some(made),
            Build::Pod(_)
            | Build::Tuple { .. }
            | Build::Again
            | Build::Array
            | Build::ArrayView(_)
            | Build::Stub
            | Build::Refused(_) => None,
        }
    }
}
