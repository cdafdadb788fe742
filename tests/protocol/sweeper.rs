//! The sweeper: it marks, condemns, and removes what is condemned.
//!
//! 1. *Mark* at the newest entry: what the refs point at is needed, of each blob one live pack. Whether the floor is raised,
//!    to that entry's number or to that of its own, is left open, and whether a pack of which only X lives is copied into a
//!    new one.
//! 2. *List* the packs: those that no entry names and that were begun below the new floor are orphans.
//! 3. *Condemn* in an entry what is dead and orphaned, raise the floor, add the new pack. If another stands there: mark again.
//! 4. *Remove* what the log says is condemned, of any sweep. A sweep that died is taken up by the next here.
//!
//! There is no grace period: removal may follow at once, so whatever holds here holds without clocks.

use crate::protocol::{Answer, Mistake, Party, Protocol, Step, Take, is_at_work};
use crate::state::{
    Birth, FIRST_PACK, Packs, Phase, Raise, Request, SWEEPS, State, Sweeper, all_holders, swept_pack,
};

/// How often the same entry is sent.
const SENT_MAX: u8 = 2;

impl Protocol {
    pub(crate) fn sweeper(&self, state: &State, take: Take<'_>) {
        let sweeper = &state.sweeper;
        let sweep = usize::from(sweeper.over);
        match sweeper.phase {
            Phase::Idle if sweep < SWEEPS => self.mark(state, take),
            Phase::Writing => {
                let pack = swept_pack(sweep);
                let answered = |next: &mut State, answer| {
                    next.sweeper.phase = Phase::Listing;
                    if answer == Answer::Done {
                        next.sweeper.adds = Packs::one(pack);
                    } else {
                        next.sweeper.dead = next.sweeper.dead.without(next.sweeper.doomed);
                    }
                    next.sweeper.doomed = Packs::NONE;
                };
                let request = Request::Put(pack as u8);
                self.send(state, (Party::Sweeper, "stores what lives of a pack"), request, &answered, take);
            }
            Phase::Listing => {
                let mut next = *state;
                self.list(&mut next);
                take(Step::Acts(Party::Sweeper, "lists the packs"), next);
            }
            Phase::Creating => self.condemn(state, take),
            Phase::Reading => {
                let mut next = *state;
                self.find_out(&mut next, take);
                if state.faults.delayed > 0 {
                    let mut next = *state;
                    next.faults.delayed -= 1;
                    send_again(&mut next);
                    take(Step::Delayed(Party::Sweeper, "reads the entry"), next);
                }
            }
            Phase::Checking => {
                let mut next = *state;
                let needed = needed(state, state.with_x);
                next.sweeper.doomed = sweeper.doomed.without(needed);
                begin_removal(&mut next);
                take(Step::Acts(Party::Sweeper, "looks again who needs them"), next);
            }
            Phase::Removing => {
                let doomed = sweeper.doomed;
                let answered = |next: &mut State, answer| {
                    if answer == Answer::Done {
                        next.condemned = next.condemned.without(doomed);
                    }
                    over(next);
                };
                let request = Request::Remove(doomed);
                self.send(state, (Party::Sweeper, "removes packs"), request, &answered, take);
            }
            Phase::Idle => {}
        }
        if state.faults.crashes > 0 && is_at_work(sweeper.phase) {
            let mut next = *state;
            next.faults.crashes -= 1;
            over(&mut next);
            take(Step::Crashes(Party::Sweeper), next);
        }
    }

    fn mark(&self, state: &State, take: Take<'_>) {
        let holders = state.live.both(state.with_x);
        if !state.retained().any(|version| state.version_needs_x(version)) || holders.is_empty() {
            return self.mark_keeping(state, Packs::NONE, take);
        }
        // Of several packs with X any may be the one that stays.
        holders.iter().for_each(|pack| self.mark_keeping(state, Packs::one(pack), take));
    }

    /// Marks; of the packs with X this one is needed.
    fn mark_keeping(&self, state: &State, x: Packs, take: Take<'_>) {
        let needed = needed(state, x);
        let dead = state.live.without(needed);
        let moved = mostly_dead(state, needed);
        let sweep = usize::from(state.sweeper.over);
        let may_move = state.sweeper.adds.is_empty() && !state.stored.has(swept_pack(sweep));
        for raises in self.raises.iter().copied() {
            for moves in [false, true] {
                if moves && (moved.is_empty() || !may_move || state.sweeper.sent > 0) {
                    continue;
                }
                let mut next = *state;
                next.sweeper =
                    Sweeper { over: state.sweeper.over, is_fresh: true, raises, dead, ..Sweeper::default() };
                next.sweeper.phase = Phase::Listing;
                if moves {
                    let pack = swept_pack(sweep);
                    next.births[pack] = Birth::Newest;
                    next.with_x = next.with_x.with(Packs::one(pack));
                    next.sweeper.dead = dead.with(moved);
                    // Until the copy is stored: what must not be condemned if it cannot be.
                    next.sweeper.doomed = moved;
                    next.sweeper.phase = Phase::Writing;
                }
                let what = match (raises, moves) {
                    (Raise::No, false) => "marks",
                    (_, false) => "marks, to raise the floor",
                    (Raise::No, true) => "marks, to move what lives",
                    (_, true) => "marks, to raise the floor and move what lives",
                };
                take(Step::Acts(Party::Sweeper, what), next);
            }
        }
    }

    /// Finds the orphans, and goes on with what there is to do.
    fn list(&self, next: &mut State) {
        let named = next.live.with(next.condemned).with(next.sweeper.adds);
        let unnamed = next.stored.without(named);
        let ignores_floor = self.makes(Mistake::IgnoresFloor);
        let raises = next.sweeper.raises;
        let is_new = |birth: Birth| birth == Birth::Newest && raises != Raise::ToItself;
        let is_old = |pack: &usize| ignores_floor || !is_new(next.births[*pack]);
        if raises != Raise::No || ignores_floor {
            let old = unnamed.iter().filter(is_old);
            next.sweeper.orphans = old.fold(Packs::NONE, |all, pack| all.with(Packs::one(pack)));
        }
        let found = next.sweeper.dead.with(next.sweeper.orphans);
        if self.makes(Mistake::RemovesAfterCheck) {
            next.sweeper.doomed = found;
            next.sweeper.phase = Phase::Checking;
        } else if found.is_empty() && raises == Raise::No {
            next.sweeper.doomed = next.condemned;
            begin_removal(next);
        } else {
            next.sweeper.phase = Phase::Creating;
        }
    }

    fn condemn(&self, state: &State, take: Take<'_>) {
        let sweeper = &state.sweeper;
        let parts = self.makes(Mistake::CondemnsBeforeMoved);
        let request = Request::Condemn {
            sweep: sweeper.over,
            condemned: sweeper.dead.with(sweeper.orphans),
            adds: if parts { Packs::NONE } else { sweeper.adds },
            raises: if self.makes(Mistake::IgnoresFloor) { Raise::No } else { sweeper.raises },
            is_fresh: sweeper.is_fresh,
        };
        let answered = |next: &mut State, answer| {
            next.sweeper.sent += 1;
            match answer {
                Answer::Done => published(next),
                _ => next.sweeper.phase = Phase::Reading,
            }
        };
        self.send(state, (Party::Sweeper, "creates its entry"), request, &answered, take);
    }

    /// Finds out what became of the entry.
    fn find_out(&self, next: &mut State, take: Take<'_>) {
        let sweeper = &mut next.sweeper;
        if sweeper.is_published {
            published(next);
        } else if sweeper.is_fresh {
            send_again(next);
        } else if self.makes(Mistake::TrustsOldMark) {
            sweeper.is_fresh = true;
            sweeper.sent = 0;
            sweeper.phase = Phase::Creating;
        } else {
            return self.mark(next, take);
        }
        take(Step::Acts(Party::Sweeper, "reads the entry"), *next);
    }
}

/// Of everything that the refs need one live pack; of X those given.
fn needed(state: &State, x: Packs) -> Packs {
    let mut needed = Packs::NONE;
    for version in state.retained() {
        needed = needed.with(state.holders(version).first());
        if state.version_needs_x(version) {
            needed = needed.with(x);
        }
    }
    needed
}

/// The needed pack of which only X lives, if it holds more than that.
fn mostly_dead(state: &State, needed: Packs) -> Packs {
    let own = state.retained().fold(Packs::NONE, |all, version| all.with(state.holders(version).first()));
    let moved = needed.without(own);
    let is_mixed =
        |pack: &usize| *pack == FIRST_PACK || (1..=4).any(|version| all_holders(version).has(*pack));
    moved.iter().find(is_mixed).map_or(Packs::NONE, Packs::one)
}

fn published(next: &mut State) {
    next.sweeper.doomed = next.condemned;
    begin_removal(next);
}

fn begin_removal(next: &mut State) {
    if next.sweeper.doomed.is_empty() {
        over(next);
    } else {
        next.sweeper.phase = Phase::Removing;
    }
}

fn send_again(next: &mut State) {
    if next.sweeper.sent < SENT_MAX {
        next.sweeper.phase = Phase::Creating;
    } else {
        over(next);
    }
}

fn over(next: &mut State) {
    next.sweeper = Sweeper { over: next.sweeper.over + 1, ..Sweeper::default() };
}
