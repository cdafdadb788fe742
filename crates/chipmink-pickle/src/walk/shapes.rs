//! Shapes: the class and attribute names that plain instances have in common.

use crate::py::Obj;
use hashbrown::HashMap;

/// Number of a shape in the session's register.
pub(crate) type ShapeId = u32;

/// Instances with more attributes than this are written with a dict of their own.
pub(crate) const MAX_NAMES: usize = 64;

/// Attribute names that make an instance anything but plain when its own dict holds them.
const HOOKS: [&[u8]; 5] = [b"__reduce_ex__", b"__reduce__", b"__getstate__", b"__setstate__", b"__class__"];

pub(crate) struct Shape {
    /// The class, held.
    pub class: Obj,
    /// Interned names, held, in the order of the dict.
    pub names: Box<[Obj]>,
    /// The names include a hook of pickle's: the instance must be reduced.
    pub hooked: bool,
}

/// All shapes that the session met.
#[derive(Default)]
pub(crate) struct Shapes {
    shapes: Vec<Shape>,
    of_class: HashMap<usize, Vec<ShapeId>>,
    last: ShapeId,
}

impl Shapes {
    #[inline(always)]
    pub(crate) fn get(&self, id: ShapeId) -> &Shape {
        &self.shapes[id as usize]
    }

    /// The shape of an instance of `class` whose dict is `dict`.
    ///
    /// `None`: too many names, or one that is not an interned str, so that names cannot be compared by pointer.
    #[inline]
    pub(crate) fn of(&mut self, class: Obj, dict: Obj) -> Option<ShapeId> {
        if let Some(last) = self.shapes.get(self.last as usize)
            && last.class == class
            && names_match(dict, &last.names)
        {
            return Some(self.last);
        }
        self.look_up(class, dict)
    }

    fn look_up(&mut self, class: Obj, dict: Obj) -> Option<ShapeId> {
        let known = self.of_class.get(&class.addr()).map_or(&[][..], Vec::as_slice);
        if let Some(id) = known.iter().rev().find(|id| names_match(dict, &self.shapes[**id as usize].names)) {
            self.last = *id;
            return Some(*id);
        }
        if dict.dict_len() > MAX_NAMES {
            return None;
        }
        let mut names = Vec::with_capacity(dict.dict_len());
        let mut position = 0;
        while let Some((key, _)) = dict.dict_next(&mut position) {
            if !key.is_str() || !key.str_is_interned() {
                return None;
            }
            names.push(key);
        }
        let id = self.add(class, names);
        self.last = id;
        Some(id)
    }

    /// The shape of a class without any names.
    pub(crate) fn without_names(&mut self, class: Obj) -> ShapeId {
        let known = self.of_class.get(&class.addr()).map_or(&[][..], Vec::as_slice);
        match known.iter().find(|id| self.shapes[**id as usize].names.is_empty()) {
            Some(id) => *id,
            None => self.add(class, Vec::new()),
        }
    }

    fn add(&mut self, class: Obj, names: Vec<Obj>) -> ShapeId {
        let hooked = names.iter().any(|name| is_hook(*name));
        class.incref();
        names.iter().for_each(|name| name.incref());
        let id = self.shapes.len() as ShapeId;
        self.shapes.push(Shape { class, names: names.into_boxed_slice(), hooked });
        self.of_class.entry(class.addr()).or_default().push(id);
        id
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
        self.last = 0;
    }
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
fn names_match(dict: Obj, names: &[Obj]) -> bool {
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
