//! The end of a walk: records of the pods met, co-variables, and what the session keeps once the commit is visible.

use super::builder::{Builder, ClassPlace};
use super::frames::{Mode, Visit};
use super::memory::{Hint, Span};
use super::session::{NONE, RootKey};
use super::shadow::Shadow;
use super::shapes::Shapes;
use super::source::Walked;
use super::ties::{Tie, VisitIndex, label};
use super::tracker::Group;
use super::walker::Walker;
use crate::py::Obj;
use chipmink_types::{
    BlobKind, Component, DeviceCapture, Digest, Export, PodKey, PodRecord, ShapeClass, ShapeRecord,
    VariableRoot, WalkError, WalkOutcome, WalkedPod,
};
use hashbrown::{HashMap, HashSet};
use pyo3::prelude::*;
use std::sync::Arc;

/// How many export slots ahead memory is asked for; measured.
const SLOTS_AHEAD: usize = 8;

/// What a walk learned of a pod.
pub(crate) struct PendingPod {
    pub(super) id: u32,
    pub record: Arc<PodRecord>,
    pub(super) roots: Vec<RootKey>,
    pub(super) root_slots: Vec<u32>,
    pub(super) parent: u32,
    pub(super) is_sibling: bool,
    pub(super) is_final: bool,
    pub(super) is_definition: bool,
    pub(super) is_opaque: bool,
    pub(super) is_shared: bool,
    /// The shadow built in this walk.
    pub(super) shadow: Option<Arc<Shadow>>,
    pub(super) is_proved: bool,
    pub is_changed: bool,
    /// Pods of which an inner object is referred to.
    pub(super) inside: Vec<u32>,
    pub(super) group: u32,
}

/// What a walk learned, until its commit is visible or given up.
pub(crate) struct Pending {
    pub ticket: u64,
    pub(super) pods: Vec<PendingPod>,
    pub(super) groups: Vec<Group>,
    pub(super) edges: HashMap<String, Vec<String>>,
    /// Names with the object (owned) and group of those that were walked.
    pub variables: Vec<(String, Option<(Obj, u32)>)>,
    pub(super) hints: Vec<Hint>,
    /// Memory and the pod that stores it.
    pub(super) spans: Vec<(Span, u32)>,
    /// Memory of devices, as it was found.
    pub(super) device: Option<Box<dyn DeviceCapture>>,
}

impl Walker<'_, '_> {
    /// Puts together what the walk found.
    pub(crate) fn finish(
        mut self,
        variables: &[(String, Obj)],
        roots: Vec<Option<Walked>>,
    ) -> Result<WalkOutcome, WalkError> {
        let unsteady = self.unsteady_variables();
        let unsteady: Vec<String> =
            unsteady.into_iter().filter_map(|at| Some(variables.get(at as usize)?.0.clone())).collect();
        let mut visits = std::mem::take(&mut self.visits);
        let index = VisitIndex::of(visits.iter().map(|visit| visit.pod), self.session.pods.len());
        let device = self.store_devices(&mut visits, &index, unsteady.is_empty())?;
        let mut pods = Vec::with_capacity(visits.len());
        for visit in visits {
            pods.push(self.pending_pod(visit)?);
        }
        let ties: Vec<Tie<'_>> = pods.iter().map(Tie::of_pending).collect();
        let (labels, count) = label(&ties, &index, &roots);
        drop(ties);
        self.number_buffers(&mut pods, &labels, |pod| index.get(pod));
        let mut components: Vec<Component> = vec![Component::default(); count];
        let mut groups: Vec<Group> = vec![Group::default(); count];
        let mut reads: Vec<Vec<String>> = vec![Vec::new(); count];
        let generation = self.session.generation;
        let key = |id: u32| PodKey(generation << 32 | u64::from(id));
        for (pod, label) in pods.iter_mut().zip(&labels) {
            pod.group = *label as u32;
            components[*label].pods.push(WalkedPod { key: key(pod.id), record: pod.record.clone() });
            groups[*label].is_opaque |= pod.is_opaque;
            groups[*label].is_shared |= pod.is_shared;
            reads[*label].extend(pod.record.names.iter().cloned());
        }
        for label in 0..count {
            groups[label].is_definition = self.is_definition_group(&components[label], &pods, &index);
        }
        // Variables that were left alone go on using the definitions that they used.
        let left_alone: HashSet<&str> = variables
            .iter()
            .zip(&roots)
            .filter(|(_, walked)| walked.is_none())
            .map(|((name, _), _)| name.as_str())
            .collect();
        for (pod, label) in pods.iter().zip(&labels) {
            if let Some(state) = self.session.pod(pod.id).filter(|_| pod.is_definition) {
                for name in self.session.tracker.names(state.component) {
                    if left_alone.contains(name.as_str()) && !groups[*label].names.contains(name) {
                        groups[*label].names.push(name.clone());
                    }
                }
            }
        }
        // A definition group serves all that refer to it: their functions read what its functions read.
        let mut used: Vec<Vec<usize>> = vec![Vec::new(); count];
        for (pod, label) in pods.iter().zip(&labels) {
            for dependency in &pod.record.dependencies {
                if let Some(at) = index.get(dependency.0 as u32)
                    && labels[at] != *label
                    && !used[*label].contains(&labels[at])
                {
                    used[*label].push(labels[at]);
                }
            }
        }
        let mut outcome_variables = Vec::with_capacity(variables.len());
        let mut tracked = Vec::with_capacity(variables.len());
        let mut edges = HashMap::new();
        for ((name, value), walked) in variables.iter().zip(roots) {
            let mut group = NONE;
            let root = match walked {
                None => VariableRoot::Untouched,
                Some(Walked::Root(root)) => {
                    if let VariableRoot::Skipped(_) = root {
                        group = groups.len() as u32;
                        components.push(Component::default());
                        groups.push(Group::new(vec![name.clone()], true));
                    }
                    root
                }
                Some(Walked::Pod(pod, slot)) => {
                    let label = index.get(pod).map(|at| labels[at]);
                    let Some(label) = label else {
                        return Err(WalkError::Source(format!(
                            "variable {name:?} has no pod; please report this"
                        )));
                    };
                    let at = if groups[label].is_definition {
                        // The object is a definition of its own: the variable only names it.
                        components.push(Component::default());
                        groups[label].names.push(name.clone());
                        groups.push(Group::new(Vec::new(), groups[label].is_opaque));
                        components.len() - 1
                    } else {
                        label
                    };
                    components[at].names.push((name.clone(), key(pod), slot));
                    groups[at].names.push(name.clone());
                    group = at as u32;
                    let mut names: Vec<String> = reads[label].clone();
                    for other in &used[label] {
                        names.extend(reads[*other].iter().cloned());
                    }
                    if !names.is_empty() {
                        names.sort_unstable();
                        names.dedup();
                        edges.insert(name.clone(), names);
                    }
                    VariableRoot::Stored
                }
            };
            let was_walked = !matches!(root, VariableRoot::Untouched);
            if was_walked {
                value.incref();
            }
            tracked.push((name.clone(), was_walked.then_some((*value, group))));
            outcome_variables.push((name.clone(), root));
        }
        for (user, others) in used.iter().enumerate() {
            for other in others {
                let names = groups[user].names.clone();
                groups[*other].names.extend(names);
            }
        }
        components.retain(|component| !component.names.is_empty() || !component.pods.is_empty());
        let stubs = self
            .stubs
            .drain(..)
            .filter_map(|(variable, stub)| Some((variables.get(variable as usize)?.0.clone(), stub)))
            .collect();
        self.session.tickets += 1;
        let ticket = self.session.tickets;
        let mut stats = self.stats;
        stats.shadow_bytes = self.shadow_bytes;
        let hints = std::mem::take(&mut self.hints);
        let spans = self.memory.owners().map(|(span, owner)| (span, owner.pod)).collect();
        let pending = Pending { ticket, pods, groups, edges, variables: tracked, hints, spans, device };
        self.session.pending = Some(pending);
        Ok(WalkOutcome {
            variables: outcome_variables,
            components,
            stubs,
            stats,
            ticket,
            unsteady,
            is_unchanged: false,
        })
    }

    fn is_definition_group(&self, component: &Component, pods: &[PendingPod], index: &VisitIndex) -> bool {
        !component.pods.is_empty()
            && component
                .pods
                .iter()
                .all(|pod| index.get(pod.key.0 as u32).is_some_and(|at| pods[at].is_definition))
    }

    fn pending_pod(&mut self, visit: Visit) -> Result<PendingPod, WalkError> {
        let id = visit.pod;
        let exports = self.exports_of(&visit);
        let known = self.session.pods.get_mut(id as usize).and_then(Option::as_deref_mut);
        if let Some(state) = known {
            state.visit = NONE;
            state.skip_shadow = false;
        }
        let old = self.session.pod(id).map(|state| state.record.clone());
        let mut inside = self.session.pod(id).map(|state| state.inside.clone()).unwrap_or_default();
        let (record, shadow, is_proved, is_changed) = match visit.mode {
            Mode::Proved => {
                let Some(old) = old else {
                    return Err(WalkError::Source(
                        "a proved pod has no record; please report this".to_owned(),
                    ));
                };
                let exports = exports.filter(|exports| *exports != old.exports);
                let is_changed = !visit.regions.is_empty();
                let record = if exports.is_some() || is_changed {
                    let mut record = PodRecord::clone(&old);
                    record.exports = exports.unwrap_or(record.exports);
                    for (ordinal, region) in visit.regions {
                        if let Some(known) = record.regions.get_mut(ordinal as usize) {
                            *known = region;
                        }
                    }
                    Arc::new(record)
                } else {
                    old
                };
                (record, None, true, is_changed)
            }
            Mode::Written(finished) => {
                let mut tables = finished.tables;
                let record = self.written_record(
                    &tables,
                    finished.digest,
                    finished.byte_len,
                    exports.unwrap_or_default(),
                )?;
                inside = tables.inside();
                let shadow = tables.shadow.take().map(|writer| Arc::new(writer.finish()));
                let is_changed = old.as_ref().is_none_or(|old| **old != record);
                let record = match old {
                    Some(old) if !is_changed => old,
                    _ => Arc::new(record),
                };
                (record, shadow, false, is_changed)
            }
            Mode::Bytes(_) | Mode::Shadow { .. } => {
                return Err(WalkError::Source("a pod was left open; please report this".to_owned()));
            }
        };
        Ok(PendingPod {
            id,
            record,
            roots: visit.roots,
            root_slots: visit.root_slots,
            parent: visit.parent,
            is_sibling: visit.is_sibling,
            is_final: visit.is_final,
            is_definition: visit.is_definition,
            is_opaque: visit.is_opaque,
            is_shared: visit.is_shared,
            shadow,
            is_proved,
            is_changed,
            inside,
            group: NONE,
        })
    }

    /// The record of a pod whose bytes were produced.
    fn written_record(
        &mut self,
        tables: &Builder,
        digest: Digest,
        byte_len: u64,
        exports: Vec<Export>,
    ) -> Result<PodRecord, WalkError> {
        let generation = self.session.generation;
        Ok(PodRecord {
            digest,
            byte_len,
            exports,
            dependencies: tables
                .dependencies
                .iter()
                .map(|pod| PodKey(generation << 32 | u64::from(*pod)))
                .collect(),
            globals: tables.globals.iter().map(|id| self.session.names.name(*id).clone()).collect(),
            shapes: shape_records(tables, &self.session.shapes, self.py)?,
            regions: tables.regions.clone(),
            side: self.store_side(tables)?,
            names: tables.names.iter().cloned().collect(),
        })
    }

    /// Everything that uses a definition must use the same version of it, so a changed one activates all its users.
    /// Returns whether there were any that were not active.
    pub(crate) fn activate_users_of_changed_definitions(
        &mut self,
        roots: &[Option<Walked>],
    ) -> Result<bool, WalkError> {
        if !self.some_inactive {
            return Ok(false);
        }
        let visits = std::mem::take(&mut self.visits);
        let mut activated = self.regrouped(&visits, roots);
        let mut met: HashSet<u32> = HashSet::new();
        for visit in visits.iter().filter(|visit| visit.is_definition) {
            let Mode::Written(finished) = &visit.mode else { continue };
            let Some(state) = self.session.pod(visit.pod) else { continue };
            let (component, old) = (state.component, state.record.clone());
            met.insert(component);
            let exports = self.exports_of(visit).unwrap_or_default();
            let record =
                self.written_record(&finished.tables, finished.digest, finished.byte_len, exports)?;
            if record != *old {
                activated.insert(component);
            }
        }
        self.visits = visits;
        // A group of which only a part was met would fall apart: one part for these users, the whole for the others. And what
        // was not met at all may have been changed through a variable that does not lead to it any more.
        let session = &*self.session;
        let is_left = |component: u32| met.contains(&component) || session.tracker.is_touched(component);
        let left = session.pods.iter().flatten().filter(|state| state.is_definition && state.visit == NONE);
        activated.extend(left.map(|state| state.component).filter(|component| is_left(*component)));
        for component in activated {
            if self.session.tracker.activate(component) {
                self.activated.push(component);
            }
        }
        Ok(!self.activated.is_empty())
    }

    /// Definition groups that are other groups in what was walked so far: one with others, or part of a co-variable. What
    /// was left alone would go on naming what they were.
    fn regrouped(&self, visits: &[Visit], roots: &[Option<Walked>]) -> HashSet<u32> {
        let component = |visit: &Visit| Some(self.session.pod(visit.pod)?.component);
        let definitions = || visits.iter().enumerate().filter(|(_, visit)| visit.is_definition);
        let is_used = |visit: &Visit| component(visit).is_some_and(|at| !self.session.tracker.is_active(at));
        if !definitions().any(|(_, visit)| is_used(visit)) {
            return HashSet::new();
        }
        let index = VisitIndex::of(visits.iter().map(|visit| visit.pod), self.session.pods.len());
        let ties: Vec<Tie<'_>> =
            visits.iter().map(|visit| Tie::of_visit(visit, self.session.pod(visit.pod))).collect();
        let (labels, count) = label(&ties, &index, roots);
        let mut is_group = vec![true; count];
        for (tie, label) in ties.iter().zip(&labels) {
            is_group[*label] &= tie.is_definition;
        }
        let mut before: Vec<Option<u32>> = vec![None; count];
        let mut regrouped = HashSet::new();
        for (at, visit) in definitions() {
            let Some(component) = component(visit) else { continue };
            let first = *before[labels[at]].get_or_insert(component);
            if first != component {
                regrouped.extend([first, component]);
            }
            if !is_group[labels[at]] {
                regrouped.insert(component);
            }
        }
        regrouped
    }

    /// What the pod's export slots offer now; `None`: as before.
    fn exports_of(&mut self, visit: &Visit) -> Option<Vec<Export>> {
        let session = &mut *self.session;
        let list = session.export_lists.known_mut(visit.pod)?;
        if matches!(visit.mode, Mode::Proved) && !list.has_new {
            return None;
        }
        list.has_new = false;
        let mut roots = vec![NONE; list.slots.len()];
        let mut note = |k: usize, root: usize, slot: u32| {
            if list.slots.get(slot as usize) == Some(&root) {
                roots[slot as usize] = k as u32;
            }
        };
        for (k, (addr, slot)) in visit.root_addrs.iter().zip(&visit.root_slots).enumerate() {
            note(k, *addr, *slot);
        }
        if let (Mode::Proved, Some(state)) =
            (&visit.mode, session.pods.get(visit.pod as usize).and_then(Option::as_deref))
        {
            for (k, (root, slot)) in state.roots.iter().zip(&state.root_slots).enumerate() {
                if let RootKey::Address(addr, _) = root {
                    note(k, *addr, *slot);
                }
            }
        }
        let mut exports = Vec::with_capacity(list.slots.len());
        for (slot, root_here) in roots.iter().copied().enumerate() {
            if let Some(later) = list.slots.get(slot + SLOTS_AHEAD) {
                session.memo.prefetch(*later);
            }
            let addr = &mut list.slots[slot];
            // A pod with one root offers it under slot 0, wherever the root lies by now.
            let is_the_root = slot == 0 && !visit.is_sibling;
            if is_the_root && let Some(root) = visit.root_addrs.first() {
                if *addr != *root {
                    session.memo.withdraw(*addr, visit.pod, 0);
                }
                *addr = *root;
            }
            let offer = if is_the_root && visit.made_inside.is_empty() {
                Export::Root(0)
            } else if *addr == 0 {
                Export::Vacant
            } else {
                let here = session.memo.get(*addr).filter(|entry| entry.pod == visit.pod);
                match (root_here, here) {
                    (NONE, Some(entry)) => Export::Memo(entry.number),
                    (NONE, None) => Export::Vacant,
                    // The root's value is complete only at its end; the object was there before.
                    (root, Some(entry)) if visit.made_inside.contains(&root) => Export::Memo(entry.number),
                    (root, _) => Export::Root(root),
                }
            };
            if offer == Export::Vacant && *addr != 0 {
                session.memo.withdraw(*addr, visit.pod, slot as u32);
                list.vacate(slot);
            }
            exports.push(offer);
        }
        while exports.last() == Some(&Export::Vacant) {
            exports.pop();
            list.slots.pop();
        }
        Some(exports)
    }

    fn store_side(&mut self, tables: &Builder) -> Result<Option<Digest>, WalkError> {
        if tables.side.is_empty() {
            return Ok(None);
        }
        let mut bytes = vec![chipmink_format::tag::POD_VERSION];
        bytes.extend_from_slice(&tables.side);
        let digest = chipmink_digest::digest(&bytes);
        self.put(BlobKind::Descriptor, digest, &bytes)?;
        Ok(Some(digest))
    }
}

/// The shapes of a pod, spelled out.
pub(crate) fn shape_records(
    tables: &Builder,
    shapes: &Shapes,
    py: Python<'_>,
) -> Result<Vec<ShapeRecord>, WalkError> {
    let ordinal = |wanted: u32| tables.globals.iter().position(|id| *id == wanted).unwrap_or(0) as u32;
    tables
        .shapes
        .iter()
        .map(|(shape, class)| {
            let shape = shapes.get(*shape);
            let text = |name: Obj| {
                let text = name.str_text(py);
                text.map_err(|error| {
                    WalkError::Source(format!("an attribute name is not valid text: {error}"))
                })
            };
            Ok(ShapeRecord {
                class: match class {
                    ClassPlace::Global(id) => ShapeClass::Global(ordinal(*id)),
                    ClassPlace::Pod(pod, slot) => {
                        let dependency =
                            tables.dependencies.iter().position(|known| known == pod).unwrap_or(0);
                        ShapeClass::Dependency(dependency as u32, *slot)
                    }
                },
                dict_names: shape.names.iter().map(|name| text(*name)).collect::<Result<_, _>>()?,
                slot_names: shape.slots().map(|slot| text(slot.name)).collect::<Result<_, _>>()?,
            })
        })
        .collect()
}
