//! `chipmink export`: a version as a plain pickle, made by Python.

use crate::arguments::ExportArguments;
use crate::command::{Failure, open};
use serde_json::json;
use std::io::{self, Write};
use std::process::Command;

/// Names the interpreter; the wheel sets it to its own.
const INTERPRETER: &str = "CHIPMINK_PYTHON";

pub(crate) fn run(arguments: &ExportArguments, out: &mut dyn Write) -> Result<(), Failure> {
    // Looking makes no repository.
    drop(open(&arguments.common.place)?);
    let python = std::env::var_os(INTERPRETER).unwrap_or_else(|| "python3".into());
    let mut command = Command::new(&python);
    command.args(["-m", "chipmink._export", &arguments.common.place, &arguments.version, &arguments.to]);
    command.args(arguments.names.iter().flatten());
    let needs = "a pickle holds Python objects, so only a Python that has chipmink can write it";
    let done = command.output().map_err(|error| {
        let shown = python.to_string_lossy();
        let text = format!(
            "{needs}: {shown} does not run ({error}); install the wheel, or name one by {INTERPRETER}"
        );
        match error.kind() {
            io::ErrorKind::NotFound => Failure::Argument(text),
            _ => Failure::Output(error),
        }
    })?;
    if !done.status.success() {
        let text = String::from_utf8_lossy(&done.stderr);
        let last = text.lines().last().unwrap_or_default();
        let is_foreign = text.contains("No module named 'chipmink");
        let reason = if is_foreign { format!("{needs}: {last}") } else { last.to_owned() };
        return Err(Failure::Argument(reason));
    }
    match arguments.common.json {
        true => writeln!(out, "{}", json!({ "file": arguments.to }))?,
        false => writeln!(out, "{}", arguments.to)?,
    }
    Ok(())
}
