//! The device tier over an emulated driver: the kernels as C++ of the host, and all that calls them.

#![expect(clippy::unwrap_used, reason = "helpers of tests, too")]

mod cache;
mod emulator;
mod faults;
mod kernels;
mod pipeline;
mod race;
mod training;
mod upload;
mod waiting;
