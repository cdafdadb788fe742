//! numpy arrays: what is written of one, and of arrays that show the same memory.

use super::frames::{At, FrameKind};
use super::memory::{Owner, Place, Seen, Span};
use super::ndarray::{self, ArrayObject, view};
use super::regions::{Content, RUN, span_words};
use super::session::NONE;
use super::shadow::{header, kind as word};
use super::shared::Owning;
use super::walker::{Step, Walker};
use crate::py::Obj;
use chipmink_digest::CHUNK_LEN;
use chipmink_format::tag;
use chipmink_types::{GlobalName, GridKind};
use pyo3::prelude::*;
use std::rc::Rc;

/// A dtype that is made again by itself: its string describes it in full, or the reducers do.
pub(crate) struct Dtype {
    text: String,
    /// What it is written as if it has no such string.
    literal: Option<Obj>,
    pub is_object: bool,
    pub item_len: usize,
    /// Stands for it in shadows.
    pub id: u64,
}

/// How the bytes of an array that stores them are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One after another in this order, as they lie.
    Packed(u8),
    /// One after another in C order, of a copy.
    Copied,
    /// All memory of the span as it lies, with the array's strides.
    Raw,
}

/// Where the memory of an array belongs, and the object that owns it in the end if others may show the same.
pub(crate) struct ArrayPlace {
    pub place: Place,
    base: Option<Obj>,
}

/// How an array is written whose items span `own`, if it stores its memory.
pub(crate) fn form(array: &ArrayObject, dtype: &Dtype, own: Span, place: &Place) -> Form {
    let is_union = matches!(place, Place::Union(_));
    match array.order() {
        Some(order) if matches!(place, Place::Own(stored) | Place::Union(stored) if *stored == own) => {
            Form::Packed(order)
        }
        // A few items far apart do not drag along what lies between them.
        None if array.item_count().saturating_mul(dtype.item_len) < own.len() && !is_union => Form::Copied,
        // References are written one by one.
        None if dtype.is_object && !is_union => Form::Copied,
        _ => Form::Raw,
    }
}

/// The grid of a contiguous array's memory: begun anew at each long row of a two-dimensional one.
fn grid_of(array: &ArrayObject, byte_len: usize) -> (GridKind, u64) {
    let rows = match (array.order(), array.dimensions()) {
        (Some(b'C'), [rows, _]) | (Some(_), [_, rows]) => *rows as u64,
        _ => return RUN,
    };
    match (byte_len as u64).checked_div(rows) {
        Some(row_len) if row_len >= CHUNK_LEN => (GridKind::Rows, row_len),
        _ => RUN,
    }
}

impl Walker<'_, '_> {
    /// Bytes and items of an array, roughly: an item counts eight bytes. One over memory that is stored already has none,
    /// nor has one that a reducer made to hand out the memory of another object: it has no life of its own.
    pub(crate) fn array_extent(&self, object: Obj, is_temporary: bool) -> (usize, usize) {
        let array = view(object);
        let items = array.item_count();
        if !array.base.is_null() && (is_temporary || self.memory.is_known(array.span(1))) {
            return (0, 0);
        }
        (items.saturating_mul(8), items)
    }

    /// Where the memory of an array belongs.
    pub(crate) fn array_place(&mut self, object: Obj, own: Span, dtype: &Dtype) -> Step<ArrayPlace> {
        let array = view(object);
        // Every view, and every memory view, of an array holds a reference to it.
        if own.is_empty() || (array.base.is_null() && object.refcount() == 1) {
            return Ok(ArrayPlace { place: Place::Own(own), base: None });
        }
        let object = self.stood_for(object);
        let (base, last) = ndarray::owner(self.py, object, self.session.kinds.ndarray());
        let owning = match ndarray::is_array(base, self.session.kinds.ndarray()) {
            true => Owning::Alone,
            false => self.owning(base)?,
        };
        if let Owning::Shared(owner, span) = owning {
            if !span.holds(own) {
                return Err(super::shared::shrunk().into());
            }
            let distance = (array.data as isize).wrapping_sub(span.start as isize);
            return Ok(ArrayPlace { place: Place::Of(owner, distance), base: Some(base) });
        }
        let (base_span, is_whole) = match self.memory_of(base)? {
            _ if base == object => (Some(own), true),
            // A wrapper of some library, which says nothing of its memory.
            None if last != object => (self.memory_of(last)?, false),
            // What nobody else refers to is stored for what shows it.
            span => (span, base.refcount() > 1 && matches!(owning, Owning::Alone)),
        };
        let seen = Seen {
            span: own,
            object,
            base,
            base_span,
            is_whole,
            is_compact: form(array, dtype, own, &Place::Own(own)) == Form::Copied,
            is_rigid: false,
        };
        let place = self.memory_place(seen, array.data as usize);
        Ok(ArrayPlace { place, base: Some(base) })
    }

    /// The instance of a subclass whose memory an array of a reducer shows; else the array itself.
    fn stood_for(&self, array: Obj) -> Obj {
        self.stand_ins.get(&array.addr()).copied().unwrap_or(array)
    }

    /// The memory of an object that owns memory, if it can be known: that of a contiguous array, or of an exporter.
    fn memory_of(&mut self, base: Obj) -> Step<Option<Span>> {
        if !ndarray::is_array(base, self.session.kinds.ndarray()) {
            return Ok(self.exported_memory(base));
        }
        let array = view(base);
        if array.order().is_none() {
            return Ok(None);
        }
        // SAFETY: an array always has a dtype.
        let descr = unsafe { Obj::from_ptr(array.descr) };
        let item_len = match self.simple_dtype(descr)? {
            Some(dtype) => dtype.item_len,
            None => descr.bound(self.py).getattr("itemsize")?.extract()?,
        };
        Ok(Some(array.span(item_len)))
    }

    /// What is stored with an array that owns its memory.
    pub(crate) fn array_content(&self, object: Obj, place: &ArrayPlace, stored: Span, form: Form) -> Content {
        let array = view(object);
        let grid = match place.base {
            _ if form != Form::Raw => grid_of(array, stored.len()),
            Some(base) if ndarray::is_array(base, self.session.kinds.ndarray()) => {
                grid_of(view(base), stored.len())
            }
            _ => RUN,
        };
        let byte_offset = if form == Form::Raw { array.data as usize - stored.start } else { 0 };
        Content { grid, byte_offset: byte_offset as u64, ..Content::run(stored) }
    }

    /// Lets an array own the memory that is stored with it.
    pub(crate) fn own_memory(
        &mut self,
        object: Obj,
        place: &ArrayPlace,
        (own, stored): (Span, Span),
        is_raw: bool,
        region: Option<u32>,
    ) {
        let Some(base) = place.base else { return };
        let object = self.stood_for(object);
        let pod = self.current_pod();
        let first = view(object).data as usize;
        let span = if is_raw { stored } else { own };
        self.memory.own(span, Owner { object, first, is_raw, pod, region, base });
    }

    /// Writes an array: dtype, layout, content.
    pub(crate) fn start_array(&mut self, object: Obj) -> Step {
        let array = view(object);
        // SAFETY: an array always has a dtype.
        let descr = unsafe { Obj::from_ptr(array.descr) };
        if self.stream.as_ref().is_some_and(|stream| stream.buffer_callback.is_some()) {
            // The array's own reducer offers the buffer to the callback.
            return self.start_reduce(object, super::kinds::Kind::Reduce);
        }
        let Some(dtype) = self.simple_dtype(descr)? else {
            return self.start_reduce(object, super::kinds::Kind::Reduce);
        };
        let own = array.span(dtype.item_len);
        let place = self.array_place(object, own, &dtype)?;
        let stored = match place.place {
            Place::Of(owner, distance) => return self.array_view(object, descr, &dtype, owner, distance),
            Place::Own(stored) | Place::Union(stored) => stored,
        };
        let form = form(array, &dtype, own, &place.place);
        if dtype.is_object {
            return match form {
                Form::Raw => self.object_view(object, &place, own, stored),
                _ => self.object_array(object, &place, own, form == Form::Copied),
            };
        }
        self.keep(object);
        if form == Form::Copied {
            self.no_shadow();
        }
        let content = match form {
            Form::Copied => {
                let copy = view(self.packed_copy(object)?);
                let span = copy.span(dtype.item_len);
                Content { grid: grid_of(copy, span.len()), ..Content::run(span) }
            }
            _ => self.array_content(object, &place, stored, form),
        };
        self.builder().byte(if form == Form::Raw { tag::NDARRAY_VIEW } else { tag::NDARRAY });
        self.write_array_dtype(descr, &dtype)?;
        if form == Form::Raw {
            self.write_strided_layout(object);
        } else {
            self.write_layout(object, if let Form::Packed(order) = form { order } else { b'C' });
        }
        let (number, region) = if content.span.len() >= tag::REGION_THRESHOLD {
            // A signal handler may run meanwhile and drop every other reference.
            let _alive = object.bound(self.py);
            let region = self.region(content)?;
            let builder = self.builder();
            builder.tag_varint(tag::ARRAY_REGION, u64::from(region));
            builder.varint(0);
            (builder.take_number(), Some(region))
        } else {
            let builder = self.builder();
            builder.byte(tag::ARRAY_INLINE);
            if form == Form::Raw {
                builder.varint(content.byte_offset);
            }
            builder.varint(content.span.len() as u64);
            if !content.span.is_empty() {
                let (start, len) = (content.span.start as *const u8, content.span.len());
                // SAFETY: memory of an array, or of the object that it shows, which is kept alive; copied at once.
                builder.bytes(unsafe { std::slice::from_raw_parts(start, len) });
            }
            (builder.take_number(), None)
        };
        if self.builder().shadow.is_some() {
            let fingerprint = array.fingerprint(form == Form::Raw);
            let inline = region.is_none().then(|| span_words(stored));
            if let Some(shadow) = &mut self.builder().shadow {
                let kind = if inline.is_some() { word::ARRAY } else { word::ARRAY_REGION };
                shadow.push(header(kind, number));
                shadow.push(dtype.id);
                shadow.push(fingerprint);
                match (inline, region) {
                    (Some([high, low]), _) => {
                        for field in [content.byte_offset, stored.len() as u64, high, low] {
                            shadow.push(field);
                        }
                    }
                    (None, region) => shadow.push(u64::from(region.unwrap_or(NONE))),
                }
            }
        }
        self.memoize(object, number);
        self.own_memory(object, &place, (own, stored), form != Form::Copied, region);
        Ok(())
    }

    /// Writes an array that shows memory of another object.
    fn array_view(&mut self, object: Obj, descr: Obj, dtype: &Dtype, owner: Obj, distance: isize) -> Step {
        self.keep(object);
        let array = view(object);
        let at = self.builder().buf.len();
        self.builder().byte(tag::NDARRAY_VIEW);
        self.write_array_dtype(descr, dtype)?;
        self.write_strided_layout(object);
        let builder = self.builder();
        builder.tag_varint(tag::ARRAY_SHARED, tag::zigzag(distance as i64));
        let header = builder.shadow.as_ref().map_or(NONE, |shadow| shadow.len() as u32);
        let words = if header == NONE {
            NONE
        } else {
            let fields = [dtype.id, array.fingerprint(true), distance as u64];
            self.record(word::ARRAY_VIEW, 0, &fields, std::iter::once(owner))
        };
        self.push(FrameKind::View { object, at, header }, words);
        self.value(owner, At { run_depth: None, word: words })
    }

    /// The object whose memory an array shows is written: the array exists now, unless it came to exist meanwhile.
    pub(crate) fn finish_view(&mut self, object: Obj, at: usize, header_at: u32) -> Step {
        if let Some(entry) = self.session.memo.get(object.addr()) {
            self.made_inside();
            self.builder().buf[at] = tag::NDARRAY_VIEW_AGAIN;
            return self.reference(object, entry, At::NOWHERE);
        }
        self.finish_immutable(object, header_at)
    }

    /// A contiguous copy of an array, kept until the walk ends.
    fn packed_copy(&mut self, object: Obj) -> Step<Obj> {
        self.hold();
        let copy = self.py.import("numpy")?.call_method1("ascontiguousarray", (object.bound(self.py),))?;
        Ok(self.own(copy))
    }

    /// Writes a dtype. They are like atoms: each pod has its own.
    pub(crate) fn start_dtype(&mut self, object: Obj) -> Step {
        self.no_shadow();
        match self.simple_dtype(object)?.as_deref() {
            Some(Dtype { literal: Some(literal), .. }) => self.write_value(object, *literal),
            Some(dtype) => {
                self.write_dtype(object, &dtype.text);
                Ok(())
            }
            None => self.start_reduce(object, super::kinds::Kind::Reduce),
        }
    }

    /// Before an array's content: the string alone, which names plain data and asks for no constructor.
    fn write_array_dtype(&mut self, descr: Obj, dtype: &Dtype) -> Step {
        if let Some(literal) = dtype.literal {
            return self.write_value(descr, literal);
        }
        let builder = self.builder();
        builder.bytes(&[tag::STR8, dtype.text.len() as u8]);
        builder.bytes(dtype.text.as_bytes());
        builder.take_number();
        Ok(())
    }

    pub(crate) fn write_dtype(&mut self, descr: Obj, text: &str) {
        let name = GlobalName { module: "numpy".to_owned(), qualname: "dtype".to_owned() };
        let id = self.session.names.id(name);
        let builder = self.builder();
        if let Some(number) = builder.local_number(descr) {
            builder.reference(number);
            return;
        }
        builder.bytes(&[tag::REDUCE, 0]);
        builder.global(id);
        builder.bytes(&[tag::TUPLE, 1, tag::STR8, text.len() as u8]);
        builder.bytes(text.as_bytes());
        // The str and the tuple take a number each.
        builder.next += 2;
        let number = builder.take_number();
        builder.set_local_number(descr, number);
    }

    /// What is known of a dtype, if `numpy.dtype(dtype.str)` makes it again, or what the reducers say of it.
    pub(crate) fn simple_dtype(&mut self, descr: Obj) -> Step<Option<Rc<Dtype>>> {
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
            let id = super::regions::digest_words(&chipmink_digest::digest(text.as_bytes()))[0];
            let item_len = bound.getattr("itemsize")?.extract()?;
            Some(Rc::new(Dtype { text, literal: None, is_object, item_len, id }))
        } else if is_object {
            None
        } else {
            self.described_dtype(descr)?
        };
        self.own(bound);
        self.dtypes.insert(descr.addr(), dtype.clone());
        Ok(dtype)
    }

    /// A dtype with fields, or of arrays.
    fn described_dtype(&mut self, descr: Obj) -> Step<Option<Rc<Dtype>>> {
        self.hold();
        let descr = descr.bound(self.py);
        let said = self.session.reducers.bind(self.py).call_method1("describe_dtype", (&descr,))?;
        if said.is_none() {
            return Ok(None);
        }
        let (text, literal): (String, Bound<'_, PyAny>) = said.extract()?;
        let id = super::regions::digest_words(&chipmink_digest::digest(text.as_bytes()))[0];
        let item_len = descr.getattr("itemsize")?.extract()?;
        let literal = Some(self.own(literal));
        Ok(Some(Rc::new(Dtype { text, literal, is_object: false, item_len, id })))
    }

    fn write_layout(&mut self, object: Obj, order: u8) {
        let array = view(object);
        let builder = self.builder();
        builder.byte(order);
        builder.byte(u8::from(array.is_writable()));
        builder.byte(array.nd as u8);
        for len in array.dimensions() {
            builder.varint(*len as u64);
        }
    }

    fn write_strided_layout(&mut self, object: Obj) {
        let array = view(object);
        let builder = self.builder();
        builder.byte(u8::from(array.is_writable()));
        builder.byte(array.nd as u8);
        for (len, stride) in array.dimensions().iter().zip(array.strides()) {
            builder.varint(*len as u64);
            builder.varint(tag::zigzag(*stride as i64));
        }
    }

    /// Writes an array of references that shows some of those from `stored`, which it owns.
    fn object_view(&mut self, object: Obj, place: &ArrayPlace, own: Span, stored: Span) -> Step {
        self.no_shadow();
        let array = view(object);
        let builder = self.builder();
        builder.byte(tag::NDARRAY_OBJECT_VIEW);
        builder.byte(u8::from(array.is_writable()));
        builder.byte(array.nd as u8);
        let word = size_of::<usize>();
        for (len, stride) in array.dimensions().iter().zip(array.strides()) {
            builder.varint(*len as u64);
            builder.varint(tag::zigzag((*stride / word as isize) as i64));
        }
        builder.varint(((array.data as usize - stored.start) / word) as u64);
        let len = stored.len() / word;
        builder.varint(len as u64);
        let number = builder.take_number();
        self.memoize(object, number);
        self.own_memory(object, place, (own, stored), true, None);
        let items = stored.start as *const ();
        self.push(FrameKind::Items { items: items.cast(), array: object, next: 0, len }, NONE);
        Ok(())
    }

    fn object_array(&mut self, object: Obj, place: &ArrayPlace, own: Span, is_copied: bool) -> Step {
        let listed = if is_copied {
            self.no_shadow();
            self.packed_copy(object)?
        } else {
            object
        };
        self.builder().byte(tag::NDARRAY_OBJECT);
        let order = view(listed).order().unwrap_or(b'C');
        self.write_layout(object, order);
        let number = self.builder().take_number();
        self.memoize(object, number);
        self.own_memory(object, place, (own, own), !is_copied, None);
        let items = view(listed).object_items();
        let fields = [items.len() as u64, view(object).fingerprint(false)];
        let words = self.record(word::OBJECT_ARRAY, number, &fields, items.iter().copied());
        if !items.is_empty() {
            let kind =
                FrameKind::Items { items: items.as_ptr().cast(), array: listed, next: 0, len: items.len() };
            self.push(kind, words);
        }
        Ok(())
    }
}
