//! Which live buffers can be made those of another version by writing some of their chunks, for a checkout.

use crate::error::Result;
use crate::read::Planner;
use crate::save::Prepared;
use chipmink_types::{LoadPlan, LoadRoot, PodRecord, RegionRecord, TimeId};

impl Prepared {
    /// Of the variables named, those that are one object alone with one region, here and in a version, and that differ from
    /// what it has in nothing but the region's content: the region as the version has it.
    ///
    /// # Errors
    /// When the version is unknown, lacks one of the names, or a table is missing or damaged.
    pub fn restorable(&mut self, time: TimeId, names: &[String]) -> Result<Vec<(String, RegionRecord)>> {
        let (shared, _, outcome) = self.parts();
        let mut alone = Vec::new();
        for component in &outcome.components {
            let ([(name, _, slot)], [pod]) = (component.names.as_slice(), component.pods.as_slice()) else {
                continue;
            };
            if names.contains(name) && pod.record.regions.len() == 1 && pod.record.dependencies.is_empty() {
                alone.push((name.clone(), *slot, &pod.record));
            }
        }
        if alone.is_empty() {
            return Ok(Vec::new());
        }
        let wanted: Vec<String> = alone.iter().map(|(name, ..)| name.clone()).collect();
        let mut planner = Planner::new(time, shared.manifest(time)?, &shared.store);
        planner.add_named(&wanted, false)?;
        // Who writes into the live object of one name leaves those of other names as they are.
        alone.retain(|(name, ..)| planner.is_alone(name));
        let plan = planner.finish(&shared.descriptors)?;
        let found = alone.into_iter().filter_map(|(name, slot, record)| {
            let region = same_but_content(&plan, &name, slot, record)?;
            Some((name, region))
        });
        Ok(found.collect())
    }
}

/// The region of a variable's only pod, if all else of that pod is the same.
fn same_but_content(plan: &LoadPlan, name: &str, slot: u32, live: &PodRecord) -> Option<RegionRecord> {
    let variable = plan.variables.iter().find(|variable| variable.name == name)?;
    let LoadRoot::Pod(position, stored_slot) = variable.root else { return None };
    let stored = plan.pods.get(position)?;
    let [region] = stored.regions.as_slice() else { return None };
    let [live_region] = live.regions.as_slice() else { return None };
    let offers = |exports: &[chipmink_types::Export], slot: u32| exports.get(slot as usize).cloned();
    let is_same = stored.digest == live.digest
        && stored.dependencies.is_empty()
        && stored.shapes.is_empty()
        && live.shapes.is_empty()
        && stored.globals == live.globals
        && offers(&stored.exports, stored_slot) == offers(&live.exports, slot)
        && RegionRecord { root: live_region.root, ..region.clone() } == *live_region;
    is_same.then(|| region.clone())
}
