//! Damaged bytes: an error or some object, never a crash, a panic or a leak.

use crate::writer::{Writer, Written};
use crate::{graphs, load};
use chipmink_format::{StreamParts, StreamPod, StreamRegion, encode_stream};
use chipmink_pickle::rebuild::{RebuildOptions, loads};
use chipmink_types::{Export, ShapeRecord};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::borrow::Cow;

/// Loads bytes that may be anything. A panic would fail the test; so would a process that dies.
fn try_load(py: Python<'_>, written: &Written) -> bool {
    match load(py, written, &RebuildOptions::default()) {
        Ok(_) => true,
        Err(error) => {
            assert!(!error.is_instance_of::<pyo3::panic::PanicException>(py), "{error}");
            assert!(!error.to_string().contains("lost track"), "{error}");
            false
        }
    }
}

fn sample(py: Python<'_>, seed: u64) -> Written {
    let namespace =
        graphs(py).getattr("build").unwrap().call1((seed, 12)).unwrap().cast_into::<PyDict>().unwrap();
    Writer::new(py, seed, [0, 300, 800][seed as usize % 3]).namespace(&namespace)
}

#[test]
fn every_flipped_bit_and_every_truncation_is_survived() {
    Python::attach(|py| {
        let (mut refused, mut loaded) = (0, 0);
        for seed in 0..6 {
            let mut written = sample(py, seed);
            for pod in 0..written.pods.len() {
                let sound = written.pods[pod].clone();
                for at in 0..sound.len() {
                    for bit in 0..8 {
                        written.pods[pod][at] = sound[at] ^ 1 << bit;
                        *(if try_load(py, &written) { &mut loaded } else { &mut refused }) += 1;
                    }
                    written.pods[pod] = sound[..at].to_vec();
                    written.plan.pods[pod].byte_len = at as u64;
                    assert!(!try_load(py, &written), "seed {seed}, pod {pod} cut at {at}");
                    written.pods[pod] = sound.clone();
                    written.plan.pods[pod].byte_len = sound.len() as u64;
                }
            }
            assert!(try_load(py, &written));
        }
        assert!(refused > 1000 && loaded > 100, "{refused} refused, {loaded} loaded");
    });
}

#[test]
fn plans_that_contradict_themselves_are_survived() {
    Python::attach(|py| {
        for seed in 0..30 {
            let mut written = sample(py, seed);
            for pod in 0..written.plan.pods.len() {
                let sound = written.plan.pods[pod].clone();
                let count = sound.exports.len();
                for export in 0..count {
                    for wrong in
                        [Export::Vacant, Export::Root(9), Export::Memo(999_999), Export::Memo(u32::MAX)]
                    {
                        written.plan.pods[pod].exports[export] = wrong;
                        try_load(py, &written);
                    }
                    written.plan.pods[pod] = sound.clone();
                }
                for dependency in 0..sound.dependencies.len() {
                    for wrong in [0, pod, usize::MAX] {
                        written.plan.pods[pod].dependencies[dependency] = wrong;
                        try_load(py, &written);
                    }
                    written.plan.pods[pod] = sound.clone();
                }
                written.plan.pods[pod].globals.clear();
                try_load(py, &written);
                written.plan.pods[pod] = sound.clone();
                written.plan.pods[pod].shapes.clear();
                try_load(py, &written);
                written.plan.pods[pod] = sound;
            }
            assert!(try_load(py, &written));
        }
    });
}

#[test]
fn failed_loads_leave_nothing_behind() {
    Python::attach(|py| {
        // Other tests run beside this one, so that only objects of a class of its own can be counted.
        let code = cr#"
from rebuild_graphs import *
import gc, rebuild_graphs
class Probe(Plain):
    __module__ = "rebuild_graphs"
rebuild_graphs.Probe = Probe
def probe(): x = Probe(); x.self = x; return x
class Args(ByArguments):
    __module__ = "rebuild_graphs"
    def __reduce__(self): return Args, self.arguments
rebuild_graphs.Args = Args
x = [probe(), (probe(), [probe()]), {1: probe(), "k": {probe()}}, {probe(), probe()}, frozenset([probe(), probe()]),
     Bag([probe(), probe()]), Table(k=probe()), Args(probe(), (probe(), probe())), collections.OrderedDict(a=probe()),
     collections.deque([probe()])]
x[2]["key"] = Keyed(5); x[2]["key"].to = {x[2]["key"]: probe(), 1: probe()}
def count(): gc.collect(); return sum(type(o) is Probe for o in gc.get_objects())
"#;
        graphs(py);
        let names = PyDict::new(py);
        py.run(code, Some(&names), None).unwrap();
        let namespace = PyDict::new(py);
        namespace.set_item("x", names.get_item("x").unwrap().unwrap()).unwrap();
        let count = || names.get_item("count").unwrap().unwrap().call0().unwrap().extract::<usize>().unwrap();
        let before = count();
        let mut failures = 0;
        for (seed, split) in [(1, 0), (2, 400)] {
            let mut written = Writer::new(py, seed, split).namespace(&namespace);
            for pod in 0..written.pods.len() {
                for at in 0..written.pods[pod].len() {
                    let sound = std::mem::replace(&mut written.pods[pod][at], 0xFF);
                    failures += usize::from(!try_load(py, &written));
                    written.pods[pod][at] = sound;
                }
            }
            assert!(try_load(py, &written));
        }
        assert!(failures > 100, "{failures}");
        assert_eq!(count(), before);
    });
}

/// The stream of a plan whose first variable is the object.
fn stream(written: &Written) -> Vec<u8> {
    let chipmink_types::LoadRoot::Pod(root, slot) = written.plan.variables[0].root else {
        panic!("it is a pod")
    };
    let pods =
        written.plan.pods.iter().zip(&written.pods).zip(&written.regions).map(|((pod, bytes), regions)| {
            StreamPod {
                bytes: Cow::Borrowed(bytes),
                exports: pod.exports.clone(),
                dependencies: pod.dependencies.iter().map(|&position| position as u32).collect(),
                globals: pod.globals.clone(),
                shapes: pod
                    .shapes
                    .iter()
                    .map(|shape| ShapeRecord {
                        class: shape.class,
                        dict_names: shape.dict_names.clone(),
                        slot_names: shape.slot_names.clone(),
                    })
                    .collect(),
                side: None,
                regions: regions
                    .iter()
                    .zip(&pod.regions)
                    .map(|(content, record)| StreamRegion {
                        content: Some(Cow::Borrowed(&content[..])),
                        byte_len: record.byte_len,
                        views: record.views.clone(),
                    })
                    .collect(),
            }
        });
    encode_stream(&StreamParts {
        pods: pods.collect(),
        root: (root as u32, slot),
        extensions: Default::default(),
    })
}

#[test]
fn streams_come_back_and_damaged_ones_are_survived() {
    Python::attach(|py| {
        let canon = graphs(py).getattr("canon").unwrap();
        for seed in 0..3 {
            let written = sample(py, seed);
            let sound = stream(&written);
            let loaded = loads(py, &sound, None, None).unwrap();
            let expected =
                load(py, &written, &RebuildOptions::default()).unwrap().values().get_item(0).unwrap();
            let pair = (canon.call1(((expected,),)).unwrap(), canon.call1(((loaded,),)).unwrap());
            assert!(pair.0.eq(pair.1).unwrap());
            let mut damaged = sound.clone();
            for at in 0..sound.len() {
                for bit in 0..8 {
                    damaged[at] = sound[at] ^ 1 << bit;
                    if let Err(error) = loads(py, &damaged, None, None) {
                        assert!(!error.is_instance_of::<pyo3::panic::PanicException>(py), "{error}");
                    }
                }
                damaged[at] = sound[at];
                assert!(loads(py, &sound[..at], None, None).is_err());
            }
        }
    });
}

#[test]
fn a_pickle_is_told_apart() {
    Python::attach(|py| {
        let error = loads(py, b"\x80\x05N.", None, None).expect_err("it is a pickle").to_string();
        assert!(error.contains("pickle.loads"), "{error}");
    });
}
