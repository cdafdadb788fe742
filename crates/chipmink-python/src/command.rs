//! The `chipmink` command, as the wheel installs it.

use pyo3::prelude::*;

/// Runs the command with these arguments, the first of which is its name, and returns its exit status.
#[pyfunction]
pub(crate) fn run_command(py: Python<'_>, arguments: Vec<std::ffi::OsString>) -> u8 {
    py.detach(|| chipmink_cli::run_on_terminal(arguments))
}
