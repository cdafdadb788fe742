//! Rebuilds the variables of a plan.

use super::error::{Failure, RebuildError, Result};
use super::loader::Loader;
use super::options::RebuildOptions;
use super::pause::CollectorPause;
use super::pods::Offer;
use super::supply::Stored;
use chipmink_types::{LoadPlan, LoadRoot, LoadVariable, PodSource, SkippedVariable};
use pyo3::prelude::*;
use pyo3::types::PyString;

/// Rebuilds the variables of `plan`, in its order, from the pods that `source` gives.
///
/// # Errors
/// When the bytes are damaged, or code that they name raises.
pub fn rebuild(
    py: Python<'_>,
    plan: &LoadPlan,
    source: &mut dyn PodSource,
    options: &RebuildOptions,
) -> PyResult<Vec<(String, Py<PyAny>)>> {
    let _pause = CollectorPause::begin(py);
    let mut supply = Stored(source);
    let mut loader = Loader::new(py, &plan.pods, &mut supply, options);
    match loader.variables(&plan.variables) {
        Ok(variables) => Ok(variables),
        Err(failure) => Err(loader.explain(failure)),
    }
}

impl<'py, 'a> Loader<'py, 'a> {
    fn variables(&mut self, variables: &'a [LoadVariable]) -> Result<Vec<(String, Py<PyAny>)>> {
        for position in 0..self.plan.len() {
            self.run_pod(position)?;
        }
        variables
            .iter()
            .map(|variable| Ok((variable.name.clone(), self.root(&variable.root)?.unbind())))
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
