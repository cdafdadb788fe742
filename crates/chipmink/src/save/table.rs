//! One component of a walk becomes one table: what continues keeps slot and rank, and only changed rows are written.

use super::aliases::{alias, alias_key};
use super::align::align;
use super::rows::{Descriptors, Places, encode_row};
use super::stored::StoredTable;
use crate::base::{GroupId, KnownPod, KnownTable};
use crate::error::{Error, Result};
use crate::hash::{KeyHasher, KeyMap};
use chipmink_digest::digest;
use chipmink_format::{
    Covariable, CovariableRef, Edit, Extensions, NamedRoot, TABLE_INLINE_MAX, Tree, slot_key,
};
use chipmink_graph::{Slots, assign_ranks};
use chipmink_types::{BlobSink, BlobSource, Component, Digest, PodKey, PodRecord, Slot};
use hashbrown::DefaultHashBuilder;
use std::hash::BuildHasherDefault;
use std::sync::{Arc, OnceLock};

/// The table that a component continues.
pub(super) enum Old<'a> {
    None,
    Known(&'a KnownTable),
    /// With the groups that its ordinals mean now, where they go on.
    Stored(&'a StoredTable, Vec<Option<GroupId>>),
}

/// What tables are made with.
pub(super) struct Tools<'a> {
    pub(super) source: &'a dyn BlobSource,
    pub(super) sink: &'a mut dyn BlobSink,
    pub(super) descriptors: &'a mut Descriptors,
    /// Pods of the definition groups of this walk, of as many as are written.
    pub(super) definitions: &'a KeyMap<(GroupId, Slot)>,
    /// Digest of a definition group of this walk.
    pub(super) group_digest: &'a dyn Fn(GroupId) -> Option<Digest>,
    /// Whether another definition group has this digest.
    pub(super) is_group_taken: &'a dyn Fn(&Digest) -> bool,
    /// Rows written so far.
    pub(super) rows_written: &'a mut u64,
}

/// Pods of a component and their aliases, in order.
struct Member {
    key: PodKey,
    record: Arc<PodRecord>,
}

/// The table of a component that is not the same as before.
pub(super) fn build_table(component: &Component, old: &Old<'_>, tools: &mut Tools<'_>) -> Result<KnownTable> {
    let walked = component.pods.len();
    let mut members: Vec<Member> =
        component.pods.iter().map(|pod| Member { key: pod.key, record: pod.record.clone() }).collect();
    let names = add_aliases(component, &mut members, old, tools)?;

    let matched = match old {
        Old::None => vec![None; members.len()],
        Old::Known(table) => align::<PodKey, BuildHasherDefault<KeyHasher>>(
            members.len(),
            |i| members[i].key,
            table.pods.len(),
            |i| table.pods[i].key,
        ),
        Old::Stored(table, _) => align::<Digest, DefaultHashBuilder>(
            members.len(),
            |i| members[i].record.digest,
            table.rows.len(),
            |i| table.rows[i].digest,
        ),
    };
    let old_ranks: Vec<Option<u64>> = matched.iter().map(|at| at.and_then(|at| old.rank(at))).collect();
    // Pods that are the very same may run in the order in which they were written first, wherever this walk began.
    let ranks = match old {
        Old::Known(table) if has_same_pods(table, &members, &matched) => {
            old_ranks.into_iter().flatten().collect()
        }
        _ => assign_ranks(&old_ranks),
    };
    let (slots, member_slots, mut edits) = assign_slots(old, &matched)?;

    // What must be written whatever the record: the old row says where a pod was that is elsewhere now.
    let local: KeyMap<Slot> =
        members.iter().zip(&member_slots).map(|(member, slot)| (member.key, *slot)).collect();
    let became_definition = match old {
        Old::Known(table) => {
            let mut is_continued = vec![false; table.pods.len()];
            matched.iter().flatten().for_each(|at| is_continued[*at] = true);
            let is_gone = |at: &usize| !is_continued[*at];
            (0..table.pods.len())
                .filter(is_gone)
                .any(|at| tools.definitions.contains_key(&table.pods[at].key))
        }
        _ => false,
    };
    let mut pods = Vec::with_capacity(members.len());
    for (at, member) in members.into_iter().enumerate() {
        let before = match (old, matched[at]) {
            (Old::Known(table), Some(at)) => Some(&table.pods[at]),
            _ => None,
        };
        let is_same = before.is_some_and(|known| Arc::ptr_eq(&known.record, &member.record));
        let has_definitions = match before {
            Some(known) if is_same && !known.has_definitions && !became_definition => false,
            _ => member.record.dependencies.iter().any(|key| !local.contains_key(key)),
        };
        let (rank, slot) = (ranks[at], member_slots[at]);
        pods.push(KnownPod { key: member.key, record: member.record, rank, slot, has_definitions });
    }
    let (groups, has_moved_groups) = assign_groups(&pods, old, tools)?;

    let places = Places { local: &local, definitions: tools.definitions, groups: &groups };
    for (at, pod) in pods.iter().enumerate() {
        if let (Old::Known(table), Some(before)) = (old, matched[at]) {
            let known = &table.pods[before];
            let is_same = Arc::ptr_eq(&known.record, &pod.record) && known.rank == pod.rank;
            let names_groups = known.has_definitions || pod.has_definitions;
            if is_same && !became_definition && !(has_moved_groups && names_groups) {
                continue;
            }
        }
        let row = encode_row(&pod.record, pod.rank, &places, tools.descriptors, tools.sink)?;
        edits.push((slot_key(pod.slot).to_vec(), Some(row)));
        *tools.rows_written += 1;
    }
    edits.sort_unstable_by(|a, b| a.0.cmp(&b.0));

    let mut tree = old.tree();
    tree.apply_inline(&edits, TABLE_INLINE_MAX, tools.source, tools.sink)?;
    let mut table = KnownTable {
        names,
        pods,
        walked,
        slots,
        groups,
        group_digests: Vec::new(),
        tree,
        extensions: old.extensions(),
        reference: CovariableRef::Inline(Default::default()),
        by_key: OnceLock::new(),
    };
    write_header(&mut table, &local, tools)?;
    Ok(table)
}

/// Whether the members are the very same pods, in whatever order.
fn has_same_pods(table: &KnownTable, members: &[Member], matched: &[Option<usize>]) -> bool {
    let is_same = |(member, at): (&Member, &Option<usize>)| {
        at.is_some_and(|at| Arc::ptr_eq(&member.record, &table.pods[at].record))
    };
    members.len() == table.pods.len() && members.iter().zip(matched).all(is_same)
}

/// Writes the blob that names the table, and notes where it is.
fn write_header(table: &mut KnownTable, local: &KeyMap<Slot>, tools: &mut Tools<'_>) -> Result<()> {
    table.group_digests = table
        .groups
        .iter()
        .map(|id| (tools.group_digest)(*id).ok_or_else(|| Error::contract("a definition group is missing")))
        .collect::<Result<_>>()?;
    let mut aliases = table.walked;
    let mut names = Vec::with_capacity(table.names.len());
    for (name, key, export) in &table.names {
        let (slot, export) = match local.get(key) {
            Some(slot) => (*slot, *export),
            // Aliases stand behind the walked pods in the order of the names that need one.
            None => {
                let alias = table.pods.get(aliases).ok_or_else(|| {
                    Error::contract(format!("variable {name:?} refers to pod {} of no component", key.0))
                })?;
                aliases += 1;
                (alias.slot, 0)
            }
        };
        names.push(NamedRoot { name: name.clone(), slot, export });
    }
    names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    if let Some(twice) = names.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(Error::contract(format!("the name {:?} stands twice in a co-variable", twice[0].name)));
    }
    let mut header = Covariable {
        names,
        groups: table.group_digests.clone(),
        next_slot: table.slots.next(),
        table: table.tree.clone(),
        extensions: table.extensions.clone(),
    };
    if !table.names.is_empty() {
        table.reference = header.store(tools.sink)?;
        return Ok(());
    }
    // Groups have no names, so two with equal content would be one when they are loaded. The number of slots ever used
    // is free to tell them apart.
    while (tools.is_group_taken)(&digest(&header.encode())) {
        table.slots.skip()?;
        header.next_slot = table.slots.next();
    }
    table.reference = CovariableRef::Stored(header.store_blob(tools.sink)?);
    Ok(())
}

/// Adds an alias for each name whose object is in a definition group.
fn add_aliases(
    component: &Component,
    members: &mut Vec<Member>,
    old: &Old<'_>,
    tools: &mut Tools<'_>,
) -> Result<Vec<(String, PodKey, u32)>> {
    for (_, key, export) in &component.names {
        if !tools.definitions.contains_key(key) {
            continue;
        }
        let known = match old {
            Old::Known(table) => {
                table.pods[table.walked..].iter().find(|pod| pod.record.dependencies == [*key])
            }
            _ => None,
        };
        // The export is in the bytes; a record is the same if they are.
        let made = alias(*key, *export, tools.sink)?;
        let record =
            known.map(|pod| &pod.record).filter(|record| ***record == *made).cloned().unwrap_or(made);
        members.push(Member { key: alias_key(members.len() - component.pods.len()), record });
    }
    Ok(component.names.clone())
}

/// Slots of the members, and an edit for each row that goes away.
fn assign_slots(old: &Old<'_>, matched: &[Option<usize>]) -> Result<(Slots, Vec<Slot>, Vec<Edit>)> {
    let mut slots = old.slots();
    let mut is_continued = vec![false; old.len()];
    matched.iter().flatten().for_each(|at| is_continued[*at] = true);
    let mut freed: Vec<Slot> =
        (0..is_continued.len()).filter(|at| !is_continued[*at]).filter_map(|at| old.slot(at)).collect();
    freed.iter().for_each(|slot| slots.free(*slot));
    let mut members = Vec::with_capacity(matched.len());
    let mut given = Vec::new();
    for at in matched {
        members.push(match at.and_then(|at| old.slot(at)) {
            Some(slot) => slot,
            None => {
                let slot = slots.take()?;
                given.push(slot);
                slot
            }
        });
    }
    given.sort_unstable();
    freed.retain(|slot| given.binary_search(slot).is_err());
    let edits = freed.into_iter().map(|slot| (slot_key(slot).to_vec(), None)).collect();
    Ok((slots, members, edits))
}

/// The groups that rows name, by ordinal; and whether rows that name one must be written again.
///
/// A group keeps its ordinal while it is used. The ordinal of one that is not goes to a new one, or to the last.
fn assign_groups(pods: &[KnownPod], old: &Old<'_>, tools: &Tools<'_>) -> Result<(Vec<GroupId>, bool)> {
    let mut used: Vec<GroupId> = Vec::new();
    for pod in pods.iter().filter(|pod| pod.has_definitions) {
        for key in &pod.record.dependencies {
            if let Some((group, _)) = tools.definitions.get(key)
                && used.last() != Some(group)
            {
                used.push(*group);
            }
        }
    }
    used.sort_unstable();
    used.dedup();
    let before: Vec<Option<GroupId>> = match old {
        Old::None => Vec::new(),
        Old::Known(table) => table.groups.iter().copied().map(Some).collect(),
        Old::Stored(_, groups) => groups.clone(),
    };
    let mut ordinals: Vec<Option<GroupId>> =
        before.iter().map(|group| group.filter(|group| used.binary_search(group).is_ok())).collect();
    let is_new = |group: &GroupId| !ordinals.contains(&Some(*group));
    for group in used.iter().copied().filter(is_new).collect::<Vec<_>>() {
        match ordinals.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(group),
            None => ordinals.push(Some(group)),
        }
    }
    while let Some(hole) = ordinals.iter().position(Option::is_none) {
        let last = ordinals.pop().flatten();
        if hole < ordinals.len() {
            ordinals[hole] = last;
        }
    }
    let groups: Vec<GroupId> = ordinals.into_iter().flatten().collect();
    let is_unmoved = match old {
        Old::Known(table) => {
            groups == table.groups
                && groups
                    .iter()
                    .zip(&table.group_digests)
                    .all(|(id, was)| (tools.group_digest)(*id) == Some(*was))
        }
        _ => groups.is_empty(),
    };
    Ok((groups, !is_unmoved))
}

impl Old<'_> {
    fn len(&self) -> usize {
        match self {
            Old::None => 0,
            Old::Known(table) => table.pods.len(),
            Old::Stored(table, _) => table.rows.len(),
        }
    }

    fn rank(&self, at: usize) -> Option<u64> {
        match self {
            Old::None => None,
            Old::Known(table) => table.pods.get(at).map(|pod| pod.rank),
            Old::Stored(table, _) => table.rows.get(at).map(|row| row.rank),
        }
    }

    fn slot(&self, at: usize) -> Option<Slot> {
        match self {
            Old::None => None,
            Old::Known(table) => table.pods.get(at).map(|pod| pod.slot),
            Old::Stored(table, _) => table.rows.get(at).map(|row| row.slot),
        }
    }

    fn slots(&self) -> Slots {
        match self {
            Old::None => Slots::default(),
            Old::Known(table) => table.slots.clone(),
            Old::Stored(table, _) => {
                Slots::holding(table.rows.iter().map(|row| row.slot), table.header.next_slot)
            }
        }
    }

    fn tree(&self) -> Tree {
        match self {
            Old::None => Tree::empty(),
            Old::Known(table) => table.tree.clone(),
            Old::Stored(table, _) => table.header.table.clone(),
        }
    }

    fn extensions(&self) -> Extensions {
        match self {
            Old::None => Extensions::default(),
            Old::Known(table) => table.extensions.clone(),
            Old::Stored(table, _) => table.header.extensions.clone(),
        }
    }
}
