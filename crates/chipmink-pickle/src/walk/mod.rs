//! Walks a graph of Python objects into pods. `source` is where to start reading.

mod adopt;
mod arrays;
mod builder;
mod check;
mod content;
mod dumps;
mod frames;
mod image;
mod kinds;
mod memo;
mod names;
mod path;
mod place;
mod reduce;
mod session;
mod shadow;
mod shapes;
mod source;
mod tracker;
mod visit;
mod walker;
mod watch;

pub use dumps::dumps;
pub(crate) use image::{Image, ImagePod, image};
pub use session::{PySession, SessionOptions};
pub use source::PySource;
