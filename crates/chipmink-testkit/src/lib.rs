//! What chipmink's tests have in common: a disk that crashes, calls that fail, stores that misbehave, random numbers.
//!
//! Published by no one; a dev-dependency of everyone.
#![forbid(unsafe_code)]

mod crash;
mod fault;
mod image;
mod random;
pub mod toy;
mod unruly;

pub use crash::{CrashDisk, Moment, SyncCall};
pub use fault::{Call, Fault, FaultDisk, Timing};
pub use image::{Image, Images};
pub use random::Random;
pub use unruly::{Misdeed, UnrulyStore};
