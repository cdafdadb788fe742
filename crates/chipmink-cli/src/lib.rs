//! The `chipmink` command: it prints and parses, and decides nothing.
//!
//! It only reads, but for `agent`, which makes durable what is staged, `push`, `pull` and `mirror`, which write to their destination, `repair`, `sweep` and
//! `shm rm`. [`run`] is the whole of it, and
//! [`run_on_terminal`] what it is as a program, so that other programs (the Python wheel) can install it under its name.
#![forbid(unsafe_code)]

mod agent;
mod arguments;
mod atom;
mod cat;
mod command;
mod diff;
mod doctor;
mod export;
mod log;
mod pager;
mod repair;
mod shm;
mod show;
mod sweep;
mod transfer;
mod usage;
mod verify;
mod view;

pub use command::run;
pub use pager::run_on_terminal;
