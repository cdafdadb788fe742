//! Sweeps: what is dropped goes, what stays can be read, whoever saves meanwhile.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "sweep/support.rs"]
mod support;

#[path = "sweep/crashes.rs"]
mod crashes;
#[path = "sweep/interleaved.rs"]
mod interleaved;
#[path = "sweep/kept.rs"]
mod kept;
#[path = "sweep/merged.rs"]
mod merged;
#[path = "sweep/rewritten.rs"]
mod rewritten;
