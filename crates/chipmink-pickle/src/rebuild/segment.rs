//! Shared memory that a load makes: its bytes are read straight into it, never into memory of the process first.

use super::error::{Failure, Result};
use super::loader::Loader;
use chipmink_format::tag;
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;

/// Module and name of the setter whose state is the content of new shared memory.
const SETTER: (&str, &str) = ("chipmink._shared", "fill_segment");

impl<'py> Loader<'py, '_> {
    /// If `setter` fills new shared memory, and a region of the repository is its content, the region is read into
    /// `object`, and the setter told that it is there. Returns whether it was so; if not, nothing was read.
    pub(super) fn fill_segment(
        &mut self,
        object: &Bound<'py, PyAny>,
        setter: &Bound<'py, PyAny>,
    ) -> Result<bool> {
        let at = self.at.reader.at();
        let mut is_region = self.at.reader.remaining() > 2 && self.at.reader.byte()? == tag::REGION;
        is_region = is_region && self.at.reader.byte()? == tag::REGION_BYTEARRAY;
        if !is_region || !self.fills_segments(setter)? {
            self.at.reader.rewind(at);
            return Ok(false);
        }
        let ordinal = self.at.reader.size()?;
        let view = self.at.reader.size()?;
        let place = self.region_place(ordinal, view)?;
        self.before_call(setter)?;
        let is_new = self.py.import(SETTER.0)?.getattr("take_new")?.call1((object,))?.is_truthy()?;
        if !is_new || place.byte_offset != 0 || self.outside(ordinal)?.is_some() {
            self.at.reader.rewind(at);
            return Ok(false);
        }
        // While this lives, the memory is neither closed nor resized.
        let buffer = PyBuffer::<u8>::get(object)?;
        if buffer.readonly() || buffer.len_bytes() != place.byte_len || place.byte_len == 0 {
            return Err(Failure::damaged("shared memory has not the length of its content"));
        }
        // SAFETY: a mapping of so many bytes that the export keeps, of shared memory that was just made: it has no name, no
        // other process knows it, and `take_new` gives it out once, to this load.
        let into = unsafe { std::slice::from_raw_parts_mut(buffer.buf_ptr().cast::<u8>(), place.byte_len) };
        self.read_region(ordinal, place.region, into)?;
        drop(buffer);
        // The content is no object; nobody refers to it.
        self.number(object)?;
        setter.call1((object, self.py.None()))?;
        Ok(true)
    }

    fn fills_segments(&self, setter: &Bound<'py, PyAny>) -> Result<bool> {
        // If it is the setter, its module has been imported.
        let modules = self.py.import("sys")?.getattr("modules")?;
        let Ok(module) = modules.get_item(SETTER.0) else { return Ok(false) };
        Ok(module.getattr(SETTER.1)?.is(setter))
    }
}
