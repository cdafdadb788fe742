//! One state for all that behave alike.

use crate::state::{
    BESIDE, Birth, COMMITS, NOWHERE, Packs, Phase, Request, State, Told, Version, WRITERS, own_pack,
    swept_pack,
};

/// Clears what cannot matter any more. `has_gaps`: entries may be removed, so a number that is taken may be free later.
///
/// Packs that no entry names and nobody can name any more make no difference: their commit is over, and no request that
/// names them is under way. A sweeper would condemn and remove them beside others.
pub(crate) fn canonical(mut state: State, has_gaps: bool) -> State {
    for slot in &mut state.network {
        let is_void = match slot {
            // Nobody waits for its answer, and the number is taken for ever.
            Some(Request::Commit { is_fresh: false, .. } | Request::Condemn { is_fresh: false, .. }) => {
                !has_gaps
            }
            _ => false,
        };
        if is_void {
            *slot = None;
        }
    }
    let Named { packs: named, mut versions, commits } = named(&mut state);
    let used = named.with(state.live).with(state.condemned);
    state.stored = state.stored.both(used);
    state.with_x = state.with_x.both(used);
    for slot in &mut state.network {
        let changes = match slot {
            Some(Request::Put(pack)) => used.without(state.stored).has((*pack).into()),
            Some(Request::Remove(packs)) => {
                *packs = packs.both(state.stored);
                !packs.is_empty()
            }
            _ => true,
        };
        if !changes {
            *slot = None;
        }
    }
    state.network.sort_unstable();
    state.refs.iter().for_each(|version| versions |= bit(*version));
    state.needs_x &= versions;
    let with_birth = named.without(state.live);
    for (pack, birth) in state.births.iter_mut().enumerate() {
        if !with_birth.has(pack) {
            *birth = Birth::BelowFloor;
        }
    }
    for (commit, told) in state.told.iter_mut().enumerate() {
        let bit = 1u8 << commit;
        let is_there = state.published & bit != 0;
        let is_pending = commits & bit != 0;
        let is_open = usize::from(state.writers[commit / COMMITS].over) <= commit % COMMITS;
        match told {
            Told::Published if is_there => *told = Told::Nothing,
            Told::Failed if !is_there && !is_pending => *told = Told::Nothing,
            _ => {}
        }
        if *told == Told::Nothing && !is_open && !is_pending {
            state.published &= !bit;
        }
    }
    state
}

/// What parties and requests under way can still name.
struct Named {
    packs: Packs,
    /// A bit for each version but the first.
    versions: u8,
    /// Commits of which a request is under way, a bit each.
    commits: u8,
}

fn bit(version: Version) -> u8 {
    if version == NOWHERE || version == 0 { 0 } else { 1 << (version - 1) }
}

fn named(state: &mut State) -> Named {
    let mut named = Named { packs: state.sweeper.adds.with(state.sweeper.doomed), versions: 0, commits: 0 };
    for request in state.network.iter().flatten() {
        match request {
            Request::Commit { commit, to, own, .. } => {
                named.commits |= 1 << commit;
                named.versions |= bit(*to);
                named.packs = named.packs.with(*own);
            }
            Request::Condemn { adds, .. } => named.packs = named.packs.with(*adds),
            Request::Put(_) | Request::Remove(_) => {}
        }
    }
    if state.sweeper.phase == Phase::Writing {
        named.packs = named.packs.with(Packs::one(swept_pack(state.sweeper.over.into())));
    }
    if state.reader.is_reading {
        named.versions |= bit(state.reader.version);
        named.packs = named.packs.with(state.reader.left);
    } else {
        state.reader.version = 0;
    }
    for (at, writer) in state.writers.iter().enumerate() {
        if writer.phase == Phase::Idle {
            continue;
        }
        let commit = at * COMMITS + usize::from(writer.over);
        named.versions |= bit(writer.parent) | bit(1 + commit as Version);
        named.packs = named.packs.with(writer.own);
        if writer.phase == Phase::Writing {
            named.packs = named.packs.with(Packs::one(own_pack(commit, writer.attempt.into())));
        }
    }
    named
}

/// The same state with the writers changed over.
pub(crate) fn mirrored(state: &State, has_own_refs: bool) -> State {
    let mut mirror = *state;
    mirror.writers.swap(0, 1);
    for at in 0..COMMITS {
        mirror.told.swap(at, COMMITS + at);
    }
    let bits = |bits: u8| {
        let low = (1 << COMMITS) - 1;
        ((bits & low) << COMMITS) | ((bits >> COMMITS) & low)
    };
    mirror.needs_x = bits(mirror.needs_x);
    mirror.published = bits(mirror.published);
    mirror.stored = packs(mirror.stored);
    mirror.live = packs(mirror.live);
    mirror.condemned = packs(mirror.condemned);
    mirror.with_x = packs(mirror.with_x);
    let half = own_pack(COMMITS, 0) - 1;
    for pack in 1..=half {
        mirror.births.swap(pack, pack + half);
    }
    mirror.refs.iter_mut().for_each(|target| *target = version(*target));
    if has_own_refs {
        mirror.refs.swap(0, 1);
    }
    for writer in &mut mirror.writers {
        writer.parent = version(writer.parent);
        writer.own = packs(writer.own);
    }
    let sweeper = &mut mirror.sweeper;
    for set in [&mut sweeper.dead, &mut sweeper.orphans, &mut sweeper.adds, &mut sweeper.doomed] {
        *set = packs(*set);
    }
    mirror.reader.version = version(mirror.reader.version);
    mirror.reader.left = packs(mirror.reader.left);
    for request in mirror.network.iter_mut().flatten() {
        *request = self::request(*request, has_own_refs);
    }
    mirror.network.sort_unstable();
    mirror
}

fn version(version: Version) -> Version {
    match version {
        0 | NOWHERE => version,
        version => 1 + commit(version - 1),
    }
}

fn commit(commit: u8) -> u8 {
    (commit + COMMITS as u8) % (COMMITS * WRITERS) as u8
}

fn pack(pack: u8) -> u8 {
    let (half, pack) = (own_pack(COMMITS, 0) - 1, usize::from(pack));
    (match pack {
        0 => 0,
        pack if pack <= half => pack + half,
        pack if pack <= 2 * half => pack - half,
        pack => pack,
    }) as u8
}

fn packs(packs: Packs) -> Packs {
    let half = own_pack(COMMITS, 0) - 1;
    let mask = ((1u16 << half) - 1) << 1;
    let (first, second) = (packs.0 & mask, packs.0 & (mask << half));
    Packs((packs.0 & !mask & !(mask << half)) | (first << half) | (second >> half))
}

fn request(request: Request, has_own_refs: bool) -> Request {
    match request {
        Request::Put(at) => Request::Put(pack(at)),
        Request::Remove(at) => Request::Remove(packs(at)),
        Request::Commit { commit: at, ref_at, to, own, recovers, is_fresh } => Request::Commit {
            commit: commit(at),
            ref_at: if has_own_refs && usize::from(ref_at) != BESIDE { 1 - ref_at } else { ref_at },
            to: version(to),
            own: packs(own),
            recovers: packs(recovers),
            is_fresh,
        },
        Request::Condemn { sweep, condemned, adds, raises, is_fresh } => {
            Request::Condemn { sweep, condemned: packs(condemned), adds: packs(adds), raises, is_fresh }
        }
    }
}
