//! The explicit stack of a walk.

use super::builder::{Builder, BuilderMark};
use super::session::NONE;
use super::shadow::Shadow;
use crate::py::Obj;
use std::sync::Arc;

/// A container whose children are being visited.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    pub kind: FrameKind,
    /// The sibling pod that is open for the next children of this container, or [`NONE`].
    pub sibling: u32,
    /// Made by a reducer for this walk alone: so are those of its children that nobody else refers to.
    pub is_temporary: bool,
    /// Position of the first child's word in the shadow under construction, or [`NONE`].
    pub words: u32,
}

impl Frame {
    pub(crate) fn new(kind: FrameKind, words: u32) -> Self {
        Frame { kind, sibling: NONE, is_temporary: false, words }
    }

    /// Number of children of the container.
    pub(crate) fn peers(&self) -> u64 {
        let count = match self.kind {
            FrameKind::List { len, .. }
            | FrameKind::Dict { len, .. }
            | FrameKind::Attributes { len, .. }
            | FrameKind::Items { len, .. } => len,
            FrameKind::Tuple { tuple, .. } => tuple.tuple_len(),
            FrameKind::Members { set, .. } => set.set_len(),
            _ => 1,
        };
        count as u64
    }
}

#[derive(Clone, Copy)]
pub(crate) enum FrameKind {
    List {
        list: Obj,
        next: usize,
        len: usize,
    },
    /// `at`: where its tag stands, in case the tuple comes to exist meanwhile. `header`: its shadow record.
    Tuple {
        tuple: Obj,
        next: usize,
        at: usize,
        header: u32,
    },
    /// `value`: the value of the key that was visited last.
    Dict {
        dict: Obj,
        position: isize,
        left: usize,
        len: usize,
        value: Option<Obj>,
        done: u32,
    },
    /// Values of an instance's dict, in the order of its shape.
    Attributes {
        dict: Obj,
        position: isize,
        left: usize,
        len: usize,
        done: u32,
    },
    /// Members of a set or frozenset, collected in `Walker::sequences`.
    Members {
        set: Obj,
        next: usize,
        at: usize,
        header: u32,
    },
    /// Items of an object array.
    Items {
        items: *const Obj,
        array: Obj,
        next: usize,
        len: usize,
    },
    /// An array that shows memory of the object that was begun after it. `at`, `header`: as of a tuple.
    View {
        object: Obj,
        at: usize,
        header: u32,
    },
    /// A reduce value; its parts stand in `Walker::reductions`.
    Reduce {
        object: Obj,
    },
    /// Values that follow one another, collected in `Walker::sequences`, in a frame of their own.
    Values {
        next: usize,
        /// Shape of the instance whose attributes they are, or [`super::session::NONE`].
        shape: u32,
    },
    /// The end of a root of the pod being visited.
    Root {
        visit: u32,
        previous: u32,
        emit: bool,
        at: At,
    },
    /// An instance to be begun once its class, saved by value, has been visited.
    Instance {
        object: Obj,
        at: At,
    },
    /// The same while its pod is compared with its shadow.
    CheckInstance {
        object: Obj,
    },
    /// Children of a shadow's record; `after`: object and memo number to enter at the end (tuple, frozenset).
    Shadow {
        first: usize,
        next: usize,
        len: usize,
        after: Option<(Obj, u32)>,
    },
}

/// Where a value is met: the depth of a frame whose neighbouring exports may be written as a run, and the word of
/// the shadow under construction that stands for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub run_depth: Option<usize>,
    pub word: u32,
}

impl At {
    pub(crate) const NOWHERE: At = At { run_depth: None, word: NONE };
}

/// How a pod is being visited.
pub(crate) enum Mode {
    /// Its bytes are produced.
    Bytes(Box<Builder>),
    /// Its objects are compared with its shadow.
    Shadow { shadow: Arc<Shadow>, position: usize },
    /// Done: unchanged, proved by the shadow.
    Proved,
    /// Done: its bytes were produced.
    Written(Box<Finished>),
}

/// What is kept of a builder once the pod is closed.
pub(crate) struct Finished {
    pub digest: chipmink_types::Digest,
    pub byte_len: u64,
    /// Tables only; the bytes have gone.
    pub tables: Box<Builder>,
}

/// One pod in this walk.
pub(crate) struct Visit {
    /// Number of the pod in the session.
    pub pod: u32,
    pub mode: Mode,
    /// The pod from which it is called, or [`super::session::NONE`].
    pub parent: u32,
    /// The visit in which it began, or [`super::session::NONE`].
    pub below: u32,
    pub is_sibling: bool,
    pub is_definition: bool,
    pub is_opaque: bool,
    /// It holds memory that other processes may write.
    pub is_shared: bool,
    pub depth: u32,
    /// Nothing below it is split off.
    pub is_final: bool,
    /// Number of roots met so far.
    pub met: usize,
    /// Identities of the roots met so far; not kept while the pod is compared with its shadow.
    pub roots: Vec<super::session::RootKey>,
    /// Addresses of the roots met so far; as `roots`.
    pub root_addrs: Vec<usize>,
    /// Export slots of the roots, in order of roots; as `roots`.
    pub root_slots: Vec<u32>,
    /// Roots that came to exist while they were visited: their objects were created further inside.
    pub made_inside: Vec<u32>,
    /// Sequence numbers of the objects created by its earlier roots: half-open, ascending.
    pub intervals: Vec<(u32, u32)>,
    /// Sequence number at the start of the present root.
    pub root_seq: u32,
    /// How many objects that a reducer makes anew each time were met; names them.
    pub temporaries: u64,
    /// Regions of a pod that is compared with its shadow whose content is another now, by ordinal.
    pub regions: Vec<(u32, chipmink_types::RegionRecord)>,
    /// The walk as it was before the first root.
    pub first: Option<Box<Mark>>,
    /// The walk as it was before the present root, from the second on.
    pub present: Option<Mark>,
}

/// A state of the walk to which it can go back, and the value that is begun again then.
pub(crate) struct Mark {
    pub object: Obj,
    pub at: At,
    pub is_temporary: bool,
    pub stack: usize,
    pub top: Option<Frame>,
    pub seq: u32,
    pub visits: usize,
    pub current: u32,
    pub current_builder: BuilderMark,
    pub current_position: usize,
    pub current_temporaries: u64,
    pub reductions: usize,
    pub sequences: usize,
    pub open_siblings: usize,
    pub memory: super::memory::MemoryMark,
    /// For a sibling's later roots: the sibling's own builder, position and number of roots.
    pub own_builder: BuilderMark,
    pub own_position: usize,
    pub own_roots: usize,
    pub own_temporaries: u64,
}
