//! `chipmink repair`.

use crate::arguments::RepairArguments;
use crate::command::{Failure, open};
use crate::verify::{lost, print_lost};
use crate::view;
use chipmink::{RepairReport, Repository};
use serde_json::json;
use std::io::Write;

/// Repairs, and prints what became of it; returns whether nothing is damaged any more.
pub(crate) fn run(
    repository: &Repository,
    arguments: &RepairArguments,
    out: &mut dyn Write,
) -> Result<bool, Failure> {
    let mirror = arguments.from.as_deref().map(open).transpose()?;
    let report = repository.repair(mirror.as_ref(), &mut |_| true)?;
    let RepairReport { before, after, blobs_fetched, blobs_salvaged, packs_replaced, versions_fetched } =
        &report;
    if arguments.common.json {
        let all = json!({
            "clean": after.is_clean(), "damaged_before": before.problem_count, "damaged_after": after.problem_count,
            "blobs_fetched": blobs_fetched, "blobs_salvaged": blobs_salvaged, "packs_replaced": packs_replaced,
            "versions_fetched": versions_fetched, "lost": after.lost.iter().map(lost).collect::<Vec<_>>(),
            "lost_count": after.lost_count,
        });
        writeln!(out, "{all}")?;
        return Ok(after.is_clean());
    }
    if before.is_clean() {
        writeln!(out, "nothing is damaged")?;
        return Ok(true);
    }
    for (count, what) in [
        (*blobs_fetched, "blob that the mirror had"),
        (*blobs_salvaged, "blob that lay in packs of nobody"),
        (*packs_replaced, "pack replaced"),
        (*versions_fetched, "version brought back, under a new number"),
    ] {
        if count > 0 {
            writeln!(out, "{count} x {what}")?;
        }
    }
    print_lost(&after.lost, after.lost_count, out)?;
    match (after.is_clean(), &arguments.from) {
        (true, _) => writeln!(out, "repaired")?,
        (false, None) => {
            let left = view::count(after.problem_count, "piece of damage");
            writeln!(out, "{left} left; a mirror may have what is lost: --from MIRROR")?;
        }
        (false, Some(_)) => {
            let left = view::count(after.problem_count, "piece of damage");
            writeln!(out, "{left} left that the mirror does not have; `chipmink verify` names them")?;
        }
    }
    Ok(after.is_clean())
}
