//! Walks a graph of Python objects into pods. `source` is where to start reading.

mod adopt;
mod arrays;
mod builder;
mod check;
mod check_arrays;
mod content;
mod dumps;
mod exports;
mod frames;
mod image;
mod kinds;
mod literal;
mod live;
mod memo;
mod memory;
mod names;
mod ndarray;
mod path;
mod place;
mod reduce;
mod regions;
mod scalars;
mod session;
mod shadow;
mod shapes;
mod sharing;
mod source;
mod tracker;
mod visit;
mod walker;
mod watch;
mod witness;

pub use dumps::dumps;
pub(crate) use image::{Image, ImagePod, image};
pub use session::{PySession, SessionOptions};
pub use source::PySource;
