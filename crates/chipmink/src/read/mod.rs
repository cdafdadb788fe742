//! Reading versions: which pods make up what is asked for, and their bytes.

mod checker;
mod descriptors;
mod layout;
mod mapped;
mod plan;
mod pods;
mod table;
mod together;

pub use checker::MapChecker;
pub(crate) use descriptors::Descriptors;
pub use mapped::{MapCheck, RegionMapper, Unchecked};
pub(crate) use plan::{Planner, names_of};
pub use pods::{Pieces, PlanPods};
pub(crate) use pods::{read_difference, read_regions};
pub(crate) use together::together;
