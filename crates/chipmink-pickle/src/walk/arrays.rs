//! Buffers: numpy arrays, `PickleBuffer`, and everything large enough to leave the stream as a region.
//!
//! What is stored of memory that a program may write is always a copy, digested after copying; hashing live memory only
//! decides that nothing need be stored. `live_digest` is the one function that hashes it.

use super::dumps::StreamRegion;
use super::frames::{At, FrameKind};
use super::shadow::{header, kind as word};
use super::walker::{Step, Walker};
use crate::py::Obj;
use chipmink_digest::{CHUNK_LEN, Grid, NodeKind, TreeBuilder};
use chipmink_format::tag;
use chipmink_types::{BlobError, BlobKind, Digest, GlobalName, GridKind, RegionRecord, ViewRecord};
use pyo3::exceptions::{PyAttributeError, PyLookupError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;

/// A grid of one run: kind and row length.
pub(crate) const RUN: (GridKind, u64) = (GridKind::Run, 0);

/// The head of numpy's array object: its layout is part of numpy's binary interface since 1.7.
#[repr(C)]
struct ArrayObject {
    head: ffi::PyObject,
    data: *mut u8,
    nd: i32,
    dimensions: *const isize,
    strides: *const isize,
    base: *mut ffi::PyObject,
    descr: *mut ffi::PyObject,
    flags: i32,
}

const C_CONTIGUOUS: i32 = 0x1;
const F_CONTIGUOUS: i32 = 0x2;
const WRITEABLE: i32 = 0x400;

/// Addresses of `numpy.ndarray` and of the metaclass of dtypes, if numpy has been imported and its arrays have the
/// layout that is read here; else 0.
///
/// # Errors
/// What a signal handler of the program raised meanwhile.
pub(crate) fn numpy_types(py: Python<'_>) -> PyResult<(usize, usize)> {
    match check_layout(py) {
        // Not imported, only half imported, or another module of that name.
        Err(error)
            if error.is_instance_of::<PyLookupError>(py)
                || error.is_instance_of::<PyAttributeError>(py)
                || error.is_instance_of::<PyTypeError>(py) =>
        {
            Ok((0, 0))
        }
        answer => answer,
    }
}

fn check_layout(py: Python<'_>) -> PyResult<(usize, usize)> {
    let modules = py.import("sys")?.getattr("modules")?;
    let numpy = modules.get_item("numpy")?;
    let ty = numpy.getattr("ndarray")?;
    let sample = numpy.call_method1("zeros", ((2, 3), "i2"))?;
    let array = view(Obj::of(&sample));
    let descr = sample.getattr("dtype")?;
    let data: usize = sample.getattr("ctypes")?.getattr("data")?.extract()?;
    let as_expected = array.nd == 2
        && array.data as usize == data
        && array.descr == descr.as_ptr()
        && array.flags & (C_CONTIGUOUS | WRITEABLE) == C_CONTIGUOUS | WRITEABLE
        && dimensions(array) == [2, 3];
    let meta = descr.get_type().get_type().as_ptr() as usize;
    Ok(if as_expected { (ty.as_ptr() as usize, meta) } else { (0, 0) })
}

fn view<'a>(array: Obj) -> &'a ArrayObject {
    // SAFETY: exactly a numpy.ndarray, whose layout was checked when the walk began; it is alive.
    unsafe { &*array.ptr().cast::<ArrayObject>() }
}

fn dimensions(array: &ArrayObject) -> &[isize] {
    if array.nd == 0 {
        return &[];
    }
    // SAFETY: `dimensions` has `nd` entries.
    unsafe { std::slice::from_raw_parts(array.dimensions, array.nd as usize) }
}

fn item_count(array: &ArrayObject) -> usize {
    dimensions(array).iter().map(|len| *len as usize).product()
}

/// Bytes and items of an array, roughly: an item counts eight bytes.
pub(crate) fn extent(array: Obj) -> (usize, usize) {
    let items = item_count(view(array));
    (8 * items, items)
}

/// The digest of memory that the program may write at any time. It only ever decides that nothing need be stored.
fn live_digest(pointer: *const u8, len: usize) -> Digest {
    // SAFETY: the caller keeps the buffer's owner alive, and the buffer has `len` bytes. Another thread may write to it
    // meanwhile; then the digest is of no state in particular, which the caller allows for.
    chipmink_digest::digest(unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// The digest of an atom's content, and its type, as words of a shadow.
pub(crate) fn atom_digest(object: Obj) -> [u64; 3] {
    let content = if object.is_str() {
        chipmink_digest::digest(object.str_raw())
    } else if object.is_bytes() {
        chipmink_digest::digest(object.bytes_slice())
    } else {
        chipmink_digest::digest(&super::builder::big_int_bytes(object))
    };
    let [high, low] = digest_words(&content);
    // The width of a str is part of its value.
    let width = if object.is_str() { object.str_width() as u64 } else { 0 };
    [object.ty_addr() as u64 ^ width << 60, high, low]
}

pub(crate) fn digest_words(digest: &Digest) -> [u64; 2] {
    let bytes = digest.as_bytes();
    let word = |at: usize| {
        let mut eight = [0u8; 8];
        eight.copy_from_slice(&bytes[at..at + 8]);
        u64::from_be_bytes(eight)
    };
    [word(1), word(9)]
}

/// Type, shape, order, writability and dtype of an array in one word.
pub(crate) fn layout_fingerprint(array: Obj) -> u64 {
    let array = view(array);
    let mut bytes = Vec::with_capacity(80);
    for len in dimensions(array) {
        bytes.extend_from_slice(&len.to_le_bytes());
    }
    bytes.extend_from_slice(&(array.flags & (C_CONTIGUOUS | F_CONTIGUOUS | WRITEABLE)).to_le_bytes());
    bytes.extend_from_slice(&(array.descr as usize).to_le_bytes());
    digest_words(&chipmink_digest::digest(&bytes))[0]
}

/// The items of an object array, as the shadow looks at them.
pub(crate) fn object_items<'a>(array: Obj) -> &'a [Obj] {
    let array = view(array);
    let len = item_count(array);
    if len == 0 || array.data.is_null() {
        return &[];
    }
    // SAFETY: an aligned, contiguous array of references (checked by the callers); items are never null once an array
    // is visible to Python code, and `Obj` has the layout of a pointer.
    unsafe { std::slice::from_raw_parts(array.data.cast::<Obj>(), len) }
}

/// Address of the array's dtype.
pub(crate) fn descr_address(array: Obj) -> usize {
    view(array).descr as usize
}

/// Bytes of an array whose dtype is one of numpy's own.
pub(crate) fn byte_len(array: Obj) -> usize {
    let array = view(array);
    // Items lie next to each other, so the longest stride times its length spans the buffer.
    if item_count(array) == 0 {
        return 0;
    }
    if array.nd == 0 {
        return usize::MAX;
    }
    // SAFETY: `strides` has `nd` entries.
    let strides = unsafe { std::slice::from_raw_parts(array.strides, array.nd as usize) };
    dimensions(array)
        .iter()
        .zip(strides)
        .map(|(len, stride)| *len as usize * stride.unsigned_abs())
        .max()
        .unwrap_or(0)
}

/// The digest of a contiguous array's bytes for the shadow.
pub(crate) fn content_words(array: Obj, byte_len: usize) -> [u64; 2] {
    digest_words(&live_digest(view(array).data, byte_len))
}

/// A dtype that its string describes in full.
#[derive(Clone)]
pub(crate) struct Dtype {
    text: String,
    is_object: bool,
    item_len: usize,
    /// One of numpy's own, which are never freed.
    lasts: bool,
}

impl Walker<'_, '_> {
    /// Writes an array: dtype, layout, content.
    pub(crate) fn start_array(&mut self, object: Obj) -> Step {
        let py = self.py;
        let array = view(object);
        // SAFETY: an array always has a dtype.
        let descr = unsafe { Obj::from_ptr(array.descr) };
        let contiguous = array.flags & (C_CONTIGUOUS | F_CONTIGUOUS) != 0;
        if self.stream.as_ref().is_some_and(|stream| stream.buffer_callback.is_some()) {
            // The array's own reducer offers the buffer to the callback.
            return self.start_reduce(object, super::kinds::Kind::Reduce);
        }
        let Some(dtype) = self.simple_dtype(descr)? else {
            return self.start_reduce(object, super::kinds::Kind::Reduce);
        };
        if dtype.is_object {
            if contiguous && array.nd <= 64 {
                return self.object_array(object);
            }
            return self.start_reduce(object, super::kinds::Kind::Reduce);
        }
        self.keep(object);
        // A shadow may compare by address only a dtype that lives for ever.
        if !dtype.lasts || !contiguous || array.nd == 0 {
            self.no_shadow();
        }
        let byte_len = dtype.item_len * item_count(array);
        self.builder().byte(tag::NDARRAY);
        self.write_dtype_text(&dtype);
        let (data, order) = if array.flags & C_CONTIGUOUS != 0 {
            (array.data.cast_const(), b'C')
        } else if array.flags & F_CONTIGUOUS != 0 {
            (array.data.cast_const(), b'F')
        } else {
            self.hold();
            let copy = py.import("numpy")?.call_method1("ascontiguousarray", (object.bound(py),))?;
            let copy = self.own(copy);
            (view(copy).data.cast_const(), b'C')
        };
        self.write_layout(object, order);
        let number = if byte_len >= tag::REGION_THRESHOLD {
            let shape = dimensions(array);
            let row_len =
                (byte_len as u64).checked_div(shape.first().map_or(0, |rows| *rows as u64)).unwrap_or(0);
            let grid = if order == b'C' && shape.len() == 2 && row_len >= CHUNK_LEN {
                (GridKind::Rows, row_len)
            } else {
                RUN
            };
            // A signal handler may run meanwhile and drop every other reference.
            let _alive = object.bound(py);
            let region = self.region(data, byte_len, grid, false)?;
            let builder = self.builder();
            builder.tag_varint(1, u64::from(region));
            builder.varint(0);
            builder.take_number()
        } else {
            let builder = self.builder();
            builder.tag_varint(0, byte_len as u64);
            if byte_len > 0 {
                // SAFETY: a contiguous array of so many bytes, kept alive; copied at once.
                builder.bytes(unsafe { std::slice::from_raw_parts(data, byte_len) });
            }
            builder.take_number()
        };
        if self.builder().shadow.is_some() {
            let [high, low] = digest_words(&live_digest(data, byte_len));
            let fields = [array.descr as u64, layout_fingerprint(object), high, low];
            if let Some(shadow) = &mut self.builder().shadow {
                shadow.push(header(word::ARRAY, number));
                fields.iter().for_each(|field| shadow.push(*field));
            }
        }
        self.memoize(object, number);
        Ok(())
    }

    /// Writes a dtype that its own string describes in full. Dtypes are like atoms: each pod has its own.
    pub(crate) fn start_dtype(&mut self, object: Obj) -> Step {
        self.no_shadow();
        match self.simple_dtype(object)? {
            Some(dtype) => {
                self.write_dtype(object, &dtype);
                Ok(())
            }
            None => self.start_reduce(object, super::kinds::Kind::Reduce),
        }
    }

    /// Before an array's content: the string alone, which names plain data and asks for no constructor.
    fn write_dtype_text(&mut self, dtype: &Dtype) {
        let builder = self.builder();
        builder.bytes(&[tag::STR8, dtype.text.len() as u8]);
        builder.bytes(dtype.text.as_bytes());
        builder.take_number();
    }

    fn write_dtype(&mut self, descr: Obj, dtype: &Dtype) {
        let name = GlobalName { module: "numpy".to_owned(), qualname: "dtype".to_owned() };
        let id = self.session.names.id(name);
        let builder = self.builder();
        if let Some(number) = builder.local_number(descr) {
            builder.reference(number);
            return;
        }
        builder.bytes(&[tag::REDUCE, 0]);
        builder.global(id);
        builder.bytes(&[tag::TUPLE, 1, tag::STR8, dtype.text.len() as u8]);
        builder.bytes(dtype.text.as_bytes());
        // The str and the tuple take a number each.
        builder.next += 2;
        let number = builder.take_number();
        builder.set_local_number(descr, number);
    }

    /// What is known of a dtype, if `numpy.dtype(dtype.str)` makes it again.
    fn simple_dtype(&mut self, descr: Obj) -> Step<Option<Dtype>> {
        if let Some(known) = self.dtypes.get(&descr.addr()) {
            return Ok(known.clone());
        }
        let py = self.py;
        let bound = descr.bound(py);
        let text: String = bound.getattr("str")?.extract()?;
        let is_object: bool = bound.getattr("hasobject")?.extract()?;
        let kind: String = bound.getattr("kind")?.extract()?;
        let plain = bound.getattr("metadata")?.is_none()
            && bound.getattr("fields")?.is_none()
            && bound.getattr("subdtype")?.is_none()
            && text.len() < 128
            && "biufcmMSUVO".contains(&kind)
            && (!is_object || text == "|O")
            && py.import("numpy")?.call_method1("dtype", (&text,))?.eq(&bound)?;
        let dtype = if plain {
            Some(Dtype {
                text,
                is_object,
                item_len: bound.getattr("itemsize")?.extract()?,
                lasts: bound.getattr("isbuiltin")?.extract::<i64>()? == 1,
            })
        } else {
            None
        };
        self.own(bound);
        self.dtypes.insert(descr.addr(), dtype.clone());
        Ok(dtype)
    }

    fn write_layout(&mut self, object: Obj, order: u8) {
        let array = view(object);
        let builder = self.builder();
        builder.byte(order);
        builder.byte(u8::from(array.flags & WRITEABLE != 0));
        builder.byte(array.nd as u8);
        for len in dimensions(array) {
            builder.varint(*len as u64);
        }
    }

    fn object_array(&mut self, object: Obj) -> Step {
        let order = if view(object).flags & C_CONTIGUOUS != 0 { b'C' } else { b'F' };
        self.builder().byte(tag::NDARRAY_OBJECT);
        self.write_layout(object, order);
        let number = self.builder().take_number();
        self.memoize(object, number);
        let items = object_items(object);
        let fields = [items.len() as u64, layout_fingerprint(object)];
        let words = self.record(word::OBJECT_ARRAY, number, &fields, items.iter().copied());
        if !items.is_empty() {
            let kind =
                FrameKind::Items { items: items.as_ptr().cast(), array: object, next: 0, len: items.len() };
            self.push(kind, words);
        }
        Ok(())
    }

    pub(crate) fn pickle_buffer(&mut self, object: Obj) -> Step {
        let buffer = Exported::contiguous(object)?;
        let is_read_only = buffer.0.readonly != 0;
        let (pointer, len) = (buffer.0.buf.cast::<u8>().cast_const(), buffer.0.len as usize);
        let kind = if is_read_only { tag::REGION_BYTES } else { tag::REGION_BYTEARRAY };
        let number = if let Some(region) = self.out_of_band(object)? {
            self.write_region(kind, region)
        } else if len >= tag::REGION_THRESHOLD {
            let region = self.region(pointer, len, RUN, false)?;
            self.write_region(kind, region)
        } else {
            let builder = self.builder();
            builder.byte(tag::BUFFER);
            builder.byte(u8::from(is_read_only));
            builder.varint(len as u64);
            if len > 0 {
                // SAFETY: the export keeps so many bytes alive; they are copied at once.
                builder.bytes(unsafe { std::slice::from_raw_parts(pointer, len) });
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
        Ok(Some(self.stream_region(StreamRegion::OutOfBand, 0)))
    }

    fn stream_region(&mut self, region: StreamRegion, byte_len: usize) -> u32 {
        if let Some(stream) = &mut self.stream {
            stream.regions.push(region);
        }
        let builder = self.builder();
        builder.regions.push(RegionRecord {
            grid: GridKind::Run,
            row_len: 0,
            first_chunk_len: 0,
            byte_len: byte_len as u64,
            buffer_id: 0,
            root: Digest::xxh3([0; 16]),
            views: vec![ViewRecord { byte_offset: 0 }],
        });
        builder.regions.len() as u32 - 1
    }

    /// Writes a reference to a region. Returns its memo number.
    pub(crate) fn write_region(&mut self, kind: u8, region: u32) -> u32 {
        let builder = self.builder();
        builder.byte(tag::REGION);
        builder.byte(kind);
        builder.varint(u64::from(region));
        builder.varint(0);
        builder.take_number()
    }

    /// An atom of at least the threshold: a region of its own, at each place where it stands.
    pub(crate) fn large_atom(&mut self, object: Obj, at: At) -> Step {
        self.large_atom_word(object, at)?;
        if let Some(number) = self.builder().local_number(object) {
            self.builder().reference(number);
            return Ok(());
        }
        if object.is_int() {
            let bytes = super::builder::big_int_bytes(object);
            let region = self.region(bytes.as_ptr(), bytes.len(), RUN, true)?;
            let number = self.write_region(tag::REGION_INT, region);
            self.builder().set_local_number(object, number);
            return Ok(());
        }
        let (content, kind) = if object.is_bytes() {
            (object.bytes_slice(), tag::REGION_BYTES)
        } else {
            let kind = match object.str_width() {
                1 if object.str_is_ascii() => tag::REGION_STR1_ASCII,
                1 => tag::REGION_STR1,
                2 => tag::REGION_STR2,
                _ => tag::REGION_STR4,
            };
            (object.str_raw(), kind)
        };
        // A signal handler may run meanwhile and drop every other reference.
        let _alive = object.bound(self.py);
        let region = self.region(content.as_ptr(), content.len(), RUN, true)?;
        let number = self.write_region(kind, region);
        self.builder().set_local_number(object, number);
        Ok(())
    }

    /// Stores a buffer's chunks. Returns the region's ordinal in the current pod.
    ///
    /// `is_frozen`: nobody can write to it, so that it need not be copied before it is digested.
    pub(crate) fn region(
        &mut self,
        pointer: *const u8,
        byte_len: usize,
        (grid, row_len): (GridKind, u64),
        is_frozen: bool,
    ) -> Step<u32> {
        if self.stream.is_some() {
            // SAFETY: the caller keeps so many bytes alive; they are copied at once.
            let copy = unsafe { std::slice::from_raw_parts(pointer, byte_len) }.to_vec();
            return Ok(self.stream_region(StreamRegion::Inline(copy), byte_len));
        }
        let mut record = RegionRecord {
            grid,
            row_len,
            first_chunk_len: 0,
            byte_len: byte_len as u64,
            buffer_id: 0,
            root: Digest::xxh3([0; 16]),
            views: vec![ViewRecord { byte_offset: 0 }],
        };
        let chunks = Grid::of(&record).map_err(|error| {
            pyo3::exceptions::PyValueError::new_err(format!("a region of {byte_len} bytes: {error}"))
        })?;
        let mut tree = TreeBuilder::new(NodeKind::Region);
        let mut copy = Vec::new();
        let mut chunk_number = 0;
        while let Some((offset, len)) = chunks.chunk(chunk_number) {
            chunk_number += 1;
            if chunk_number % 1024 == 0 {
                self.check_signals()?;
            }
            // SAFETY: the grid stays inside the region.
            let chunk = unsafe { pointer.add(offset as usize) };
            tree.push(self.chunk(chunk, len as usize, is_frozen, &mut copy)?);
        }
        self.stats.region_bytes += byte_len as u64;
        let sink = &mut *self.sink;
        record.root = tree.finish(&mut |digest, bytes| -> Result<(), BlobError> {
            sink.put(BlobKind::DigestNode, digest, bytes).map(|_| ())
        })?;
        let builder = self.builder();
        builder.regions.push(record);
        Ok(builder.regions.len() as u32 - 1)
    }

    fn chunk(&mut self, pointer: *const u8, len: usize, is_frozen: bool, copy: &mut Vec<u8>) -> Step<Digest> {
        // SAFETY: the caller keeps `len` bytes alive.
        let live = |pointer| unsafe { std::slice::from_raw_parts(pointer, len) };
        if is_frozen {
            let digest = chipmink_digest::digest(live(pointer));
            self.sink.put(BlobKind::Chunk, digest, live(pointer))?;
            return Ok(digest);
        }
        let digest = live_digest(pointer, len);
        if self.sink.holds(&digest) {
            return Ok(digest);
        }
        copy.clear();
        copy.extend_from_slice(live(pointer));
        let digest = chipmink_digest::digest(copy);
        self.sink.put(BlobKind::Chunk, digest, copy)?;
        Ok(digest)
    }
}

/// An exported buffer, released on drop.
struct Exported(Box<ffi::Py_buffer>);

impl Exported {
    fn contiguous(object: Obj) -> PyResult<Self> {
        let mut buffer = Box::new(ffi::Py_buffer::new());
        // SAFETY: `buffer` is a valid place; on success it is released in Drop.
        let failed =
            unsafe { ffi::PyObject_GetBuffer(object.ptr(), &mut *buffer, ffi::PyBUF_ANY_CONTIGUOUS) } != 0;
        if failed {
            // SAFETY: the interpreter is attached throughout a walk.
            return Err(PyErr::fetch(unsafe { Python::assume_attached() }));
        }
        Ok(Exported(buffer))
    }
}

impl Drop for Exported {
    fn drop(&mut self) {
        // SAFETY: exported by `contiguous`, released once.
        unsafe { ffi::PyBuffer_Release(&mut *self.0) }
    }
}
