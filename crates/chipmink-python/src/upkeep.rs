//! What checks and repairs say, as dicts of which the Python package makes records.

use chipmink::{LostVersion, Problem, RepairReport, StoreStats, VerifyReport};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Version, object, reason.
type Damage = (Option<u64>, String, String);
/// Version, its variables, whether more may be lost.
type Lost = (u64, Vec<String>, bool);

fn damage(problem: &Problem) -> Damage {
    (problem.time.map(|time| time.0), problem.object.clone(), problem.reason.clone())
}

fn lost(lost: &LostVersion) -> Lost {
    (lost.time.0, lost.variables.clone(), lost.is_whole)
}

pub(crate) fn verify_report<'py>(py: Python<'py>, report: &VerifyReport) -> PyResult<Bound<'py, PyDict>> {
    let made = PyDict::new(py);
    made.set_item("versions", report.versions)?;
    made.set_item("blobs", report.blobs)?;
    made.set_item("packs", report.packs)?;
    made.set_item("bytes", report.bytes)?;
    made.set_item("damaged", report.problems.iter().map(damage).collect::<Vec<_>>())?;
    made.set_item("damaged_count", report.problem_count)?;
    made.set_item("lost", report.lost.iter().map(lost).collect::<Vec<_>>())?;
    made.set_item("lost_count", report.lost_count)?;
    made.set_item("void_entries", report.void_entries.iter().map(|time| time.0).collect::<Vec<_>>())?;
    made.set_item("orphan_packs", report.orphan_packs)?;
    Ok(made)
}

pub(crate) fn repair_report<'py>(py: Python<'py>, report: &RepairReport) -> PyResult<Bound<'py, PyDict>> {
    let made = PyDict::new(py);
    made.set_item("before", verify_report(py, &report.before)?)?;
    made.set_item("after", verify_report(py, &report.after)?)?;
    made.set_item("blobs_fetched", report.blobs_fetched)?;
    made.set_item("blobs_salvaged", report.blobs_salvaged)?;
    made.set_item("packs_replaced", report.packs_replaced)?;
    made.set_item("versions_fetched", report.versions_fetched)?;
    Ok(made)
}

pub(crate) fn stats<'py>(py: Python<'py>, stats: &StoreStats) -> PyResult<Bound<'py, PyDict>> {
    let made = PyDict::new(py);
    made.set_item("entries", stats.entries)?;
    made.set_item("versions", stats.versions)?;
    made.set_item("packs", stats.packs)?;
    made.set_item("pack_bytes", stats.pack_bytes)?;
    made.set_item("orphan_packs", stats.orphan_packs)?;
    made.set_item("orphan_bytes", stats.orphan_bytes)?;
    made.set_item("blobs", stats.blobs)?;
    made.set_item("stored_bytes", stats.stored_bytes)?;
    made.set_item("decoded_bytes", stats.decoded_bytes)?;
    made.set_item("deltas", stats.deltas)?;
    Ok(made)
}
