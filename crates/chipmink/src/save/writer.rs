//! From the outcome of a walk to the tables of a version: only what changed is written.
//!
//! 1. Components whose pods are the very same (pointer for pointer) under the same names keep their digest, and their
//!    table is not looked at.
//! 2. Each other component continues the table that gives it most pods; no table is continued twice.
//! 3. The base is read, never changed: what it becomes is the [`Delta`].

use super::delta::{Change, Delta, VariablesDelta};
use super::groups::{OldGroup, claim_groups, in_order};
use super::matching::{Match, Matches, match_components};
use super::patch::patch;
use super::rows::Descriptors;
use super::stored::StoredTable;
use super::table::{Old, Tools, build_table};
use crate::base::{Base, GroupId, Holding, KnownTable, Value, Variable};
use crate::error::{Error, Result};
use crate::hash::KeyMap;
use chipmink_format::{Covariable, CovariableRef, Edit, Tree};
use chipmink_graph::assign_ranks;
use chipmink_types::{BlobSink, BlobSource, Component, Digest, PodKey, Slot, VariableRoot, WalkOutcome};
use hashbrown::{HashMap, HashSet};
use std::sync::OnceLock;

/// The tables of a version.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) manifest: Digest,
    pub(crate) delta: Delta,
    /// Rows of pod tables that were encoded.
    pub(crate) rows: u64,
    /// Co-variables and definition groups that are not the same as before.
    pub(crate) tables: u64,
}

/// Writes the tables of the version that `outcome` describes, on top of `base`.
pub(crate) fn write_version(
    base: &Base,
    outcome: &WalkOutcome,
    source: &dyn BlobSource,
    sink: &mut dyn BlobSink,
) -> Result<Written> {
    if outcome.is_unchanged {
        let Some(place) = base.place else {
            return Err(Error::contract("nothing changed since a version that does not exist"));
        };
        return Ok(Written { manifest: place.manifest, delta: Delta::none(), rows: 0, tables: 0 });
    }
    let mut writer = Writer {
        base,
        outcome,
        source,
        sink,
        descriptors: Descriptors::default(),
        definitions: KeyMap::default(),
        group_digests: HashMap::new(),
        taken_digests: HashSet::new(),
        stored: HashMap::new(),
        stored_groups: HashMap::new(),
        stored_group_ids: HashMap::new(),
        covariables: Vec::new(),
        groups: Vec::new(),
        references: HashMap::new(),
        rows: 0,
    };
    writer.run()
}

struct Writer<'a> {
    base: &'a Base,
    outcome: &'a WalkOutcome,
    source: &'a dyn BlobSource,
    sink: &'a mut dyn BlobSink,
    descriptors: Descriptors,
    /// Pods of the definition groups of this walk.
    definitions: KeyMap<(GroupId, Slot)>,
    /// Definition groups of this walk.
    group_digests: HashMap<GroupId, Digest>,
    /// Digests that a further definition group must not have.
    taken_digests: HashSet<Digest>,
    /// Tables of co-variables that the session has not walked, by index.
    stored: HashMap<u32, StoredTable>,
    /// Definition groups that those name.
    stored_groups: HashMap<Digest, StoredTable>,
    /// The groups that continue them.
    stored_group_ids: HashMap<Digest, GroupId>,
    covariables: Vec<(u32, Change)>,
    groups: Vec<(GroupId, Option<Box<KnownTable>>)>,
    /// Co-variables that stand elsewhere than in the base.
    references: HashMap<u32, CovariableRef>,
    rows: u64,
}

impl<'a> Writer<'a> {
    fn run(&mut self) -> Result<Written> {
        let mut matches = match_components(self.base, self.outcome)?;
        self.read_stored(&matches)?;
        self.write_groups()?;
        self.recheck_groups(&mut matches);
        matches.assign_tables(self.base, self.outcome);
        let assigned = self.write_covariables(&matches)?;
        self.amend(&matches)?;
        for index in matches.gone(self.base) {
            self.covariables.push((index, Change::Gone));
        }
        let (manifest, variables) = self.write_manifest(&matches, &assigned)?;
        let tables = (self.references.len() + self.groups.len()) as u64;
        let delta = Delta {
            covariables: std::mem::take(&mut self.covariables),
            groups: std::mem::take(&mut self.groups),
            variables,
        };
        Ok(Written { manifest, delta, rows: self.rows, tables })
    }

    /// Reads the tables that components may continue and that no walk of this session knows, and their groups.
    fn read_stored(&mut self, matches: &Matches) -> Result<()> {
        let mut open = Vec::new();
        for index in matches.candidates() {
            if let Some(Holding::Unread { reference, .. }) = self.base.covariable(index)
                && !self.stored.contains_key(&index)
            {
                let table = StoredTable::load(reference, self.source)?;
                open.extend_from_slice(&table.header.groups);
                self.stored.insert(index, table);
            }
        }
        while let Some(digest) = open.pop() {
            if !self.stored_groups.contains_key(&digest) {
                let table = StoredTable::load(&CovariableRef::Stored(digest), self.source)?;
                open.extend_from_slice(&table.header.groups);
                self.stored_groups.insert(digest, table);
            }
        }
        Ok(())
    }

    fn write_groups(&mut self) -> Result<()> {
        let outcome = self.outcome;
        let groups: Vec<&Component> =
            outcome.components.iter().filter(|component| component.names.is_empty()).collect();
        if groups.is_empty() {
            return Ok(());
        }
        let base = self.base;
        let known: KeyMap<GroupId> = (0..base.groups.len() as u32)
            .map(GroupId)
            .filter_map(|id| Some((id, base.group(id)?)))
            .flat_map(|(id, table)| table.pods.iter().map(move |pod| (pod.key, id)))
            .collect();
        let olds = claim_groups(&groups, &known, base.groups.len(), &self.stored_groups);
        let mut next = 0;
        self.taken_digests = base.groups.iter().flatten().map(|table| table.reference.digest()).collect();
        for at in in_order(&groups)? {
            let component = groups[at];
            let (id, table) = match &olds[at] {
                Some(OldGroup::Known(id)) => {
                    let Some(table) = base.group(*id) else {
                        return Err(Error::contract("a definition group was lost"));
                    };
                    if table.is_same(component) && self.is_current(table) {
                        self.group_digests.insert(*id, table.reference.digest());
                        self.definitions.extend(table.pods.iter().map(|pod| (pod.key, (*id, pod.slot))));
                        continue;
                    }
                    self.taken_digests.remove(&table.reference.digest());
                    (*id, self.build(component, &Old::Known(table))?)
                }
                other => {
                    let id = self.new_group_id(&mut next);
                    let stored = match other {
                        Some(OldGroup::Stored(digest)) => {
                            self.stored_groups.remove(digest).map(|t| (digest, t))
                        }
                        _ => None,
                    };
                    let table = match stored {
                        Some((digest, stored)) => {
                            self.stored_group_ids.insert(*digest, id);
                            let groups = self.ids_of(&stored.header.groups);
                            self.build(component, &Old::Stored(&stored, groups))?
                        }
                        None => self.build(component, &Old::None)?,
                    };
                    (id, table)
                }
            };
            self.taken_digests.insert(table.reference.digest());
            self.group_digests.insert(id, table.reference.digest());
            self.definitions.extend(table.pods.iter().map(|pod| (pod.key, (id, pod.slot))));
            self.groups.push((id, Some(Box::new(table))));
        }
        Ok(())
    }

    /// An id that the base does not use.
    fn new_group_id(&self, next: &mut u32) -> GroupId {
        while self.base.group(GroupId(*next)).is_some() {
            *next += 1;
        }
        *next += 1;
        GroupId(*next - 1)
    }

    /// Whether every group that a table names is of this walk and as the table names it.
    fn is_current(&self, table: &KnownTable) -> bool {
        table
            .groups
            .iter()
            .zip(&table.group_digests)
            .all(|(id, digest)| self.group_digests.get(id) == Some(digest))
    }

    /// The groups that continue stored ones.
    fn ids_of(&self, groups: &[Digest]) -> Vec<Option<GroupId>> {
        groups.iter().map(|digest| self.stored_group_ids.get(digest).copied()).collect()
    }

    /// Components that are the same but for the definition groups they name must be written after all.
    fn recheck_groups(&self, matches: &mut Matches) {
        for (component, found) in matches.found.iter_mut().enumerate() {
            if let Match::Same(index) = *found
                && let Some(Holding::Known(table)) = self.base.covariable(index)
                && !self.is_current(table)
            {
                *found = Match::Changed(Some(index));
                matches.changed.push(component);
                matches.is_same[index as usize] = false;
            }
        }
    }

    fn build(&mut self, component: &Component, old: &Old<'_>) -> Result<KnownTable> {
        self.with_tools(|tools| build_table(component, old, tools))
    }

    fn with_tools<T>(&mut self, work: impl FnOnce(&mut Tools<'_>) -> Result<T>) -> Result<T> {
        let (group_digests, taken) = (&self.group_digests, &self.taken_digests);
        let mut tools = Tools {
            source: self.source,
            sink: self.sink,
            descriptors: &mut self.descriptors,
            definitions: &self.definitions,
            group_digest: &|id| group_digests.get(&id).copied(),
            is_group_taken: &|digest| taken.contains(digest),
            rows_written: &mut self.rows,
        };
        work(&mut tools)
    }

    /// Returns for each name of a written component the index of its co-variable.
    fn write_covariables(&mut self, matches: &Matches) -> Result<HashMap<&'a str, u32>> {
        let (outcome, base) = (self.outcome, self.base);
        let mut assigned = HashMap::new();
        let mut next = 0u32;
        for &at in &matches.changed {
            let component = &outcome.components[at];
            let old = match matches.found[at] {
                Match::Changed(old) => old,
                Match::Same(_) | Match::Group => continue,
            };
            let index = match old {
                Some(index) => index,
                None => {
                    while base.covariable(next).is_some() {
                        next += 1;
                    }
                    next += 1;
                    next - 1
                }
            };
            for (name, ..) in &component.names {
                if assigned.insert(name.as_str(), index).is_some() {
                    return Err(Error::contract(format!("variable {name:?} is in two co-variables")));
                }
            }
            let table = match old.and_then(|index| base.covariable(index)) {
                Some(Holding::Known(table)) => {
                    let patched = match self.is_current(table) {
                        true => self.with_tools(|tools| patch(component, table, tools))?,
                        false => None,
                    };
                    if let Some(patch) = patched {
                        self.references.insert(index, patch.reference.clone());
                        self.covariables.push((index, Change::Patched(patch)));
                        continue;
                    }
                    self.build(component, &Old::Known(table))?
                }
                Some(Holding::Unread { .. }) => match self.stored.remove(&index) {
                    Some(stored) => {
                        let groups = self.ids_of(&stored.header.groups);
                        self.build(component, &Old::Stored(&stored, groups))?
                    }
                    None => self.build(component, &Old::None)?,
                },
                None => self.build(component, &Old::None)?,
            };
            self.references.insert(index, table.reference.clone());
            self.covariables.push((index, Change::New(Holding::Known(Box::new(table)))));
        }
        Ok(assigned)
    }

    /// Writes the headers of untouched co-variables anew where names have left them, or definition groups changed under
    /// them. Their rows stay.
    fn amend(&mut self, matches: &Matches) -> Result<()> {
        for index in matches.untouched() {
            let Some(holding) = self.base.covariable(index) else { continue };
            let has_lost_names = matches.is_shrunken(index, holding);
            let digests = match holding {
                Holding::Known(table) => self.amended_groups(table),
                Holding::Unread { .. } => None,
            };
            if !has_lost_names && digests.is_none() {
                continue;
            }
            let mut header = holding.reference().load(self.source)?;
            if has_lost_names {
                let kept: HashSet<&str> = matches.untouched_names(self.base, self.outcome, index).collect();
                header.names.retain(|root| kept.contains(root.name.as_str()));
            }
            if let Some(digests) = digests {
                header.groups = digests;
            }
            let reference = header.store(self.sink)?;
            let holding = match holding {
                Holding::Known(table) => Holding::Known(Box::new(amended(table, header, reference.clone()))),
                Holding::Unread { .. } => {
                    Holding::Unread { reference: reference.clone(), name_count: header.names.len() }
                }
            };
            self.references.insert(index, reference);
            self.covariables.push((index, Change::New(holding)));
        }
        Ok(())
    }

    /// What the groups of an untouched table are now, if that is not what it names.
    ///
    /// A group that has lost a pod to which the table refers stays what it was for that table.
    fn amended_groups(&self, table: &KnownTable) -> Option<Vec<Digest>> {
        let mut digests = table.group_digests.clone();
        for (id, digest) in table.groups.iter().zip(&mut digests) {
            *digest = self.group_digests.get(id).copied().unwrap_or(*digest);
        }
        if digests == table.group_digests {
            return None;
        }
        let base_place = |id: GroupId, key: &PodKey| {
            self.base.group(id)?.pods.iter().find(|pod| pod.key == *key).map(|pod| pod.slot)
        };
        for key in
            table.pods.iter().filter(|pod| pod.has_definitions).flat_map(|pod| &pod.record.dependencies)
        {
            for (ordinal, id) in table.groups.iter().enumerate() {
                if let Some(slot) = base_place(*id, key)
                    && self.definitions.get(key) != Some(&(*id, slot))
                {
                    digests[ordinal] = table.group_digests[ordinal];
                }
            }
        }
        (digests != table.group_digests).then_some(digests)
    }

    fn write_manifest(
        &mut self,
        matches: &Matches,
        assigned: &HashMap<&'a str, u32>,
    ) -> Result<(Digest, VariablesDelta)> {
        let before = self.base.variables.all();
        let variables = &self.outcome.variables;
        let is_same_order = variables.len() == before.len()
            && matches.places.iter().enumerate().all(|(i, at)| *at == Some(i));
        let orders = match is_same_order {
            true => None,
            false => Some(assign_ranks(
                &matches.places.iter().map(|at| at.map(|at| before[at].order)).collect::<Vec<_>>(),
            )),
        };
        let mut edits: Vec<Edit> = Vec::new();
        let mut all = Vec::with_capacity(if is_same_order { 0 } else { variables.len() });
        let mut rows = Vec::new();
        for (i, (name, root)) in variables.iter().enumerate() {
            let old = matches.places[i].map(|at| &before[at]);
            let order = orders.as_ref().map_or_else(|| old.map_or(0, |old| old.order), |orders| orders[i]);
            let value = self.value(name, root, old, matches, assigned)?;
            let moved = match value.as_ref().or(old.map(|old| &old.value)) {
                Some(Value::Covariable(index)) => self.references.get(index),
                _ => None,
            };
            let is_row_same = old.is_some_and(|old| old.order == order) && value.is_none() && moved.is_none();
            if is_row_same && is_same_order {
                continue;
            }
            let Some(value) = value.or_else(|| old.map(|old| old.value.clone())) else {
                return Err(Error::contract(format!("variable {name:?} has no value")));
            };
            let variable = Variable { name: name.clone(), order, value };
            if !is_row_same {
                let reference = match (&variable.value, moved) {
                    (_, Some(reference)) => Some(reference),
                    (Value::Covariable(index), None) => self.base.covariable(*index).map(Holding::reference),
                    _ => None,
                };
                let row = variable.row(reference);
                let row =
                    row.ok_or_else(|| Error::contract(format!("variable {name:?} has no co-variable")))?;
                edits.push((name.as_bytes().to_vec(), Some(row)));
            }
            match is_same_order {
                true => rows.push((i, variable.order, variable.value)),
                false => all.push(variable),
            }
        }
        if !is_same_order {
            let mut is_kept = vec![false; before.len()];
            matches.places.iter().flatten().for_each(|at| is_kept[*at] = true);
            let gone = before.iter().zip(is_kept).filter(|(_, is_kept)| !is_kept);
            edits.extend(gone.map(|(variable, _)| (variable.name.as_bytes().to_vec(), None)));
        }
        edits.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut tree = self.base.place.map_or_else(Tree::empty, |place| Tree::open(place.manifest));
        let manifest = tree.apply(&edits, self.source, self.sink)?;
        Ok((manifest, if is_same_order { VariablesDelta::Rows(rows) } else { VariablesDelta::All(all) }))
    }

    /// What a name refers to; `None`: as in the base.
    fn value(
        &self,
        name: &str,
        root: &VariableRoot,
        old: Option<&Variable>,
        matches: &Matches,
        assigned: &HashMap<&'a str, u32>,
    ) -> Result<Option<Value>> {
        let old = old.map(|old| &old.value);
        Ok(match (root, old) {
            (VariableRoot::Untouched, Some(_)) => None,
            (VariableRoot::Untouched, None) => {
                return Err(Error::contract(format!("new variable {name:?} is said to be untouched")));
            }
            (VariableRoot::Inline(atom), Some(Value::Inline(old))) if **old == **atom => None,
            (VariableRoot::Inline(atom), _) => Some(Value::Inline(atom.clone().into())),
            (VariableRoot::Named(global), Some(Value::Named(old))) if old == global => None,
            (VariableRoot::Named(global), _) => Some(Value::Named(global.clone())),
            (VariableRoot::Skipped(skipped), Some(Value::Skipped(old))) if old == skipped => None,
            (VariableRoot::Skipped(skipped), _) => Some(Value::Skipped(skipped.clone())),
            (VariableRoot::Stored, Some(Value::Covariable(index))) if matches.is_same[*index as usize] => {
                None
            }
            (VariableRoot::Stored, old) => {
                let index = assigned.get(name).copied();
                let index = index
                    .ok_or_else(|| Error::contract(format!("variable {name:?} is in no co-variable")))?;
                (old != Some(&Value::Covariable(index))).then_some(Value::Covariable(index))
            }
        })
    }
}

/// The same table with the names and groups of another header.
fn amended(table: &KnownTable, header: Covariable, reference: CovariableRef) -> KnownTable {
    let is_kept = |name: &str| header.find(name).is_some();
    KnownTable {
        names: table.names.iter().filter(|(name, ..)| is_kept(name)).cloned().collect(),
        pods: table.pods.clone(),
        walked: table.walked,
        slots: table.slots.clone(),
        groups: table.groups.clone(),
        group_digests: header.groups,
        tree: header.table,
        extensions: header.extensions,
        reference,
        by_key: OnceLock::new(),
    }
}
