//! Which packs go, which stay, and which blobs must be moved first.
//!
//! Invariants:
//! 1. Of every live blob a copy is in a pack that stays.
//! 2. A pack with a live blob goes only if that was moved.

use super::catalog::{Catalog, DigestMap};
use crate::generations::DigestSet;
use chipmink_format::PackName;
use chipmink_types::Digest;
use hashbrown::{HashMap, HashSet};

/// A version whose blobs lie in more packs than this, and one for each [`FRAGMENT_BYTES`], is gathered.
const FRAGMENTS: usize = 64;
/// See [`FRAGMENTS`].
const FRAGMENT_BYTES: u64 = 8 << 20;

/// What is known of the packs.
pub(super) struct Situation<'a> {
    pub(super) catalog: &'a Catalog,
    /// Blobs that must stay.
    pub(super) live: &'a DigestSet,
    /// The live packs.
    pub(super) packs: &'a [PackName],
    /// Packs that this sweep has written.
    pub(super) own: &'a [PackName],
    /// Packs that stay whatever is in them.
    pub(super) needed: &'a HashSet<PackName>,
    /// Blobs of the newest version.
    pub(super) newest: &'a DigestSet,
    /// What the packs may take.
    pub(super) max_bytes: Option<u64>,
    /// Whether blobs may still be moved.
    pub(super) can_move: bool,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Packs that go.
    pub(super) condemned: Vec<PackName>,
    /// Packs whose live blobs are moved, and those blobs; they go once that is done.
    pub(super) moved: Vec<(PackName, DigestSet)>,
    /// Bytes of the moved blobs.
    pub(super) moved_bytes: u64,
    /// Own packs that hold what is nowhere else any more.
    pub(super) used: Vec<PackName>,
    /// Bytes of the packs that stay, and of the blobs that are moved.
    pub(super) kept_bytes: u64,
    /// A blob that must stay and lies in no live pack.
    pub(super) missing: Option<Digest>,
}

/// A pack under consideration.
struct Candidate {
    name: PackName,
    is_own: bool,
    byte_len: u64,
    blob_bytes: u64,
    /// Bytes of live blobs that lie nowhere else.
    unique_bytes: u64,
    /// Bytes of the live blobs that are taken to lie here.
    live_bytes: u64,
    newest_bytes: u64,
}

impl Situation<'_> {
    /// Makes the plan. It is a function of the situation alone.
    pub(super) fn plan(&self) -> Plan {
        let mut candidates = self.candidates();
        let homes = self.homes(&mut candidates);
        let mut plan = Plan::default();
        if homes.len() < self.live.len() {
            plan.missing = self.live.iter().find(|digest| !homes.contains_key(*digest)).copied();
        }
        let leaving = self.leaving(&candidates);
        for (at, candidate) in candidates.iter().enumerate() {
            if candidate.is_own {
                if candidate.live_bytes > 0 {
                    plan.used.push(candidate.name);
                    plan.moved_bytes += candidate.live_bytes;
                }
            } else if !leaving.contains(&at) {
                plan.kept_bytes += candidate.byte_len;
            } else if candidate.live_bytes == 0 {
                plan.condemned.push(candidate.name);
            }
        }
        let mut moved: HashMap<u32, DigestSet> = HashMap::new();
        for (digest, home) in &homes {
            let candidate = &candidates[*home as usize];
            if leaving.contains(&(*home as usize)) && candidate.live_bytes > 0 {
                moved.entry(*home).or_default().insert(*digest);
            }
        }
        for (home, digests) in moved {
            let candidate = &candidates[home as usize];
            plan.moved_bytes += candidate.live_bytes;
            plan.moved.push((candidate.name, digests));
        }
        plan.kept_bytes += plan.moved_bytes;
        plan.moved.sort_unstable_by_key(|(name, _)| *name);
        plan
    }

    fn candidates(&self) -> Vec<Candidate> {
        let own = self.own.iter().map(|name| (name, true));
        let all = own.chain(self.packs.iter().map(|name| (name, false)));
        all.filter_map(|(name, is_own)| {
            let pack = self.catalog.pack(name)?;
            Some(Candidate {
                name: *name,
                is_own,
                byte_len: pack.info.byte_len,
                blob_bytes: pack.blob_bytes(),
                unique_bytes: 0,
                live_bytes: 0,
                newest_bytes: 0,
            })
        })
        .collect()
    }

    /// Takes each live blob to lie in one pack: of several the own one, else the one that is needed most anyway.
    fn homes(&self, candidates: &mut [Candidate]) -> DigestMap<u32> {
        let rows = |candidate: &Candidate| {
            self.catalog.pack(&candidate.name).map_or(&[][..], |pack| pack.rows.as_slice())
        };
        let mut copies: DigestMap<(u32, u32, u64)> = DigestMap::default();
        for (at, candidate) in (0u32..).zip(candidates.iter()) {
            for (digest, len) in rows(candidate).iter().filter(|(digest, _)| self.live.contains(digest)) {
                let found = copies.entry(*digest).or_insert((at, 0, *len));
                found.1 += 1;
            }
        }
        for (at, count, len) in copies.values() {
            if *count == 1 {
                candidates[*at as usize].unique_bytes += len;
            }
        }
        candidates.sort_by_key(|candidate| {
            (!candidate.is_own, std::cmp::Reverse(candidate.unique_bytes), candidate.name)
        });
        let mut homes: DigestMap<u32> = DigestMap::default();
        for (at, candidate) in (0u32..).zip(candidates.iter_mut()) {
            let found = self.catalog.pack(&candidate.name).map_or(&[][..], |pack| pack.rows.as_slice());
            for (digest, len) in found.iter().filter(|(digest, _)| self.live.contains(digest)) {
                if homes.try_insert(*digest, at).is_ok() {
                    candidate.live_bytes += len;
                    if self.newest.contains(digest) {
                        candidate.newest_bytes += len;
                    }
                }
            }
        }
        homes
    }

    /// The packs that go, those whose live blobs must be moved included.
    fn leaving(&self, candidates: &[Candidate]) -> HashSet<usize> {
        let may_go = |candidate: &Candidate| !candidate.is_own && !self.needed.contains(&candidate.name);
        let mut leaving: HashSet<usize> = (0..candidates.len())
            .filter(|at| {
                let candidate = &candidates[*at];
                let is_mostly_dead = candidate.live_bytes < candidate.blob_bytes.div_ceil(2);
                let has_room = candidate.live_bytes == 0 || self.can_move && is_mostly_dead;
                may_go(candidate) && has_room
            })
            .collect();
        if self.can_move {
            self.gather_newest(candidates, &may_go, &mut leaving);
            self.make_room(candidates, &may_go, &mut leaving);
        }
        leaving
    }

    /// Lets the smallest packs of the newest version go if it lies in too many.
    fn gather_newest(
        &self,
        candidates: &[Candidate],
        may_go: &dyn Fn(&Candidate) -> bool,
        leaving: &mut HashSet<usize>,
    ) {
        let byte_len: u64 = candidates.iter().map(|candidate| candidate.newest_bytes).sum();
        let limit = FRAGMENTS + usize::try_from(byte_len / FRAGMENT_BYTES).unwrap_or(usize::MAX - FRAGMENTS);
        let mut staying: Vec<usize> = (0..candidates.len())
            .filter(|at| candidates[*at].newest_bytes > 0 && !leaving.contains(at))
            .collect();
        if staying.len() <= limit {
            return;
        }
        staying.retain(|at| may_go(&candidates[*at]));
        staying.sort_by_key(|at| (candidates[*at].live_bytes, candidates[*at].name));
        let count = staying.len().saturating_sub(limit / 2);
        leaving.extend(staying.into_iter().take(count));
    }

    /// Lets the emptiest packs go until the others take no more than they may, or nothing is dead any more.
    fn make_room(
        &self,
        candidates: &[Candidate],
        may_go: &dyn Fn(&Candidate) -> bool,
        leaving: &mut HashSet<usize>,
    ) {
        let Some(max) = self.max_bytes else { return };
        let kept = |(at, candidate): (usize, &Candidate)| match leaving.contains(&at) {
            true => candidate.live_bytes,
            false => candidate.byte_len,
        };
        let mut total: u64 = candidates.iter().enumerate().map(kept).sum();
        let mut staying: Vec<usize> = (0..candidates.len())
            .filter(|at| {
                let candidate = &candidates[*at];
                !leaving.contains(at) && may_go(candidate) && candidate.live_bytes < candidate.blob_bytes
            })
            .collect();
        let dead_share = |at: usize| {
            let Candidate { live_bytes, blob_bytes, .. } = candidates[at];
            u128::from(blob_bytes - live_bytes) * (1 << 32) / u128::from(blob_bytes)
        };
        staying.sort_by_key(|at| (std::cmp::Reverse(dead_share(*at)), candidates[*at].name));
        for at in staying {
            if total <= max {
                break;
            }
            total -= candidates[at].byte_len - candidates[at].live_bytes.min(candidates[at].byte_len);
            leaving.insert(at);
        }
    }
}
