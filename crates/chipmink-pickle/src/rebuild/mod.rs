//! Rebuilds Python objects from pods.
//!
//! A load runs the pods of a plan as subroutines of one pickle program: each makes its objects in the order in which
//! they were saved, and a reference into a pod that has not run yet runs it there and then. What comes out is isomorphic
//! to what went in: shared objects are shared again, cycles are closed again, dicts keep their order.
//!
//! It refuses bytes that make no sense, with an error that names pod and byte, whatever they are: it never panics, never
//! reads past an end, and never reserves memory for more than the bytes could spell out. (What they do spell out it makes,
//! and a run of references spells out many in few bytes.) It runs code, as pickle does, unless it is given an
//! [`Allowlist`].
//!
//! Invariants:
//! 1. No object can be reached by Python code while it has null items, wrong lengths or uninitialised memory.
//! 2. The depth of a graph is bounded by memory, not by a stack ([`loader`]).
//! 3. An item whose key needs state that is still to come is inserted after that state ([`defer`]).

mod array_view;
mod containers;
mod defer;
mod error;
mod frame;
mod global;
mod instance;
mod live;
mod loader;
mod mapped;
mod memo;
mod numpy;
mod object;
mod options;
mod path;
mod pause;
mod plan;
mod pods;
mod reader;
mod reduce;
mod region;
mod restrict;
mod segment;
mod shape;
mod stream;
mod strings;
mod supply;
mod tags;

pub use error::RebuildError;
pub use mapped::{MapRegions, RegionMemory, region_at};
pub use options::{Allowlist, LiveDefinitions, RebuildOptions};
pub use plan::{Variables, rebuild, rebuild_if_live};
pub use stream::loads;
