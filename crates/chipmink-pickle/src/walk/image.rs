//! What live definitions would be stored as: a walk whose bytes go nowhere, to compare them with stored ones.
//!
//! A definition (a class or function saved by value) is always the root of a pod of its own, below which nothing but other
//! definitions is split off. So equal definitions make equal pods, whatever else a save walks.

use super::dumps::NoSink;
use super::frames::Visit;
use super::ndarray::numpy_types;
use super::session::{NONE, PySession, SessionOptions};
use super::source::Walked;
use super::walker::Walker;
use crate::py::Obj;
use chipmink_types::{PodRecord, WalkError};
use hashbrown::HashMap;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::Arc;

/// A pod of live objects.
pub(crate) struct ImagePod {
    pub record: Arc<PodRecord>,
    /// Dependency slot to position in [`Image::pods`].
    pub dependencies: Vec<usize>,
    /// Export slot to the live object that it offers.
    pub exports: Vec<Option<Py<PyAny>>>,
}

/// The pods of live objects.
pub(crate) struct Image {
    pub pods: Vec<ImagePod>,
    /// By position of the walked object: the pod that offers it, if it can be saved.
    pub roots: Vec<Option<usize>>,
}

/// Walks `objects` as variables of `namespace`.
///
/// # Errors
/// When the program is interrupted.
pub(crate) fn image(
    py: Python<'_>,
    namespace: &Bound<'_, PyDict>,
    objects: &[Bound<'_, PyAny>],
) -> PyResult<Image> {
    let mut session = PySession::new(py, SessionOptions::for_one_walk())?;
    let dict = Obj::of(namespace.as_any());
    let context = session.context(py, Some(dict))?;
    let mut sink = NoSink;
    let mut walker = Walker::new(py, &mut session, &mut sink, Some(dict), context, false, numpy_types(py)?);
    let mut variables = Vec::with_capacity(objects.len());
    let mut walked = Vec::with_capacity(objects.len());
    for (i, object) in objects.iter().enumerate() {
        match walker.variable(i as u32, "", Obj::of(object)) {
            Ok(root) => walked.push(Some(root)),
            Err(error) => {
                drop(walker);
                return Err(failed(&mut session, &error));
            }
        }
        variables.push((String::new(), Obj::of(object)));
    }
    let roots: Vec<u32> = walked
        .iter()
        .map(|root| match root {
            Some(Walked::Pod(pod, _)) => *pod,
            _ => NONE,
        })
        .collect();
    // The walk owns what it met until it ends.
    let exports: HashMap<u32, Vec<Option<Py<PyAny>>>> =
        walker.visits.iter().map(|visit| (visit.pod, offered(&walker, visit))).collect();
    let outcome = walker.finish(&variables, walked);
    let outcome = outcome.map_err(|error| failed(&mut session, &error))?;
    session.discard();
    let mut records: Vec<_> = outcome.components.into_iter().flat_map(|component| component.pods).collect();
    // Numbers are given out in the order of discovery.
    records.sort_unstable_by_key(|pod| pod.key.0);
    let positions: HashMap<u64, usize> =
        records.iter().enumerate().map(|(at, pod)| (pod.key.0, at)).collect();
    let number = |key: u64| key as u32;
    let by_number: HashMap<u32, usize> = positions.iter().map(|(key, at)| (number(*key), *at)).collect();
    let mut exports = exports;
    let pods = records
        .into_iter()
        .map(|pod| ImagePod {
            dependencies: pod
                .record
                .dependencies
                .iter()
                .map(|key| positions.get(&key.0).copied().unwrap_or(usize::MAX))
                .collect(),
            exports: exports.remove(&number(pod.key.0)).unwrap_or_default(),
            record: pod.record,
        })
        .collect();
    Ok(Image { pods, roots: roots.iter().map(|root| by_number.get(root).copied()).collect() })
}

/// The live objects that a pod offers, by export slot.
fn offered(walker: &Walker<'_, '_>, visit: &Visit) -> Vec<Option<Py<PyAny>>> {
    let own = |addr: usize| -> Option<Py<PyAny>> {
        (addr != 0).then(|| {
            // SAFETY: the address of an object that this walk met; the walk owns it, or no code has run that could free it.
            let object = unsafe { Obj::from_ptr(addr as *mut pyo3::ffi::PyObject) };
            object.bound(walker.py).unbind()
        })
    };
    let slots = walker.session.export_lists.of(visit.pod).map_or(&[][..], |list| &list.slots);
    let mut found: Vec<_> = slots.iter().map(|addr| own(*addr)).collect();
    if let Some(root) = visit.root_addrs.first() {
        if found.is_empty() {
            found.push(None);
        }
        found[0] = own(*root);
    }
    found
}

fn failed(session: &mut PySession, error: &WalkError) -> PyErr {
    session.take_exception().unwrap_or_else(|| PyRuntimeError::new_err(error.to_string()))
}
