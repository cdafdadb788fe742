//! Makes `cfg(Py_3_12)` and its like known: the walker reads private layouts that differ by version.
fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    // Test programs embed an interpreter whose library need not lie where the system looks.
    pyo3_build_config::add_libpython_rpath_link_args();
}
