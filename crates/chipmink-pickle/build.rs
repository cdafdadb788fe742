//! Makes `cfg(Py_3_12)` and its like known: the walker reads private layouts that differ by version.
fn main() {
    pyo3_build_config::use_pyo3_cfgs();
}
