//! `Walked`: a save whose walk is done and which is not published yet.

use crate::errors::raise;
use crate::handle::{Handle, Names, closed};
use crate::restore::StoredRegion;
use chipmink::{Prepared, Saved};
use chipmink_types::{SkippedVariable, TimeId, VariableRoot};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Variable, path inside it, type name, reason.
type Lost = (String, String, String, String);

/// What is not in a version.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses {
    /// Variables.
    skipped: Vec<Lost>,
    /// Objects inside variables.
    stubs: Vec<Lost>,
}

impl Losses {
    /// What a walk lost, and what earlier walks lost of variables that it left alone.
    fn of(prepared: &Prepared, before: &Losses) -> Self {
        let outcome = prepared.outcome();
        let mut losses = Losses {
            skipped: prepared.skipped().map(|(name, skipped)| lost(name, skipped)).collect(),
            stubs: prepared.stubs().iter().map(|(name, stub)| lost(name, stub)).collect(),
        };
        if before.skipped.is_empty() && before.stubs.is_empty() {
            return losses;
        }
        let untouched: HashSet<&str> = outcome
            .variables
            .iter()
            .filter(|(_, root)| *root == VariableRoot::Untouched)
            .map(|(name, _)| name.as_str())
            .collect();
        let stands = |lost: &&Lost| outcome.is_unchanged || untouched.contains(lost.0.as_str());
        losses.skipped.extend(before.skipped.iter().filter(stands).cloned());
        losses.stubs.extend(before.stubs.iter().filter(stands).cloned());
        losses
    }
}

/// A walk that can be published or discarded, once.
#[pyclass(frozen, module = "chipmink._chipmink")]
pub(crate) struct Walked {
    prepared: Mutex<Option<Prepared>>,
    losses: Losses,
    unsteady: Vec<String>,
    handle: Py<Handle>,
    namespace: Py<PyDict>,
}

impl Walked {
    pub(crate) fn new(prepared: Prepared, handle: &Bound<'_, Handle>, namespace: &Bound<'_, PyDict>) -> Self {
        Walked {
            losses: Losses::of(&prepared, &handle.get().losses()),
            unsteady: prepared.unsteady().to_vec(),
            prepared: Mutex::new(Some(prepared)),
            handle: handle.clone().unbind(),
            namespace: namespace.clone().unbind(),
        }
    }

    fn prepared(&self) -> MutexGuard<'_, Option<Prepared>> {
        // Held for a moment only, and never while the interpreter is released.
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes and tells the session.
    /// `None`: a sweep took what the save builds on, and it must be walked anew.
    fn finish(&self, py: Python<'_>, prepared: Prepared) -> PyResult<Option<(Saved, String)>> {
        let published = py.detach(move || prepared.publish());
        let ref_name = published.ref_name().to_owned();
        let mut guard = self.handle.get().session()?;
        let session = guard.as_mut().ok_or_else(closed)?;
        match published.finish(&mut session.source(self.namespace.bind(py))) {
            Ok(saved) => Ok(Some((saved, ref_name))),
            Err(error) if error.wants_new_walk() => Ok(None),
            Err(error) => Err(raise(error)),
        }
    }
}

impl Drop for Walked {
    fn drop(&mut self) {
        let prepared = self.prepared().take();
        if prepared.is_some() {
            // What it has written is removed, which may take its time.
            Python::attach(|py| py.detach(|| drop(prepared)));
        }
    }
}

fn lost(variable: &str, skipped: &SkippedVariable) -> Lost {
    (variable.to_owned(), skipped.path.clone(), skipped.type_name.clone(), skipped.reason.clone())
}

fn over() -> PyErr {
    crate::errors::exception("ChipminkError", "this walk was published or discarded already")
}

#[pymethods]
impl Walked {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.handle)?;
        visit.call(&self.namespace)
    }

    /// Variables that are not in the version.
    fn skipped(&self) -> Vec<Lost> {
        self.losses.skipped.clone()
    }

    /// Objects inside saved variables that are placeholders in the version.
    fn stubs(&self) -> Vec<Lost> {
        self.losses.stubs.clone()
    }

    /// Variables that other threads went on changing meanwhile.
    fn unsteady(&self) -> Vec<String> {
        self.unsteady.clone()
    }

    /// How what was walked differs from each of some versions: names added, removed, changed.
    fn compare(&self, py: Python<'_>, numbers: Vec<u64>) -> PyResult<Vec<Names>> {
        let times: Vec<TimeId> = numbers.into_iter().map(TimeId).collect();
        let mut prepared = self.prepared().take().ok_or_else(over)?;
        let (prepared, diffs) = py.detach(move || {
            let diffs = prepared.compare(&times);
            (prepared, diffs)
        });
        *self.prepared() = Some(prepared);
        let diffs = diffs.map_err(raise)?;
        Ok(diffs.into_iter().map(|diff| (diff.added, diff.removed, diff.changed)).collect())
    }

    /// Of the variables named, those that differ from a version in nothing but the content of one large buffer.
    fn restorable(
        &self,
        py: Python<'_>,
        number: u64,
        names: Vec<String>,
    ) -> PyResult<Vec<(String, StoredRegion)>> {
        let mut prepared = self.prepared().take().ok_or_else(over)?;
        let (prepared, found) = py.detach(move || {
            let found = prepared.restorable(TimeId(number), &names);
            (prepared, found)
        });
        *self.prepared() = Some(prepared);
        let found = found.map_err(raise)?;
        Ok(found.into_iter().map(|(name, region)| (name, StoredRegion(region))).collect())
    }

    /// Makes the version visible; returns its number, figures, and the ref that it is the newest version of. `None` if a
    /// sweep took what it builds on: walk again.
    fn publish<'py>(&self, py: Python<'py>) -> PyResult<Option<(u64, Bound<'py, PyDict>, String)>> {
        let prepared = self.prepared().take().ok_or_else(over)?;
        let Some((saved, ref_name)) = self.finish(py, prepared)? else { return Ok(None) };
        *self.handle.get().losses() = self.losses.clone();
        let (walk, report) = (saved.report.walk, saved.report);
        let figures = PyDict::new(py);
        for (name, value) in [
            ("objects", walk.objects),
            ("pods_dirty", walk.pods_dirty),
            ("pods_clean", walk.pods_clean),
            ("pods_shadow", walk.pods_shadow),
            ("region_bytes", walk.region_bytes),
            ("unwritten_bytes", walk.unwritten_bytes),
            ("detection_nanos", walk.detection_nanos),
            ("shadow_bytes", walk.shadow_bytes),
            ("bytes_written", report.bytes_written),
        ] {
            figures.set_item(name, value)?;
        }
        Ok(Some((saved.time.0, figures, ref_name)))
    }

    /// Gives the save up; does nothing once it was published.
    fn discard(&self, py: Python<'_>) -> PyResult<()> {
        let prepared = self.prepared().take();
        if let Some(prepared) = prepared {
            let mut guard = self.handle.get().session()?;
            let session = guard.as_mut().ok_or_else(closed)?;
            prepared.discard(&mut session.source(self.namespace.bind(py)));
        }
        Ok(())
    }
}
