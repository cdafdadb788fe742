//! [`run`]: from arguments to output and exit status.

use crate::arguments::{Arguments, Command};
use crate::{agent, cat, diff, doctor, export, log, repair, shm, show, sweep, transfer, usage, verify};
use chipmink::{Error, OpenOptions, Repository};
use chipmink_types::TimeId;
use clap::Parser;
use serde_json::json;
use std::ffi::OsString;
use std::io::{self, Write};

/// Everything went well.
const GOOD: u8 = 0;
/// Something failed, or `verify` found damage.
const BAD: u8 = 1;
/// The arguments were not understood.
const USAGE: u8 = 2;

/// Why a command ends early.
pub(crate) enum Failure {
    /// The repository failed.
    Repository(Error),
    /// An argument has no meaning.
    Argument(String),
    /// A program that does part of the work failed: kind of the error, and message.
    Foreign(String, String),
    /// The output failed.
    Output(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Output(error) => Failure::Output(error),
            error => Failure::Repository(error),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Output(error)
    }
}

/// Runs the command with `arguments`, the first of which is its name. Returns the exit status.
pub fn run(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    out: &mut dyn Write,
    errors: &mut dyn Write,
) -> u8 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let text = error.render();
            // Nothing can be done about an output that fails here.
            let (_, status) = match error.use_stderr() {
                true => (write!(errors, "{text}"), USAGE),
                false => (write!(out, "{text}"), GOOD),
            };
            return status;
        }
    };
    let is_json = arguments.command.is_json();
    let result = execute(&arguments.command, out).and_then(|status| {
        out.flush()?;
        Ok(status)
    });
    match result {
        Ok(status) => status,
        // Whoever reads has seen enough, as `head` does.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => GOOD,
        Err(failure) => {
            let _ = out.flush();
            let (kind, message) = match failure {
                Failure::Repository(error) => (error.kind().code().to_owned(), error.to_string()),
                Failure::Argument(message) => ("argument".to_owned(), message),
                Failure::Foreign(kind, message) => (kind, message),
                Failure::Output(error) => ("output".to_owned(), format!("the output failed: {error}")),
            };
            let _ = match is_json {
                true => writeln!(errors, "{}", json!({ "error": { "kind": kind, "message": message } })),
                false => writeln!(errors, "chipmink: {message}"),
            };
            if kind == "argument" { USAGE } else { BAD }
        }
    }
}

fn execute(command: &Command, out: &mut dyn Write) -> Result<u8, Failure> {
    match command {
        Command::Log(arguments) => log::print(&open(&arguments.common.place)?, arguments, out)?,
        Command::Show(arguments) => show::print(&open(&arguments.common.place)?, arguments, out)?,
        Command::Diff(arguments) => diff::print(&open(&arguments.common.place)?, arguments, out)?,
        Command::Cat(arguments) => cat::print(&open(&arguments.common.place)?, arguments, out)?,
        Command::Sweep(arguments) => sweep::print(&open(&arguments.common.place)?, arguments, out)?,
        Command::Verify(arguments) => {
            let is_clean = verify::print(&open(&arguments.common.place)?, arguments, out)?;
            return Ok(if is_clean { GOOD } else { BAD });
        }
        Command::Push(arguments) | Command::Pull(arguments) => transfer::run(arguments, false, out)?,
        Command::Mirror(arguments) => transfer::run(arguments, true, out)?,
        Command::Repair(arguments) => {
            let is_clean = repair::run(&open(&arguments.common.place)?, arguments, out)?;
            return Ok(if is_clean { GOOD } else { BAD });
        }
        Command::Stats(arguments) => {
            usage::print_stats(&open(&arguments.common.place)?, arguments.common.json, out)?;
        }
        Command::Du(arguments) => usage::print(&open(&arguments.common.place)?, arguments, out)?,
        Command::Export(arguments) => export::run(arguments, out)?,
        Command::Agent(arguments) => return agent::run(arguments, out),
        Command::Shm(command) => shm::run(command, out)?,
        Command::Doctor { json } => doctor::print(*json, out)?,
    }
    Ok(GOOD)
}

pub(crate) fn open(place: &str) -> Result<Repository, Failure> {
    let options = OpenOptions { create: false, ..OpenOptions::default() };
    Ok(Repository::open(place, options)?)
}

/// The version that an argument means: a number, a tag, or the newest of a branch.
pub(crate) fn version(repository: &Repository, argument: &str) -> Result<TimeId, Failure> {
    if let Ok(number) = argument.parse() {
        return Ok(TimeId(number));
    }
    let tag = format!("{}{argument}", chipmink::TAG_PREFIX);
    match repository.refs()?.get(&tag) {
        Some(time) => Ok(*time),
        None => Ok(repository.newest(argument)?),
    }
}
