//! How numbers and times are shown.

use anstyle::{AnsiColor, Style};
use chrono::{DateTime, SecondsFormat};
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the output goes to a terminal that shows colours.
static HAS_COLOURS: AtomicBool = AtomicBool::new(false);

/// What is good, or was added.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// What is damaged, or was removed.
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
/// What a line is about.
pub(crate) const TITLE: Style = AnsiColor::Yellow.on_default();

/// From now on the output has colours.
pub(crate) fn show_colours() {
    HAS_COLOURS.store(true, Ordering::Relaxed);
}

/// A text in a colour, if there are any.
pub(crate) fn paint(text: impl Display, style: Style) -> String {
    match HAS_COLOURS.load(Ordering::Relaxed) {
        true => format!("{style}{text}{style:#}"),
        false => text.to_string(),
    }
}

/// A time in microseconds since 1970 as RFC 3339, in UTC.
pub(crate) fn time(micros: i64) -> String {
    match DateTime::from_timestamp_micros(micros) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::Secs, true),
        None => format!("{micros} microseconds since 1970"),
    }
}

/// A number of bytes with three digits, in binary units.
pub(crate) fn bytes(byte_len: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if byte_len < 1024 {
        return format!("{byte_len} B");
    }
    let mut scaled = byte_len as f64 / 1024.0;
    let mut unit = 0;
    while scaled >= 999.5 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    let digits = if scaled < 9.995 {
        2
    } else if scaled < 99.95 {
        1
    } else {
        0
    };
    format!("{scaled:.digits$} {}", UNITS[unit])
}

/// A count with its noun.
pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Text from a repository on one line: what could move the cursor of a terminal is escaped.
pub(crate) fn line(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits() {
        let shown = [0, 1023, 1024, 10_000, 123_456, 1 << 20, 5_000_000_000, u64::MAX].map(bytes);
        assert_eq!(
            shown,
            ["0 B", "1023 B", "1.00 KiB", "9.77 KiB", "121 KiB", "1.00 MiB", "4.66 GiB", "16.0 EiB"]
        );
    }

    #[test]
    fn times_are_in_utc_and_never_fail() {
        assert_eq!(time(1_700_000_000_123_456), "2023-11-14T22:13:20Z");
        assert!(time(i64::MIN).contains("since 1970"));
    }

    #[test]
    fn a_terminal_is_not_taken_over() {
        assert_eq!(line("a\nb\u{1b}[2J é"), "a\\nb\\u{1b}[2J é");
    }
}
