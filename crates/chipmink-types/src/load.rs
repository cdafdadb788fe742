//! What a rebuild needs to know, resolved from tables by the facade.

use crate::{BlobError, Digest, Export, GlobalName, RegionRecord, SkippedVariable};
use bytes::Bytes;

/// The class and attribute names of instances, resolved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadShape {
    /// The class.
    pub class: crate::ShapeClass,
    /// Names in `__dict__`, in order.
    pub dict_names: Vec<String>,
    /// Names of slots that are set, in order.
    pub slot_names: Vec<String>,
}

/// One pod of a plan.
#[derive(Clone, Debug)]
pub struct LoadPod {
    /// Digest of its bytes.
    pub digest: Digest,
    /// Length of its bytes.
    pub byte_len: u64,
    /// Export slot to what it offers.
    pub exports: Vec<Export>,
    /// Dependency slot to position in [`LoadPlan::pods`].
    pub dependencies: Vec<usize>,
    /// Global ordinal to name.
    pub globals: Vec<GlobalName>,
    /// Shape ordinal to shape.
    pub shapes: Vec<LoadShape>,
    /// Region ordinal to region.
    pub regions: Vec<RegionRecord>,
    /// The side record's bytes, if it has one.
    pub side: Option<Bytes>,
}

/// Where a variable's object comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LoadRoot {
    /// One atom value of the pod stream.
    Inline(Bytes),
    /// An importable object; an empty qualname means the module itself.
    Named(GlobalName),
    /// Position in [`LoadPlan::pods`] and export slot.
    Pod(usize, u32),
    /// Not in the version; loads as a placeholder.
    Skipped(SkippedVariable),
}

/// A variable of a plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadVariable {
    /// Its name.
    pub name: String,
    /// Where its object comes from.
    pub root: LoadRoot,
}

/// The closure of what is asked for, in the order in which its pods must run.
///
/// Definition groups stand first; the pods of a co-variable stand in the order of their ranks. A pod runs at the
/// first reference to it, or at its turn, whichever comes first.
#[derive(Clone, Debug, Default)]
pub struct LoadPlan {
    /// The pods, in run order.
    pub pods: Vec<LoadPod>,
    /// How many of the first pods belong to definition groups. They depend on nothing but each other.
    pub definitions: usize,
    /// The variables.
    pub variables: Vec<LoadVariable>,
}

/// Gives a rebuild the bytes that it asks for; they have been checked against their digests.
pub trait PodSource {
    /// The bytes of the plan's pod at `position`. Mostly asked for in ascending order.
    ///
    /// # Errors
    /// When the blob is missing or damaged.
    fn pod(&mut self, position: usize) -> Result<Bytes, BlobError>;

    /// Fills `into`, which has exactly the region's length, with the region's bytes.
    ///
    /// # Errors
    /// When a chunk or node is missing or damaged, or the tree does not describe `byte_len` bytes.
    fn read_region(&mut self, region: &RegionRecord, into: &mut [u8]) -> Result<(), BlobError>;
}
