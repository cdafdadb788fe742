//! `chipmink verify`.

use crate::arguments::VerifyArguments;
use crate::command::Failure;
use crate::view;
use chipmink::Repository;
use serde_json::{Value, json};
use std::io::Write;

/// Prints the report; returns whether nothing is damaged.
pub(crate) fn print(
    repository: &Repository,
    arguments: &VerifyArguments,
    out: &mut dyn Write,
) -> Result<bool, Failure> {
    let report = repository.verify(!arguments.quick)?;
    if arguments.common.json {
        let problems: Vec<Value> = report
            .problems
            .iter()
            .map(|problem| {
                let version = problem.time.map(|time| time.0);
                json!({ "version": version, "object": problem.object, "reason": problem.reason })
            })
            .collect();
        let all = json!({
            "clean": report.is_clean(), "full": !arguments.quick,
            "versions": report.versions, "blobs": report.blobs, "packs": report.packs,
            "problems": problems, "problem_count": report.problem_count,
            "void_entries": report.void_entries.iter().map(|time| time.0).collect::<Vec<_>>(),
            "orphan_packs": report.orphan_packs,
        });
        writeln!(out, "{all}")?;
        return Ok(report.is_clean());
    }
    for problem in &report.problems {
        let at = problem.time.map_or_else(String::new, |time| format!("version {time}: "));
        writeln!(out, "{at}{}: {}", view::line(&problem.object), view::line(&problem.reason))?;
    }
    let more = report.problem_count.saturating_sub(report.problems.len() as u64);
    if more > 0 {
        writeln!(out, "and {}", view::count(more, "more problem"))?;
    }
    let verdict = if report.is_clean() { "no damage" } else { "DAMAGED" };
    writeln!(
        out,
        "{verdict}: {}, {}, {}",
        view::count(report.versions, "version"),
        view::count(report.blobs, "blob"),
        view::count(report.packs, "pack")
    )?;
    if !report.void_entries.is_empty() {
        let numbers: Vec<String> = report.void_entries.iter().map(ToString::to_string).collect();
        writeln!(out, "numbers spent without a version: {}", numbers.join(", "))?;
    }
    if report.orphan_packs > 0 {
        let packs = view::count(report.orphan_packs, "pack");
        writeln!(out, "{packs} of saves that failed, or are running now")?;
    }
    Ok(report.is_clean())
}
