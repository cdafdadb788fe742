//! Loads: how a handle makes the variables of a version again, and what of a region differs from live memory.

use crate::cancel::Cancel;
use crate::errors::raise;
use crate::fill::{Load, Loaded};
use crate::handle::Handle;
use crate::mapping::Mapper;
use bytes::Bytes;
use chipmink::{Pieces, PlanPods};
use chipmink_pickle::RebuildOptions;
use chipmink_pickle::rebuild::{Allowlist, LiveDefinitions, Variables, rebuild, rebuild_if_live};
use chipmink_types::{BlobError, Digest, LoadPlan, PodSource, RegionRecord, TimeId};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// How a load makes things again: what functions are bound to, what may be called, what live definitions may be used.
pub(crate) struct How<'a, 'py> {
    pub(crate) namespace: Bound<'py, PyDict>,
    pub(crate) allow: Option<&'a Bound<'py, PyAny>>,
    pub(crate) live: Bound<'py, PyDict>,
}

impl How<'_, '_> {
    fn options(self, mapper: Option<&Mapper>) -> PyResult<RebuildOptions> {
        // What a load into the namespace itself finds there is all of it; from another, functions would have other globals.
        let functions = self.live.is(&self.namespace);
        Ok(RebuildOptions {
            allow: self.allow.map(Allowlist::from_python).transpose()?,
            namespace: Some(self.namespace.unbind()),
            mapper: mapper.map(Mapper::boxed),
            live: Some(LiveDefinitions { namespace: self.live.unbind(), functions }),
        })
    }
}

/// Pods that come from far away: others may run while one waits for them.
struct FarPods(PlanPods);

impl PodSource for FarPods {
    fn pod(&mut self, position: usize) -> Result<Bytes, BlobError> {
        let pods = &mut self.0;
        Python::attach(|py| py.detach(|| pods.pod(position)))
    }

    fn read_region(&mut self, region: &RegionRecord, into: &mut [u8]) -> Result<(), BlobError> {
        let pods = &mut self.0;
        Python::attach(|py| py.detach(|| pods.read_region(region, into)))
    }
}

impl Handle {
    /// Loads variables: all, or those named and what their functions read. With `into`, that sees to the checks of what is mapped.
    pub(crate) fn load_variables(
        &self,
        py: Python<'_>,
        time: TimeId,
        names: Option<&[String]>,
        how: How<'_, '_>,
        into: Option<&Loaded>,
        cancel: Option<&Cancel>,
    ) -> PyResult<Variables> {
        let plan = py.detach(|| self.repository().plan(time, names)).map_err(raise)?;
        let mapper = match into {
            Some(_) => self.mapping().unchecked_mapper(self.repository()),
            None => self.mapping().mapper(self.repository()),
        };
        let options = how.options(mapper.as_ref())?;
        let loaded = rebuild(py, &plan, &mut *self.pods(&plan, cancel), &options);
        let loaded = loaded.map_err(|error| self.or_dropped(time, error))?;
        match into {
            Some(into) => *into.load() = Some(Load { mapper, plan, time }),
            None => self.mapping().check_later(mapper.as_ref(), &plan, time),
        }
        Ok(loaded)
    }

    /// Loads exactly the variables named; with `only_live`, nothing if a class or function would have to be made anew.
    pub(crate) fn load_exactly(
        &self,
        py: Python<'_>,
        time: TimeId,
        names: &[String],
        how: How<'_, '_>,
        only_live: bool,
    ) -> PyResult<Option<Variables>> {
        let plan = py.detach(|| self.repository().plan_only(time, names)).map_err(raise)?;
        let mapper = self.mapping().mapper(self.repository());
        let options = how.options(mapper.as_ref())?;
        let mut pods = self.pods(&plan, None);
        let loaded = match only_live {
            true => rebuild_if_live(py, &plan, &mut *pods, &options),
            false => rebuild(py, &plan, &mut *pods, &options).map(Some),
        };
        let loaded = loaded.map_err(|error| self.or_dropped(time, error))?;
        self.mapping().check_later(mapper.as_ref(), &plan, time);
        Ok(loaded)
    }

    /// The error of a load; if a sweep has dropped the version meanwhile, the one that says so.
    fn or_dropped(&self, time: TimeId, error: PyErr) -> PyErr {
        self.repository().store().check_retained(time).err().map_or(error, |dropped| raise(dropped.into()))
    }

    /// What of a region differs from memory whose chunks have these digests.
    pub(crate) fn difference(
        &self,
        region: &RegionRecord,
        live: &[Digest],
    ) -> chipmink::Result<Option<Pieces>> {
        self.repository().difference(region, live)
    }

    fn pods(&self, plan: &LoadPlan, cancel: Option<&Cancel>) -> Box<dyn PodSource> {
        let mut pods = self.repository().pods(plan);
        if let Some(cancel) = cancel {
            pods.cancel_by(cancel.0.clone());
        }
        match self.is_far() {
            true => Box::new(FarPods(pods)),
            false => Box::new(pods),
        }
    }
}
