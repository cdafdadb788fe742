//! `chipmink push`, `pull` and `mirror`.

use crate::arguments::TransferArguments;
use crate::command::{Failure, open};
use crate::view;
use chipmink::{OpenOptions, Phase, Place, RefSpec, TransferOptions, TransferProgress, TransferReport};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::io::Write;

/// How often in a second the bar is drawn.
const DRAWN: u8 = 10;

pub(crate) fn run(
    arguments: &TransferArguments,
    is_mirror: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let refs = arguments.refs.iter().map(|text| RefSpec::parse(text)).collect::<Result<_, _>>();
    let options = TransferOptions {
        refs: refs.map_err(|error| Failure::Argument(error.to_string()))?,
        since: arguments.since,
        names: arguments.names.clone(),
        mirror: is_mirror,
        limit: arguments.limit,
        verify: !arguments.no_verify,
        ..TransferOptions::default()
    };
    let from = open(&arguments.from)?;
    let to = Place::parse(&arguments.to).map_err(chipmink::Error::from)?;
    let mut bar = Bar::default();
    let result = from.push_to(to, OpenOptions::default(), &options, &mut |progress| {
        bar.show(progress);
        true
    });
    bar.clear();
    print(&result?, &arguments.to, arguments.json, out)
}

fn print(report: &TransferReport, to: &str, is_json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let TransferReport { versions, swept, refs, ahead, blobs, bytes, packs, .. } = report;
    if is_json {
        let all = json!({
            "versions": versions, "swept": swept, "refs": refs, "ahead": ahead, "blobs": blobs, "bytes": bytes,
            "packs": packs, "packs_resumed": report.packs_resumed, "bytes_resumed": report.bytes_resumed,
            "seconds": report.seconds,
        });
        writeln!(out, "{all}")?;
        return Ok(());
    }
    writeln!(
        out,
        "{} to {}: {} in {}",
        view::count(*versions, "version"),
        view::line(to.split('?').next().unwrap_or_default()),
        view::bytes(*bytes),
        view::count(*blobs, "blob"),
    )?;
    if report.packs_resumed > 0 {
        let resumed = view::bytes(report.bytes_resumed);
        writeln!(out, "{resumed} were there from a transfer that was interrupted")?;
    }
    for name in refs {
        writeln!(out, "  {} moved", view::line(name))?;
    }
    for name in ahead {
        writeln!(out, "  {} has newer versions there, and was left alone", view::line(name))?;
    }
    if *swept > 0 {
        writeln!(out, "  {} are no longer in the source", view::count(*swept, "older version"))?;
    }
    Ok(())
}

/// A bar on the terminal, if there is one.
#[derive(Default)]
struct Bar {
    bar: Option<(Phase, ProgressBar)>,
}

impl Bar {
    fn show(&mut self, progress: &TransferProgress) {
        if self.bar.as_ref().is_none_or(|(phase, _)| *phase != progress.phase) {
            self.clear();
            let target = ProgressDrawTarget::stderr_with_hz(DRAWN);
            let bar = ProgressBar::with_draw_target(Some(progress.total), target);
            let template = match progress.phase {
                Phase::Copying => "copying {wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left",
                Phase::Publishing => "publishing {wide_bar} {pos}/{len} versions  {eta} left",
                Phase::Comparing => "comparing {spinner} {elapsed}",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            self.bar = Some((progress.phase, bar));
        }
        if let Some((_, bar)) = &self.bar {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
            bar.tick();
        }
    }

    fn clear(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
