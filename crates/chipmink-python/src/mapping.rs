//! Loads that map large regions, and the checks of what they mapped.

use chipmink::{MapCheck, MapChecker, MappedRegion, RegionMapper, Repository};
use chipmink_pickle::rebuild::{MapRegions, RegionMemory};
use chipmink_types::{BlobError, Digest, LoadPlan, LoadRoot, RegionRecord, TimeId};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::collections::HashSet;
use std::ptr::NonNull;
use std::sync::Arc;

/// When mapped bytes are compared with their digests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verify {
    Background,
    Eager,
    Never,
}

/// How the loads of a handle map, and what their checks found.
pub(crate) struct Mapping {
    verify: Option<Verify>,
    checker: MapChecker,
}

impl Mapping {
    /// `maps`: whether anything is mapped at all.
    pub(crate) fn new(maps: bool, verify: &str) -> PyResult<Self> {
        let verify = match verify {
            "background" => Verify::Background,
            "eager" => Verify::Eager,
            "never" => Verify::Never,
            other => {
                return Err(PyValueError::new_err(format!(
                    "there is no verify={other:?}: \"background\", \"eager\" or \"never\""
                )));
            }
        };
        Ok(Mapping { verify: maps.then_some(verify), checker: MapChecker::default() })
    }

    /// Maps the regions of the load of a plan.
    pub(crate) fn mapper(&self, repository: &Repository, plan: &LoadPlan) -> Option<Mapper> {
        let check = if self.verify? == Verify::Eager { MapCheck::Eager } else { MapCheck::Later };
        Some(Mapper(Arc::new(repository.mapper(plan, check))))
    }

    /// As [`Mapping::mapper`], for a load whose caller sees to the checks.
    pub(crate) fn unchecked_mapper(&self, repository: &Repository, plan: &LoadPlan) -> Option<Mapper> {
        self.verify?;
        Some(Mapper(Arc::new(repository.mapper(plan, MapCheck::Later))))
    }

    /// Whether what is mapped is compared with its digests before anybody sees it.
    pub(crate) fn is_eager(&self) -> bool {
        self.verify == Some(Verify::Eager)
    }

    /// What a check found since this was last asked.
    pub(crate) fn take_damage(&self) -> Option<String> {
        self.checker.take_damage()
    }

    /// Lets what a load mapped be checked while the program goes on.
    pub(crate) fn check_later(&self, mapper: Option<&Mapper>, plan: &LoadPlan, time: TimeId) {
        let unchecked = mapper.map(|mapper| mapper.0.take_unchecked()).unwrap_or_default();
        if unchecked.is_empty() || self.verify != Some(Verify::Background) {
            return;
        }
        for (root, unchecked) in unchecked {
            let label = format!("{} of version {time}, loaded earlier", variables_of(plan, root));
            self.checker.check_later(label, unchecked);
        }
    }
}

/// The variables that may reach a region, as a message calls them.
fn variables_of(plan: &LoadPlan, root: Digest) -> String {
    let mut reach: HashSet<usize> = HashSet::new();
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); plan.pods.len()];
    for (position, pod) in plan.pods.iter().enumerate() {
        pod.dependencies.iter().for_each(|dependency| users[*dependency].push(position));
    }
    let holds = |position: &usize| plan.pods[*position].regions.iter().any(|region| region.root == root);
    let mut next: Vec<usize> = (0..plan.pods.len()).filter(holds).collect();
    while let Some(position) = next.pop() {
        if reach.insert(position) {
            next.extend_from_slice(&users[position]);
        }
    }
    let names: Vec<&str> = plan
        .variables
        .iter()
        .filter(|variable| matches!(variable.root, LoadRoot::Pod(position, _) if reach.contains(&position)))
        .map(|variable| variable.name.as_str())
        .collect();
    match names.as_slice() {
        [] => "a definition".to_owned(),
        [name] => format!("variable {name:?}"),
        [first, rest @ ..] => format!("variable {first:?} and {} others", rest.len()),
    }
}

/// Maps the regions of one load.
#[derive(Clone)]
pub(crate) struct Mapper(Arc<RegionMapper>);

impl Mapper {
    /// Compares all that was mapped with its digests.
    pub(crate) fn check_all(&self) -> Result<(), BlobError> {
        self.0.check_all()
    }

    /// Reads regions, as [`RegionMapper::read_regions`].
    pub(crate) fn read_regions(
        &self,
        regions: &[RegionRecord],
        take: &(dyn Fn(usize, u64, &[u8]) + Sync),
    ) -> Result<(), BlobError> {
        self.0.read_regions(regions, take)
    }

    /// What was mapped of these regions need not be checked.
    pub(crate) fn forget_unchecked(&self, regions: &[RegionRecord]) {
        let roots: Vec<Digest> = regions.iter().map(|region| region.root).collect();
        self.0.forget_unchecked(&roots);
    }

    /// The program is about to write to all of these regions.
    pub(crate) fn expect_writes(&self, regions: &[RegionRecord]) {
        let roots: Vec<Digest> = regions.iter().map(|region| region.root).collect();
        self.0.expect_writes(&roots);
    }
}

impl Mapper {
    /// The same for the rebuild.
    pub(crate) fn boxed(&self) -> Box<dyn MapRegions> {
        Box::new(self.clone())
    }
}

impl MapRegions for Mapper {
    fn map(&self, region: &RegionRecord) -> Result<Option<Box<dyn RegionMemory>>, BlobError> {
        let memory = self.0.map(region)?;
        Ok(memory.map(|memory| Box::new(Mapped(memory, region.clone())) as _))
    }
}

/// Memory that is unmapped when the array that has taken it over dies.
struct Mapped(MappedRegion, RegionRecord);

// SAFETY: a mapped region is readable and writable, private, and unmapped on drop only; it is moved in here, so nobody else
// has it.
unsafe impl RegionMemory for Mapped {
    fn start(&self) -> NonNull<u8> {
        self.0.start()
    }

    fn byte_len(&self) -> usize {
        self.0.byte_len()
    }

    fn region(&self) -> &RegionRecord {
        &self.1
    }
}
