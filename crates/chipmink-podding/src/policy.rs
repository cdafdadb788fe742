//! The trait of podding policies, and the three that weigh nothing.

use crate::{Candidate, Decision, Lga, LgaSiblings, OpenPod, PoddingError};

/// Decides where an object goes.
///
/// Same answers for same arguments, between one [`Policy::begin`] and the next.
pub trait Policy: Send {
    /// Its name, as [`policy_by_name`] takes it (without a seed).
    fn name(&self) -> &'static str;

    /// Decides about `candidate`, whose parent lies in `pod`.
    ///
    /// `sibling` is the pod that the candidate's container keeps open for its children, if there is one.
    fn decide(&mut self, candidate: &Candidate, pod: &OpenPod, sibling: Option<&OpenPod>) -> Decision;

    /// A walk begins.
    fn begin(&mut self) {}
}

/// One pod for each variable or definition.
#[derive(Clone, Copy, Debug, Default)]
pub struct BundleAll;

impl Policy for BundleAll {
    fn name(&self) -> &'static str {
        "bundle-all"
    }

    fn decide(&mut self, _: &Candidate, _: &OpenPod, _: Option<&OpenPod>) -> Decision {
        Decision::Bundle
    }
}

/// One pod for each object that is not an atom.
#[derive(Clone, Copy, Debug, Default)]
pub struct SplitAll;

impl Policy for SplitAll {
    fn name(&self) -> &'static str {
        "split-all"
    }

    fn decide(&mut self, _: &Candidate, _: &OpenPod, _: Option<&OpenPod>) -> Decision {
        Decision::SplitContinue
    }
}

/// Decides by lot: a pure function of seed and ordinal (and of whether a sibling is open to join).
///
/// It exists to find mistakes of whoever asks: every sequence of decisions must round-trip.
#[derive(Clone, Copy, Debug)]
pub struct Random {
    seed: u64,
}

impl Random {
    /// A lottery of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Random { seed }
    }
}

impl Policy for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn decide(&mut self, candidate: &Candidate, _: &OpenPod, sibling: Option<&OpenPod>) -> Decision {
        match scramble(self.seed ^ scramble(candidate.ordinal)) % 20 {
            0..8 => Decision::Bundle,
            8..13 => Decision::SplitContinue,
            13..15 => Decision::SplitFinal,
            15..19 if sibling.is_some() => Decision::JoinSibling,
            _ => Decision::NewSibling,
        }
    }
}

/// The output function of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
fn scramble(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Makes the policy of that name: `lga-siblings`, `lga`, `bundle-all`, `split-all`, or `random:SEED` (`random` alone
/// has seed 0).
///
/// # Errors
/// [`PoddingError::UnknownPolicy`].
pub fn policy_by_name(name: &str) -> Result<Box<dyn Policy>, PoddingError> {
    let unknown = || PoddingError::UnknownPolicy { name: name.chars().take(80).collect() };
    Ok(match name {
        "lga-siblings" => Box::new(LgaSiblings),
        "lga" => Box::new(Lga),
        "bundle-all" => Box::new(BundleAll),
        "split-all" => Box::new(SplitAll),
        "random" => Box::new(Random::new(0)),
        _ => {
            let seed = name.strip_prefix("random:").ok_or_else(unknown)?;
            Box::new(Random::new(seed.parse().map_err(|_| unknown())?))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ObjectKind;

    fn candidate(ordinal: u64) -> Candidate {
        Candidate {
            ordinal,
            kind: ObjectKind::List,
            byte_len: 56,
            len: 0,
            dict_len: 0,
            peers: 1,
            volatility: 0.1,
        }
    }

    #[test]
    fn every_policy_is_found_by_its_own_name() {
        for name in ["lga-siblings", "lga", "bundle-all", "split-all", "random"] {
            assert_eq!(policy_by_name(name).unwrap().name(), name);
        }
        assert_eq!(policy_by_name("random:17").unwrap().name(), "random");
    }

    #[test]
    fn unknown_names_and_bad_seeds_are_refused() {
        for name in ["", "LGA", "random:", "random:-1", "random:x", "lga "] {
            assert!(policy_by_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn random_depends_on_seed_and_ordinal_only() {
        let (empty, full) = (OpenPod::default(), OpenPod { byte_len: 1 << 40, rate: 9.0, depth: 7 });
        let differ = (0..1000)
            .filter(|&n| {
                Random::new(1).decide(&candidate(n), &empty, None)
                    != Random::new(2).decide(&candidate(n), &full, None)
            })
            .count();
        assert!(differ > 300, "{differ} of 1000 decisions differ between two seeds");
        for n in 0..1000 {
            let mut other = candidate(n);
            other.byte_len = 1 << 30;
            other.kind = ObjectKind::Array;
            assert_eq!(
                Random::new(7).decide(&candidate(n), &empty, Some(&empty)),
                Random::new(7).decide(&other, &full, Some(&full))
            );
        }
    }

    #[test]
    fn random_gives_every_decision_and_joins_only_what_is_open() {
        let pod = OpenPod::default();
        let mut seen = std::collections::HashSet::new();
        for n in 0..1000 {
            seen.insert(Random::new(3).decide(&candidate(n), &pod, Some(&pod)));
            assert_ne!(Random::new(3).decide(&candidate(n), &pod, None), Decision::JoinSibling);
        }
        assert_eq!(seen.len(), 5);
    }
}
