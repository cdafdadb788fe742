//! numpy arrays, filled in place. Without numpy these tests say so and do nothing.

use crate::writer::Draft;
use crate::{check, load, load_draft, written};
use chipmink_format::tag;
use chipmink_pickle::rebuild::RebuildOptions;
use chipmink_types::{Export, ViewRecord};
use pyo3::prelude::*;

/// Runs `test` if numpy can be imported: from where the interpreter looks, or from the virtual environment that
/// `PYO3_PYTHON` belongs to.
fn with_numpy(test: impl FnOnce(Python<'_>)) {
    Python::attach(|py| {
        if py.import("numpy").is_err()
            && let Ok(python) = std::env::var("PYO3_PYTHON")
        {
            let code = "import sysconfig; print(sysconfig.get_path('platlib'))";
            let output =
                std::process::Command::new(python).args(["-c", code]).output().expect("it is a Python");
            let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            let paths = py.import("sys").and_then(|sys| sys.getattr("path")).expect("sys.path");
            paths.call_method1("append", (path,)).expect("a list");
        }
        match py.import("numpy") {
            Ok(_) => test(py),
            Err(error) => eprintln!("skipped: numpy cannot be imported ({error})"),
        }
    });
}

fn array(dtype: &str, order: u8, writable: u8, shape: &[u64]) -> Draft {
    let mut pod = Draft { exports: vec![Export::Root(0)], ..Draft::default() };
    pod.bytes.push(tag::NDARRAY);
    pod.text(dtype);
    pod.bytes.extend([order, writable, shape.len() as u8]);
    shape.iter().for_each(|&dimension| pod.varint(dimension));
    pod
}

fn inline(mut pod: Draft, content: &[u8]) -> Draft {
    pod.tagged(0, &[content.len() as u64]);
    pod.bytes.extend_from_slice(content);
    pod
}

#[test]
fn arrays_of_every_layout_come_back() {
    with_numpy(|py| {
        let x = load_draft(py, inline(array("<i2", b'C', 1, &[2, 3]), &[1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0]))
            .unwrap();
        check(py, &x, "x.tolist() == [[1, 2, 3], [4, 5, 6]] and x.flags.owndata and x.flags.writeable");
        let x = load_draft(py, inline(array("<i2", b'F', 0, &[2, 3]), &[1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0]))
            .unwrap();
        check(
            py,
            &x,
            "x.tolist() == [[1, 3, 5], [2, 4, 6]] and x.flags.f_contiguous and not x.flags.writeable",
        );
        let x = load_draft(py, inline(array("<M8[D]", b'C', 1, &[]), &[1, 0, 0, 0, 0, 0, 0, 0])).unwrap();
        check(py, &x, "x.shape == () and str(x) == '1970-01-02' and type(x).__name__ == 'ndarray'");
        let x = load_draft(py, inline(array("S4", b'C', 1, &[0, 7]), b"")).unwrap();
        check(py, &x, "x.shape == (0, 7) and x.dtype == 'S4'");
    });
}

#[test]
fn a_region_is_read_into_the_array_and_views_share_it() {
    with_numpy(|py| {
        let region = |mut pod: Draft, content: &[u8]| {
            pod.regions.push(content.to_vec());
            pod.tagged(1, &[0, 0]);
            pod
        };
        let x = load_draft(py, region(array("u1", b'C', 1, &[4]), &[1, 2, 3, 4])).unwrap();
        check(py, &x, "x.tolist() == [1, 2, 3, 4] and x.flags.owndata");
        // Two views of one region: what is written through one is seen through the other.
        let mut pod =
            Draft { exports: vec![Export::Root(0)], regions: vec![vec![1, 2, 3, 4]], ..Draft::default() };
        pod.tagged(tag::TUPLE, &[2]);
        let first = region(array("u1", b'C', 1, &[4]), &[]);
        let mut second = array("<u2", b'C', 1, &[1]);
        second.tagged(1, &[0, 1]);
        pod.bytes.extend(first.bytes.iter().chain(&second.bytes));
        let mut plan = written(&[pod]);
        plan.plan.pods[0].regions[0].views =
            vec![ViewRecord { byte_offset: 0 }, ViewRecord { byte_offset: 2 }];
        let x = load(py, &plan, &RebuildOptions::default()).unwrap().get_item("x").unwrap().unwrap();
        check(py, &x, "x[1].tolist() == [0x0403] and (x[0].__setitem__(3, 0), x[1][0] == 3)[1]");
    });
}

#[test]
fn arrays_that_do_not_fit_their_bytes_are_refused() {
    with_numpy(|py| {
        let wrong = [
            inline(array("<i2", b'C', 1, &[3]), &[0; 5]),
            inline(array("<i2", b'C', 1, &[3]), &[0; 7]),
            inline(array("<i2", b'C', 1, &[u64::MAX, 2]), &[0; 4]),
            inline(array("<i2", b'C', 1, &[1 << 62]), &[0; 4]),
            inline(array("<i2", b'A', 1, &[1]), &[0; 2]),
            inline(array("<i2", b'C', 2, &[1]), &[0; 2]),
            // Bytes of the stream must not become pointers.
            inline(array("O", b'C', 1, &[1]), &[0x41; 8]),
            inline(array("i4,O", b'C', 1, &[1]), &[0x41; 12]),
        ];
        for pod in wrong {
            let bytes = pod.bytes.clone();
            assert!(load_draft(py, pod).is_err(), "{bytes:?}");
        }
        let mut pod = array("u1", b'C', 1, &[4]);
        pod.regions.push(vec![1, 2, 3]);
        pod.tagged(1, &[0, 0]);
        assert!(load_draft(py, pod).is_err(), "a region that is too short");
    });
}

#[test]
fn arrays_of_objects_are_filled_in_place() {
    with_numpy(|py| {
        let objects = |order: u8, shape: &[u64]| {
            let mut pod = Draft { exports: vec![Export::Root(0)], ..Draft::default() };
            pod.bytes.extend([tag::NDARRAY_OBJECT, order, 1, shape.len() as u8]);
            shape.iter().for_each(|&dimension| pod.varint(dimension));
            pod
        };
        let mut pod = objects(b'F', &[2, 2]);
        pod.text("a");
        pod.tagged(tag::LIST, &[1]);
        pod.referred.insert(0);
        pod.tagged(tag::REF, &[0]);
        pod.bytes.extend([tag::NONE, tag::INT8, 7]);
        let x = load_draft(py, pod).unwrap();
        check(py, &x, "x[0, 0] == 'a' and x[1, 0][0] is x and x[0, 1] is None and x[1, 1] == 7");
        // Elements that are announced but not there; and nested so that they would add up.
        assert!(load_draft(py, objects(b'C', &[1 << 40])).is_err());
        let mut pod = Draft { exports: vec![Export::Root(0)], ..Draft::default() };
        for _ in 0..2000 {
            pod.bytes.extend_from_slice(&objects(b'C', &[5000]).bytes);
        }
        assert!(load_draft(py, pod).is_err());
    });
}

#[test]
fn an_array_that_is_resized_while_it_is_filled_is_refused() {
    with_numpy(|py| {
        let code = cr#"
import sys
class Resizer:
    def __setstate__(self, array): array.resize((100,), refcheck=False)
Resizer.__module__ = "rebuild_resizer"
module = type(sys)("rebuild_resizer"); module.Resizer = Resizer; sys.modules["rebuild_resizer"] = module
"#;
        py.run(code, Some(&pyo3::types::PyDict::new(py)), None).unwrap();
        let mut pod = Draft { exports: vec![Export::Root(0)], ..Draft::default() };
        let class = pod.global("rebuild_resizer", "Resizer");
        pod.bytes.extend([tag::NDARRAY_OBJECT, b'C', 1, 1, 3]);
        pod.bytes.extend([tag::REDUCE, tag::REDUCE_NEWOBJ | tag::REDUCE_STATE]);
        pod.tagged(tag::GLOBAL, &[class]);
        pod.bytes.push(tag::EMPTY_TUPLE);
        pod.referred.insert(0);
        pod.tagged(tag::REF, &[0]);
        pod.bytes.extend([tag::NONE, tag::NONE]);
        let error = load_draft(py, pod).expect_err("it was resized").to_string();
        assert!(error.contains("resized"), "{error}");
    });
}

/// An array with strides, up to where its first element lies.
fn strided(dtype: &str, writable: u8, layout: &[(u64, i64)]) -> Draft {
    let mut pod = Draft { exports: vec![Export::Root(0)], ..Draft::default() };
    pod.bytes.push(tag::NDARRAY_VIEW);
    pod.text(dtype);
    pod.bytes.extend([writable, layout.len() as u8]);
    layout.iter().for_each(|&(len, stride)| {
        pod.varint(len);
        pod.varint(tag::zigzag(stride));
    });
    pod
}

fn in_line(mut pod: Draft, offset: u64, content: &[u8]) -> Draft {
    pod.tagged(tag::ARRAY_INLINE, &[offset, content.len() as u64]);
    pod.bytes.extend_from_slice(content);
    pod
}

/// `(value, array that shows memory of it)`.
fn pair(value: &[u8], number: u64, mut view: Draft, distance: i64) -> Draft {
    let mut pod = Draft { exports: vec![Export::Root(0)], ..Draft::default() };
    pod.tagged(tag::TUPLE, &[2]);
    pod.bytes.extend_from_slice(value);
    view.tagged(tag::ARRAY_SHARED, &[tag::zigzag(distance)]);
    view.tagged(tag::REF, &[number]);
    pod.bytes.extend_from_slice(&view.bytes);
    pod.referred.insert(number as u32);
    pod
}

#[test]
fn arrays_show_parts_of_buffers() {
    with_numpy(|py| {
        let bytes: Vec<u8> = (0..12).collect();
        let x = load_draft(py, in_line(strided("u1", 1, &[(3, -2), (2, 5)]), 4, &bytes)).unwrap();
        check(
            py,
            &x,
            "x.tolist() == [[4, 9], [2, 7], [0, 5]] and x.strides == (-2, 5) and x.flags.writeable",
        );
        // A str takes memo number 0, the array 1.
        let base = inline(array("<u2", b'C', 0, &[6]), &bytes).bytes;
        let x = load_draft(py, pair(&base, 1, strided("u1", 1, &[(4, 1)]), 2)).unwrap();
        check(py, &x, "x[1].base is x[0] and x[1].tolist() == [2, 3, 4, 5] and x[1].flags.writeable");
        check(py, &x, "not x[0].flags.writeable and (x[1].__setitem__(0, 9), x[0][1] == 0x0309)[1]");
        let base = [&[tag::BYTEARRAY, 12][..], &bytes].concat();
        let x = load_draft(py, pair(&base, 0, strided("u1", 1, &[(4, 1)]), 8)).unwrap();
        check(py, &x, "(x[0].__setitem__(8, 77), x[1].tolist())[1] == [77, 9, 10, 11]");
        let mut run = Draft { exports: vec![Export::Root(0)], ..Draft::default() };
        run.bytes.extend([tag::NDARRAY_OBJECT_VIEW, 1, 1]);
        for number in [2, tag::zigzag(-2), 2, 3] {
            run.varint(number);
        }
        run.bytes.extend([tag::TRUE, tag::NONE]);
        run.tagged(tag::LIST, &[1]);
        run.tagged(tag::REF, &[0]);
        run.referred.insert(0);
        let x = load_draft(py, run).unwrap();
        check(py, &x, "x[0][0] is x and x[1] is True and x.shape == (2,)");
    });
}

#[test]
fn arrays_that_reach_beyond_their_buffer_are_refused() {
    with_numpy(|py| {
        let bytes = [0u8; 16];
        let objects = [tag::NDARRAY_OBJECT, b'C', 1, 1, 2, tag::NONE, tag::NONE];
        let read_only = [&[tag::BYTES8, 16][..], &bytes].concat();
        let wide = inline(array("<u2", b'C', 1, &[8]), &bytes).bytes;
        let mut wrong = vec![
            in_line(strided("u1", 1, &[(17, 1)]), 0, &bytes),
            in_line(strided("u1", 1, &[(1, 1)]), 16, &bytes),
            in_line(strided("u1", 1, &[(1, 1)]), u64::MAX, &bytes),
            in_line(strided("u1", 1, &[(2, -1)]), 0, &bytes),
            in_line(strided("<u8", 1, &[(2, 9)]), 0, &bytes),
            in_line(strided("u1", 1, &[(1 << 62, 4)]), 0, &bytes),
            in_line(strided("u1", 1, &[(1 << 40, i64::MIN)]), 0, &bytes),
            in_line(strided("u1", 1, &[(1 << 32, 0), (1 << 32, 0)]), 0, &bytes),
            in_line(strided("u1", 2, &[(1, 1)]), 0, &bytes),
            in_line(strided("O", 1, &[(2, 8)]), 0, &bytes),
            pair(&wide, 1, strided("u1", 1, &[(1, 1)]), 16),
            pair(&wide, 1, strided("u1", 1, &[(1, 1)]), -1),
            pair(&wide, 1, strided("u1", 1, &[(1, 1)]), i64::MIN),
            pair(&wide, 1, strided("O", 1, &[(1, 8)]), 0),
            // References are not for writing as bytes, nor apart from where they stand.
            pair(&objects, 0, strided("u1", 1, &[(16, 1)]), 0),
            pair(&objects, 0, strided("O", 1, &[(1, 8)]), 4),
            pair(&objects, 0, strided("O", 1, &[(2, 4)]), 0),
            pair(&objects, 0, strided("O", 1, &[(3, 8)]), 0),
            pair(&read_only, 0, strided("u1", 1, &[(1, 1)]), 0),
            pair(&[tag::LIST, 0], 0, strided("u1", 1, &[(1, 1)]), 0),
        ];
        let mut run = Draft { exports: vec![Export::Root(0)], ..Draft::default() };
        run.bytes.extend([tag::NDARRAY_OBJECT_VIEW, 1, 1]);
        for number in [2, tag::zigzag(1), 0, 1] {
            run.varint(number);
        }
        run.bytes.push(tag::NONE);
        wrong.push(run);
        for (i, pod) in wrong.into_iter().enumerate() {
            let bytes = pod.bytes.clone();
            assert!(load_draft(py, pod).is_err(), "{i}: {bytes:?}");
        }
    });
}
