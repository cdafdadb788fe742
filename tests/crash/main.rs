//! A crash at any moment leaves every promised version whole, and never half of one.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod check;
mod disk_full;
mod failed_sync;
mod kill;
mod power_cut;
mod without_sync;
