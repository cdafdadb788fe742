//! The extension module `chipmink._chipmink`: thin classes over the facade, and nothing else.
//!
//! It holds no logic of its own; what is saved and how is decided in the crates beneath, and what a user sees is the
//! Python package around it.

mod cancel;
mod command;
mod device;
mod errors;
mod fill;
mod handle;
mod loading;
mod mapping;
mod memory;
mod mentions;
mod pipeline;
mod pods;
mod restore;
mod stream;
mod transfer;
mod upkeep;
mod walked;

use pyo3::prelude::*;

#[pymodule(gil_used = true)]
mod _chipmink {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::cancel::Cancel;
    #[pymodule_export]
    use crate::command::run_command;
    #[pymodule_export]
    use crate::device::{DeviceFence, device_unusable, device_upload, examine};
    #[pymodule_export]
    use crate::fill::Loaded;
    #[pymodule_export]
    use crate::handle::{Handle, check_branch};
    #[pymodule_export]
    use crate::memory::mapping_of;
    #[pymodule_export]
    use crate::pipeline::{DeviceCapture, DevicePipeline};
    #[pymodule_export]
    use crate::restore::{Patch, StoredRegion, apply_patches};
    #[pymodule_export]
    use crate::stream::{dumps, loads, stream_len};
    #[pymodule_export]
    use crate::walked::Walked;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
