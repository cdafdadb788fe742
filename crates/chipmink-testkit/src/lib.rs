//! What chipmink's tests have in common: a disk that crashes, calls that fail, stores that misbehave, random numbers.
//!
//! Published by no one; a dev-dependency of everyone.
#![forbid(unsafe_code)]

mod crash;
mod explore;
mod far;
mod fault;
mod image;
mod metered;
mod network;
mod random;
pub mod toy;
mod turns;
mod unruly;

pub use crash::{CrashDisk, Moment, SyncCall};
pub use explore::{Counterexample, Explored, Model, explore};
pub use far::FarStore;
pub use fault::{Call, Fault, FaultDisk, Timing};
pub use image::{Image, Images};
pub use metered::MeteredStore;
pub use network::{Link, Network, Trouble, Troubles, Weather};
pub use random::Random;
pub use turns::{Turns, Work, pause};
pub use unruly::{Misdeed, UnrulyStore};
