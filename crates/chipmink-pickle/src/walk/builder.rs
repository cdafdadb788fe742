//! A pod under construction: its bytes, and what the ordinals in them mean.

use super::names::GlobalId;
use super::shadow::ShadowWriter;
use super::shapes::ShapeId;
use crate::py::Obj;
use chipmink_format::tag;
use chipmink_types::RegionRecord;
use hashbrown::HashMap;
use std::collections::BTreeSet;

/// Shapes or globals of a pod up to which comparing each is cheaper than looking one up.
const SEARCHED: usize = 16;

/// Where the class of a shape stands, in numbers of the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ClassPlace {
    /// Importable, under this name.
    Global(GlobalId),
    /// By value: pod and export slot.
    Pod(u32, u32),
}

/// A run of neighbouring exports that may grow.
#[derive(Clone, Copy)]
struct Run {
    start: usize,
    end: usize,
    dependency: u32,
    first: u32,
    count: u32,
    depth: usize,
}

/// A pod under construction.
#[derive(Default)]
pub(crate) struct Builder {
    /// The bytes so far, version byte included.
    pub buf: Vec<u8>,
    /// The next memo number.
    pub next: u32,
    /// Memo numbers that `REF` used, in order of use.
    pub refs: Vec<u32>,
    /// Pods referred to, by dependency ordinal.
    pub dependencies: Vec<u32>,
    dependency_index: HashMap<u32, u32>,
    /// Global ordinal to name.
    pub globals: Vec<GlobalId>,
    /// Shape ordinal to shape and its class.
    pub shapes: Vec<(ShapeId, ClassPlace)>,
    last_shape: u32,
    /// Ordinals of shapes and of globals where they are many; what was taken back may still stand there.
    shape_index: HashMap<ShapeId, u32>,
    global_index: HashMap<GlobalId, u32>,
    /// Region ordinal to region.
    pub regions: Vec<RegionRecord>,
    /// Values of the side record, without its version byte.
    pub side: Vec<u8>,
    side_count: u32,
    /// Names of the namespace that functions of the pod read.
    pub names: BTreeSet<String>,
    /// Number of root values begun.
    pub roots: u32,
    /// Sum of the volatilities of its objects.
    pub rate: f32,
    /// Long atoms met, by address: memoised within the pod only.
    long_atoms: HashMap<usize, u32>,
    run: Option<Run>,
    /// By dependency ordinal: whether an inner object of it is referred to, not only its first root.
    is_inside: Vec<bool>,
    /// The identity shadow that is built beside the bytes.
    pub shadow: Option<ShadowWriter>,
}

/// How far a builder was at some moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BuilderMark {
    buf: usize,
    next: u32,
    refs: usize,
    dependencies: usize,
    globals: usize,
    shapes: usize,
    regions: usize,
    side: usize,
    side_count: u32,
    roots: u32,
    rate: f32,
    shadow: usize,
}

/// What of a list its index lacks, now that its last element was added.
fn new_in_index<T>(list: &[T]) -> std::ops::Range<usize> {
    match list.len() {
        ..=SEARCHED => 0..0,
        len if len == SEARCHED + 1 => 0..len,
        len => len - 1..len,
    }
}

impl Builder {
    /// Makes it an empty pod again, keeping allocated memory.
    pub(crate) fn reset(&mut self) {
        let mut buf = std::mem::take(&mut self.buf);
        buf.clear();
        if buf.capacity() > 4 << 20 {
            buf = Vec::new();
        }
        *self = Builder { buf, ..Builder::default() };
        self.buf.push(tag::POD_VERSION);
    }

    pub(crate) fn mark(&self) -> BuilderMark {
        BuilderMark {
            buf: self.buf.len(),
            next: self.next,
            refs: self.refs.len(),
            dependencies: self.dependencies.len(),
            globals: self.globals.len(),
            shapes: self.shapes.len(),
            regions: self.regions.len(),
            side: self.side.len(),
            side_count: self.side_count,
            roots: self.roots,
            rate: self.rate,
            shadow: self.shadow.as_ref().map_or(0, ShadowWriter::len),
        }
    }

    /// Goes back to an earlier moment. Name edges stay: at worst a name too many is loaded.
    pub(crate) fn roll_back(&mut self, mark: &BuilderMark) {
        self.buf.truncate(mark.buf);
        self.next = mark.next;
        self.refs.truncate(mark.refs);
        for gone in self.dependencies.drain(mark.dependencies..) {
            self.dependency_index.remove(&gone);
        }
        self.is_inside.truncate(mark.dependencies);
        self.globals.truncate(mark.globals);
        self.shapes.truncate(mark.shapes);
        self.last_shape = 0;
        self.regions.truncate(mark.regions);
        self.side.truncate(mark.side);
        self.side_count = mark.side_count;
        self.roots = mark.roots;
        self.rate = mark.rate;
        self.long_atoms.retain(|_, number| *number < mark.next);
        self.run = None;
        if let Some(shadow) = &mut self.shadow {
            shadow.truncate(mark.shadow);
        }
    }

    #[inline(always)]
    pub(crate) fn byte(&mut self, byte: u8) {
        self.buf.push(byte);
    }

    #[inline(always)]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    #[inline(always)]
    pub(crate) fn varint(&mut self, value: u64) {
        put_varint(&mut self.buf, value);
    }

    #[inline(always)]
    pub(crate) fn tag_varint(&mut self, tag: u8, value: u64) {
        self.buf.push(tag);
        put_varint(&mut self.buf, value);
    }

    /// The next memo number, taken.
    #[inline(always)]
    pub(crate) fn take_number(&mut self) -> u32 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// A reference to an object of this pod.
    #[inline(always)]
    pub(crate) fn reference(&mut self, number: u32) {
        self.refs.push(number);
        self.tag_varint(tag::REF, u64::from(number));
    }

    /// The ordinal of a pod among the dependencies.
    pub(crate) fn dependency(&mut self, pod: u32) -> u32 {
        if let Some(last) = self.dependencies.last()
            && *last == pod
        {
            return self.dependencies.len() as u32 - 1;
        }
        if let Some(ordinal) = self.dependency_index.get(&pod) {
            return *ordinal;
        }
        let ordinal = self.dependencies.len() as u32;
        self.dependencies.push(pod);
        self.is_inside.push(false);
        self.dependency_index.insert(pod, ordinal);
        ordinal
    }

    /// Bytes of the shadow that was built.
    pub(crate) fn shadow_byte_len(&self) -> u64 {
        self.shadow.as_ref().map_or(0, |shadow| 8 * shadow.len() as u64)
    }

    /// Pods of which an inner object is referred to.
    pub(crate) fn inside(&self) -> Vec<u32> {
        let refers = self.dependencies.iter().zip(&self.is_inside);
        refers.filter(|(_, is_inside)| **is_inside).map(|(pod, _)| *pod).collect()
    }

    /// A reference to an export of another pod. `depth` is the frame's if it is a sequence, in which neighbouring
    /// exports may be written as a run.
    pub(crate) fn export(&mut self, pod: u32, slot: u32, depth: Option<usize>) {
        let dependency = self.dependency(pod);
        self.is_inside[dependency as usize] |= slot != 0;
        if let (Some(depth), Some(run)) = (depth, &mut self.run)
            && run.depth == depth
            && run.end == self.buf.len()
            && run.dependency == dependency
            && run.first + run.count == slot
        {
            run.count += 1;
            let (start, first, count) = (run.start, run.first, run.count);
            self.buf.truncate(start);
            self.tag_varint(tag::POD_RUN, u64::from(dependency));
            self.varint(u64::from(first));
            self.varint(u64::from(count));
            if let Some(run) = &mut self.run {
                run.end = self.buf.len();
            }
            return;
        }
        let start = self.buf.len();
        if slot == 0 {
            self.tag_varint(tag::POD, u64::from(dependency));
        } else {
            self.tag_varint(tag::POD_EXPORT, u64::from(dependency));
            self.varint(u64::from(slot));
        }
        self.run =
            depth.map(|depth| Run { start, end: self.buf.len(), dependency, first: slot, count: 1, depth });
    }

    pub(crate) fn global(&mut self, id: GlobalId) {
        let ordinal = self.global_ordinal(id);
        self.tag_varint(tag::GLOBAL, u64::from(ordinal));
    }

    pub(crate) fn global_ordinal(&mut self, id: GlobalId) -> u32 {
        let known = match self.globals.len() {
            // A pod names few globals.
            ..=SEARCHED => self.globals.iter().rposition(|known| *known == id).map(|at| at as u32),
            _ => self.global_index.get(&id).copied(),
        };
        if let Some(at) = known
            && self.globals.get(at as usize) == Some(&id)
        {
            return at;
        }
        let ordinal = self.globals.len() as u32;
        self.globals.push(id);
        let new = new_in_index(&self.globals);
        self.global_index.extend(new.map(|at| (self.globals[at], at as u32)));
        ordinal
    }

    #[inline(always)]
    pub(crate) fn known_shape(&mut self, shape: ShapeId) -> Option<u32> {
        if let Some(last) = self.shapes.get(self.last_shape as usize)
            && last.0 == shape
        {
            return Some(self.last_shape);
        }
        let found = match self.shapes.len() {
            ..=SEARCHED => self.shapes.iter().rposition(|known| known.0 == shape)? as u32,
            _ => *self.shape_index.get(&shape)?,
        };
        if self.shapes.get(found as usize)?.0 != shape {
            return None;
        }
        self.last_shape = found;
        Some(found)
    }

    pub(crate) fn add_shape(&mut self, shape: ShapeId, class: ClassPlace) -> u32 {
        if let ClassPlace::Global(id) = class {
            self.global_ordinal(id);
        }
        self.last_shape = self.shapes.len() as u32;
        self.shapes.push((shape, class));
        let new = new_in_index(&self.shapes);
        self.shape_index.extend(new.map(|at| (self.shapes[at].0, at as u32)));
        self.last_shape
    }

    /// Writes an atom. Returns `false` for a long one that must leave the stream as a region.
    #[inline(always)]
    pub(crate) fn atom(&mut self, object: Obj) -> bool {
        if object.is_str() {
            self.str_atom(object)
        } else if object.is_int() {
            match object.small_int() {
                Some(value) => put_int(&mut self.buf, value),
                None => return self.wide_int(object),
            }
            true
        } else if object.is_float() {
            self.buf.push(tag::FLOAT);
            self.buf.extend_from_slice(&object.float_value().to_le_bytes());
            true
        } else if object.is_bytes() {
            self.bytes_atom(object)
        } else {
            self.rare_atom(object);
            true
        }
    }

    /// The memo number of an object that each pod has for itself, if it was written in this pod.
    pub(crate) fn local_number(&self, object: Obj) -> Option<u32> {
        self.long_atoms.get(&object.addr()).copied()
    }

    pub(crate) fn set_local_number(&mut self, object: Obj, number: u32) {
        self.long_atoms.insert(object.addr(), number);
    }

    fn rare_atom(&mut self, object: Obj) {
        if object.is_none() {
            self.buf.push(tag::NONE);
        } else if object.is_bool() {
            self.buf.push(if object.is_true() { tag::TRUE } else { tag::FALSE });
        } else {
            debug_assert!(object.is_complex());
            let (real, imaginary) = object.complex_value();
            self.buf.push(tag::COMPLEX);
            self.buf.extend_from_slice(&real.to_le_bytes());
            self.buf.extend_from_slice(&imaginary.to_le_bytes());
        }
    }

    #[cold]
    fn wide_int(&mut self, object: Obj) -> bool {
        match object.int_value() {
            Some(value) => put_int(&mut self.buf, value),
            None => {
                let bytes = big_int_bytes(object);
                if bytes.len() >= tag::REGION_THRESHOLD {
                    return false;
                }
                self.tag_varint(tag::BIGINT, bytes.len() as u64);
                self.buf.extend_from_slice(&bytes);
            }
        }
        true
    }

    /// Writes a reference if this very object was written before in this pod; else takes its number. Returns whether
    /// the object still has to be written.
    #[inline(always)]
    fn long_atom_is_new(&mut self, object: Obj) -> bool {
        // With one reference it cannot be met again, except through a reducer that peeks; then it is written twice.
        if object.refcount() == 1 {
            self.next += 1;
            return true;
        }
        match self.long_atoms.entry(object.addr()) {
            hashbrown::hash_map::Entry::Occupied(known) => {
                let number = *known.get();
                self.reference(number);
                false
            }
            hashbrown::hash_map::Entry::Vacant(free) => {
                free.insert(self.next);
                self.next += 1;
                true
            }
        }
    }

    #[inline(always)]
    fn str_atom(&mut self, object: Obj) -> bool {
        let raw = object.str_raw();
        if raw.len() <= tag::ALWAYS_INLINE {
            self.next += 1;
        } else if raw.len() >= tag::REGION_THRESHOLD {
            return false;
        } else if !self.long_atom_is_new(object) {
            return true;
        }
        put_str(&mut self.buf, object);
        true
    }

    #[inline(always)]
    fn bytes_atom(&mut self, object: Obj) -> bool {
        let raw = object.bytes_slice();
        if raw.len() <= tag::ALWAYS_INLINE {
            self.next += 1;
        } else if raw.len() >= tag::REGION_THRESHOLD {
            return false;
        } else if !self.long_atom_is_new(object) {
            return true;
        }
        put_bytes(&mut self.buf, raw);
        true
    }

    /// Writes an atom in full, whatever was written before: the canonical form in sets. `false` as [`Builder::atom`].
    pub(crate) fn atom_in_full(&mut self, object: Obj) -> bool {
        if object.is_str() {
            if object.str_raw().len() >= tag::REGION_THRESHOLD {
                return false;
            }
            put_str(&mut self.buf, object);
        } else if object.is_bytes() {
            if object.bytes_slice().len() >= tag::REGION_THRESHOLD {
                return false;
            }
            put_bytes(&mut self.buf, object.bytes_slice());
        } else {
            return self.atom(object);
        }
        true
    }

    /// A value that is stored but not hashed.
    pub(crate) fn side_value(&mut self, object: Obj) {
        if object.is_str() {
            put_str(&mut self.side, object);
        } else if object.is_bytes() {
            put_bytes(&mut self.side, object.bytes_slice());
        } else if let Some(value) = object.is_int().then(|| object.int_value()).flatten() {
            put_int(&mut self.side, value);
        } else {
            self.side.push(tag::NONE);
        }
        let ordinal = self.side_count;
        self.side_count += 1;
        self.tag_varint(tag::SIDE, u64::from(ordinal));
    }

    /// Adds the trailer: the memo numbers that references use. What only building needs is let go.
    pub(crate) fn finish(&mut self) {
        self.long_atoms = HashMap::new();
        self.refs.sort_unstable();
        self.refs.dedup();
        let start = self.buf.len();
        put_varint(&mut self.buf, self.refs.len() as u64);
        let mut last = 0;
        for number in &self.refs {
            put_varint(&mut self.buf, u64::from(number - last));
            last = *number;
        }
        let trailer_len = (self.buf.len() - start) as u32;
        self.buf.extend_from_slice(&trailer_len.to_le_bytes());
    }
}

#[inline(always)]
pub(crate) fn put_varint(buf: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        buf.push(value as u8 | 0x80);
        value >>= 7;
    }
    buf.push(value as u8);
}

#[inline(always)]
pub(crate) fn put_int(buf: &mut Vec<u8>, value: i64) {
    if let Ok(value) = i8::try_from(value) {
        buf.extend_from_slice(&[tag::INT8, value as u8]);
    } else if let Ok(value) = i16::try_from(value) {
        let [a, b] = value.to_le_bytes();
        buf.extend_from_slice(&[tag::INT16, a, b]);
    } else if let Ok(value) = i32::try_from(value) {
        let [a, b, c, d] = value.to_le_bytes();
        buf.extend_from_slice(&[tag::INT32, a, b, c, d]);
    } else {
        buf.push(tag::INT64);
        buf.extend_from_slice(&value.to_le_bytes());
    }
}

#[inline(always)]
pub(crate) fn put_str(buf: &mut Vec<u8>, object: Obj) {
    let raw = object.str_raw();
    if object.str_is_ascii() {
        match u8::try_from(raw.len()) {
            Ok(len) => buf.extend_from_slice(&[tag::STR8, len]),
            Err(_) => {
                buf.push(tag::STR);
                put_varint(buf, raw.len() as u64);
            }
        }
    } else {
        buf.extend_from_slice(&[tag::STR_WIDE, object.str_width() as u8]);
        put_varint(buf, object.str_len() as u64);
    }
    buf.extend_from_slice(raw);
}

#[inline(always)]
pub(crate) fn put_text(buf: &mut Vec<u8>, py: pyo3::Python<'_>, text: &str) {
    put_str(buf, Obj::of(pyo3::types::PyString::new(py, text).as_any()));
}

#[inline(always)]
fn put_bytes(buf: &mut Vec<u8>, raw: &[u8]) {
    match u8::try_from(raw.len()) {
        Ok(len) => buf.extend_from_slice(&[tag::BYTES8, len]),
        Err(_) => {
            buf.push(tag::BYTES);
            put_varint(buf, raw.len() as u64);
        }
    }
    buf.extend_from_slice(raw);
}

/// Two's complement of an int beyond 64 bits, little-endian, as short as can be.
pub(crate) fn big_int_bytes(object: Obj) -> Vec<u8> {
    crate::py::int_to_bytes(object)
}
