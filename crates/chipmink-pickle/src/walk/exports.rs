//! Objects that export their memory through the buffer protocol: `PickleBuffer`, bytearrays, and what other libraries make.

use super::kinds::Kind;
use super::memory::{Owner, Place, Seen, Span};
use super::regions::Content;
use super::walker::{Step, Walker};
use crate::py::Obj;
use chipmink_format::tag;
use pyo3::ffi;
use pyo3::prelude::*;

pub(crate) fn span_of(bytes: &[u8]) -> Span {
    let start = bytes.as_ptr() as usize;
    Span { start, end: start + bytes.len() }
}

impl Walker<'_, '_> {
    /// The memory that an object exports as one piece, if it does.
    pub(crate) fn exported_memory(&mut self, object: Obj) -> Option<Span> {
        if object.is_bytearray() {
            return Some(span_of(object.bytearray_slice()));
        }
        if object.is_bytes() {
            return Some(span_of(object.bytes_slice()));
        }
        // SAFETY: alive.
        if unsafe { ffi::PyObject_CheckBuffer(object.ptr()) } == 0 {
            return None;
        }
        // A class may have written its export in Python.
        self.hold();
        Exported::contiguous(object, ffi::PyBUF_FULL_RO).ok().map(|buffer| buffer.span())
    }

    /// The memory that an object with a reducer exports, if it is not a mere view itself.
    pub(crate) fn exporter_memory(&mut self, object: Obj, kind: Kind) -> Option<Span> {
        let is_view =
            object.is_memoryview() || object.is_atom() || matches!(kind, Kind::Class | Kind::Function);
        if is_view
            || object.refcount() <= 1
            || self.stream.as_ref().is_some_and(|stream| stream.buffer_callback.is_some())
        {
            return None;
        }
        self.exported_memory(object).filter(|span| !span.is_empty())
    }

    /// Decides where memory belongs, and lets those who know it from earlier saves be walked in this one.
    pub(crate) fn memory_place(&mut self, seen: Seen, first: usize) -> Place {
        if self.some_inactive {
            self.notice_memory(&seen);
        }
        self.memory.place(seen, first)
    }

    /// Objects that showed the same memory, or own it, may be those of variables that are not being walked.
    #[cold]
    fn notice_memory(&mut self, seen: &Seen) {
        if let Some(pod) = self.session.memo.last_pod(seen.base.addr()) {
            self.notice(pod);
        }
        let overlapping: Vec<u32> = self
            .session
            .spans
            .range(..seen.span.end)
            .rev()
            .take_while(|(_, (end, _))| *end > seen.span.start)
            .map(|(_, (_, pod))| *pod)
            .collect();
        overlapping.into_iter().for_each(|pod| self.notice(pod));
    }

    /// Notes the memory of an object that no view can stand for.
    pub(crate) fn rigid_place(&mut self, object: Obj, span: Span) {
        if span.is_empty() {
            return;
        }
        let seen = Seen {
            span,
            object,
            base: object,
            base_span: Some(span),
            is_whole: true,
            is_compact: false,
            is_rigid: true,
        };
        self.memory_place(seen, span.start);
    }

    /// Lets an object that no view can stand for own its memory.
    pub(crate) fn own_rigid(&mut self, object: Obj, span: Span, region: Option<u32>) {
        let pod = self.current_pod();
        let owner = Owner { object, first: span.start, is_raw: true, pod, region, base: object };
        self.memory.own(span, owner);
    }

    pub(crate) fn pickle_buffer(&mut self, object: Obj) -> Step {
        let buffer = Exported::contiguous(object, ffi::PyBUF_ANY_CONTIGUOUS)?;
        let is_read_only = buffer.0.readonly != 0;
        let span = buffer.span();
        let kind = if is_read_only { tag::REGION_BYTES } else { tag::REGION_BYTEARRAY };
        if let Some(region) = self.out_of_band(object)? {
            let number = self.write_region(kind, region);
            drop(buffer);
            self.memoize(object, number);
            return Ok(());
        }
        // SAFETY: the export keeps its exporter alive.
        let exporter = unsafe { Obj::from_ptr(buffer.0.obj) };
        if let Some(number) = self.shared_buffer(exporter, span, is_read_only)? {
            drop(buffer);
            self.memoize(object, number);
            return Ok(());
        }
        let number = if span.len() >= tag::REGION_THRESHOLD {
            // A reducer may fill the same memory with something else for each object that it is asked for.
            let key = (span.start, span.end, 0);
            self.hashed.remove(&key);
            let region = self.region(Content::run(span))?;
            self.hashed.remove(&key);
            self.write_region(kind, region)
        } else {
            let builder = self.builder();
            builder.byte(tag::BUFFER);
            builder.byte(u8::from(is_read_only));
            builder.varint(span.len() as u64);
            if !span.is_empty() {
                // SAFETY: the export keeps so many bytes alive; they are copied at once.
                builder.bytes(unsafe { std::slice::from_raw_parts(span.start as *const u8, span.len()) });
            }
            builder.take_number()
        };
        drop(buffer);
        self.memoize(object, number);
        Ok(())
    }

    /// Offers a buffer to the callback of `dumps`. The ordinal of its region if the callback takes it.
    fn out_of_band(&mut self, object: Obj) -> Step<Option<u32>> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        let Some(callback) = &stream.buffer_callback else { return Ok(None) };
        let callback = callback.clone_ref(self.py);
        self.hold();
        let keeps_in_band = callback.bind(self.py).call1((object.bound(self.py),))?.is_truthy()?;
        if keeps_in_band {
            return Ok(None);
        }
        Ok(Some(self.outside_region()))
    }
}

/// An exported buffer, released on drop.
pub(crate) struct Exported(Box<ffi::Py_buffer>);

impl Exported {
    pub(crate) fn contiguous(object: Obj, flags: i32) -> PyResult<Self> {
        let mut buffer = Box::new(ffi::Py_buffer::new());
        // SAFETY: `buffer` is a valid place; on success it is released in Drop.
        let failed = unsafe { ffi::PyObject_GetBuffer(object.ptr(), &mut *buffer, flags) } != 0;
        if failed {
            // SAFETY: the interpreter is attached throughout a walk.
            return Err(PyErr::fetch(unsafe { Python::assume_attached() }));
        }
        let exported = Exported(buffer);
        // SAFETY: a filled buffer; 'A': in either order.
        if unsafe { ffi::PyBuffer_IsContiguous(&*exported.0, b'A' as std::os::raw::c_char) } == 0 {
            return Err(pyo3::exceptions::PyBufferError::new_err("the buffer is not in one piece"));
        }
        Ok(exported)
    }

    pub(crate) fn span(&self) -> Span {
        let start = self.0.buf as usize;
        Span { start, end: start + self.0.len as usize }
    }
}

impl Drop for Exported {
    fn drop(&mut self) {
        // SAFETY: exported by `contiguous`, released once.
        unsafe { ffi::PyBuffer_Release(&mut *self.0) }
    }
}
