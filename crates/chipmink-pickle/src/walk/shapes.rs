//! Shapes: the class, attribute names and set slots that plain instances have in common.

use crate::py::Obj;
use hashbrown::HashMap;
use pyo3::ffi;
use std::rc::Rc;

/// Number of a shape in the session's register.
pub(crate) type ShapeId = u32;

/// Instances with more attributes than this are written with a dict of their own.
pub(crate) const MAX_NAMES: usize = 64;

/// Shapes of one class up to which comparing each is cheaper than looking one up.
const LOOKED_THROUGH: usize = 16;

/// Attribute names that make an instance anything but plain when its own dict holds them.
const HOOKS: [&[u8]; 5] = [b"__reduce_ex__", b"__reduce__", b"__getstate__", b"__setstate__", b"__class__"];

/// Where instances of a class keep the value of a slot.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    /// The descriptor's name, an interned str that the class holds.
    pub name: Obj,
    /// Bytes from the start of the instance.
    offset: usize,
}

impl Slot {
    /// The value, if the slot is set. The instance must be of the class that the slot was found in.
    #[inline(always)]
    pub(crate) fn value(self, instance: Obj) -> Option<Obj> {
        // SAFETY: the interpreter laid out the instance with an object pointer, or null, at this offset.
        let value = unsafe { *instance.ptr().cast::<u8>().add(self.offset).cast::<*mut ffi::PyObject>() };
        // SAFETY: the instance refers to it.
        (!value.is_null()).then(|| unsafe { Obj::from_ptr(value) })
    }
}

/// The slots of a class and its bases, bases first; `None`: they do not say all about its instances.
///
/// That is so if a slot cannot be reached under its name (another attribute hides it, its descriptor was deleted), or if
/// instances have room for more than slots, `__dict__` and `__weakref__`.
pub(crate) fn slots_of(ty: *mut ffi::PyTypeObject) -> Option<Vec<Slot>> {
    const WORD: isize = size_of::<usize>() as isize;
    let object = &raw mut ffi::PyBaseObject_Type;
    // SAFETY: a live, ready type; `object` is a static one.
    let (mro, flags, dictoffset, weakrefs, len, head) = unsafe {
        let ty = &*ty;
        (
            ty.tp_mro,
            ty.tp_flags,
            ty.tp_dictoffset,
            ty.tp_weaklistoffset,
            ty.tp_basicsize,
            (*object).tp_basicsize,
        )
    };
    // SAFETY: the method resolution order of a ready type is a tuple of types.
    let bases = unsafe { Obj::from_ptr(mro) }.tuple_items();
    let mut slots: Vec<Slot> = Vec::new();
    for base in bases.iter().rev().filter(|base| base.ptr() != object.cast()) {
        // SAFETY: the size of a heap type is its number of slots.
        let count = unsafe { ffi::Py_SIZE(base.ptr()) };
        if count == 0 {
            continue;
        }
        let before = slots.len();
        // SAFETY: the attributes of a heap type are a dict.
        let attributes = unsafe { Obj::from_ptr((*base.ptr().cast::<ffi::PyTypeObject>()).tp_dict) };
        let mut position = 0;
        while let Some((name, value)) = attributes.dict_next(&mut position) {
            if value.ty() != &raw mut ffi::PyMemberDescr_Type {
                continue;
            }
            let descriptor = value.ptr().cast::<ffi::PyMemberDescrObject>();
            // SAFETY: of the type that was asked for; its member lives as long as the type that it belongs to.
            let (owner, member) = unsafe { ((*descriptor).d_common.d_type, &*(*descriptor).d_member) };
            if owner.cast() != base.ptr() || member.type_code != ffi::Py_T_OBJECT_EX {
                continue;
            }
            if !name.is_str() || !name.str_is_interned() || crate::py::type_lookup(ty, name) != Some(value) {
                return None;
            }
            slots.push(Slot { name, offset: usize::try_from(member.offset).ok()? });
        }
        if (slots.len() - before) as isize != count {
            return None;
        }
    }
    let has_dict_word = dictoffset != 0 && flags & MANAGED_DICT == 0;
    let words = slots.len() as isize + isize::from(has_dict_word) + isize::from(weakrefs > 0);
    (slots.len() <= MAX_NAMES && len <= head + words * WORD).then_some(slots)
}

/// `Py_TPFLAGS_MANAGED_DICT`, from CPython's Include/cpython/object.h: `__dict__` lies before the object.
const MANAGED_DICT: std::ffi::c_ulong = 1 << 4;

pub(crate) struct Shape {
    /// The class, held.
    pub class: Obj,
    /// Interned names, held, in the order of the dict.
    pub names: Box<[Obj]>,
    /// All slots of the class.
    layout: Rc<[Slot]>,
    /// One bit for each slot of the layout that is set.
    set: u64,
    /// The names include a hook of pickle's: the instance must be reduced.
    pub hooked: bool,
}

impl Shape {
    /// The slots that are set, in order.
    #[inline(always)]
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> {
        let set = self.set;
        self.layout.iter().enumerate().filter(move |(at, _)| set >> at & 1 != 0).map(|(_, slot)| *slot)
    }

    /// How many slots are set.
    #[inline(always)]
    pub(crate) fn slot_count(&self) -> usize {
        self.set.count_ones() as usize
    }

    /// Whether exactly these slots of the instance are set.
    #[inline(always)]
    pub(crate) fn slots_match(&self, instance: Obj) -> bool {
        self.layout.is_empty() || self.set == which_are_set(&self.layout, instance)
    }
}

fn which_are_set(layout: &[Slot], instance: Obj) -> u64 {
    let set = layout.iter().enumerate().filter(|(_, slot)| slot.value(instance).is_some());
    set.fold(0, |set, (at, _)| set | 1 << at)
}

/// All shapes that the session met.
#[derive(Default)]
pub(crate) struct Shapes {
    shapes: Vec<Shape>,
    /// Shapes by the address of their class.
    of_class: HashMap<usize, Vec<ShapeId>>,
    /// Shapes by what [`content`] says of them.
    by_content: HashMap<Box<[usize]>, ShapeId>,
    last: ShapeId,
}

impl Shapes {
    #[inline(always)]
    pub(crate) fn get(&self, id: ShapeId) -> &Shape {
        &self.shapes[id as usize]
    }

    /// The shape of a plain instance whose dict, if instances of its class have one, is `dict`.
    ///
    /// `None`: too many names, or one that is not an interned str, so that names cannot be compared by pointer.
    #[inline]
    pub(crate) fn of(&mut self, object: Obj, dict: Option<Obj>) -> Option<ShapeId> {
        if let Some(last) = self.shapes.get(self.last as usize)
            && last.class == object.class()
            && names_match(dict, &last.names)
            && last.slots_match(object)
        {
            return Some(self.last);
        }
        self.look_up(object, dict)
    }

    fn look_up(&mut self, object: Obj, dict: Option<Obj>) -> Option<ShapeId> {
        let known = self.of_class.get(&object.ty_addr()).map_or(&[][..], Vec::as_slice);
        let is_it = |id: &&ShapeId| {
            let shape = &self.shapes[**id as usize];
            names_match(dict, &shape.names) && shape.slots_match(object)
        };
        if known.len() <= LOOKED_THROUGH
            && let Some(id) = known.iter().rev().find(is_it)
        {
            self.last = *id;
            return Some(*id);
        }
        let mut names = Vec::new();
        if let Some(dict) = dict {
            if dict.dict_len() > MAX_NAMES {
                return None;
            }
            let mut position = 0;
            while let Some((key, _)) = dict.dict_next(&mut position) {
                if !key.is_str() || !key.str_is_interned() {
                    return None;
                }
                names.push(key);
            }
        }
        if let [first, rest @ ..] = known
            && rest.len() >= LOOKED_THROUGH
        {
            let set = which_are_set(&self.shapes[*first as usize].layout, object);
            if let Some(id) = self.by_content.get(&content(object.class(), set, &names)[..]) {
                self.last = *id;
                return Some(*id);
            }
        }
        let id = self.add(object, names)?;
        self.last = id;
        Some(id)
    }

    /// The shape of an instance as if it had nothing in its dict.
    pub(crate) fn without_names(&mut self, object: Obj) -> Option<ShapeId> {
        self.look_up(object, None)
    }

    fn add(&mut self, object: Obj, names: Vec<Obj>) -> Option<ShapeId> {
        let class = object.class();
        let known = self.of_class.get(&class.addr()).and_then(|known| known.first());
        let layout: Rc<[Slot]> = match known {
            Some(id) => self.shapes[*id as usize].layout.clone(),
            None => slots_of(object.ty())?.into(),
        };
        let set = which_are_set(&layout, object);
        let hooked = names.iter().any(|name| is_hook(*name));
        class.incref();
        names.iter().for_each(|name| name.incref());
        let id = self.shapes.len() as ShapeId;
        self.by_content.insert(content(class, set, &names), id);
        self.shapes.push(Shape { class, names: names.into_boxed_slice(), layout, set, hooked });
        self.of_class.entry(class.addr()).or_default().push(id);
        Some(id)
    }

    /// All slots of an instance's class, if it was met before.
    pub(crate) fn known_slots(&self, object: Obj) -> Option<Rc<[Slot]>> {
        let id = self.of_class.get(&object.ty_addr())?.first()?;
        let layout = &self.shapes[*id as usize].layout;
        (!layout.is_empty()).then(|| layout.clone())
    }

    /// The classes that are held, each as often as it is.
    pub(crate) fn held_types(&self) -> impl Iterator<Item = Obj> {
        self.shapes.iter().map(|shape| shape.class)
    }

    /// Number of shapes held.
    pub(crate) fn len(&self) -> usize {
        self.shapes.len()
    }

    /// Gives up all shapes. No shadow that names one may be in use any more.
    pub(crate) fn clear(&mut self) {
        for shape in self.shapes.drain(..) {
            shape.class.decref();
            shape.names.iter().for_each(|name| name.decref());
        }
        self.of_class.clear();
        self.by_content.clear();
        self.last = 0;
    }
}

/// What tells a shape from all others: the addresses of its class and names, which it holds, and its slots.
fn content(class: Obj, set: u64, names: &[Obj]) -> Box<[usize]> {
    let names = names.iter().map(|name| name.addr());
    [class.addr(), set as usize].into_iter().chain(names).collect()
}

fn is_hook(name: Obj) -> bool {
    name.is_str() && name.str_is_ascii() && HOOKS.contains(&name.str_raw())
}

/// Whether an instance's own dict holds a hook of pickle's.
pub(crate) fn has_hook(dict: Obj) -> bool {
    let mut position = 0;
    while let Some((key, _)) = dict.dict_next(&mut position) {
        if is_hook(key) {
            return true;
        }
    }
    false
}

/// Whether the dict's keys are exactly these objects, in this order.
#[inline(always)]
fn names_match(dict: Option<Obj>, names: &[Obj]) -> bool {
    let Some(dict) = dict else { return names.is_empty() };
    if dict.dict_len() != names.len() {
        return false;
    }
    let mut position = 0;
    for name in names {
        match dict.dict_next(&mut position) {
            Some((key, _)) if key == *name => {}
            _ => return false,
        }
    }
    true
}
