//! Objects in shared memory, alone or in front of another place.
//!
//! In front of another place the pool is a write-back tier of single objects: what is created exclusively, and packs, go into
//! the pool; reading asks the pool, then the place below; what is replaced goes below at once. Names and bytes are the same
//! in both, so that a version is the same version wherever its objects lie.
//!
//! 1. A name is created once in both together: whoever creates one reserves it in the pool before asking below, and what is in
//!    the pool leaves it only after it is below.
//! 2. A reader that finds an object gone from the pool asks below, where it is by then.

mod objects;
mod pressure;
#[cfg(test)]
mod tests;

pub(crate) use objects::{PoolObjects, pool_failure};
pub(crate) use pressure::Pressure;
