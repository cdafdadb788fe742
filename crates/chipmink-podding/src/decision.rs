//! What a policy is shown, and what it may answer.

/// The kind of an object, as far as podding cares.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ObjectKind {
    /// `list` or a subclass.
    List,
    /// `dict` or a subclass.
    Dict,
    /// `tuple` or a subclass.
    Tuple,
    /// `set`.
    Set,
    /// `frozenset`.
    FrozenSet,
    /// A plain instance: class and attributes.
    Instance,
    /// An object described by a reducer.
    Reduced,
    /// An array over a buffer.
    Array,
    /// `bytearray`.
    ByteArray,
    /// A class or function saved by value, or its captured globals.
    Definition,
    /// Anything else, among it large atoms.
    Other,
}

/// An object for which a decision is needed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Candidate {
    /// This is the n-th decision of the walk, counted from 0.
    pub ordinal: u64,
    /// The object's kind.
    pub kind: ObjectKind,
    /// Bytes of the object itself, without its children.
    pub byte_len: u64,
    /// Number of items; 0 where there is no such thing.
    pub len: u64,
    /// Number of items of its `__dict__`; 0 without one.
    pub dict_len: u64,
    /// Number of children of the container in which it is met, itself included.
    pub peers: u64,
    /// Expected changes per save, 0 to 1, as a [`Volatility`](crate::Volatility) rated it.
    pub volatility: f32,
}

/// A pod that is being filled.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct OpenPod {
    /// Bytes in it so far.
    pub byte_len: u64,
    /// Sum of the volatilities of the objects in it.
    pub rate: f32,
    /// Pods between it and the pod of the variable, which has depth 0.
    pub depth: u32,
}

/// Where a candidate goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Decision {
    /// Into the pod of its parent.
    Bundle,
    /// It begins a pod of its own, and its children are asked about in turn.
    SplitContinue,
    /// It begins a pod of its own, which takes everything below it without further decisions.
    SplitFinal,
    /// It becomes a further root of the sibling pod that its parent's container keeps open.
    JoinSibling,
    /// It begins a sibling pod, which stays open for the next children of the same container.
    NewSibling,
}
