//! The CUDA C sources of the device tier, as text that a compiler takes at run time. Building this crate needs no toolkit.
//!
//! - [`SOURCE`]: all of them as one translation unit.
//! - [`layout`]: the structures through which host and kernels speak, and the names of the kernels.
//!
//! 1. Each file begins with its contract and names the function on the CPU that it equals; that one is the definition.
//! 2. The sources include nothing and compile with NVRTC, nvcc and, behind a shim that runs the threads of a block one after
//!    another, as C++ on the host.

#![forbid(unsafe_code)]

pub mod layout;
mod source;

pub use source::{PARTS, SOURCE};
