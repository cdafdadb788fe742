//! `kill -9` of a saving process at random moments.

use chipmink_store::{Place, Store, StoreOptions};
use chipmink_test_crash::namespace;
use chipmink_testkit::{Random, toy};
use chipmink_types::TimeId;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Runs a saver, kills it after a while, and returns the last version that it was promised.
fn run_and_kill(path: &Path, mode: &str, after: Duration) -> u64 {
    let mut child =
        Command::new(env!("CARGO_BIN_EXE_saver")).arg(path).arg(mode).stdout(Stdio::piped()).spawn().unwrap();
    let output = child.stdout.take().unwrap();
    std::thread::sleep(after);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(!status.success());
    let promised = BufReader::new(output).lines().map_while(Result::ok).filter_map(|line| line.parse().ok());
    promised.max().unwrap_or(0)
}

fn kill_often(mode: &str, seed: u64) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/repository");
    let mut random = Random::new(seed);
    let mut promised = 0;
    for round in 0..25 {
        // A loaded machine takes long to make the repository.
        let longest = if promised > 0 { 40_000 } else { 40_000 << (round / 3) };
        let after = Duration::from_micros(200 + random.below(longest) as u64);
        promised = run_and_kill(&path, mode, after).max(promised);
        let options = StoreOptions { durable: false, ..StoreOptions::default() };
        let store = match Store::open(Place::Local(path.clone()), options) {
            Ok(store) => store,
            Err(_) if promised == 0 => continue,
            Err(error) => panic!("round {round}: {error}"),
        };
        let head = store.head().number.0;
        assert!(head >= promised, "round {round}: version {promised} was promised, the newest is {head}");
        let report = store.verify(true).unwrap();
        assert!(report.is_clean(), "round {round}: {report:?}");
        assert!(report.void_entries.is_empty());
        for number in 1..=head {
            assert_eq!(toy::load(&store, TimeId(number)).unwrap(), namespace(number), "round {round}");
        }
    }
    assert!(promised > 0, "no round was long enough for a save");
}

#[test]
fn versions_promised_to_a_killed_process_are_there() {
    kill_often("relaxed", 1);
}

#[test]
fn versions_promised_to_a_killed_durable_process_are_there() {
    kill_often("durable", 2);
}
