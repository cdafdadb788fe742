//! Each tag by hand: what it makes, which memo number it takes, and how pods refer to one another.

use crate::writer::{Draft, Written};
use crate::{check, load, load_draft, load_drafts, written};
use bytes::Bytes;
use chipmink_format::tag;
use chipmink_pickle::rebuild::RebuildOptions;
use chipmink_types::{Export, GlobalName, LoadRoot, LoadShape, LoadVariable, ShapeClass, SkippedVariable};
use pyo3::prelude::*;
use pyo3::types::PyDict;

fn draft(exports: &[Export]) -> Draft {
    Draft { exports: exports.to_vec(), ..Draft::default() }
}

fn root() -> Draft {
    draft(&[Export::Root(0)])
}

#[test]
fn a_list_nested_a_million_deep_loads_and_goes() {
    Python::attach(|py| {
        const DEPTH: usize = 1_000_000;
        let mut pod = root();
        (0..DEPTH).for_each(|_| pod.tagged(tag::LIST, &[1]));
        pod.tagged(tag::LIST, &[0]);
        let mut x = load_draft(py, pod).unwrap();
        let mut depth = 0;
        while x.len().unwrap() == 1 {
            x = x.get_item(0).unwrap();
            depth += 1;
        }
        assert_eq!(depth, DEPTH);
    });
}

#[test]
fn a_chain_of_a_hundred_thousand_pods_runs_without_recursion() {
    Python::attach(|py| {
        const LEN: usize = 100_000;
        let drafts = (0..LEN).map(|position| {
            let mut pod = root();
            pod.tagged(tag::LIST, &[1]);
            if position + 1 < LEN {
                pod.dependencies = vec![position + 1];
                pod.tagged(tag::POD, &[0]);
            } else {
                pod.bytes.push(tag::NONE);
            }
            pod
        });
        let drafts: Vec<Draft> = drafts.collect();
        check(py, &load_drafts(py, &drafts).unwrap(), "len(x) == 1");
    });
}

#[test]
fn memo_numbers_count_what_the_format_says() {
    Python::attach(|py| {
        // 0: the list, 1: a str, 2: a tuple (after its items), 3: a dict inside it (before its content), ...
        let mut pod = root();
        pod.tagged(tag::LIST, &[8]);
        pod.text("zero is the list");
        pod.tagged(tag::TUPLE, &[3]);
        pod.bytes.extend([tag::INT8, 5]);
        pod.tagged(tag::DICT, &[0]);
        pod.tagged(tag::FROZENSET, &[1]);
        pod.bytes.push(tag::NONE);
        pod.tagged(tag::BYTEARRAY, &[2]);
        pod.bytes.extend(b"ab");
        for number in [1, 4, 2, 3, 5] {
            pod.referred.insert(number);
            pod.tagged(tag::REF, &[u64::from(number)]);
        }
        let x = load_draft(py, pod).unwrap();
        check(py, &x, "x[0] == 'zero is the list' and x[0] is x[3]");
        check(py, &x, "x[1] == (5, {}, frozenset({None})) and x[4] is x[1]");
        check(py, &x, "x[5] is x[1][1] and x[6] is x[1][2] and x[7] is x[2] == bytearray(b'ab')");
    });
}

#[test]
fn atoms_of_every_width_come_back() {
    Python::attach(|py| {
        let mut pod = root();
        pod.tagged(tag::TUPLE, &[9]);
        pod.tagged(tag::STR, &[300]);
        pod.bytes.extend([b'x'; 300]);
        for (width, text) in [(1, "é"), (1, "aé"), (2, "aж"), (4, "a😀")] {
            pod.bytes.extend([tag::STR_WIDE, width as u8, text.chars().count() as u8]);
            text.chars().for_each(|c| pod.bytes.extend_from_slice(&(c as u32).to_le_bytes()[..width]));
        }
        // A lone surrogate is a str in Python.
        pod.bytes.extend([tag::STR_WIDE, 2, 1, 0x00, 0xD8]);
        pod.tagged(tag::BYTES, &[300]);
        pod.bytes.extend([7; 300]);
        pod.bytes.extend([tag::ELLIPSIS, tag::NOT_IMPLEMENTED]);
        let x = load_draft(py, pod).unwrap();
        check(py, &x, "x[:6] == ('x' * 300, 'é', 'aé', 'aж', 'a😀', '\\ud800')");
        check(py, &x, "x[6:] == (b'\\x07' * 300, ..., NotImplemented) and x[1] is 'é'.encode().decode()");
    });
}

#[test]
fn a_str_that_does_not_fit_its_width_is_refused() {
    Python::attach(|py| {
        let wrong: [&[u8]; 7] = [
            &[tag::STR8, 1, 0x80],
            &[tag::STR, 1, 0xFF],
            &[tag::STR_WIDE, 1, 1, 0x41],
            &[tag::STR_WIDE, 2, 1, 0xE9, 0x00],
            &[tag::STR_WIDE, 4, 1, 0x41, 0x00, 0x00, 0x00],
            &[tag::STR_WIDE, 4, 1, 0x00, 0x00, 0x11, 0x00],
            &[tag::STR_WIDE, 3, 1, 0x41, 0x00, 0x00],
        ];
        for bytes in wrong {
            let pod = Draft { bytes: bytes.to_vec(), ..root() };
            let error = load_draft(py, pod).expect_err("it is damaged").to_string();
            assert!(error.contains("is damaged at byte"), "{error}");
        }
    });
}

#[test]
fn a_short_str_that_comes_often_becomes_one_object() {
    Python::attach(|py| {
        let mut pod = root();
        pod.tagged(tag::LIST, &[1000]);
        (0..1000).for_each(|_| pod.text("a short text"));
        check(py, &load_draft(py, pod).unwrap(), "len(set(map(id, x))) < 5");
    });
}

#[test]
fn many_short_strs_are_told_apart() {
    Python::attach(|py| {
        let mut pod = root();
        pod.tagged(tag::LIST, &[20_000]);
        for i in 0..20_000 {
            pod.text(&format!("{:0width$}", i % 10_000, width = 4 + i % 29));
        }
        check(py, &load_draft(py, pod).unwrap(), "x == [f'{i % 10000:0{4 + i % 29}}' for i in range(20000)]");
    });
}

#[test]
fn a_run_takes_neighbouring_exports_in_every_container() {
    Python::attach(|py| {
        let mut many =
            draft(&[Export::Root(0), Export::Root(1), Export::Vacant, Export::Root(2), Export::Root(3)]);
        for letter in ["a", "b", "c", "d"] {
            many.text(letter);
        }
        let mut pod = root();
        pod.dependencies = vec![1];
        pod.tagged(tag::TUPLE, &[4]);
        for tag in [tag::LIST, tag::TUPLE, tag::SET, tag::FROZENSET] {
            pod.tagged(tag, &[5]);
            pod.bytes.extend([tag::INT8, 1]);
            pod.tagged(tag::POD_RUN, &[0, 0, 2]);
            pod.tagged(tag::POD_RUN, &[0, 3, 2]);
        }
        let x = load_drafts(py, &[pod, many]).unwrap();
        check(py, &x, "x == ([1, *'abcd'], (1, *'abcd'), {1, *'abcd'}, frozenset([1, *'abcd']))");
    });
}

#[test]
fn a_run_never_crosses_the_end_of_its_container() {
    Python::attach(|py| {
        let many = || {
            let mut many = draft(&[Export::Root(0), Export::Root(1), Export::Vacant]);
            many.text("a");
            many.text("b");
            many
        };
        for (numbers, len) in [([0, 0, 2], 1), ([0, 0, 1], 5), ([0, 1, 2], 5), ([0, u64::MAX, 2], 5)] {
            let mut pod = root();
            pod.dependencies = vec![1];
            pod.tagged(tag::LIST, &[len]);
            pod.tagged(tag::POD_RUN, &numbers);
            (0..5).for_each(|_| pod.bytes.push(tag::NONE));
            assert!(load_drafts(py, &[pod, many()]).is_err(), "{numbers:?} in {len}");
        }
        let mut pod = root();
        pod.dependencies = vec![1];
        pod.tagged(tag::DICT, &[1]);
        pod.tagged(tag::POD_RUN, &[0, 0, 2]);
        assert!(load_drafts(py, &[pod, many()]).is_err(), "in a dict");
    });
}

#[test]
fn a_root_under_construction_can_be_referred_to_once_it_exists() {
    Python::attach(|py| {
        // Pod 0: [pod 1]; pod 1: (pod 0's root,), so x[0][0] is x.
        let mut list = root();
        list.dependencies = vec![1];
        list.tagged(tag::LIST, &[1]);
        list.tagged(tag::POD, &[0]);
        let mut tuple = root();
        tuple.dependencies = vec![0];
        tuple.tagged(tag::TUPLE, &[1]);
        tuple.tagged(tag::POD, &[0]);
        check(py, &load_drafts(py, &[list, tuple]).unwrap(), "x[0][0] is x");

        // A tuple does not exist until its items do.
        let mut outer = root();
        outer.dependencies = vec![1];
        outer.tagged(tag::TUPLE, &[1]);
        outer.tagged(tag::POD, &[0]);
        let mut inner = root();
        inner.dependencies = vec![0];
        inner.tagged(tag::LIST, &[1]);
        inner.tagged(tag::POD, &[0]);
        let error = load_drafts(py, &[outer, inner]).expect_err("it is impossible").to_string();
        assert!(error.contains("before the object exists"), "{error}");
    });
}

#[test]
fn references_to_nothing_are_errors() {
    Python::attach(|py| {
        let cases: [(u8, &[u64], &str); 9] = [
            (tag::REF, &[0], "memo number 0"),
            (tag::REF, &[u64::MAX], "memo number"),
            (tag::POD, &[7], "dependency 7"),
            (tag::POD_EXPORT, &[0, 1], "export 1"),
            (tag::POD_EXPORT, &[0, u64::MAX], "export"),
            (tag::GLOBAL, &[0], "global 0"),
            (tag::INSTANCE, &[3], "shape 3"),
            (tag::REGION, &[0, 0, 0], "region 0"),
            (tag::SIDE, &[0], "side record"),
        ];
        for (tag, numbers, expected) in cases {
            let mut pod = root();
            pod.dependencies = vec![1];
            pod.tagged(tag, numbers);
            let mut other = root();
            other.bytes.push(tag::NONE);
            let error = load_drafts(py, &[pod, other]).expect_err("it refers to nothing").to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("pod 01"), "it names the pod: {error}");
        }
    });
}

#[test]
fn announced_counts_are_no_reason_to_allocate() {
    Python::attach(|py| {
        // Every list announces as many items as bytes are left: reserving for each would take 800 GB.
        let mut pod = root();
        for left in (0..100_000u64).rev() {
            pod.tagged(tag::LIST, &[left * 3 + 1]);
        }
        assert!(load_draft(py, pod).is_err());
        for tag in
            [tag::LIST, tag::TUPLE, tag::DICT, tag::SET, tag::FROZENSET, tag::BYTES, tag::STR, tag::BYTEARRAY]
        {
            let mut pod = root();
            pod.tagged(tag, &[u64::MAX >> 2]);
            assert!(load_draft(py, pod).is_err(), "{tag:#x}");
        }
    });
}

#[test]
fn instances_are_made_without_code_of_their_class() {
    Python::attach(|py| {
        let code = cr#"
class Careful:
    __slots__ = ("a", "__dict__")
    b = property(lambda self: self.__dict__["b"] + 1)
    def __new__(cls): raise RuntimeError("not to be called")
    def __init__(self): raise RuntimeError("not to be called")
    def __setattr__(self, name, value): raise RuntimeError("not to be called")
    def __setstate__(self, state): raise RuntimeError("not to be called")
import sys
module = type(sys)("rebuild_careful"); module.Careful = Careful; sys.modules["rebuild_careful"] = module
"#;
        py.run(code, Some(&PyDict::new(py)), None).unwrap();
        let shape = |dict_names: &[&str]| LoadShape {
            class: ShapeClass::Global(0),
            dict_names: dict_names.iter().map(|&name| name.into()).collect(),
            slot_names: vec!["a".into()],
        };
        let mut pod = root();
        pod.globals = vec![GlobalName { module: "rebuild_careful".into(), qualname: "Careful".into() }];
        pod.shapes = vec![shape(&["b", "c"]), shape(&[])];
        pod.tagged(tag::LIST, &[2]);
        pod.tagged(tag::INSTANCE, &[0]);
        pod.bytes.extend([tag::INT8, 1, tag::INT8, 2, tag::INT8, 3]);
        pod.tagged(tag::INSTANCE_DICT, &[1]);
        pod.bytes.extend([tag::INT8, 4]);
        pod.tagged(tag::DICT, &[1]);
        pod.text("d");
        pod.referred.insert(1);
        pod.tagged(tag::REF, &[1]);
        let x = load_draft(py, pod).unwrap();
        check(py, &x, "x[0].b == 2 and x[0].c == 2 and x[0].a == 3 and x[1].a == 4");
        check(py, &x, "x[0].__dict__ == {'b': 1, 'c': 2} and x[1].__dict__ == {'d': x[0]}");
    });
}

#[test]
fn the_class_of_a_shape_must_be_one_whose_instances_object_new_can_make() {
    Python::attach(|py| {
        for (name, error) in [("int", "not safe"), ("print", "no class now"), ("BaseException", "not safe")] {
            let mut pod = root();
            pod.globals = vec![GlobalName { module: "builtins".into(), qualname: name.into() }];
            pod.shapes =
                vec![LoadShape { class: ShapeClass::Global(0), dict_names: vec![], slot_names: vec![] }];
            pod.tagged(tag::INSTANCE, &[0]);
            let found = load_draft(py, pod).expect_err("it cannot be made").to_string();
            assert!(found.contains(error), "{name}: {found}");
        }
    });
}

#[test]
fn a_reduced_object_goes_through_every_step_that_is_flagged() {
    Python::attach(|py| {
        let code = cr#"
class Six:
    def __init__(self, *args): self.args, self.log = args, []
    def append(self, item): self.log.append(item)
    def __setitem__(self, key, value): self.log.append((key, value))
    def __setstate__(self, state): self.log.append(("state", state))
def setter(six, state): six.log.append(("setter", state))
import sys
module = type(sys)("rebuild_six"); module.Six, module.setter = Six, setter; sys.modules["rebuild_six"] = module
"#;
        py.run(code, Some(&PyDict::new(py)), None).unwrap();
        let all = tag::REDUCE_LIST | tag::REDUCE_DICT | tag::REDUCE_STATE;
        let pod = |flags: u8| {
            let mut pod = root();
            let (six, setter) = (pod.global("rebuild_six", "Six"), pod.global("rebuild_six", "setter"));
            pod.bytes.extend([tag::REDUCE, flags]);
            pod.tagged(tag::GLOBAL, &[six]);
            pod.tagged(tag::TUPLE, &[1]);
            pod.bytes.push(tag::TRUE);
            pod.varint(2);
            pod.bytes.extend([tag::INT8, 1]);
            pod.referred.insert(1);
            pod.tagged(tag::REF, &[1]);
            pod.varint(1);
            pod.bytes.extend([tag::INT8, 2, tag::INT8, 3]);
            if flags & tag::REDUCE_SETTER != 0 {
                pod.tagged(tag::GLOBAL, &[setter]);
            }
            pod.tagged(tag::LIST, &[0]);
            pod
        };
        let x = load_draft(py, pod(all)).unwrap();
        check(py, &x, "x.args == (True,) and x.log == [1, x, (2, 3), ('state', [])]");
        let x = load_draft(py, pod(all | tag::REDUCE_SETTER)).unwrap();
        check(py, &x, "x.log == [1, x, (2, 3), ('setter', [])]");
    });
}

#[test]
fn new_with_keywords_and_default_state_are_as_in_pickle() {
    Python::attach(|py| {
        let code = cr#"
class New:
    __slots__ = ("slot", "__dict__")
    def __new__(cls, a, *, b): self = object.__new__(cls); self.made = (a, b); return self
import sys
module = type(sys)("rebuild_new"); module.New = New; sys.modules["rebuild_new"] = module
"#;
        py.run(code, Some(&PyDict::new(py)), None).unwrap();
        let mut pod = root();
        let class = pod.global("rebuild_new", "New");
        pod.bytes.extend([tag::REDUCE, tag::REDUCE_NEWOBJ_EX | tag::REDUCE_STATE]);
        pod.tagged(tag::GLOBAL, &[class]);
        pod.tagged(tag::TUPLE, &[2]);
        pod.tagged(tag::TUPLE, &[1]);
        pod.bytes.extend([tag::INT8, 1]);
        pod.tagged(tag::DICT, &[1]);
        pod.text("b");
        pod.bytes.extend([tag::INT8, 2]);
        pod.tagged(tag::TUPLE, &[2]);
        pod.tagged(tag::DICT, &[1]);
        pod.text("attribute");
        pod.bytes.extend([tag::INT8, 3]);
        pod.tagged(tag::DICT, &[1]);
        pod.text("slot");
        pod.bytes.extend([tag::INT8, 4]);
        let x = load_draft(py, pod).unwrap();
        check(py, &x, "(x.made, x.attribute, x.slot) == ((1, 2), 3, 4)");
        check(
            py,
            &x,
            "next(k for k in x.__dict__ if k == 'attribute') is __import__('sys').intern('attribute')",
        );
    });
}

#[test]
fn regions_come_back_as_what_they_were() {
    Python::attach(|py| {
        let mut pod = root();
        let content: [&[u8]; 8] = [
            b"writable",
            b"bytes",
            b"ascii",
            b"\xe9t\xe9",
            b"\x16\x04",
            b"\x00\xf6\x01\x00",
            b"\x00\x01",
            b"",
        ];
        pod.regions = content.iter().map(|bytes| bytes.to_vec()).collect();
        pod.tagged(tag::TUPLE, &[8]);
        for kind in 0..8 {
            pod.tagged(tag::REGION, &[kind % 7, kind, 0]);
        }
        let x = load_draft(py, pod).unwrap();
        check(py, &x, "x == (bytearray(b'writable'), b'bytes', 'ascii', 'été', 'Ж', '😀', 256, bytearray())");
        check(
            py,
            &x,
            "[type(v).__name__ for v in x] == ['bytearray', 'bytes', *['str'] * 4, 'int', 'bytearray']",
        );
    });
}

#[test]
fn side_values_are_read_beside_the_pod() {
    Python::attach(|py| {
        let mut pod = root();
        let mut side = Draft { bytes: vec![tag::POD_VERSION], ..Draft::default() };
        side.text("file.py");
        side.bytes.extend([tag::INT8, 7]);
        pod.side = Some(side.bytes);
        pod.tagged(tag::LIST, &[4]);
        pod.tagged(tag::SIDE, &[1]);
        pod.tagged(tag::SIDE, &[0]);
        pod.text("takes number one");
        pod.referred.insert(1);
        pod.tagged(tag::REF, &[1]);
        check(
            py,
            &load_draft(py, pod).unwrap(),
            "x == [7, 'file.py', 'takes number one', 'takes number one']",
        );
    });
}

#[test]
fn the_namespace_is_the_dict_that_was_given() {
    Python::attach(|py| {
        let mut pod = root();
        pod.tagged(tag::LIST, &[1]);
        pod.bytes.push(tag::NAMESPACE);
        let target = PyDict::new(py);
        let options =
            RebuildOptions { namespace: Some(target.clone().unbind()), ..RebuildOptions::default() };
        let loaded = load(py, &written(&[pod]), &options).unwrap();
        assert!(loaded.get_item("x").unwrap().unwrap().get_item(0).unwrap().is(&target));
    });
}

#[test]
fn variables_need_no_pod() {
    Python::attach(|py| {
        stand_in_for_placeholders(py);
        let name =
            |module: &str, qualname: &str| GlobalName { module: module.into(), qualname: qualname.into() };
        let skipped = SkippedVariable {
            path: ".x".into(),
            type_name: "socket.socket".into(),
            reason: "it is open".into(),
        };
        let roots = [
            LoadRoot::Inline(Bytes::from_static(&[tag::INT8, 5])),
            LoadRoot::Named(name("collections", "")),
            LoadRoot::Named(name("collections", "OrderedDict.fromkeys")),
            LoadRoot::Skipped(skipped),
        ];
        let variables = roots.into_iter().zip(["a", "b", "c", "d"]);
        let variables = variables.map(|(root, name)| LoadVariable { name: name.into(), root }).collect();
        let loaded = load(py, &Written::of(&[], variables), &RebuildOptions::default()).unwrap();
        check(py, &loaded, "x['a'] == 5 and x['b'] is collections and x['c']('k') == {'k': None}");
        check(py, &loaded, "x['d'].parts == ('variable', 'socket.socket', 'it is open', '.x')");
        for bytes in [&[][..], &[tag::NONE, tag::NONE], &[tag::LIST, 0], &[tag::INT64]] {
            let root = LoadRoot::Inline(Bytes::copy_from_slice(bytes));
            let variables = vec![LoadVariable { name: "x".into(), root }];
            assert!(load(py, &Written::of(&[], variables), &RebuildOptions::default()).is_err(), "{bytes:?}");
        }
    });
}

#[test]
fn a_stub_becomes_a_placeholder() {
    Python::attach(|py| {
        stand_in_for_placeholders(py);
        let mut pod = root();
        pod.tagged(tag::LIST, &[3]);
        pod.bytes.push(tag::STUB);
        pod.text("thread");
        pod.text("threading.Thread");
        pod.text("it cannot be saved");
        for _ in 0..2 {
            pod.referred.insert(1);
            pod.tagged(tag::REF, &[1]);
        }
        let x = load_draft(py, pod).unwrap();
        check(
            py,
            &x,
            "x[0].parts[:3] == ('thread', 'threading.Thread', 'it cannot be saved') \
             and x[0].parts[3].endswith('[0]') and x[2] is x[0]",
        );
    });
}

/// Puts a plain class where the loader looks for the package's own.
fn stand_in_for_placeholders(py: Python<'_>) {
    let code = cr#"
import sys
class Placeholder:
    def __init__(self, *parts): self.parts = parts
for name in ("chipmink", "chipmink._placeholder"):
    sys.modules.setdefault(name, type(sys)(name)).Placeholder = Placeholder
"#;
    py.run(code, Some(&PyDict::new(py)), None).unwrap();
}

#[test]
fn the_frame_of_a_pod_is_checked() {
    Python::attach(|py| {
        let mut pod = root();
        pod.bytes.push(tag::NONE);
        let sound = written(&[pod]);
        let cases: [(&[u8], &str); 7] = [
            (&[], "it is empty"),
            (&[2, 0, 0, 1, 0, 0, 0], "its version is 2"),
            (&[1, 0, 0], "too short"),
            (&[1, 0, 0, 9, 0, 0, 0], "trailer is longer"),
            (&[1, 0, 1, 1, 0, 0, 0], "ascending"),
            (&[1, 0, 2, 0, 0, 3, 0, 0, 0], "ascending"),
            (&[1, 0, 1, 0, 2, 0, 0, 0], "no value has"),
        ];
        for (bytes, expected) in cases {
            let mut wrong =
                Written { plan: sound.plan.clone(), pods: vec![bytes.to_vec()], regions: vec![vec![]] };
            wrong.plan.pods[0].byte_len = bytes.len() as u64;
            let error = load(py, &wrong, &RebuildOptions::default()).expect_err("it is damaged").to_string();
            assert!(error.contains(expected), "{error}");
        }
    });
}
