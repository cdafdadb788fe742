//! Bytes of a repository are untrusted: whatever they are, there is an error that names the object or the right
//! result; no panic, no wrong data, no unbounded memory.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod crafted;
mod damaged;
