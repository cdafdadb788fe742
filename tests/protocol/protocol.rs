//! [`Protocol`]: the parties, the network between them and the place, and what must never be.

use crate::canonical::{canonical, mirrored};
use crate::state::{
    BESIDE, Birth, COMMITS, FIRST_PACK, Faults, NOWHERE, Packs, Phase, REFS, Raise, Request, State, Told,
    WRITERS,
};
use chipmink_testkit::Model;

/// A rule that a party breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mistake {
    /// A writer names a condemned pack again, as long as it is there.
    RecoversCondemned,
    /// A sweeper condemns nothing: it looks once more whether a pack is needed, and removes it.
    RemovesAfterCheck,
    /// A writer asks the list of condemned packs about its own instead of the floor. The list is cut when they are gone.
    TrustsListOfCondemned,
    /// A writer whose number is taken does not look whose entry it is.
    TakesExistsForLost,
    /// Old entries are removed.
    RemovesOldEntries,
    /// A writer takes over what its parent holds though no ref retains the parent any more.
    TakesOverFromGone,
    /// A writer that lost a race believes what the index said before.
    TrustsOldIndex,
    /// A sweeper that lost a race condemns what it had marked before.
    TrustsOldMark,
    /// A sweeper condemns packs that no entry names without raising the floor.
    IgnoresFloor,
    /// A writer that got no answer and finds no entry says that it failed.
    TakesSilenceForFailure,
    /// A writer removes its packs when the outcome is unknown.
    RemovesPacksOfUnknown,
    /// A sweeper publishes the pack to which it moved what lives in an entry after that which condemns the old one.
    CondemnsBeforeMoved,
}

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protocol {
    /// Commits of each writer, at most [`COMMITS`].
    pub(crate) commits: [usize; WRITERS],
    /// At most [`crate::state::SWEEPS`].
    pub(crate) sweeps: usize,
    /// Times that a reader opens the repository.
    pub(crate) reads: u8,
    /// Whether each writer saves to a ref of its own; else both save to one.
    pub(crate) has_own_refs: bool,
    /// Whether a version whose ref has moved goes to a ref beside it; else it is refused.
    pub(crate) saves_beside: bool,
    /// Whether a commit may make a ref to the version that it sees.
    pub(crate) has_tags: bool,
    /// How far a sweep may raise the floor.
    pub(crate) raises: &'static [Raise],
    /// Faults that may happen.
    pub(crate) faults: Faults,
    pub(crate) mistake: Option<Mistake>,
}

/// One step.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "the fields are there to be shown")]
pub(crate) enum Step {
    /// Somebody acts, and the network behaves.
    Acts(Party, &'static str),
    /// Somebody acts and gets no answer. The request will be carried out later, or never.
    Delayed(Party, &'static str),
    /// A request is carried out, and once more later.
    Duplicated(Party, &'static str),
    /// A request is carried out twice, and the second answer arrives.
    SecondAnswer(Party, &'static str),
    /// A request that was under way is carried out.
    Arrives(Request),
    /// A party dies.
    Crashes(Party),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Party {
    Writer(usize),
    Sweeper,
    Reader,
    Housekeeper,
}

/// How a request was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    Done,
    /// The name is taken.
    Exists,
    /// None, or one that says nothing.
    Silence,
}

/// Takes a step and what comes of it.
pub(crate) type Take<'a> = &'a mut dyn FnMut(Step, State);

impl Protocol {
    pub(crate) fn makes(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    /// The ref that a writer saves to.
    pub(crate) fn ref_of(&self, writer: usize) -> usize {
        if self.has_own_refs { writer } else { 0 }
    }

    /// Whether the writers are mirror images of each other.
    fn is_symmetric(&self) -> bool {
        self.commits[0] == self.commits[1]
    }

    /// Everything that can become of a request: `answered` takes what the party makes of the answer.
    pub(crate) fn send(
        &self,
        state: &State,
        (party, what): (Party, &'static str),
        request: Request,
        answered: &dyn Fn(&mut State, Answer),
        take: Take<'_>,
    ) {
        let mut next = *state;
        let answer = self.carry_out(&mut next, request);
        let carried_out = next;
        answered(&mut next, answer);
        take(Step::Acts(party, what), next);
        if state.faults.delayed > 0 {
            let mut next = *state;
            next.faults.delayed -= 1;
            if under_way(&mut next, request) {
                answered(&mut next, Answer::Silence);
                take(Step::Delayed(party, what), next);
            }
        }
        if state.faults.duplicated > 0 {
            let plain = self.canonical(next);
            let mut repeat = |step: Step, mut repeated: State| {
                // A copy that changes nothing leads nowhere else.
                if self.canonical(repeated) != plain {
                    repeated.faults.duplicated -= 1;
                    take(step, repeated);
                }
            };
            let mut again = carried_out;
            let second = self.carry_out(&mut again, as_taken(request));
            answered(&mut again, second);
            repeat(Step::SecondAnswer(party, what), again);
            let mut later = carried_out;
            if under_way(&mut later, as_taken(request)) {
                answered(&mut later, answer);
                repeat(Step::Duplicated(party, what), later);
            }
        }
    }

    /// Carries a request out.
    fn carry_out(&self, state: &mut State, request: Request) -> Answer {
        match request {
            Request::Put(pack) => state.stored = state.stored.with(Packs::one(pack.into())),
            Request::Remove(packs) => state.stored = state.stored.without(packs),
            Request::Commit { is_fresh: false, .. } | Request::Condemn { is_fresh: false, .. } => {
                // Where the entry was removed the name is free again, and what is created there is no part of the log.
                return if state.has_gap { Answer::Done } else { Answer::Exists };
            }
            Request::Commit { commit, ref_at, to, own, recovers, .. } => {
                let bit = 1 << commit;
                state.is_double |= state.published & bit != 0;
                state.published |= bit;
                state.refs[usize::from(ref_at)] = to;
                state.live = state.live.with(own).with(recovers);
                state.condemned = state.condemned.without(recovers);
                next_number(state);
            }
            Request::Condemn { sweep, condemned, adds, raises, .. } => {
                state.live = state.live.without(condemned).with(adds);
                state.condemned = state.condemned.with(condemned);
                let falls = |birth: Birth| match raises {
                    Raise::No => false,
                    Raise::ToBase => birth == Birth::Earlier,
                    Raise::ToItself => true,
                };
                state.births.iter_mut().filter(|birth| falls(**birth)).for_each(|birth| {
                    *birth = Birth::BelowFloor;
                });
                state.sweeper.is_published |= state.sweeper.over == sweep;
                next_number(state);
            }
        }
        Answer::Done
    }

    fn deliver(&self, state: &State, take: Take<'_>) {
        for (at, request) in state.network.iter().enumerate() {
            let Some(request) = *request else { continue };
            let mut next = *state;
            next.network[at] = None;
            self.carry_out(&mut next, request);
            take(Step::Arrives(request), next);
        }
    }

    fn housekeeping(&self, state: &State, take: Take<'_>) {
        if self.makes(Mistake::RemovesOldEntries) && !state.has_gap {
            take(Step::Acts(Party::Housekeeper, "removes an old entry"), State { has_gap: true, ..*state });
        }
    }
}

/// An entry was created: nobody's view is the newest any more.
fn next_number(state: &mut State) {
    for birth in state.births.iter_mut().filter(|birth| **birth == Birth::Newest) {
        *birth = Birth::Earlier;
    }
    state.writers.iter_mut().for_each(|writer| writer.is_fresh = false);
    state.sweeper.is_fresh = false;
    for request in state.network.iter_mut().flatten() {
        *request = as_taken(*request);
    }
}

/// A request for a number that is taken, as is one that was carried out.
fn as_taken(request: Request) -> Request {
    match request {
        Request::Commit { commit, ref_at, to, own, recovers, .. } => {
            Request::Commit { commit, ref_at, to, own, recovers, is_fresh: false }
        }
        Request::Condemn { sweep, condemned, adds, raises, .. } => {
            Request::Condemn { sweep, condemned, adds, raises, is_fresh: false }
        }
        other => other,
    }
}

/// Puts a request under way, if there is room for it.
fn under_way(state: &mut State, request: Request) -> bool {
    match state.network.iter_mut().find(|slot| slot.is_none()) {
        Some(slot) => *slot = Some(request),
        None => return false,
    }
    true
}

impl Model for Protocol {
    type State = State;
    type Step = Step;

    fn initial(&self) -> State {
        let mut refs = [NOWHERE; REFS];
        refs[0] = 0;
        if self.has_own_refs {
            refs[1] = 0;
        }
        let mut state = State {
            stored: Packs::one(FIRST_PACK),
            live: Packs::one(FIRST_PACK),
            with_x: Packs::one(FIRST_PACK),
            refs,
            faults: self.faults,
            ..State::default()
        };
        for (writer, commits) in state.writers.iter_mut().zip(self.commits) {
            writer.over = (COMMITS - commits) as u8;
        }
        state.sweeper.over = (crate::state::SWEEPS - self.sweeps) as u8;
        state
    }

    fn steps(&self, state: &State, take: Take<'_>) {
        for writer in 0..WRITERS {
            self.writer(state, writer, take);
        }
        self.sweeper(state, take);
        self.reader(state, take);
        self.deliver(state, take);
        self.housekeeping(state, take);
    }

    fn canonical(&self, state: State) -> State {
        let state = canonical(state, self.makes(Mistake::RemovesOldEntries));
        if self.is_symmetric() { state.min(mirrored(&state, self.has_own_refs)) } else { state }
    }

    fn violation(&self, state: &State) -> Option<String> {
        for (commit, told) in state.told.iter().enumerate() {
            let is_there = state.published & (1 << commit) != 0;
            match told {
                Told::Published if !is_there => return Some(format!("commit {commit} is lost")),
                Told::Failed if is_there => return Some(format!("commit {commit} failed, and is there")),
                _ => {}
            }
        }
        if state.is_double {
            return Some("a commit is there twice".to_owned());
        }
        if state.reader.is_failed {
            return Some("a reader was refused a version that is retained".to_owned());
        }
        for version in state.retained() {
            if state.holders(version).both(state.stored).is_empty() {
                return Some(format!("version {version} has lost its own pack"));
            }
            if state.version_needs_x(version) && state.with_x.both(state.live).both(state.stored).is_empty() {
                return Some(format!("version {version} has lost the pack with X"));
            }
        }
        None
    }
}

impl Protocol {
    /// A reader opens the newest version of a ref and reads pack after pack; where one is gone it looks at the log again.
    fn reader(&self, state: &State, take: Take<'_>) {
        let reader = &state.reader;
        if !reader.is_reading {
            if reader.opened < self.reads {
                let mut next = *state;
                next.reader.opened += 1;
                next.reader.version = state.refs[0];
                self.resolve(&next, "opens", take);
            }
            return;
        }
        let mut next = *state;
        let pack = reader.left.first();
        if !state.stored.both(pack).is_empty() {
            next.reader.left = reader.left.without(pack);
        } else if state.is_retained(reader.version) {
            return self.resolve(&next, "misses a pack and looks again", take);
        } else {
            next.reader.left = Packs::NONE;
        }
        next.reader.is_reading = !next.reader.left.is_empty();
        take(Step::Acts(Party::Reader, "reads a pack"), next);
    }

    /// The packs of the reader's version, as the newest entry resolves it: of several with X any.
    fn resolve(&self, state: &State, what: &'static str, take: Take<'_>) {
        let version = state.reader.version;
        let own = state.holders(version).first();
        let mut read = |left: Packs| {
            let mut next = *state;
            next.reader.left = left;
            next.reader.is_reading = true;
            next.reader.is_failed = !left.without(state.stored).is_empty();
            take(Step::Acts(Party::Reader, what), next);
        };
        match state.version_needs_x(version) {
            true => state.with_x.both(state.live).iter().for_each(|pack| read(own.with(Packs::one(pack)))),
            false => read(own),
        }
    }
}

/// Whether a ref beside the others can be made.
pub(crate) fn is_free_beside(state: &State) -> bool {
    state.refs[BESIDE] == NOWHERE
}

/// Whether a party is at work, so that it can die.
pub(crate) fn is_at_work(phase: Phase) -> bool {
    phase != Phase::Idle
}
