//! Which co-variable of the base each component of a walk continues.

use crate::base::{Base, Holding, Value};
use crate::error::{Error, Result};
use crate::hash::KeyMap;
use chipmink_graph::most_frequent;
use chipmink_types::{VariableRoot, WalkOutcome};
use hashbrown::HashSet;

/// What a component is to the base.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Match {
    /// A definition group; those are matched elsewhere.
    Group,
    /// The very same as the co-variable with this index.
    Same(u32),
    /// To be written, continuing the co-variable with this index, if any.
    Changed(Option<u32>),
}

/// The components of a walk, and the variables, against the base.
#[derive(Debug)]
pub(super) struct Matches {
    /// By component.
    pub(super) found: Vec<Match>,
    /// Components to be written.
    pub(super) changed: Vec<usize>,
    /// By co-variable of the base: a component is the very same.
    pub(super) is_same: Vec<bool>,
    /// By variable of the outcome: its place among those of the base.
    pub(super) places: Vec<Option<usize>>,
    /// By co-variable of the base: how many of its names are untouched.
    untouched: Vec<usize>,
    /// For each changed component, the co-variables in which its names were, one per name.
    candidates: Vec<Vec<u32>>,
}

/// Compares the outcome with the base, by pointers and names only.
pub(super) fn match_components(base: &Base, outcome: &WalkOutcome) -> Result<Matches> {
    let count = base.covariables.len();
    let mut matches = Matches {
        found: Vec::with_capacity(outcome.components.len()),
        changed: Vec::new(),
        is_same: vec![false; count],
        places: Vec::with_capacity(outcome.variables.len()),
        untouched: vec![0; count],
        candidates: Vec::new(),
    };
    let mut hint = 0;
    for (name, root) in &outcome.variables {
        let at = base.variables.find(name, hint);
        hint = at.map_or(hint, |at| at + 1);
        matches.places.push(at);
        if let (VariableRoot::Untouched, Some(at)) = (root, at)
            && let Value::Covariable(index) = base.variables.all()[at].value
        {
            matches.untouched[index as usize] += 1;
        }
    }
    let mut next = 0u32;
    for (at, component) in outcome.components.iter().enumerate() {
        let Some((first, ..)) = component.names.first() else {
            matches.found.push(Match::Group);
            continue;
        };
        let is_same = |index: u32| match base.covariable(index) {
            Some(Holding::Known(table)) => table.is_same(component),
            _ => false,
        };
        let index = match is_same(next) {
            true => Some(next),
            false => covariable_of(base, first).filter(|index| is_same(*index)),
        };
        match index {
            Some(index) => {
                next = index + 1;
                if matches.is_same[index as usize] || matches.untouched[index as usize] > 0 {
                    return Err(Error::contract(format!("variable {first:?} is both walked and untouched")));
                }
                matches.is_same[index as usize] = true;
                matches.found.push(Match::Same(index));
            }
            None => {
                matches.changed.push(at);
                matches.found.push(Match::Changed(None));
            }
        }
    }
    matches.candidates = matches
        .changed
        .iter()
        .map(|at| {
            let names = outcome.components[*at].names.iter();
            names.filter_map(|(name, ..)| covariable_of(base, name)).collect()
        })
        .collect();
    Ok(matches)
}

fn covariable_of(base: &Base, name: &str) -> Option<u32> {
    // The hint misses on purpose: the index is wanted.
    let at = base.variables.find(name, usize::MAX)?;
    match base.variables.all()[at].value {
        Value::Covariable(index) => Some(index),
        _ => None,
    }
}

impl Matches {
    /// Co-variables that changed components may continue.
    pub(super) fn candidates(&self) -> impl Iterator<Item = u32> {
        self.candidates.iter().flatten().copied()
    }

    /// Whether a component may continue the co-variable.
    fn is_free(&self, index: u32) -> bool {
        !self.is_same[index as usize] && self.untouched[index as usize] == 0
    }

    /// Decides which co-variable each changed component continues.
    ///
    /// Mostly one component has the names of one co-variable, and nobody else has one of them. Where names or pods went
    /// different ways, the largest share of pods decides; where pods are not known, the share of names.
    pub(super) fn assign_tables(&mut self, base: &Base, outcome: &WalkOutcome) {
        // Components that differ only in their definition groups continue what they are.
        let mut taken: HashSet<u32> = HashSet::new();
        for found in &self.found {
            if let Match::Changed(Some(index)) = found {
                taken.insert(*index);
            }
        }
        let mut wanted_by = vec![0u32; base.covariables.len()];
        for candidates in &mut self.candidates {
            let mut distinct = candidates.clone();
            distinct.sort_unstable();
            distinct.dedup();
            distinct.iter().for_each(|index| wanted_by[*index as usize] += 1);
        }
        let mut unclear: Vec<(usize, Vec<u32>)> = Vec::new();
        let all: Vec<(usize, Vec<u32>)> =
            self.changed.iter().copied().zip(std::mem::take(&mut self.candidates)).collect();
        for (at, candidates) in all {
            let free: Vec<u32> = candidates
                .into_iter()
                .filter(|index| self.is_free(*index) && !taken.contains(index))
                .collect();
            match free.first() {
                Some(&only) if free.iter().all(|index| *index == only) && wanted_by[only as usize] == 1 => {
                    taken.insert(only);
                    self.found[at] = Match::Changed(Some(only));
                }
                _ => unclear.push((at, free)),
            }
        }
        if unclear.is_empty() {
            return;
        }
        let mut pool: KeyMap<u32> = KeyMap::default();
        for index in 0..base.covariables.len() as u32 {
            if self.is_free(index)
                && !taken.contains(&index)
                && let Some(Holding::Known(table)) = base.covariable(index)
            {
                pool.extend(table.pods[..table.walked].iter().map(|pod| (pod.key, index)));
            }
        }
        let mut claims: Vec<(usize, usize, u32)> = Vec::new();
        for (at, candidates) in unclear {
            let pods = outcome.components[at].pods.iter().filter_map(|pod| pool.get(&pod.key));
            let by_pods = most_frequent(pods.map(|index| *index as usize));
            let by_names = || most_frequent(candidates.iter().map(|index| *index as usize));
            if let Some((index, share)) = by_pods.or_else(by_names) {
                claims.push((share, at, index as u32));
            }
        }
        claims.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        for (_, at, index) in claims {
            if taken.insert(index) {
                self.found[at] = Match::Changed(Some(index));
            }
        }
    }

    /// Co-variables of the base that are no more.
    pub(super) fn gone(&self, base: &Base) -> Vec<u32> {
        let continued: HashSet<u32> = self
            .found
            .iter()
            .filter_map(|found| match found {
                Match::Changed(index) => *index,
                _ => None,
            })
            .collect();
        (0..base.covariables.len() as u32)
            .filter(|index| {
                base.covariable(*index).is_some() && self.is_free(*index) && !continued.contains(index)
            })
            .collect()
    }

    /// Co-variables of which names are untouched.
    pub(super) fn untouched(&self) -> impl Iterator<Item = u32> {
        (0..self.untouched.len() as u32).filter(|index| self.untouched[*index as usize] > 0)
    }

    /// Whether an untouched co-variable has lost names.
    pub(super) fn is_shrunken(&self, index: u32, holding: &Holding) -> bool {
        self.untouched[index as usize] != holding.name_count()
    }

    /// The untouched names of a co-variable.
    pub(super) fn untouched_names<'a>(
        &'a self,
        base: &'a Base,
        outcome: &'a WalkOutcome,
        index: u32,
    ) -> impl Iterator<Item = &'a str> {
        outcome.variables.iter().zip(&self.places).filter_map(move |((name, root), at)| {
            let is_it = *root == VariableRoot::Untouched
                && at.is_some_and(|at| base.variables.all()[at].value == Value::Covariable(index));
            is_it.then_some(name.as_str())
        })
    }
}
