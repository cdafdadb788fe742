//! Rebuilding objects from pods that a plain writer made, and from pods made by hand, sound and not.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod arrays;
mod deferred;
mod hostile;
mod random_graphs;
mod restricted;
mod tags;
mod unruly;
mod writer;

use chipmink_pickle::rebuild::{RebuildOptions, rebuild};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyModule};
use writer::{Draft, Written};

/// The Python half of these tests, importable as `rebuild_graphs`.
pub(crate) fn graphs<'py>(py: Python<'py>) -> Bound<'py, PyModule> {
    // Not a plain `OnceLock`: compiling the module may let another test run, which would wait for it and the interpreter.
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_init(py, || {
        let code = std::ffi::CString::new(include_str!("graphs.py")).expect("no null bytes");
        let module = PyModule::from_code(py, &code, c"graphs.py", c"rebuild_graphs").expect("it compiles");
        let modules = py.import("sys").and_then(|sys| sys.getattr("modules")).expect("sys.modules");
        modules.set_item("rebuild_graphs", &module).expect("a dict");
        module.unbind()
    });
    module.bind(py).clone()
}

/// Loads a plan as a dict of its variables.
pub(crate) fn load<'py>(
    py: Python<'py>,
    written: &Written,
    options: &RebuildOptions,
) -> PyResult<Bound<'py, PyDict>> {
    let mut source = written;
    let variables = rebuild(py, &written.plan, &mut source, options)?;
    let loaded = PyDict::new(py);
    for (name, object) in variables {
        loaded.set_item(name, object)?;
    }
    Ok(loaded)
}

/// Loads the first root of one pod made by hand.
pub(crate) fn load_draft<'py>(py: Python<'py>, draft: Draft) -> PyResult<Bound<'py, PyAny>> {
    load_drafts(py, &[draft])
}

/// Loads the first export of the first of several pods made by hand.
pub(crate) fn load_drafts<'py>(py: Python<'py>, drafts: &[Draft]) -> PyResult<Bound<'py, PyAny>> {
    let loaded = load(py, &written(drafts), &RebuildOptions::default())?;
    Ok(loaded.get_item("x")?.expect("the one variable"))
}

/// A plan with one variable: the first export of the first pod.
pub(crate) fn written(drafts: &[Draft]) -> Written {
    use chipmink_types::{LoadRoot, LoadVariable};
    Written::of(drafts, vec![LoadVariable { name: "x".into(), root: LoadRoot::Pod(0, 0) }])
}

/// Evaluates a Python expression with `x` and the test module's names.
pub(crate) fn check(py: Python<'_>, x: &Bound<'_, PyAny>, expression: &str) {
    let names = graphs(py).dict().copy().expect("a copy");
    names.set_item("x", x).expect("a dict");
    let code = std::ffi::CString::new(expression).expect("no null bytes");
    let holds = py.eval(&code, Some(&names), None).and_then(|value| value.is_truthy());
    assert!(holds.as_ref().is_ok_and(|&holds| holds), "{expression} does not hold for {x:?}: {holds:?}");
}
