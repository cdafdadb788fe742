//! Several processes at work on one repository, over a network that fails before and after, times out, repeats, delays for
//! minutes and lists what was; with a place that runs full, and processes that are killed at any request.
//!
//! Each run is a seed: it decides the order in which processes go on, what befalls their requests, and what they do. At
//! the end everything that was under way arrives, and the repository is compared with what its writers were told.
//!
//! `CHIPMINK_SIMULATIONS=10000` makes so many runs instead of the usual ones, `CHIPMINK_SIMULATION_SEED=7` begins at
//! that seed.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod books;
mod process;
mod run;

use run::{Figures, run};

/// Runs of `make test`.
const RUNS: u64 = 300;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}")))
}

#[test]
fn nothing_is_lost_and_nothing_appears_whatever_befalls_requests() {
    let first = number("CHIPMINK_SIMULATION_SEED").unwrap_or(0);
    let runs = number("CHIPMINK_SIMULATIONS").unwrap_or(RUNS);
    let mut all = Figures::default();
    let mut bad = Vec::new();
    for seed in first..first + runs {
        let figures = run(seed);
        for problem in &figures.problems {
            bad.push(format!("seed {seed}: {problem}"));
        }
        all.add(figures);
    }
    println!("{runs} runs from seed {first}: {all}");
    assert!(bad.is_empty(), "{} problems in {runs} runs\n{}", bad.len(), bad[..bad.len().min(20)].join("\n"));
    assert!(all.unknown <= all.silent_creates, "{all}");
    if runs >= RUNS {
        // What a run is for has happened in some.
        assert!(all.published > 5 * runs && all.unknown > 0 && all.refused > 0 && all.deaths > 0, "{all}");
        assert!(all.dropped > runs / 2 && all.packs_deleted > runs / 4, "{all}");
        assert!(all.troubles.len() == chipmink_testkit::Trouble::ALL.len(), "{all}");
    }
}
