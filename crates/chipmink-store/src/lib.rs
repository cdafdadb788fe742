//! Packs, tables and the root log of a repository, over `object_store`.
#![forbid(unsafe_code)]

pub mod local;
mod random;
