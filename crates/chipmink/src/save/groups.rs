//! Definition groups of a walk: which old ones they continue, and in which order they are written.

use super::stored::StoredTable;
use crate::base::GroupId;
use crate::error::{Error, Result};
use crate::hash::KeyMap;
use chipmink_graph::most_frequent;
use chipmink_types::{Component, Digest, PodKey};
use hashbrown::{HashMap, HashSet};

/// The group that a group continues.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OldGroup {
    Known(GroupId),
    Stored(Digest),
}

/// Which group each group continues: the one that gives it most pods, the larger claim first.
///
/// Pods that the session does not know are recognised by their digests. Equal groups are common (functions made in a
/// loop), so one that has exactly the same digests comes before one that has many of them.
pub(super) fn claim_groups(
    groups: &[&Component],
    known: &KeyMap<GroupId>,
    known_count: usize,
    stored_groups: &HashMap<Digest, StoredTable>,
) -> Vec<Option<OldGroup>> {
    // Stored groups are numbered behind the known ones. Equal ones differ in their next slot, in the order of writing.
    let mut stored: Vec<(&Digest, &StoredTable)> = stored_groups.iter().collect();
    stored.sort_unstable_by_key(|(digest, table)| (table.header.next_slot, **digest));
    let mut by_content: HashMap<Vec<Digest>, Vec<usize>> = HashMap::new();
    let mut by_digest: HashMap<Digest, usize> = HashMap::new();
    for (at, (_, table)) in stored.iter().enumerate().rev() {
        let digests = table.rows.iter().map(|row| row.digest);
        by_content.entry(sorted(digests.clone())).or_default().push(known_count + at);
        by_digest.extend(digests.map(|digest| (digest, known_count + at)));
    }
    let mut olds: Vec<Option<usize>> = vec![None; groups.len()];
    let mut taken = HashSet::new();
    let is_unknown = |group: &Component| group.pods.iter().all(|pod| !known.contains_key(&pod.key));
    for (at, group) in groups.iter().enumerate().filter(|(_, group)| is_unknown(group)) {
        let content = sorted(group.pods.iter().map(|pod| pod.record.digest));
        olds[at] = by_content.get_mut(&content).and_then(Vec::pop);
        taken.extend(olds[at]);
    }
    let place = |key: &PodKey, digest: &Digest| match known.get(key) {
        Some(id) => Some(id.0 as usize),
        None => by_digest.get(digest).copied(),
    };
    let mut claims: Vec<(usize, usize, usize)> = Vec::new();
    for (at, group) in groups.iter().enumerate().filter(|(at, _)| olds[*at].is_none()) {
        let places = group.pods.iter().filter_map(|pod| place(&pod.key, &pod.record.digest));
        if let Some((old, count)) = most_frequent(places.filter(|old| !taken.contains(old))) {
            claims.push((count, at, old));
        }
    }
    claims.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    for (_, at, old) in claims {
        if taken.insert(old) {
            olds[at] = Some(old);
        }
    }
    let group = |old: usize| match old.checked_sub(known_count) {
        None => OldGroup::Known(GroupId(old as u32)),
        Some(at) => OldGroup::Stored(*stored[at].0),
    };
    olds.into_iter().map(|old| old.map(group)).collect()
}

fn sorted(digests: impl Iterator<Item = Digest>) -> Vec<Digest> {
    let mut digests: Vec<Digest> = digests.collect();
    digests.sort_unstable();
    digests
}

/// The groups so that each stands behind those that it refers to.
pub(super) fn in_order(groups: &[&Component]) -> Result<Vec<usize>> {
    if groups.len() == 1 {
        return Ok(vec![0]);
    }
    let owner: KeyMap<usize> = groups
        .iter()
        .enumerate()
        .flat_map(|(at, group)| group.pods.iter().map(move |pod| (pod.key, at)))
        .collect();
    let mut needs: Vec<Vec<usize>> = Vec::with_capacity(groups.len());
    for (at, group) in groups.iter().enumerate() {
        let all = group.pods.iter().flat_map(|pod| &pod.record.dependencies);
        let mut others: Vec<usize> =
            all.filter_map(|key| owner.get(key).copied()).filter(|to| *to != at).collect();
        others.sort_unstable();
        others.dedup();
        needs.push(others);
    }
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); groups.len()];
    for (at, others) in needs.iter().enumerate() {
        others.iter().for_each(|other| users[*other].push(at));
    }
    let mut missing: Vec<usize> = needs.iter().map(Vec::len).collect();
    let mut order: Vec<usize> = (0..groups.len()).filter(|at| missing[*at] == 0).collect();
    let mut done = 0;
    while let Some(&at) = order.get(done) {
        done += 1;
        for &user in &users[at] {
            missing[user] -= 1;
            if missing[user] == 0 {
                order.push(user);
            }
        }
    }
    match order.len() == groups.len() {
        true => Ok(order),
        false => Err(Error::contract("definition groups refer to each other in a circle")),
    }
}
