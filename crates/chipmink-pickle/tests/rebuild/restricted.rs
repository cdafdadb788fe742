//! Loads that an allowlist restricts.

use crate::writer::Draft;
use crate::{load, written};
use chipmink_format::tag;
use chipmink_pickle::rebuild::{Allowlist, RebuildOptions};
use chipmink_types::{Export, GlobalName, LoadShape, ShapeClass};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// A pod of one global, and of what `write` does with its ordinal.
fn of_global(module: &str, qualname: &str, write: impl FnOnce(&mut Draft, u64)) -> Draft {
    let mut pod = Draft { exports: vec![Export::Root(0)], ..Draft::default() };
    let ordinal = pod.global(module, qualname);
    write(&mut pod, ordinal);
    pod
}

/// The error of a load that grants these names, if there is one.
fn refusal(pod: Draft, allow: &[&str]) -> Option<String> {
    Python::attach(|py| {
        let allow = Some(Allowlist::of_names(allow.iter().map(|&name| name.into())));
        let options = RebuildOptions { allow, ..RebuildOptions::default() };
        load(py, &written(&[pod]), &options).err().map(|error| error.to_string())
    })
}

fn module(code: &std::ffi::CStr) {
    Python::attach(|py| py.run(code, Some(&PyDict::new(py)), None).expect("it runs"));
}

#[test]
fn a_name_must_be_granted_before_its_module_is_imported() {
    let pod =
        || of_global("rebuild_never_imported", "anything", |pod, global| pod.tagged(tag::GLOBAL, &[global]));
    let error = refusal(pod(), &[]).expect("it is refused");
    assert!(error.contains("rebuild_never_imported.anything is not allowed"), "{error}");
    let error = refusal(pod(), &["rebuild_never_imported.anything"]).expect("there is no such module");
    assert!(error.contains("ModuleNotFoundError"), "{error}");
}

#[test]
fn the_object_found_must_be_granted_under_its_own_name() {
    module(
        cr#"
import os, sys
module = type(sys)("rebuild_alias"); module.harmless, module.os = os.system, os; sys.modules["rebuild_alias"] = module
"#,
    );
    let pod = |name: &str| of_global("rebuild_alias", name, |pod, global| pod.tagged(tag::GLOBAL, &[global]));
    let error = refusal(pod("harmless"), &["rebuild_alias.harmless"]).expect("it is os.system");
    assert!(error.contains("system is not allowed"), "{error}");
    let error = refusal(pod("os"), &["rebuild_alias.os"]).expect("it is a module");
    assert!(
        error.starts_with("PermissionError: os is not allowed") || error.contains("os is not allowed"),
        "{error}"
    );
    let error = refusal(pod("os.system"), &["rebuild_alias.os"]).expect("a walk must be granted as a whole");
    assert!(error.contains("rebuild_alias.os.system is not allowed"), "{error}");
    let set = of_global("builtins", "set", |pod, global| pod.tagged(tag::GLOBAL, &[global]));
    assert_eq!(refusal(set, &["builtins.set"]), None);
}

#[test]
fn only_what_was_granted_by_name_is_called() {
    module(
        cr#"
import sys
class Callable:
    def __call__(self): raise SystemExit("called")
class Caller:
    made = Callable()
module = type(sys)("rebuild_call"); module.Caller, module.Callable = Caller, Callable
Callable.__module__ = Caller.__module__ = "rebuild_call"; sys.modules["rebuild_call"] = module
"#,
    );
    // REDUCE of an instance: the class is granted, calling its instances is not.
    let call = || {
        of_global("rebuild_call", "Callable", |pod, global| {
            pod.shapes =
                vec![LoadShape { class: ShapeClass::Global(0), dict_names: vec![], slot_names: vec![] }];
            pod.bytes.extend([tag::REDUCE, 0]);
            assert_eq!(global, 0);
            pod.tagged(tag::INSTANCE, &[0]);
            pod.bytes.push(tag::EMPTY_TUPLE);
        })
    };
    let error = refusal(call(), &["rebuild_call.Callable"]).expect("it is refused");
    assert!(error.contains("calling an object of type"), "{error}");
    let error =
        refusal(call(), &["rebuild_call.Callable", "chipmink._rebuild.make_class"]).expect("it is called");
    assert!(error.contains("SystemExit"), "{error}");
}

#[test]
fn restoring_state_by_code_of_the_class_needs_a_grant_of_its_own() {
    module(
        cr#"
import sys
class Stateful:
    def __setstate__(self, state): self.state = state
class Guarded:
    def set(self, value): raise SystemExit("called")
    watched = property(None, set)
for cls in (Stateful, Guarded): cls.__module__ = "rebuild_state"
module = type(sys)("rebuild_state"); module.Stateful, module.Guarded = Stateful, Guarded
sys.modules["rebuild_state"] = module
"#,
    );
    let pod = |class: &str, pair: bool| {
        of_global("rebuild_state", class, |pod, global| {
            pod.bytes.extend([tag::REDUCE, tag::REDUCE_NEWOBJ | tag::REDUCE_STATE]);
            pod.tagged(tag::GLOBAL, &[global]);
            pod.bytes.push(tag::EMPTY_TUPLE);
            if pair {
                pod.tagged(tag::TUPLE, &[2]);
                pod.bytes.push(tag::NONE);
            }
            pod.tagged(tag::DICT, &[1]);
            pod.text("watched");
            pod.bytes.push(tag::NONE);
        })
    };
    let error = refusal(pod("Stateful", false), &["rebuild_state.Stateful"]).expect("it is refused");
    assert!(error.contains("rebuild_state.Stateful.__setstate__ is not allowed"), "{error}");
    let granted = ["rebuild_state.Stateful", "rebuild_state.Stateful.__setstate__"];
    assert_eq!(refusal(pod("Stateful", false), &granted), None);
    assert_eq!(refusal(pod("Guarded", false), &["rebuild_state.Guarded"]), None);
    let error = refusal(pod("Guarded", true), &["rebuild_state.Guarded"]).expect("a property is code");
    assert!(error.contains("rebuild_state.Guarded.__setstate__ is not allowed"), "{error}");

    let slots = of_global("rebuild_state", "Guarded", |pod, _| {
        let slot_names = vec!["watched".into()];
        pod.shapes = vec![LoadShape { class: ShapeClass::Global(0), dict_names: vec![], slot_names }];
        pod.tagged(tag::INSTANCE, &[0]);
        pod.bytes.push(tag::NONE);
    });
    let error = refusal(slots, &["rebuild_state.Guarded"]).expect("a property is code");
    assert!(error.contains("rebuild_state.Guarded.watched is not allowed"), "{error}");
}

#[test]
fn a_predicate_decides_by_module_and_qualname() {
    Python::attach(|py| {
        let predicate =
            py.eval(c"lambda module, name: module == 'builtins' and name != 'eval'", None, None).unwrap();
        for (name, is_allowed) in [("set", true), ("eval", false)] {
            let pod = of_global("builtins", name, |pod, global| pod.tagged(tag::GLOBAL, &[global]));
            let allow = Some(Allowlist::from_python(&predicate).unwrap());
            let loaded = load(py, &written(&[pod]), &RebuildOptions { allow, ..RebuildOptions::default() });
            assert_eq!(loaded.is_ok(), is_allowed, "{name}");
        }
        let names = py.eval(c"['builtins.set']", None, None).unwrap();
        assert!(Allowlist::from_python(&names).is_ok());
        assert!(Allowlist::from_python(&py.eval(c"[1]", None, None).unwrap()).is_err());
        let name = GlobalName { module: "builtins".into(), qualname: "set".into() };
        let variables = vec![chipmink_types::LoadVariable {
            name: "x".into(),
            root: chipmink_types::LoadRoot::Named(name),
        }];
        let options = RebuildOptions { allow: Some(Allowlist::of_names([])), ..RebuildOptions::default() };
        assert!(load(py, &crate::writer::Written::of(&[], variables), &options).is_err());
    });
}
