//! Which pods of a walk belong together: in co-variables, and in definition groups.

use super::adopt::PendingPod;
use super::frames::{Mode, Visit};
use super::session::{NONE, PodState};
use super::source::Walked;
use chipmink_graph::UnionFind;
use std::borrow::Cow;

/// Number of a pod to its place among the pods of the walk.
pub(super) struct VisitIndex(Vec<u32>);

impl VisitIndex {
    /// `count`: of all pods that have a number.
    pub(super) fn of(pods: impl Iterator<Item = u32>, count: usize) -> Self {
        let mut index = vec![NONE; count];
        for (at, pod) in pods.enumerate() {
            index[pod as usize] = at as u32;
        }
        VisitIndex(index)
    }

    #[inline(always)]
    pub(super) fn get(&self, pod: u32) -> Option<usize> {
        self.0.get(pod as usize).filter(|at| **at != NONE).map(|at| *at as usize)
    }
}

/// What ties a pod to others. Pods are told by number.
pub(super) struct Tie<'a> {
    pub(super) is_definition: bool,
    dependencies: Cow<'a, [u32]>,
    /// Those of which it refers to an inner object.
    inside: Cow<'a, [u32]>,
    /// Export slots of its roots; known of definitions.
    root_slots: &'a [u32],
}

impl<'a> Tie<'a> {
    pub(super) fn of_pending(pod: &'a PendingPod) -> Self {
        Tie {
            is_definition: pod.is_definition,
            dependencies: pod.record.dependencies.iter().map(|key| key.0 as u32).collect(),
            inside: Cow::Borrowed(&pod.inside),
            root_slots: &pod.root_slots,
        }
    }

    /// `state`: what is known of the pod from earlier walks.
    pub(super) fn of_visit(visit: &'a Visit, state: Option<&'a PodState>) -> Self {
        let (dependencies, inside) = match (&visit.mode, state) {
            (Mode::Written(finished), _) => {
                (Cow::Borrowed(finished.tables.dependencies.as_slice()), Cow::Owned(finished.tables.inside()))
            }
            (_, Some(state)) => (
                state.record.dependencies.iter().map(|key| key.0 as u32).collect(),
                Cow::Borrowed(state.inside.as_slice()),
            ),
            (_, None) => (Cow::default(), Cow::default()),
        };
        Tie { is_definition: visit.is_definition, dependencies, inside, root_slots: &visit.root_slots }
    }
}

/// The group of each pod, and how many there are: together are all that refer to each other, except that a reference to a
/// definition does not connect, as long as the definition's own group holds nothing but definitions.
pub(super) fn label(ties: &[Tie<'_>], index: &VisitIndex, roots: &[Option<Walked>]) -> (Vec<usize>, usize) {
    let mut sets = UnionFind::new(ties.len());
    let mut soft: Vec<(usize, usize)> = Vec::new();
    for (from, tie) in ties.iter().enumerate() {
        for dependency in tie.dependencies.iter() {
            let Some(to) = index.get(*dependency) else { continue };
            let connects = !ties[to].is_definition || tie.is_definition || tie.inside.contains(dependency);
            if connects {
                sets.union(from, to);
            } else {
                soft.push((from, to));
            }
        }
    }
    let mut inside: Vec<usize> = Vec::new();
    for walked in roots.iter().flatten() {
        // A variable that is an object inside a definition (a list in a closure) ties the definition to it.
        if let Walked::Pod(pod, slot) = walked
            && let Some(at) = index.get(*pod)
            && ties[at].is_definition
            && !ties[at].root_slots.contains(slot)
        {
            inside.push(at);
        }
    }
    loop {
        let mut mixed = vec![false; ties.len()];
        for (i, tie) in ties.iter().enumerate() {
            if !tie.is_definition {
                mixed[sets.find(i)] = true;
            }
        }
        for at in &inside {
            mixed[sets.find(*at)] = true;
        }
        let before = soft.len();
        soft.retain(|(from, to)| {
            if mixed[sets.find(*to)] {
                sets.union(*from, *to);
                false
            } else {
                true
            }
        });
        if soft.len() == before {
            return sets.labels();
        }
    }
}
