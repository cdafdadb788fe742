//! A writer: it takes a base, writes a pack, creates an entry, and finds out what became of it.
//!
//! 1. *Begin.* The parent is what the ref points at in the newest entry. The blob X comes from the parent if that holds it,
//!    else from where the index names it, else it is written.
//! 2. *Write.* A pack that cannot be stored fails the commit; the caller is told.
//! 3. *Create.* The entry behind the newest known one. Any answer but success decides nothing.
//! 4. *Read* what stands under the number. The own entry: published. Another: aim again. None: send the same again; when
//!    that was done twice, the caller is told that the outcome is unknown, and the packs stay.
//! 5. *Aim* at the newest entry: the ref must be where it was; own packs below its floor are written again; a parent that no
//!    ref retains, or a pack that is condemned, is of no use, and what it gave is written too. A second time it fails.

use crate::protocol::{Answer, Mistake, Party, Protocol, Step, Take, is_at_work, is_free_beside};
use crate::state::{
    BESIDE, Birth, COMMITS, NOWHERE, Packs, Phase, Request, Source, State, Told, Version, Writer, own_pack,
};

/// How often the same entry is sent.
const SENT_MAX: u8 = 2;

const fn commit_of(writer: usize, over: u8) -> usize {
    writer * COMMITS + over as usize
}

impl Protocol {
    pub(crate) fn writer(&self, state: &State, at: usize, take: Take<'_>) {
        let writer = &state.writers[at];
        let party = Party::Writer(at);
        match writer.phase {
            Phase::Idle if usize::from(writer.over) < COMMITS => self.begin(state, at, take),
            Phase::Writing => {
                let pack = own_pack(commit_of(at, writer.over), writer.attempt.into());
                let answered = |next: &mut State, answer| match answer {
                    Answer::Done => {
                        next.writers[at].own = next.writers[at].own.with(Packs::one(pack));
                        next.writers[at].phase = Phase::Creating;
                    }
                    _ => over(next, at, Told::Failed),
                };
                self.send(state, (party, "stores a pack"), Request::Put(pack as u8), &answered, take);
            }
            Phase::Creating => {
                let answered = |next: &mut State, answer| self.answered(next, at, answer);
                self.send(state, (party, "creates its entry"), self.entry(state, at), &answered, take);
            }
            Phase::Reading => {
                let mut next = *state;
                self.read(&mut next, at);
                take(Step::Acts(party, "reads the entry"), next);
                if state.faults.delayed > 0 {
                    let mut next = *state;
                    next.faults.delayed -= 1;
                    self.send_again(&mut next, at);
                    take(Step::Delayed(party, "reads the entry"), next);
                }
            }
            _ => {}
        }
        if state.faults.crashes > 0 && is_at_work(writer.phase) {
            let mut next = *state;
            next.faults.crashes -= 1;
            over(&mut next, at, Told::Nothing);
            take(Step::Crashes(party), next);
        }
    }

    fn begin(&self, state: &State, at: usize, take: Take<'_>) {
        let parent = state.refs[self.ref_of(at)];
        let commit = commit_of(at, state.writers[at].over);
        let begun = Writer {
            over: state.writers[at].over,
            is_fresh: true,
            parent,
            phase: Phase::Writing,
            ..Writer::default()
        };
        for needs_x in [false, true] {
            let mut next = *state;
            next.writers[at] = begun;
            if needs_x {
                next.needs_x |= 1 << commit;
                next.writers[at].source = if state.version_needs_x(parent) {
                    Source::Parent
                } else if self.found(state).is_empty() {
                    Source::Own
                } else {
                    Source::Index
                };
            }
            begin_pack(&mut next, at, 0);
            let what = if needs_x { "begins a version with X" } else { "begins a version without X" };
            take(Step::Acts(Party::Writer(at), what), next);
        }
        if self.has_tags && is_free_beside(state) {
            let mut next = *state;
            next.writers[at] = Writer { is_tag: true, phase: Phase::Creating, ..begun };
            take(Step::Acts(Party::Writer(at), "begins a tag of what its ref points at"), next);
        }
    }

    /// Packs in which the index finds X.
    fn found(&self, state: &State) -> Packs {
        let live = state.live.both(state.with_x);
        if live.is_empty() && self.makes(Mistake::RecoversCondemned) {
            return state.condemned.both(state.with_x).both(state.stored);
        }
        live
    }

    fn entry(&self, state: &State, at: usize) -> Request {
        let writer = &state.writers[at];
        let commit = commit_of(at, writer.over);
        let to = if writer.is_tag { writer.parent } else { 1 + commit as Version };
        let is_beside = writer.is_tag || writer.is_beside;
        let ref_at = if is_beside { BESIDE } else { self.ref_of(at) } as u8;
        let recovers = match writer.source {
            Source::Index => self.found(state).first().both(state.condemned),
            _ => Packs::NONE,
        };
        Request::Commit {
            commit: commit as u8,
            ref_at,
            to,
            own: writer.own,
            recovers,
            is_fresh: writer.is_fresh,
        }
    }

    fn answered(&self, next: &mut State, at: usize, answer: Answer) {
        next.writers[at].sent += 1;
        match answer {
            Answer::Done => over(next, at, Told::Published),
            Answer::Exists if self.makes(Mistake::TakesExistsForLost) => self.aim(next, at),
            // What stands there stands for ever: reading it later would give nothing else.
            Answer::Exists => self.read(next, at),
            Answer::Silence => next.writers[at].phase = Phase::Reading,
        }
    }

    fn read(&self, next: &mut State, at: usize) {
        let writer = &next.writers[at];
        if next.published & (1 << commit_of(at, writer.over)) != 0 {
            over(next, at, Told::Published);
        } else if !writer.is_fresh {
            self.aim(next, at);
        } else if self.makes(Mistake::TakesSilenceForFailure) {
            over(next, at, Told::Failed);
        } else {
            self.send_again(next, at);
        }
    }

    fn send_again(&self, next: &mut State, at: usize) {
        if next.writers[at].sent < SENT_MAX {
            next.writers[at].phase = Phase::Creating;
        } else {
            if self.makes(Mistake::RemovesPacksOfUnknown) {
                next.stored = next.stored.without(next.writers[at].own);
            }
            over(next, at, Told::Nothing);
        }
    }

    /// Makes the entry anew behind the newest one.
    fn aim(&self, next: &mut State, at: usize) {
        let state = *next;
        let writer = &mut next.writers[at];
        writer.is_fresh = true;
        writer.sent = 0;
        writer.phase = Phase::Creating;
        let expected = if writer.is_tag || writer.is_beside { NOWHERE } else { writer.parent };
        let found = match writer.is_tag || writer.is_beside {
            true => state.refs[BESIDE],
            false => state.refs[self.ref_of(at)],
        };
        if found != expected {
            if writer.is_tag || writer.is_beside || !self.saves_beside || !is_free_beside(&state) {
                return over(next, at, Told::Failed);
            }
            writer.is_beside = true;
        }
        let is_gone = |pack: usize| match self.makes(Mistake::TrustsListOfCondemned) {
            true => state.condemned.has(pack),
            false => state.births[pack] == Birth::BelowFloor,
        };
        let gone = writer
            .own
            .iter()
            .filter(|pack| is_gone(*pack))
            .fold(Packs::NONE, |all, pack| all.with(Packs::one(pack)));
        writer.own = writer.own.without(gone);
        let trusts_gone = self.makes(Mistake::TakesOverFromGone);
        let has_lost_parent = !trusts_gone && !state.is_retained(writer.parent);
        let has_lost_x = match writer.source {
            Source::Parent => has_lost_parent,
            Source::Index => self.found(&state).is_empty() && !self.makes(Mistake::TrustsOldIndex),
            Source::None | Source::Own => false,
        };
        if writer.is_tag {
            if has_lost_parent {
                over(next, at, Told::Failed);
            }
            return;
        }
        if !has_lost_x && gone.is_empty() {
            return;
        }
        if has_lost_x {
            writer.source = Source::Own;
        }
        if writer.attempt > 0 {
            return over(next, at, Told::Failed);
        }
        writer.phase = Phase::Writing;
        begin_pack(next, at, 1);
    }
}

/// Begins a pack at the newest entry that the writer knows. That is the newest whenever a pack is begun.
fn begin_pack(next: &mut State, at: usize, attempt: usize) {
    let writer = &mut next.writers[at];
    writer.attempt = attempt as u8;
    let pack = own_pack(commit_of(at, writer.over), attempt);
    next.births[pack] = Birth::Newest;
    if writer.source == Source::Own {
        next.with_x = next.with_x.with(Packs::one(pack));
    }
}

/// The commit is over. Packs that were written for it and not published are in nobody's way: whether they are removed makes
/// no difference.
fn over(next: &mut State, at: usize, told: Told) {
    let writer = &mut next.writers[at];
    if told != Told::Nothing {
        next.told[commit_of(at, writer.over)] = told;
    }
    *writer = Writer { over: writer.over + 1, ..Writer::default() };
}
