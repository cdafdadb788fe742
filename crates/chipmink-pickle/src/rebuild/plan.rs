//! Rebuilds the variables of a plan.

use super::error::{Failure, RebuildError, Result};
use super::live::{Offered, settle};
use super::loader::Loader;
use super::memo::{Entry, Mark};
use super::options::RebuildOptions;
use super::pause::CollectorPause;
use super::pods::{Offer, PodState};
use super::supply::Stored;
use chipmink_types::{LoadPlan, LoadRoot, LoadVariable, PodSource, SkippedVariable};
use hashbrown::HashMap;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// Variables by name, in the order of a plan.
pub type Variables = Vec<(String, Py<PyAny>)>;

/// Rebuilds the variables of `plan`, in its order, from the pods that `source` gives.
///
/// # Errors
/// When the bytes are damaged, or code that they name raises.
pub fn rebuild(
    py: Python<'_>,
    plan: &LoadPlan,
    source: &mut dyn PodSource,
    options: &RebuildOptions,
) -> PyResult<Variables> {
    run(py, plan, source, options, false).map(Option::unwrap_or_default)
}

/// As [`rebuild`], unless a class or function would have to be made anew: then nothing is made, and `None` returned.
///
/// # Errors
/// As [`rebuild`].
pub fn rebuild_if_live(
    py: Python<'_>,
    plan: &LoadPlan,
    source: &mut dyn PodSource,
    options: &RebuildOptions,
) -> PyResult<Option<Variables>> {
    run(py, plan, source, options, true)
}

fn run(
    py: Python<'_>,
    plan: &LoadPlan,
    source: &mut dyn PodSource,
    options: &RebuildOptions,
    only_live: bool,
) -> PyResult<Option<Variables>> {
    let _pause = CollectorPause::begin(py);
    let mut supply = Stored::new(source, plan);
    let live = options.live.as_ref().filter(|_| options.allow.is_none());
    let settled = live.map(|live| settle(py, plan, &mut supply, live)).transpose();
    let mut loader = Loader::new(py, &plan.pods, &mut supply, options);
    let loaded = settled.map(Option::unwrap_or_default).and_then(|settled| {
        if only_live && settled.len() < plan.definitions {
            return Ok(None);
        }
        loader.use_live(settled);
        loader.variables(&plan.variables).map(Some)
    });
    loaded.map_err(|failure| loader.explain(failure))
}

impl<'py, 'a> Loader<'py, 'a> {
    /// Takes live objects for what these pods would make.
    fn use_live(&mut self, settled: HashMap<usize, Offered<'py>>) {
        for (position, offered) in settled {
            let entry = |object| Entry { object, mark: Mark::SETTLED };
            self.states[position] =
                PodState::Done(offered.into_iter().map(|object| object.map(entry)).collect());
        }
    }

    fn variables(&mut self, variables: &'a [LoadVariable]) -> Result<Variables> {
        self.variables = variables;
        for position in 0..self.plan.len() {
            self.run_pod(position)?;
        }
        variables
            .iter()
            .map(|variable| {
                let object =
                    self.root(&variable.root).map_err(|failure| failure.in_variable(&variable.name))?;
                Ok((variable.name.clone(), object.unbind()))
            })
            .collect()
    }

    /// The object of a variable, once all pods have run.
    pub(super) fn root(&mut self, root: &'a LoadRoot) -> Result<Bound<'py, PyAny>> {
        match root {
            LoadRoot::Inline(bytes) => {
                let mut atoms = self.atoms_alone(bytes.clone())?;
                match (atoms.pop(), atoms.is_empty()) {
                    (Some(atom), true) => Ok(atom),
                    _ => Err(Failure::damaged("a variable's inline value is not one atom")),
                }
            }
            LoadRoot::Named(name) => self.resolve(name),
            LoadRoot::Pod(position, slot) => match self.export(*position, u64::from(*slot)) {
                Ok(Offer::Object(entry)) => Ok(entry.object),
                Ok(Offer::NotRun) | Err(_) => {
                    let reason = format!("it has no pod {position} with an export {slot}");
                    Err(RebuildError::Plan(reason).into())
                }
            },
            LoadRoot::Skipped(SkippedVariable { path, type_name, reason }) => {
                let text = |text: &str| PyString::new(self.py, text).into_any();
                self.placeholder((text("variable"), text(type_name), text(reason), text(path)))
            }
        }
    }
}
