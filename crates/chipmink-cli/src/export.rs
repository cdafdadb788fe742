//! `chipmink export`: a version as a plain pickle, made by Python.

use crate::arguments::ExportArguments;
use crate::command::{Failure, open};
use serde_json::{Value, json};
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
        return Err(match told(last) {
            Some((kind, message)) => Failure::Foreign(kind, message),
            None if text.contains("No module named 'chipmink") => {
                Failure::Argument(format!("{needs}: {last}"))
            }
            None => {
                Failure::Foreign("output".to_owned(), format!("Python ended with {}: {last}", done.status))
            }
        });
    }
    match arguments.common.json {
        true => writeln!(out, "{}", json!({ "file": arguments.to }))?,
        false => writeln!(out, "{}", arguments.to)?,
    }
    Ok(())
}

/// Kind and message of the line with which the exporter ends.
fn told(line: &str) -> Option<(String, String)> {
    let error: Value = serde_json::from_str(line).ok()?;
    Some((error["kind"].as_str()?.to_owned(), error["message"].as_str()?.to_owned()))
}
