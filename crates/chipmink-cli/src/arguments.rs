//! What can be asked for.

use chipmink::{KeepEvery, Since};
use chipmink_types::TimeId;
use chrono::{DateTime, NaiveDate};
use clap::{Args, Parser, Subcommand};
use std::time::Duration;

/// Looks into chipmink repositories, and makes durable what is staged for them
#[derive(Parser, Debug)]
#[command(name = "chipmink", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// List the versions, newest first
    Log(LogArguments),
    /// Show a version and its variables, or the pods of one variable
    Show(ShowArguments),
    /// Show which variables differ between two versions
    Diff(DiffArguments),
    /// Check that everything the versions reach is there and undamaged
    Verify(VerifyArguments),
    /// Drop versions, and give back the room of what no version needs any more
    Sweep(SweepArguments),
    /// Bring versions to another place, where a repository is made if there is none
    Push(TransferArguments),
    /// The same as push: bring versions from one place to another
    Pull(TransferArguments),
    /// As push, and make the branches and tags of the destination equal to those of the source
    Mirror(TransferArguments),
    /// Replace what is damaged by what is whole, from the place itself or from a mirror
    Repair(RepairArguments),
    /// Show how much there is in a place
    Stats(StatsArguments),
    /// Show what the variables of a version take, or the versions
    Du(DuArguments),
    /// Write a version as a plain pickle; this needs a Python that has chipmink
    Export(ExportArguments),
    /// Write out the bytes of a pod, any other blob, or a buffer
    Cat(CatArguments),
    /// Make durable what other processes stage in shared memory, also after they were killed
    Agent(AgentArguments),
    /// List or remove shared memory that holds versions
    #[command(subcommand)]
    Shm(ShmCommand),
    /// Show what this machine offers: page tracking, shared memory, CUDA, and why not
    Doctor {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What every command needs.
#[derive(Args, Debug)]
pub(crate) struct Common {
    /// Folder or URL of the repository
    pub(crate) place: String,
    /// Print JSON; errors, too
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct LogArguments {
    #[command(flatten)]
    pub(crate) common: Common,
    /// At most so many versions
    #[arg(short = 'n', long)]
    pub(crate) limit: Option<usize>,
    /// Only versions saved to this ref
    #[arg(long = "ref", value_name = "REF")]
    pub(crate) ref_name: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ShowArguments {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Number of the version, or a branch or tag
    #[arg(default_value = "main")]
    pub(crate) version: String,
    /// A variable, to see its pods and buffers
    pub(crate) name: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct DiffArguments {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Number of the earlier version, or a branch or tag
    pub(crate) before: String,
    /// Number of the later version, or a branch or tag
    #[arg(default_value = "main")]
    pub(crate) after: String,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyArguments {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Check the tables and whether every blob has a place, without reading pods and buffers
    #[arg(long)]
    pub(crate) quick: bool,
}

#[derive(Args, Debug)]
pub(crate) struct SweepArguments {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Keep so many newest versions of each branch
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) keep_last: Option<u64>,
    /// Keep the newest version of each branch of every such time, as 1d, or of every so many numbers
    #[arg(long, value_name = "TIME|N", value_parser = keep_every)]
    pub(crate) keep_every: Option<KeepEvery>,
    /// Drop versions that have only a tag, and their tags
    #[arg(long)]
    pub(crate) drop_tagged: bool,
    /// Of what is kept, keep the newest versions that fit into so many bytes, as 10GiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) max_bytes: Option<u64>,
    /// Keep versions that are not older than this, as 30d
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) older_than: Option<Duration>,
    /// Delete what was condemned at least so long ago; 1h if not given
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) grace: Option<Duration>,
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Args, Debug)]
pub(crate) struct TransferArguments {
    /// Folder or URL of the repository that has the versions
    pub(crate) from: String,
    /// Folder or URL where they go
    pub(crate) to: String,
    /// Only this branch or tag (as tag/NAME), under another name if it is NAME:OTHER; may be repeated
    #[arg(long = "ref", value_name = "REF")]
    pub(crate) refs: Vec<String>,
    /// Only versions from this one on: a number, or a date such as 2026-05-31 or 2026-05-31T12:00:00Z
    #[arg(long, value_parser = since)]
    pub(crate) since: Option<Since>,
    /// Only these variables, separated by commas, with all that shares objects with them
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub(crate) names: Option<Vec<String>>,
    /// At most so many bytes per second, as 10MB/s or 512KiB
    #[arg(long, value_parser = rate)]
    pub(crate) limit: Option<u64>,
    /// Do not read back what was written before it becomes visible
    #[arg(long)]
    pub(crate) no_verify: bool,
    /// Print JSON; errors, too
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RepairArguments {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Folder or URL of a repository that holds the same versions
    #[arg(long, value_name = "MIRROR")]
    pub(crate) from: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct StatsArguments {
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct DuArguments {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Number of the version, or a branch or tag
    #[arg(default_value = "main")]
    pub(crate) version: String,
    /// Show all versions, and what only each of them needs
    #[arg(long)]
    pub(crate) versions: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ExportArguments {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Number of the version, or a branch or tag
    pub(crate) version: String,
    /// The file to write; it is replaced when the pickle is whole
    #[arg(long, value_name = "FILE")]
    pub(crate) to: String,
    /// Only these variables, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub(crate) names: Option<Vec<String>>,
}

#[derive(Args, Debug)]
pub(crate) struct CatArguments {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Digest of the blob, 34 hexadecimal characters, as `show` prints it
    pub(crate) digest: String,
    /// The digest is that of a buffer: write its content
    #[arg(long)]
    pub(crate) buffer: bool,
}

#[derive(Args, Debug)]
pub(crate) struct AgentArguments {
    /// The staging tier, as shm://NAME
    #[arg(long, value_name = "PLACE")]
    pub(crate) staging: String,
    /// Folder or URL of the repository that the versions go to
    #[arg(long, value_name = "PLACE")]
    pub(crate) to: String,
    /// Make the staging tier with this size if there is none, as 2GiB, instead of waiting for it
    #[arg(long, value_parser = size)]
    pub(crate) size: Option<u64>,
    /// End when nothing is staged any more
    #[arg(long)]
    pub(crate) until_durable: bool,
    /// Print JSON, a line for each event; errors, too
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Subcommand, Debug)]
pub(crate) enum ShmCommand {
    /// List the shared memory that holds versions
    List {
        /// Print JSON; errors, too
        #[arg(long)]
        json: bool,
    },
    /// Remove shared memory and the versions in it
    Rm {
        /// Its name, with or without shm://
        name: String,
        /// Remove a staging tier even if versions in it are durable nowhere
        #[arg(long)]
        force: bool,
        /// Print errors as JSON
        #[arg(long)]
        json: bool,
    },
}

/// A version, or a time.
fn since(text: &str) -> Result<Since, String> {
    if let Ok(number) = text.parse() {
        return Ok(Since::Version(TimeId(number)));
    }
    let date = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0);
    let time = DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros());
    time.or_else(|| date().map(|date| date.and_utc().timestamp_micros()))
        .map(Since::SavedAt)
        .ok_or_else(|| format!("{text:?} is neither the number of a version nor a date such as 2026-05-31"))
}

/// A number of bytes per second.
fn rate(text: &str) -> Result<u64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    let digits = number.trim_end_matches(|c: char| !c.is_ascii_digit());
    let decimal = match number[digits.len()..].trim() {
        "kB" => Some(1_000),
        "MB" => Some(1_000_000),
        "GB" => Some(1_000_000_000u64),
        _ => None,
    };
    let bytes = match decimal {
        Some(unit) => digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)),
        None => size(number).ok(),
    };
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| format!("{text:?} is no rate: give bytes per second, as 10MB/s or 512KiB/s"))
}

/// A number of bytes, alone or with a binary unit.
fn size(text: &str) -> Result<u64, String> {
    chipmink::parse_byte_len(text)
        .ok_or_else(|| format!("{text:?} is no size: give bytes, or a number with KiB, MiB, GiB or TiB"))
}

/// A time: a number with a unit.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: give a number with s, m, h, d or w, as 12h");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// Of how many numbers, or of what time, one version is kept.
fn keep_every(text: &str) -> Result<KeepEvery, String> {
    let every = match text.parse() {
        Ok(count) => KeepEvery::Numbers(count),
        Err(_) => KeepEvery::Time(duration(text)?),
    };
    match every {
        KeepEvery::Numbers(0) | KeepEvery::Time(Duration::ZERO) => Err(format!("{text:?} is none")),
        every => Ok(every),
    }
}

impl Command {
    pub(crate) const fn is_json(&self) -> bool {
        match self {
            Command::Log(arguments) => arguments.common.json,
            Command::Show(arguments) => arguments.common.json,
            Command::Diff(arguments) => arguments.common.json,
            Command::Verify(arguments) => arguments.common.json,
            Command::Cat(arguments) => arguments.common.json,
            Command::Sweep(arguments) => arguments.common.json,
            Command::Repair(arguments) => arguments.common.json,
            Command::Stats(arguments) => arguments.common.json,
            Command::Du(arguments) => arguments.common.json,
            Command::Export(arguments) => arguments.common.json,
            Command::Push(arguments) | Command::Pull(arguments) | Command::Mirror(arguments) => {
                arguments.json
            }
            Command::Agent(arguments) => arguments.json,
            Command::Doctor { json } => *json,
            Command::Shm(ShmCommand::List { json } | ShmCommand::Rm { json, .. }) => *json,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2w"), Ok(Duration::from_secs(2 * 7 * 86_400)));
        assert_eq!(keep_every("10"), Ok(KeepEvery::Numbers(10)));
        assert_eq!(keep_every("1d"), Ok(KeepEvery::Time(Duration::from_secs(86_400))));
        for wrong in ["", "s", "1", "-1s", "1.5h", "1é", "99999999999999999999s", "99999999999999999w"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(keep_every("0").is_err() && keep_every("0d").is_err());
    }

    #[test]
    fn rates_have_decimal_or_binary_units() {
        assert_eq!(rate("10MB/s"), Ok(10_000_000));
        assert_eq!(rate("512KiB"), Ok(512 << 10));
        assert_eq!(rate("2GB"), Ok(2_000_000_000));
        assert_eq!(rate("77"), Ok(77));
        for wrong in ["", "0", "MB/s", "10mb", "-3", "99999999999GB/s"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn since_is_a_version_or_a_date() {
        assert_eq!(since("12"), Ok(Since::Version(TimeId(12))));
        assert_eq!(since("1970-01-02"), Ok(Since::SavedAt(86_400_000_000)));
        assert_eq!(since("1970-01-01T01:00:00+01:00"), Ok(Since::SavedAt(0)));
        assert!(since("yesterday").is_err());
    }

    #[test]
    fn sizes_are_bytes_or_have_a_binary_unit() {
        assert_eq!(size("123"), Ok(123));
        assert_eq!(size("2GiB"), Ok(2 << 30));
        assert_eq!(size("64 MiB"), Ok(64 << 20));
        for wrong in ["", "GiB", "2GB", "-1", "1.5GiB", "99999999999TiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
