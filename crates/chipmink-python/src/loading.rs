//! Loads: how a handle makes the variables of a version again, and what of a region differs from live memory.

use crate::cancel::Cancel;
use crate::errors::raise;
use crate::fill::{Load, Loaded};
use crate::handle::Handle;
use crate::mapping::Mapper;
use crate::pods::Pods;
use chipmink::Pieces;
use chipmink_pickle::RebuildOptions;
use chipmink_pickle::rebuild::{Allowlist, LiveDefinitions, Variables, rebuild, rebuild_if_live};
use chipmink_types::{Digest, LoadPlan, RegionRecord, TimeId};
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
            Some(_) => self.mapping().unchecked_mapper(self.repository(), &plan),
            None => self.mapping().mapper(self.repository(), &plan),
        };
        let options = how.options(mapper.as_ref())?;
        let mut pods = self.pods(&plan, cancel);
        let loaded = rebuild(py, &plan, &mut pods, &options);
        let loaded = loaded.map_err(|error| self.or_dropped(py, time, error));
        let loaded = pods.or_interrupt(loaded)?;
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
        let mapper = self.mapping().mapper(self.repository(), &plan);
        let options = how.options(mapper.as_ref())?;
        let mut pods = self.pods(&plan, None);
        let loaded = match only_live {
            true => rebuild_if_live(py, &plan, &mut pods, &options),
            false => rebuild(py, &plan, &mut pods, &options).map(Some),
        };
        let loaded = loaded.map_err(|error| self.or_dropped(py, time, error));
        let loaded = pods.or_interrupt(loaded)?;
        self.mapping().check_later(mapper.as_ref(), &plan, time);
        Ok(loaded)
    }

    /// The error of a load; if a sweep has dropped the version meanwhile, the one that says so.
    fn or_dropped(&self, py: Python<'_>, time: TimeId, error: PyErr) -> PyErr {
        let retained = py.detach(|| self.repository().store().check_retained(time));
        retained.err().map_or(error, |dropped| raise(dropped.into()))
    }

    /// What of a region differs from memory whose chunks have these digests.
    pub(crate) fn difference(
        &self,
        region: &RegionRecord,
        live: &[Digest],
    ) -> chipmink::Result<Option<Pieces>> {
        self.repository().difference(region, live)
    }

    fn pods(&self, plan: &LoadPlan, cancel: Option<&Cancel>) -> Pods {
        Pods::new(self.repository().pods(plan), self.is_far(), cancel.map(|cancel| &cancel.0))
    }
}
