//! The `chipmink` command, as the wheel installs it.

use pyo3::prelude::*;
use std::io::Write;

/// Runs the command with these arguments, the first of which is its name, and returns its exit status.
#[pyfunction]
pub(crate) fn run_command(py: Python<'_>, arguments: Vec<std::ffi::OsString>) -> u8 {
    py.detach(|| {
        let (mut out, mut errors) = (std::io::stdout().lock(), std::io::stderr().lock());
        let status = chipmink_cli::run(arguments, &mut out, &mut errors);
        // What does not end with a line would stay behind: nobody flushes at the end of a program that is not Rust's.
        match out.flush() {
            Ok(()) => status,
            Err(_) => status.max(1),
        }
    })
}
