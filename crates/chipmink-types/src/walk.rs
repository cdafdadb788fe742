//! What a walk over an object graph yields, and the trait by which the facade drives one.

use crate::{BlobError, BlobSink, Digest, PodKey};
use std::sync::Arc;

/// The regions of the version that a walk builds on, for objects of which the source itself knows nothing any more: a hint
/// of what they may resemble.
pub trait EarlierRegions: std::fmt::Debug + Sync {
    /// A number for the co-variable to which a variable belonged, if it had one.
    fn covariable_of(&self, variable: &str) -> Option<u32>;

    /// The regions of a co-variable, in the order in which a walk met them. Empty if they cannot be had.
    fn regions_of(&self, covariable: u32) -> Vec<RegionRecord>;

    /// Whether [`EarlierRegions::regions_of`] may have to wait for a place far away.
    fn would_wait(&self, _covariable: u32) -> bool {
        false
    }
}

/// What the facade asks of a walk.
#[derive(Debug, Default)]
pub struct WalkRequest<'a> {
    /// What the version held on which the walk builds, if there is one.
    pub earlier: Option<&'a dyn EarlierRegions>,
    /// Names whose objects may have been mutated since the base; `None`: any may, verify everything.
    pub accessed: Option<&'a [String]>,
}

/// A place where a pod offers an object to other pods.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Export {
    /// The slot's object is gone; the slot may be given out again.
    Vacant,
    /// The k-th root value of the pod (which may itself be a reference into another pod).
    Root(u32),
    /// The object with this memo number.
    Memo(u32),
}

/// The name under which an importable object is saved.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct GlobalName {
    /// `__module__`, e.g. `collections`.
    pub module: String,
    /// Dotted path within the module, e.g. `OrderedDict` or `Outer.Inner`.
    pub qualname: String,
}

/// Where a shape's class comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ShapeClass {
    /// Ordinal in [`PodRecord::globals`].
    Global(u32),
    /// A class saved by value: ordinal in [`PodRecord::dependencies`] and export slot there.
    Dependency(u32, u32),
}

/// The class and attribute names that instances have in common.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ShapeRecord {
    /// The class.
    pub class: ShapeClass,
    /// Names in `__dict__`, in order.
    pub dict_names: Vec<String>,
    /// Names of slots that are set, in order.
    pub slot_names: Vec<String>,
}

/// How a region is cut into chunks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum GridKind {
    /// One run from the start of the region.
    Run = 0,
    /// Each row of `row_len` bytes begins a chunk.
    Rows = 1,
    /// The byte grid of a global tensor: the first chunk has `first_chunk_len` bytes.
    Shard = 2,
}

/// One view of a region: where the buffer of an object begins in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ViewRecord {
    /// Offset of the view's first byte from the start of the region.
    pub byte_offset: u64,
}

/// A large buffer that left the pod's stream.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RegionRecord {
    /// How it is cut into chunks.
    pub grid: GridKind,
    /// Bytes of a row for [`GridKind::Rows`], else 0.
    pub row_len: u64,
    /// Bytes of the first chunk for [`GridKind::Shard`], else 0 (a full chunk).
    pub first_chunk_len: u64,
    /// Bytes of the whole region.
    pub byte_len: u64,
    /// Number shared by disjoint regions of one buffer, unique within the co-variable; 0: a buffer of its own.
    pub buffer_id: u64,
    /// Digest of the root node of the region's digest tree.
    pub root: Digest,
    /// The views of it that this pod's stream names, by ordinal.
    pub views: Vec<ViewRecord>,
}

/// All that stands beside a pod's bytes: what the ordinals in them mean.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PodRecord {
    /// Digest of the pod's bytes.
    pub digest: Digest,
    /// Length of the pod's bytes.
    pub byte_len: u64,
    /// Export slot to what it offers.
    pub exports: Vec<Export>,
    /// Dependency slot to pod; ordinals as in the stream. May name definition pods.
    pub dependencies: Vec<PodKey>,
    /// Global ordinal to name.
    pub globals: Vec<GlobalName>,
    /// Shape ordinal to shape.
    pub shapes: Vec<ShapeRecord>,
    /// Region ordinal to region.
    pub regions: Vec<RegionRecord>,
    /// Blob with values that are stored but not hashed (file names and line numbers of code).
    pub side: Option<Digest>,
    /// Names of the namespace that functions of this pod read (name edges).
    pub names: Vec<String>,
}

/// A pod as the walk met it.
#[derive(Clone, Debug)]
pub struct WalkedPod {
    /// Its identity in this session; the same over saves while its root lives.
    pub key: PodKey,
    /// The record; the very same `Arc` as in the last adopted outcome if nothing about the pod changed.
    pub record: Arc<PodRecord>,
}

/// A co-variable, or a definition group if it has no names.
#[derive(Clone, Debug, Default)]
pub struct Component {
    /// Variables and where their objects are: pod and export slot. Empty for a definition group. The pod may be one of a
    /// definition group (a variable that is a by-value function or class); such a component may have no pods.
    pub names: Vec<(String, PodKey, u32)>,
    /// Its pods in the order in which the walk discovered them.
    pub pods: Vec<WalkedPod>,
}

/// Why a variable is not in the version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SkippedVariable {
    /// Path inside the variable to the object that could not be saved, e.g. `.conn` or `["a"][3]`.
    pub path: String,
    /// `module.qualname` of that object's type.
    pub type_name: String,
    /// What went wrong, in one line.
    pub reason: String,
}

/// What a name of the namespace refers to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VariableRoot {
    /// Taken over from the base as it stands there; the walk proved that it need not look.
    Untouched,
    /// An exact immutable atom: one value of the pod stream, at most 64 bytes.
    Inline(Vec<u8>),
    /// An object saved by name (a module is the name alone, with an empty qualname).
    Named(GlobalName),
    /// An object of one of the outcome's components.
    Stored,
    /// Not saved.
    Skipped(SkippedVariable),
}

/// Figures of one walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WalkStats {
    /// Edge targets looked at.
    pub objects: u64,
    /// Pods whose bytes were produced and were new.
    pub pods_dirty: u64,
    /// Pods proved or found unchanged.
    pub pods_clean: u64,
    /// Pods proved unchanged by the identity shadow, without producing bytes.
    pub pods_shadow: u64,
    /// Bytes of regions hashed.
    pub region_bytes: u64,
    /// Bytes of regions that need not be hashed, because nobody had written to them.
    pub unwritten_bytes: u64,
    /// Nanoseconds in which it was found which chunks of known regions have changed: asking who wrote to them, and hashing.
    pub detection_nanos: u64,
    /// Bytes that the identity shadow holds after this walk.
    pub shadow_bytes: u64,
}

/// What a walk found. It changes nothing in the source until it is adopted.
#[derive(Debug, Default)]
pub struct WalkOutcome {
    /// Every name of the namespace, in its order.
    pub variables: Vec<(String, VariableRoot)>,
    /// The co-variables and definition groups of everything that was walked.
    ///
    /// Dependencies of a component's pods are pods of the same component, or of a definition group of this outcome.
    pub components: Vec<Component>,
    /// Stubbed objects inside saved variables: variable, and what was replaced by a placeholder.
    pub stubs: Vec<(String, SkippedVariable)>,
    /// Variables that other threads went on changing while they were walked: what was walked may mix two states of them.
    pub unsteady: Vec<String>,
    /// Figures.
    pub stats: WalkStats,
    /// No name was added, deleted or rebound, and nothing was walked: `variables` and `components` are empty, and every
    /// name stands as in the base.
    pub is_unchanged: bool,
    /// Number by which the source knows its own state again on adopt or discard.
    pub ticket: u64,
}

/// Why a walk as a whole failed. One bad variable is no failure: it is skipped and reported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError {
    /// The sink failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// Ctrl-C, or another signal handler raised; the source holds the exception.
    #[error("the save was interrupted; nothing was saved")]
    Interrupted,
    /// Anything else, e.g. the namespace is not a dict or has a name that is no str.
    #[error("{0}")]
    Source(String),
}

/// A live object graph that can be saved.
pub trait GraphSource {
    /// Walks the graph and gives the bytes of dirty pods and chunks to `sink`.
    ///
    /// # Errors
    /// When the sink fails or the walk is interrupted; the source is then as before.
    fn walk(&mut self, request: &WalkRequest<'_>, sink: &mut dyn BlobSink) -> Result<WalkOutcome, WalkError>;

    /// The outcome's commit is visible: take what the walk learned as known.
    fn adopt(&mut self, outcome: WalkOutcome);

    /// The outcome's commit will never be visible: forget what the walk learned.
    fn discard(&mut self, outcome: WalkOutcome);

    /// The base is another version now (checkout): nothing is known any more.
    fn reset(&mut self);

    /// Does what may wait for others and has nothing to do with the graph, letting go of whatever holds up others.
    fn aside(&self, work: &mut (dyn FnMut() + Send)) {
        work();
    }
}
