//! `chipmink verify`.

use crate::arguments::VerifyArguments;
use crate::command::Failure;
use crate::view;
use chipmink::{LostVersion, Repository};
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
            "bytes": report.bytes,
            "lost": report.lost.iter().map(lost).collect::<Vec<_>>(),
            "lost_count": report.lost_count,
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
    print_lost(&report.lost, report.lost_count, out)?;
    let verdict = match report.is_clean() {
        true => view::paint("no damage", view::GOOD),
        false => view::paint("DAMAGED", view::BAD),
    };
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

/// What a version has lost, in JSON.
pub(crate) fn lost(lost: &LostVersion) -> Value {
    json!({ "version": lost.time.0, "variables": lost.variables, "whole": lost.is_whole })
}

/// What the versions have lost.
pub(crate) fn print_lost(all: &[LostVersion], count: u64, out: &mut dyn Write) -> std::io::Result<()> {
    for lost in all {
        let names = view::line(&lost.variables.join(", "));
        match (lost.is_whole, names.is_empty()) {
            (false, _) => writeln!(out, "version {} has lost {names}; its other variables load", lost.time)?,
            (true, true) => writeln!(out, "version {} is lost", lost.time)?,
            (true, false) => writeln!(out, "version {} has lost {names}, and perhaps more", lost.time)?,
        }
    }
    let more = count.saturating_sub(all.len() as u64);
    if more > 0 {
        writeln!(out, "and {} have lost something", view::count(more, "more version"))?;
    }
    Ok(())
}
