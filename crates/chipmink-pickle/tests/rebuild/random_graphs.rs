//! Random graphs with cycles of every kind, cut into pods at random places, loaded whole and in part.

use crate::writer::Writer;
use crate::{graphs, load};
use chipmink_pickle::rebuild::RebuildOptions;
use pyo3::prelude::*;
use pyo3::types::PyDict;

#[test]
fn random_graphs_come_back_as_they_were() {
    Python::attach(|py| {
        let graphs = graphs(py);
        let (build, canon) = (graphs.getattr("build").unwrap(), graphs.getattr("canon").unwrap());
        let cases =
            std::env::var("REBUILD_GRAPHS").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400u64);
        for seed in 0..cases {
            let size = 3 + seed % 17;
            let namespace = build.call1((seed, size)).unwrap().cast_into::<PyDict>().unwrap();
            let split = [0, 100, 300, 700, 1000][(seed / 17 % 5) as usize];
            let written = Writer::new(py, seed, split).namespace(&namespace);
            let context = || format!("seed {seed}, {size} objects, split {split}");
            let loaded = load(py, &written, &RebuildOptions::default())
                .unwrap_or_else(|e| panic!("{}: {e}", context()));
            let expected = canon.call1((&namespace,)).unwrap();
            let found = canon.call1((&loaded,)).unwrap_or_else(|e| panic!("{}: {e}", context()));
            assert!(expected.eq(&found).unwrap(), "{}:\n{expected}\n{found}", context());
            for (i, (name, object)) in namespace.iter().enumerate() {
                let loaded = load(py, &written.part(i), &RebuildOptions::default())
                    .unwrap_or_else(|e| panic!("{}, {name} alone: {e}", context()));
                let found = loaded.get_item(name).unwrap().unwrap();
                let expected = canon.call1(([&object],)).unwrap();
                let found = canon.call1(([&found],)).unwrap_or_else(|e| panic!("{}, alone: {e}", context()));
                assert!(expected.eq(&found).unwrap(), "{}, part {i}:\n{expected}\n{found}", context());
            }
        }
    });
}
