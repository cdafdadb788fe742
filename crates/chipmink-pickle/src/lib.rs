//! Walks Python object graphs into pods, and rebuilds them.
//!
//! - [`walk`]: one depth-first pass with an explicit stack; a podding policy says which objects share a pod, an identity
//!   shadow proves pods unchanged, and what is dirty goes to a sink. `dumps` writes a single object as a stream.
//! - [`rebuild`]: runs pods as the subroutines of one program and makes the objects again; `loads` reads a stream.
//!
//! The crate knows neither storage nor devices: it hands over bytes and reads them through the traits of
//! `chipmink-types`.

mod dict_table;
mod py;
pub mod rebuild;
pub mod walk;

pub use rebuild::{RebuildOptions, loads, rebuild};
pub use walk::{PySession, PySource, SessionOptions, WhenCaptured, dumps};
