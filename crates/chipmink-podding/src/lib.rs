//! Podding: which objects of a graph are serialized together.
//!
//! A walk asks a [`Policy`] once for each object that is not an atom. The answer is a pure function of what the policy
//! is shown (sizes, volatility, the pods that are open) and, for [`Random`], of a seed: no clock, no address and no
//! memory of earlier walks enters it, so the same graph with the same history is cut the same way.
//!
//! What this crate refuses to do: look at objects. It sees numbers only; the walker supplies them.
//!
//! 1. A policy never answers [`Decision::JoinSibling`] when no sibling is open.
//! 2. [`Lga`] and [`LgaSiblings`] never open a pod deeper than [`MAX_POD_DEPTH`] that would be cut again.
#![forbid(unsafe_code)]

mod decision;
mod error;
mod lga;
mod policy;
mod volatility;

pub use decision::{Candidate, Decision, ObjectKind, OpenPod};
pub use error::PoddingError;
pub use lga::{Lga, LgaSiblings, MAX_POD_DEPTH, POD_COST};
pub use policy::{BundleAll, Policy, Random, SplitAll, policy_by_name};
pub use volatility::{History, TypePrior, Volatility, joined};
