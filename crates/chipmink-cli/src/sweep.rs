//! `chipmink sweep`.

use crate::arguments::SweepArguments;
use crate::command::Failure;
use crate::view;
use chipmink::{Repository, Retention, SweepReport, SweepRequest};
use serde_json::json;
use std::io::Write;

/// Versions that are named one by one.
const NAMED_MAX: usize = 20;

pub(crate) fn print(
    repository: &Repository,
    arguments: &SweepArguments,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let retention = Retention {
        keep_last: arguments.keep_last,
        keep_every: arguments.keep_every,
        keep_tagged: !arguments.drop_tagged,
        max_bytes: arguments.max_bytes,
        older_than: arguments.older_than,
        ..Retention::default()
    };
    let default = SweepRequest::default();
    let grace = arguments.grace.unwrap_or(default.grace);
    let report = repository.sweep(&SweepRequest { retention, grace, dry_run: arguments.dry_run })?;
    if arguments.common.json {
        let all = json!({
            "dry_run": report.is_dry_run,
            "versions_dropped": report.versions_dropped.iter().map(|time| time.0).collect::<Vec<_>>(),
            "versions_kept": report.versions_kept,
            "refs_deleted": report.refs_deleted,
            "packs_condemned": report.packs_condemned,
            "orphans_condemned": report.orphans_condemned,
            "condemned_bytes": report.condemned_bytes,
            "moved_bytes": report.moved_bytes,
            "packs_deleted": report.packs_deleted,
            "freed_bytes": report.freed_bytes,
            "packs_waiting": report.packs_waiting,
            "waiting_bytes": report.waiting_bytes,
            "kept_bytes": report.kept_bytes,
            "entry": report.entry.map(|entry| entry.0),
        });
        writeln!(out, "{all}")?;
        return Ok(());
    }
    show(&report, out)
}

fn show(report: &SweepReport, out: &mut dyn Write) -> Result<(), Failure> {
    let would = if report.is_dry_run { "would be " } else { "" };
    let versions = &report.versions_dropped;
    let dropped = view::count(versions.len() as u64, "version");
    let named = match versions.len() {
        0 => String::new(),
        1..=NAMED_MAX => {
            let numbers: Vec<String> = versions.iter().map(ToString::to_string).collect();
            format!(" ({})", numbers.join(", "))
        }
        _ => format!(" ({} to {})", versions[0], versions[versions.len() - 1]),
    };
    writeln!(out, "{would}dropped: {dropped}{named}; {} left", report.versions_kept)?;
    for name in &report.refs_deleted {
        writeln!(out, "{would}deleted: {}", view::line(name))?;
    }
    let packs = view::count(report.packs_deleted, "pack");
    writeln!(out, "{would}freed: {} in {packs}", view::bytes(report.freed_bytes))?;
    if report.packs_waiting > 0 {
        let packs = view::count(report.packs_waiting, "pack");
        let bytes = view::bytes(report.waiting_bytes);
        writeln!(out, "to be freed when the grace is over, by a later sweep: {bytes} in {packs}")?;
    }
    writeln!(out, "kept: {}", view::bytes(report.kept_bytes))?;
    Ok(())
}
