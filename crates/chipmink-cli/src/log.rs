//! `chipmink log`.

use crate::arguments::LogArguments;
use crate::command::Failure;
use crate::view;
use chipmink::{Repository, Version};
use serde_json::{Value, json};
use std::io::Write;

pub(crate) fn print(
    repository: &Repository,
    arguments: &LogArguments,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut left = arguments.limit.unwrap_or(usize::MAX);
    // A log may be longer than memory, so nothing is collected.
    let mut gap = '[';
    for version in repository.log()? {
        if left == 0 {
            break;
        }
        let version = version?;
        if arguments.ref_name.as_ref().is_some_and(|name| *name != version.ref_name) {
            continue;
        }
        left -= 1;
        if arguments.common.json {
            write!(out, "{gap}{}", value(&version))?;
            gap = ',';
            continue;
        }
        let message = view::line(&version.message);
        let space = if message.is_empty() { "" } else { "  " };
        writeln!(
            out,
            "{}  {}  {}{space}{message}",
            view::paint(format_args!("{:>6}", version.time), view::TITLE),
            view::time(version.saved_at),
            view::line(&version.ref_name)
        )?;
    }
    if arguments.common.json {
        writeln!(out, "{}]", if gap == '[' { "[" } else { "" })?;
    }
    Ok(())
}

/// A version in JSON.
pub(crate) fn value(version: &Version) -> Value {
    json!({
        "version": version.time.0,
        "ref": version.ref_name,
        "commit": version.commit.to_string(),
        "parents": version.parents.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "manifest": version.manifest.to_string(),
        "saved_at": view::time(version.saved_at),
        "saved_at_micros": version.saved_at,
        "message": version.message,
        "author": version.author,
        "code": version.code,
        "statistics": version.statistics,
    })
}
