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
    let kinds =
        [('+', &diff.added, view::GOOD), ('-', &diff.removed, view::BAD), ('~', &diff.changed, view::TITLE)];
    for (sign, names, style) in kinds {
        for name in names {
            writeln!(out, "{}", view::paint(format_args!("{sign} {}", view::line(name)), style))?;
        }
    }
    Ok(())
}
