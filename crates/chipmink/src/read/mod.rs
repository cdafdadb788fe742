//! Reading versions: which pods make up what is asked for, and their bytes.

mod checker;
mod descriptors;
mod layout;
mod located;
mod mapped;
mod plan;
mod pods;
mod table;
mod together;

pub use checker::MapChecker;
pub(crate) use descriptors::Descriptors;
pub use mapped::{MapCheck, RegionMapper, Unchecked};
pub(crate) use plan::{Planner, names_of};
pub(crate) use pods::read_difference;
pub use pods::{Pieces, PlanPods};
pub(crate) use together::together;
