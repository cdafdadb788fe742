//! What the session keeps of a walk once its commit is visible.

use super::adopt::{Pending, PendingPod};
use super::session::{NONE, PodState, PySession};
use hashbrown::HashMap;
use pyo3::prelude::*;

impl PySession {
    /// Takes over what a walk learned.
    pub(crate) fn take_over(&mut self, py: Python<'_>, mut pending: Pending) {
        let mut visited: HashMap<u32, ()> = HashMap::with_capacity(pending.pods.len());
        for pod in &pending.pods {
            visited.insert(pod.id, ());
        }
        // Pods of walked variables that were not met are gone.
        for id in 0..self.pods.len() as u32 {
            let gone = match self.pod(id) {
                Some(state) => !visited.contains_key(&id) && self.tracker.is_active(state.component),
                None => false,
            };
            if gone {
                self.drop_pod(id);
            }
        }
        if let Some(device) = pending.device.take() {
            device.adopt();
        }
        let groups = std::mem::take(&mut pending.groups);
        let edges = std::mem::take(&mut pending.edges);
        let moved = self.tracker.adopt(py, groups, edges, &pending.variables, self.kinds.ndarray());
        for state in self.pods.iter_mut().flatten() {
            state.component = moved.get(state.component as usize).copied().unwrap_or(NONE);
        }
        for pod in std::mem::take(&mut pending.pods) {
            self.take_pod(pod);
        }
        self.hints = std::mem::take(&mut pending.hints);
        let pods = &self.pods;
        let is_elsewhere =
            |pod: u32| !visited.contains_key(&pod) && pods.get(pod as usize).is_some_and(Option::is_some);
        self.spans.retain(|_, (_, pod)| is_elsewhere(*pod));
        self.spans.extend(pending.spans.drain(..).map(|(span, pod)| (span.start, (span.end, pod))));
        self.memo.prune(|id| pods.get(id as usize).is_some_and(Option::is_some));
        self.memo.end_walk();
        self.limit_shapes();
    }

    fn take_pod(&mut self, pod: PendingPod) {
        let id = pod.id as usize;
        let mut before = self.pods[id].take();
        if pod.is_proved
            && let Some(state) = &mut before
        {
            // Nothing about it is new, but perhaps its exports and its component.
            state.record = pod.record;
            state.saves += 1;
            state.changes += u32::from(pod.is_changed);
            state.component = pod.group;
            state.parent = pod.parent;
            self.pods[id] = before;
            return;
        }
        let shadow_before = before.as_deref().map_or(0, PodState::shadow_byte_len);
        let (saves, changes) = match &before {
            Some(state) => (state.saves + 1, state.changes + u32::from(pod.is_changed)),
            None => (0, 0),
        };
        if let Some(before) = before
            && before.roots != pod.roots
        {
            for root in &before.roots {
                if self.roots.get(root) == Some(&pod.id) {
                    self.roots.remove(root);
                }
            }
        }
        for root in &pod.roots {
            self.roots.insert(*root, pod.id);
        }
        self.shadow_total -= shadow_before;
        self.shadow_total += pod.shadow.as_ref().map_or(0, |shadow| shadow.byte_len() as u64);
        self.pods[id] = Some(Box::new(PodState {
            record: pod.record,
            roots: pod.roots,
            root_slots: pod.root_slots,
            parent: pod.parent,
            is_sibling: pod.is_sibling,
            is_final: pod.is_final,
            is_definition: pod.is_definition,
            inside: pod.inside,
            shadow: pod.shadow,
            saves,
            changes,
            component: pod.group,
            visit: NONE,
            skip_shadow: false,
        }));
    }

    fn drop_pod(&mut self, id: u32) {
        let Some(state) = self.pods[id as usize].take() else { return };
        self.shadow_total -= state.shadow_byte_len();
        for root in &state.roots {
            if self.roots.get(root) == Some(&id) {
                self.roots.remove(root);
            }
        }
        self.export_lists.remove(id);
    }
}
