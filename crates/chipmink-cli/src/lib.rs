//! The `chipmink` command: it prints and parses, and decides nothing.
//!
//! It only reads, but for `agent`, which makes durable what is staged, `sweep` and `shm rm`. [`run`] is the whole of it, so that other programs (the Python wheel) can install it under its name.
#![forbid(unsafe_code)]

mod agent;
mod arguments;
mod atom;
mod cat;
mod command;
mod diff;
mod log;
mod shm;
mod show;
mod sweep;
mod verify;
mod view;

pub use command::run;
