//! The end of a walk, as far as shared memory is concerned: whether it must be made again, and which regions are parts of
//! one buffer.

use super::adopt::PendingPod;
use super::memory::Hint;
use super::session::NONE;
use super::walker::Walker;
use chipmink_types::PodRecord;
use hashbrown::HashMap;
use std::sync::Arc;

impl Walker<'_, '_> {
    /// The hints for another walk, if this one did not know how objects share memory.
    pub(crate) fn shared_otherwise(&mut self) -> Option<Vec<Hint>> {
        let (hints, is_other) = self.memory.settle();
        if self.memory.may_repeat && (is_other || self.memory.is_survey) {
            return Some(hints);
        }
        self.hints = hints;
        None
    }

    /// Takes back what the walk has changed in the session. `known_pods`: how many pods there were before it.
    pub(crate) fn abandon(mut self, known_pods: usize) {
        for visit in std::mem::take(&mut self.visits) {
            if let Some(state) = self.session.pod_mut(visit.pod) {
                state.visit = NONE;
                state.skip_shadow = false;
            }
        }
        self.session.pods.truncate(known_pods);
        self.session.export_lists.truncate(known_pods);
        let lists = &self.session.export_lists;
        self.session.memo.roll_back_all(|pod, slot, addr| lists.offers(pod, slot, addr));
    }

    /// Numbers the buffers of which a co-variable has several regions, in the order of their first region.
    pub(crate) fn number_buffers(
        &self,
        pods: &mut [PendingPod],
        labels: &[usize],
        place_of: impl Fn(u32) -> Option<usize>,
    ) {
        // By co-variable and owner of the memory: pods and their regions, in the order of the pods.
        let mut parts: HashMap<(usize, usize), Vec<(usize, usize)>> = HashMap::new();
        for (_, owner) in self.memory.owners() {
            if let (Some(region), Some(at)) = (owner.region, place_of(owner.pod)) {
                parts.entry((labels[at], owner.base.addr())).or_default().push((at, region as usize));
            }
        }
        let mut several: Vec<(usize, Vec<(usize, usize)>)> = Vec::new();
        for ((label, _), mut regions) in parts {
            if let [(at, region)] = regions.as_slice() {
                set_buffer_id(&mut pods[*at], *region, 0);
                continue;
            }
            regions.sort_unstable();
            several.push((label, regions));
        }
        several.sort_unstable();
        let (mut label, mut id) = (usize::MAX, 0);
        for (next, regions) in several {
            id = if next == label { id + 1 } else { 1 };
            label = next;
            for (at, region) in regions {
                set_buffer_id(&mut pods[at], region, id);
            }
        }
    }
}

fn set_buffer_id(pod: &mut PendingPod, region: usize, id: u64) {
    if pod.record.regions.get(region).is_some_and(|known| known.buffer_id != id) {
        let record: &mut PodRecord = Arc::make_mut(&mut pod.record);
        record.regions[region].buffer_id = id;
        pod.is_changed = true;
    }
}
