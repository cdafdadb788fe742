//! Colours and paging: what may be longer than a terminal goes through the user's pager, if it goes to a terminal at all.

use crate::command::run;
use crate::view::show_colours;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::{Command, Stdio};

/// Commands whose output may be long.
const PAGED: [&str; 4] = ["log", "show", "diff", "du"];
/// The pager if none is named: it ends at once if all fits on the screen, and leaves it as it is.
const PAGER: &str = "less -FRX";
/// The same for a `less` that the user names.
const LESS: &str = "FRX";

/// Runs the command on the standard streams of this process, and returns the exit status.
pub fn run_on_terminal(arguments: Vec<OsString>) -> u8 {
    let mut errors = io::stderr().lock();
    let has_colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var("TERM").is_ok_and(|terminal| terminal != "dumb")
        && io::stdout().is_terminal();
    if has_colours {
        show_colours();
    }
    let is_paged = arguments.get(1).and_then(|name| name.to_str()).is_some_and(|name| PAGED.contains(&name))
        && !arguments.iter().any(|argument| argument == "--json" || argument == "--help")
        && io::stdout().is_terminal();
    if is_paged && let Some(mut pager) = start() {
        let status = match pager.stdin.take() {
            Some(mut out) => run(arguments, &mut out, &mut errors),
            None => 1,
        };
        // The terminal is the pager's until it ends.
        let _ = pager.wait();
        return status;
    }
    let mut out = io::stdout().lock();
    let status = run(arguments, &mut out, &mut errors);
    // What does not end with a line would stay behind in a program that is not Rust's.
    if out.flush().is_ok() { status } else { status.max(1) }
}

/// The user's pager; an empty name is none.
fn start() -> Option<std::process::Child> {
    let pager = std::env::var("PAGER").unwrap_or_else(|_| PAGER.to_owned());
    let mut words = pager.split_whitespace();
    let name = words.next().filter(|name| *name != "cat")?;
    let mut command = Command::new(name);
    command.args(words).stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        // A bare `less` would show the codes of colours, and stay for a few lines.
        command.env("LESS", LESS);
    }
    command.spawn().ok()
}
