//! `chipmink shm`: shared memory that holds versions.

use crate::arguments::ShmCommand;
use crate::command::Failure;
use crate::view;
use chipmink::SegmentKind;
use serde_json::json;
use std::io::Write;

pub(crate) fn run(command: &ShmCommand, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        ShmCommand::List { json } => list(*json, out),
        ShmCommand::Rm { name, force, .. } => Ok(chipmink::remove_segment(name, *force)?),
    }
}

fn list(is_json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let segments = chipmink::segments()?;
    let kind = |kind| match kind {
        SegmentKind::Repository => "repository",
        SegmentKind::Staging => "staging",
        _ => "unusable",
    };
    if is_json {
        let all: Vec<_> = segments
            .iter()
            .map(|segment| {
                json!({
                    "name": segment.name,
                    "kind": kind(segment.kind),
                    "byte_len": segment.byte_len,
                    "used_bytes": segment.used,
                    "only_here_bytes": segment.unsettled,
                })
            })
            .collect();
        writeln!(out, "{}", json!(all))?;
        return Ok(());
    }
    for segment in &segments {
        writeln!(
            out,
            "shm://{}  {}  {} of {} used, {} only here",
            view::line(&segment.name),
            kind(segment.kind),
            view::bytes(segment.used),
            view::bytes(segment.byte_len),
            view::bytes(segment.unsettled),
        )?;
    }
    Ok(())
}
