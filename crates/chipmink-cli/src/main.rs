//! The `chipmink` command as a program of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let (mut out, mut errors) = (std::io::stdout().lock(), std::io::stderr().lock());
    ExitCode::from(chipmink_cli::run(std::env::args_os(), &mut out, &mut errors))
}
