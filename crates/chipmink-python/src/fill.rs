//! [`Loaded`]: what a load has mapped, to be read into memory that is there already instead of being touched where it is
//! mapped.
//!
//! 1. A chunk is compared with its digest before any of it is written anywhere.
//! 2. Buffers are written beside each other by several threads, with the interpreter released: the caller sees to it that they
//!    do not overlap.

use crate::errors::raise;
use crate::handle::Handle;
use crate::mapping::Mapper;
use chipmink::copy_streamed;
use chipmink_pickle::rebuild::region_at;
use chipmink_types::{LoadPlan, RegionRecord, TimeId};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a load has mapped and nobody has checked yet.
pub(crate) struct Load {
    pub(crate) mapper: Option<Mapper>,
    pub(crate) plan: LoadPlan,
    pub(crate) time: TimeId,
}

/// A load whose large regions go into memory that is there.
#[pyclass(frozen, module = "chipmink._chipmink")]
#[derive(Default)]
pub(crate) struct Loaded(Mutex<Option<Load>>);

impl Loaded {
    pub(crate) fn load(&self) -> MutexGuard<'_, Option<Load>> {
        // It is replaced as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a thread may write.
struct Target(*mut u8);

// SAFETY: an address; whoever writes there sees to it that the memory is alive.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

#[pymethods]
impl Loaded {
    #[new]
    fn new() -> Self {
        Loaded::default()
    }

    /// With `verify="eager"`, compares all that was mapped with its digests; whether all is as it should be. If it is not,
    /// another load finds out whether there is a whole copy.
    fn check_first(&self, py: Python<'_>, handle: &Handle) -> bool {
        if !handle.mapping().is_eager() {
            return true;
        }
        let load = self.load();
        match load.as_ref().and_then(|load| load.mapper.as_ref()) {
            Some(mapper) => py.detach(|| mapper.check_all()).is_ok(),
            None => true,
        }
    }

    /// Whether the memory at an address is that of a mapped region of this length.
    #[staticmethod]
    fn is_region(address: usize, byte_len: u64) -> bool {
        region_at(address).is_some_and(|region| region.byte_len == byte_len)
    }

    /// Reads the regions that are mapped at `sources` into buffers of their lengths, which do not overlap.
    fn fill(&self, py: Python<'_>, sources: Vec<usize>, targets: Vec<PyBuffer<u8>>) -> PyResult<()> {
        let refused = |reason: String| Err(PyValueError::new_err(reason));
        if sources.len() != targets.len() {
            return refused(format!("{} regions for {} buffers", sources.len(), targets.len()));
        }
        let mut regions: Vec<RegionRecord> = Vec::with_capacity(sources.len());
        let mut places = Vec::with_capacity(targets.len());
        for (address, target) in sources.iter().zip(&targets) {
            let Some(region) = region_at(*address) else {
                return refused("a region is mapped no more".to_owned());
            };
            if target.readonly() || !target.is_c_contiguous() || target.len_bytes() as u64 != region.byte_len
            {
                return refused(format!("a buffer does not fit a region of {} bytes", region.byte_len));
            }
            places.push(Target(target.buf_ptr().cast::<u8>()));
            regions.push(region);
        }
        let take = |ordinal: usize, byte_offset: u64, bytes: &[u8]| {
            // SAFETY: a chunk lies within its region, and the buffer is as long. The export keeps it alive and where it is;
            // nobody else of this call writes to that part of it.
            unsafe {
                copy_streamed(bytes, places[ordinal].0.add(byte_offset as usize));
            }
        };
        // (Not held while others run: who waits for it might hold the interpreter.)
        let mapper = self.load().as_ref().and_then(|load| load.mapper.clone());
        let Some(mapper) = mapper else { return refused("nothing was mapped by this load".to_owned()) };
        py.detach(|| mapper.read_regions(&regions, &take)).map_err(|error| raise(error.into()))?;
        mapper.forget_unchecked(&regions);
        Ok(())
    }

    /// Lets what was mapped, and not read otherwise, be checked as the handle says. The program is about to write to the
    /// regions at the addresses `written`.
    fn end(&self, handle: &Handle, written: Vec<usize>) {
        if let Some(Load { mapper, plan, time }) = self.load().take() {
            if let Some(mapper) = &mapper {
                let regions: Vec<RegionRecord> = written.into_iter().filter_map(region_at).collect();
                mapper.expect_writes(&regions);
            }
            handle.mapping().check_later(mapper.as_ref(), &plan, time);
        }
    }
}
