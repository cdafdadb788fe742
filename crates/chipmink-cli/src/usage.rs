//! `chipmink stats` and `chipmink du`.

use crate::arguments::DuArguments;
use crate::command::{Failure, version};
use crate::view;
use chipmink::Repository;
use serde_json::{Value, json};
use std::io::Write;

pub(crate) fn print_stats(
    repository: &Repository,
    is_json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let stats = repository.stats()?;
    let refs = repository.refs()?;
    let tags = refs.keys().filter(|name| name.starts_with(chipmink::TAG_PREFIX)).count() as u64;
    let branches = refs.len() as u64 - tags;
    if is_json {
        let all = json!({
            "versions": stats.versions, "branches": branches, "tags": tags, "entries": stats.entries,
            "packs": stats.packs, "pack_bytes": stats.pack_bytes, "orphan_packs": stats.orphan_packs,
            "orphan_bytes": stats.orphan_bytes, "blobs": stats.blobs, "stored_bytes": stats.stored_bytes,
            "decoded_bytes": stats.decoded_bytes, "deltas": stats.deltas,
        });
        writeln!(out, "{all}")?;
        return Ok(());
    }
    let lines = [
        ("versions", format!("{} on {}", stats.versions, view::count(branches, "line"))),
        ("tags", tags.to_string()),
        ("packs", format!("{} with {}", stats.packs, view::bytes(stats.pack_bytes))),
        ("blobs", format!("{}, {} of them differences", stats.blobs, stats.deltas)),
        (
            "content",
            format!("{}, stored in {}", view::bytes(stats.decoded_bytes), view::bytes(stats.stored_bytes)),
        ),
        (
            "of nobody",
            format!("{} with {}", view::count(stats.orphan_packs, "pack"), view::bytes(stats.orphan_bytes)),
        ),
    ];
    for (name, value) in lines {
        writeln!(out, "{name:<10}{value}")?;
    }
    Ok(())
}

pub(crate) fn print(
    repository: &Repository,
    arguments: &DuArguments,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let rows: Vec<(Value, String, u64, u64)> = if arguments.versions {
        let usage = repository.version_usage()?.into_iter();
        usage
            .map(|usage| {
                (json!({ "version": usage.what.0 }), usage.what.to_string(), usage.bytes, usage.own_bytes)
            })
            .collect()
    } else {
        let time = version(repository, &arguments.version)?;
        let usage = repository.variable_usage(time)?.into_iter();
        usage
            .map(|usage| {
                let names = view::line(&usage.what.join(", "));
                (json!({ "names": usage.what }), names, usage.bytes, usage.own_bytes)
            })
            .collect()
    };
    if arguments.common.json {
        let all: Vec<Value> = rows
            .into_iter()
            .map(|(mut what, _, bytes, own)| {
                what["bytes"] = bytes.into();
                what["own_bytes"] = own.into();
                what
            })
            .collect();
        writeln!(out, "{}", json!(all))?;
        return Ok(());
    }
    writeln!(out, "{:>10}  {:>10}", "all", "own")?;
    for (_, what, bytes, own) in rows {
        writeln!(out, "{:>10}  {:>10}  {what}", view::bytes(bytes), view::bytes(own))?;
    }
    Ok(())
}
