//! Push and pull, as methods of a handle.

use crate::errors::raise;
use crate::handle::Handle;
use crate::upkeep::repair_report;
use chipmink::{
    OpenOptions, Place, RefSpec, Repository, Since, TransferOptions, TransferProgress, TransferReport,
};
use chipmink_types::TimeId;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::collections::HashMap;

/// The repository at the other end.
#[derive(FromPyObject)]
pub(crate) enum Other<'py> {
    Open(Bound<'py, Handle>),
    Place(String),
}

/// What a transfer is asked for: refs, first version, microseconds of the first, names, mirror, limit, verify.
type Asked = (Vec<String>, Option<u64>, Option<i64>, Option<Vec<String>>, bool, Option<u64>, bool);

fn options(asked: Asked) -> PyResult<TransferOptions> {
    let (refs, first, saved_at, names, mirror, limit, verify) = asked;
    let refs = refs.iter().map(|text| RefSpec::parse(text)).collect::<Result<_, _>>();
    Ok(TransferOptions {
        refs: refs.map_err(|error| raise(error.into()))?,
        since: first.map(|first| Since::Version(TimeId(first))).or(saved_at.map(Since::SavedAt)),
        names,
        mirror,
        limit,
        verify,
        ..TransferOptions::default()
    })
}

fn report<'py>(py: Python<'py>, report: &TransferReport) -> PyResult<Bound<'py, PyDict>> {
    let made = PyDict::new(py);
    made.set_item("versions", report.versions)?;
    made.set_item("swept", report.swept)?;
    made.set_item("refs", &report.refs)?;
    made.set_item("ahead", &report.ahead)?;
    made.set_item("blobs", report.blobs)?;
    made.set_item("bytes", report.bytes)?;
    made.set_item("packs", report.packs)?;
    made.set_item("packs_resumed", report.packs_resumed)?;
    made.set_item("bytes_resumed", report.bytes_resumed)?;
    made.set_item("seconds", report.seconds)?;
    Ok(made)
}

/// What is at the other end: a repository that is open, or a place.
fn end(other: &Other<'_>, storage: &HashMap<String, String>) -> PyResult<Result<Repository, Place>> {
    let storage = storage.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    match other {
        Other::Open(handle) => Ok(Ok(handle.get().repository().clone())),
        Other::Place(place) => {
            let place = Place::parse(place).and_then(|place| place.with_options(storage));
            Ok(Err(place.map_err(|error| raise(error.into()))?))
        }
    }
}

/// A repository that is there.
fn open_there(end: Result<Repository, Place>) -> chipmink::Result<Repository> {
    end.or_else(|place| {
        Repository::open_place(place, OpenOptions { create: false, ..OpenOptions::default() })
    })
}

/// Replaces what is damaged.
pub(crate) fn repair<'py>(
    this: &Bound<'py, Handle>,
    mirror: Option<&Other<'py>>,
    storage: &HashMap<String, String>,
) -> PyResult<Bound<'py, PyDict>> {
    let py = this.py();
    let own = this.get().repository().clone();
    let mirror = mirror.map(|mirror| end(mirror, storage)).transpose()?;
    let mut exception: Option<PyErr> = None;
    let result = py.detach(|| {
        let mirror = mirror.map(open_there).transpose()?;
        let mut watch = |_: &TransferProgress| match Python::attach(|py| py.check_signals()) {
            Ok(()) => true,
            Err(error) => {
                exception = Some(error);
                false
            }
        };
        own.repair(mirror.as_ref(), &mut watch)
    });
    match (exception, result) {
        (Some(exception), _) => Err(exception),
        (None, Ok(done)) => repair_report(py, &done),
        (None, Err(error)) => Err(raise(error)),
    }
}

/// Runs a transfer. `progress` is called with the phase, what is done, and of how much.
pub(crate) fn transfer<'py>(
    this: &Bound<'py, Handle>,
    other: &Other<'py>,
    is_push: bool,
    asked: Asked,
    storage: &HashMap<String, String>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let py = this.py();
    let options = options(asked)?;
    let own = this.get().repository().clone();
    let other = end(other, storage)?;
    let mut exception: Option<PyErr> = None;
    let result = py.detach(|| {
        let mut watch = |now: &TransferProgress| {
            Python::attach(|py| {
                let told = py.check_signals().and_then(|()| match &progress {
                    Some(progress) => progress.call1(py, (now.phase.name(), now.done, now.total)).map(drop),
                    None => Ok(()),
                });
                match told {
                    Ok(()) => true,
                    Err(error) => {
                        exception = Some(error);
                        false
                    }
                }
            })
        };
        match (other, is_push) {
            (Ok(other), true) => own.push(&other, &options, &mut watch),
            (Err(place), true) => own.push_to(place, OpenOptions::default(), &options, &mut watch),
            (place, false) => open_there(place)?.push(&own, &options, &mut watch),
        }
    });
    match (exception, result) {
        (Some(exception), _) => Err(exception),
        (None, Ok(done)) => report(py, &done),
        (None, Err(error)) => Err(raise(error)),
    }
}
