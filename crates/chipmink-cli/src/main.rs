//! The `chipmink` command as a program of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(chipmink_cli::run_on_terminal(std::env::args_os().collect()))
}
