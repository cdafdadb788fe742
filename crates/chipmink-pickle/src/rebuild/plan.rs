//! Rebuilds the variables of a plan.

use super::error::{Failure, RebuildError, Result};
use super::live::{Offered, settle};
use super::loader::Loader;
use super::memo::{Entry, Mark};
use super::options::RebuildOptions;
use super::pause::CollectorPause;
use super::pods::{Offer, PodState};
use super::supply::Stored;
use chipmink_types::{LoadPlan, LoadPod, LoadRoot, LoadVariable, PodSource, SkippedVariable};
use hashbrown::HashMap;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

/// Most bytes of a pod that holds nothing but a reference to another.
const NAME_LEN: u64 = 16;

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
        // A checkout changes its namespace only when all is there; until then its functions read what it had before.
        let is_live =
            |namespace: &&Py<PyDict>| options.live.as_ref().is_some_and(|live| live.namespace.is(*namespace));
        let early = options.namespace.as_ref().filter(|namespace| !is_live(namespace));
        loader.variables(plan, early.map(|namespace| namespace.bind(py))).map(Some)
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

    /// `early`: the dict that functions read, which gets each variable as soon as it is there, because what restores
    /// the state of an object, or hashes it, may be such a function.
    fn variables(&mut self, plan: &'a LoadPlan, early: Option<&Bound<'py, PyDict>>) -> Result<Variables> {
        let variables = &plan.variables[..];
        self.variables = variables;
        let mut of_pod: HashMap<usize, Vec<&'a LoadVariable>> = HashMap::new();
        if let Some(namespace) = early {
            for variable in variables {
                match &variable.root {
                    LoadRoot::Pod(position, _) => of_pod.entry(*position).or_default().push(variable),
                    _ => self.bind_early(namespace, variable)?,
                }
            }
        }
        // What is but another name of a definition depends on nothing else, so it can come first.
        let is_name = |pod: &LoadPod| {
            pod.byte_len <= NAME_LEN && matches!(pod.dependencies[..], [only] if only < plan.definitions)
        };
        let definitions = plan.definitions.min(plan.pods.len());
        let names = (definitions..plan.pods.len())
            .filter(|position| of_pod.contains_key(position) && is_name(&plan.pods[*position]))
            .collect::<Vec<_>>();
        for position in (0..definitions).chain(names).chain(definitions..plan.pods.len()) {
            self.run_pod(position)?;
            if let Some(namespace) = early {
                for variable in of_pod.remove(&position).unwrap_or_default() {
                    self.bind_early(namespace, variable)?;
                }
            }
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

    fn bind_early(&mut self, namespace: &Bound<'py, PyDict>, variable: &'a LoadVariable) -> Result<()> {
        let object = self.root(&variable.root).map_err(|failure| failure.in_variable(&variable.name))?;
        Ok(namespace.set_item(&variable.name, object)?)
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
