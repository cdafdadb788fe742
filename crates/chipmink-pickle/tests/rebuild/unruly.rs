//! Objects whose code, run in the middle of a load, gets at what is still being built.

use crate::writer::Draft;
use crate::{check, load_draft};
use chipmink_format::tag;
use chipmink_types::Export;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// A container of four items, of which the second calls `code` with the container (as `c`) and itself (as `self`).
fn with_meddler(container: u8, code: &str, check_expression: &str) {
    Python::attach(|py| {
        let source = format!(
            "
import gc, sys
class Meddler:
    def __init__(self): pass
    def __setstate__(self, c):
        self.seen = repr(c)
        {code}
Meddler.__module__ = 'rebuild_meddler'
module = type(sys)('rebuild_meddler'); module.Meddler = Meddler; sys.modules['rebuild_meddler'] = module
"
        );
        let source = std::ffi::CString::new(source).unwrap();
        py.run(&source, Some(&PyDict::new(py)), None).unwrap();
        let mut pod = Draft { exports: vec![Export::Root(0)], ..Draft::default() };
        let class = pod.global("rebuild_meddler", "Meddler");
        let is_dict = container == tag::DICT;
        pod.tagged(container, &[4]);
        for i in 0..4u8 {
            if is_dict {
                pod.bytes.extend([tag::INT8, i]);
            }
            if i != 1 {
                pod.bytes.extend([tag::INT8, i]);
                continue;
            }
            pod.bytes.extend([tag::REDUCE, tag::REDUCE_STATE]);
            pod.tagged(tag::GLOBAL, &[class]);
            pod.bytes.push(tag::EMPTY_TUPLE);
            pod.referred.insert(0);
            pod.tagged(tag::REF, &[0]);
        }
        check(py, &load_draft(py, pod).unwrap(), check_expression);
    });
}

// These share the name of a module, so they are one test.
#[test]
fn containers_may_be_changed_while_they_are_filled() {
    with_meddler(tag::LIST, "pass", "x[1].seen == '[0]' and len(x) == 4");
    with_meddler(tag::LIST, "c.clear()", "x[1:] == [2, 3] and x[0].seen == '[0]'");
    with_meddler(tag::LIST, "c.extend(range(1000))", "len(x) == 1004 and x[-2:] == [2, 3]");
    with_meddler(tag::LIST, "c.append(self); del c[0]; c.sort(key=id)", "len(x) == 4 and x[0] is x[1]");
    with_meddler(tag::LIST, "c[:] = c * 50; gc.collect()", "len(x) == 53");
    with_meddler(tag::DICT, "c.clear()", "list(x) == [1, 2, 3]");
    with_meddler(tag::DICT, "c.update(zip(range(100, 1100), range(1000)))", "len(x) == 1004 and x[2] == 2");
    with_meddler(tag::SET, "c.clear()", "len(x) == 3 and 0 not in x");
    with_meddler(tag::SET, "c.update(range(5000))", "len(x) == 5001");
}

#[test]
fn a_load_within_a_load() {
    Python::attach(|py| {
        let code = cr#"
import sys
class Nested:
    def __setstate__(self, state): state.append(self.load())
module = type(sys)("rebuild_nested"); module.Nested = Nested; Nested.__module__ = "rebuild_nested"
sys.modules["rebuild_nested"] = module
"#;
        py.run(code, Some(&PyDict::new(py)), None).unwrap();
        let load = pyo3::types::PyCFunction::new_closure(py, None, None, |args, _| {
            let py = args.py();
            let mut pod = Draft { exports: vec![Export::Root(0)], ..Draft::default() };
            pod.tagged(tag::LIST, &[1]);
            pod.bytes.push(tag::TRUE);
            load_draft(py, pod).map(Bound::unbind)
        })
        .unwrap();
        let nested = py.import("rebuild_nested").unwrap().getattr("Nested").unwrap();
        let wrap = py.eval(c"lambda f: staticmethod(lambda: f())", None, None).unwrap();
        nested.setattr("load", wrap.call1((load,)).unwrap()).unwrap();
        let mut pod = Draft { exports: vec![Export::Root(0)], ..Draft::default() };
        let class = pod.global("rebuild_nested", "Nested");
        pod.tagged(tag::LIST, &[2]);
        pod.bytes.extend([tag::REDUCE, tag::REDUCE_NEWOBJ | tag::REDUCE_STATE]);
        pod.tagged(tag::GLOBAL, &[class]);
        pod.bytes.push(tag::EMPTY_TUPLE);
        pod.referred.insert(0);
        pod.tagged(tag::REF, &[0]);
        pod.bytes.push(tag::NONE);
        check(py, &load_draft(py, pod).unwrap(), "x[0] == [True] and x[2] is None and len(x) == 3");
    });
}
