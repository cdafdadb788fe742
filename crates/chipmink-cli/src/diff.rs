//! `chipmink diff`.

use crate::arguments::DiffArguments;
use crate::command::{Failure, version};
use crate::view;
use chipmink::Repository;
use serde_json::json;
use std::io::Write;

pub(crate) fn print(
    repository: &Repository,
    arguments: &DiffArguments,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let before = version(repository, &arguments.before)?;
    let after = version(repository, &arguments.after)?;
    let diff = repository.diff(before, after)?;
    if arguments.common.json {
        let all = json!({
            "before": before.0, "after": after.0,
            "added": diff.added, "removed": diff.removed, "changed": diff.changed,
        });
        writeln!(out, "{all}")?;
        return Ok(());
    }
    for (sign, names) in [('+', &diff.added), ('-', &diff.removed), ('~', &diff.changed)] {
        for name in names {
            writeln!(out, "{sign} {}", view::line(name))?;
        }
    }
    Ok(())
}
