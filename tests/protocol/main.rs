//! A model of commit and sweep, explored in every state that it can reach.
//!
//! The parties are two writers, a sweeper and a reader; the place holds packs and the root log; requests are delayed and
//! repeated, answers get lost, and parties die. Whatever happens: a commit that was told is there (*lost*), one that
//! failed is not and never will be (*phantom*), none is there twice, and each version that a ref points at has its packs, in
//! the place and in the index (*dangling*). Time plays no part: nothing here depends on how long anybody waits.
//!
//! What a step is can be read in `writer.rs` and `sweeper.rs`, which say the rules in words first. A version holds a blob of
//! its own, and X or not; X is in the first version, so it is taken over, found by the index, or written again, and it
//! may lie in a pack that is otherwise dead. `state.rs` says why no numbers stand in a state, `canonical.rs` what is
//! left out because it makes no difference.
//!
//! # Bounds
//!
//! Two writers with two commits each and a sweeper with two sweeps; one request that is delayed (and if it is carried out
//! at once, only its answer was lost), one that is carried out twice, and one death: 5,535,338 states where both writers
//! save to one ref, 4,094,920 where each has its own. With refs beside and tags, where a version may follow a parent that
//! no ref holds any more: 1,176,879 states with two commits and one and one sweep, 650,432 with one commit each and two sweeps.
//! With a reader that opens twice, one commit each, two sweeps and no faults: 50,865 states. In these a sweep raises the floor
//! as far as it may, to the number of its own entry; in the two large ones to that of the entry before. An entry is sent twice before its
//! outcome counts as unknown, and a commit writes a second pack at most once. Mirror images of the two writers count once.
//! `make soak` goes further: two delayed requests (17,755,829 states with own refs), all bounds at once beside (27,458,688),
//! and the floor at any height.
//!
//! # Mistakes
//!
//! A model that finds nothing may look at nothing: so each rule is broken once ([`Mistake`]), and the way to the damage is
//! found.
#![expect(clippy::print_stdout, reason = "the figures are worth a look")]

mod canonical;
mod protocol;
mod state;
mod sweeper;
mod writer;

use chipmink_testkit::{Explored, explore};
use protocol::{Mistake, Protocol};
use state::{Faults, Raise};

/// States beyond which a model is larger than was meant.
const STATES_MAX: usize = 100_000_000;

/// A delayed request, a repeated one, and the death of one party.
const ONE_OF_EACH: Faults = Faults { delayed: 1, duplicated: 1, crashes: 1 };
const ALL_RAISES: &[Raise] = &[Raise::No, Raise::ToBase, Raise::ToItself];
const NO_FAULTS: Faults = Faults { delayed: 0, duplicated: 0, crashes: 0 };

/// Both writers save to one ref: who comes second is refused.
const ONE_REF: Protocol = Protocol {
    commits: [2, 2],
    sweeps: 2,
    reads: 0,
    has_own_refs: false,
    saves_beside: false,
    has_tags: false,
    raises: &[Raise::No, Raise::ToBase],
    faults: ONE_OF_EACH,
    mistake: None,
};

/// Each writer saves to a ref of its own: who comes second follows the other.
const OWN_REFS: Protocol = Protocol { has_own_refs: true, ..ONE_REF };

/// Who comes second saves to a ref beside; what is there is tagged.
const BESIDE: Protocol = Protocol { saves_beside: true, has_tags: true, ..ONE_REF };

fn report(name: &str, explored: &Explored<Protocol>) {
    println!("{name}: {} states, {} steps, depth {}", explored.states, explored.steps, explored.depth);
}

#[track_caller]
fn holds(name: &str, model: &Protocol) {
    let explored = explore(model, STATES_MAX);
    report(name, &explored);
    if let Some(counterexample) = explored.counterexample {
        panic!("{name}:\n{counterexample}");
    }
}

#[test]
fn writers_of_their_own_refs_follow_each_other() {
    holds("own refs", &OWN_REFS);
}

#[test]
fn of_writers_of_one_ref_the_second_is_refused() {
    holds("one ref", &ONE_REF);
}

#[test]
fn refused_versions_go_beside_and_tags_stay_whole() {
    holds("beside, one sweep", &Protocol { commits: [2, 1], sweeps: 1, raises: ALL_RAISES, ..BESIDE });
    holds("beside, two sweeps", &Protocol { commits: [1, 1], raises: ALL_RAISES, ..BESIDE });
}

#[test]
fn readers_find_every_version_that_is_retained() {
    holds(
        "readers",
        &Protocol { commits: [1, 1], reads: 2, faults: NO_FAULTS, raises: ALL_RAISES, ..OWN_REFS },
    );
}

/// What takes minutes.
#[test]
#[ignore = "it takes minutes: `make soak` runs it"]
fn two_delayed_requests_and_all_of_everything() {
    let two_delayed = Faults { delayed: 2, ..ONE_OF_EACH };
    holds("own refs, two delayed", &Protocol { faults: two_delayed, ..OWN_REFS });
    holds("one ref, two delayed", &Protocol { faults: two_delayed, commits: [2, 1], ..ONE_REF });
    holds("own refs, floor to any height", &Protocol { raises: ALL_RAISES, ..OWN_REFS });
    holds("one ref, floor to any height", &Protocol { raises: ALL_RAISES, ..ONE_REF });
    holds("beside", &BESIDE);
    holds("readers", &Protocol { reads: 2, faults: Faults { crashes: 1, ..NO_FAULTS }, ..OWN_REFS });
}

/// The mistake leads to what must not be, and the way there is short enough to be read.
#[track_caller]
fn is_found(mistake: Mistake, model: Protocol, expected: &str) {
    let name = format!("{mistake:?}");
    let explored = explore(&Protocol { mistake: Some(mistake), ..model }, STATES_MAX);
    report(&name, &explored);
    let Some(counterexample) = explored.counterexample else {
        panic!("{name} was not found in {} states", explored.states)
    };
    assert!(counterexample.violation.contains(expected), "{counterexample}");
    assert!(counterexample.way.len() <= 16, "{counterexample}");
}

/// A mistake needs no more than this to show, so that the shortest way to it is found soon.
const SMALL: Faults = Faults { delayed: 1, duplicated: 0, crashes: 0 };

#[test]
fn a_writer_that_recovers_a_condemned_pack_is_found() {
    is_found(Mistake::RecoversCondemned, Protocol { faults: SMALL, ..ONE_REF }, "has lost the pack with X");
}

#[test]
fn a_sweeper_that_removes_after_a_check_is_found() {
    let model = Protocol { sweeps: 1, faults: NO_FAULTS, ..ONE_REF };
    is_found(Mistake::RemovesAfterCheck, model, "has lost the pack with X");
}

#[test]
fn a_writer_that_trusts_the_list_of_condemned_packs_is_found() {
    let model = Protocol { sweeps: 1, faults: NO_FAULTS, ..OWN_REFS };
    is_found(Mistake::TrustsListOfCondemned, model, "has lost its own pack");
}

#[test]
fn a_writer_that_takes_a_taken_name_for_a_lost_race_is_found() {
    is_found(Mistake::TakesExistsForLost, ONE_REF, "failed, and is there");
}

#[test]
fn a_housekeeper_that_removes_old_entries_is_found() {
    is_found(Mistake::RemovesOldEntries, Protocol { faults: SMALL, ..OWN_REFS }, "is lost");
}

#[test]
fn other_broken_rules_are_found() {
    let one_sweep = Protocol { sweeps: 1, faults: NO_FAULTS, ..ONE_REF };
    let beside = Protocol { commits: [2, 1], sweeps: 1, faults: NO_FAULTS, ..BESIDE };
    is_found(Mistake::TakesOverFromGone, beside, "has lost");
    is_found(Mistake::TrustsOldIndex, one_sweep, "has lost the pack with X");
    is_found(Mistake::TrustsOldMark, one_sweep, "has lost the pack with X");
    is_found(Mistake::IgnoresFloor, Protocol { has_own_refs: true, ..one_sweep }, "has lost its own pack");
    is_found(Mistake::CondemnsBeforeMoved, one_sweep, "has lost the pack with X");
    is_found(Mistake::TakesSilenceForFailure, ONE_REF, "failed, and is there");
    let two_delayed = Faults { delayed: 2, ..NO_FAULTS };
    is_found(
        Mistake::RemovesPacksOfUnknown,
        Protocol { faults: two_delayed, ..ONE_REF },
        "has lost its own pack",
    );
}
