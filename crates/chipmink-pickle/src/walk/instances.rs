//! Instances: what is written for one whose class and attributes say everything, and how classes are named.

use super::builder::ClassPlace;
use super::content::Pairs;
use super::frames::{At, FrameKind};
use super::kinds::Kind;
use super::names::{GlobalId, NeedsHold};
use super::session::NONE;
use super::shadow::{child, header, kind as word};
use super::shapes::ShapeId;
use super::walker::{Step, Walker};
use crate::py::Obj;
use chipmink_format::tag;
use chipmink_types::GlobalName;

impl Walker<'_, '_> {
    /// Writes a plain instance; visits its class first if that is saved by value.
    pub(crate) fn instance(&mut self, object: Obj, _at: At) -> Step {
        let dict = object.instance_dict();
        let shape = match dict {
            None if object.has_dict() => return self.start_reduce(object, Kind::Reduce),
            Some(dict) if dict.refcount() != 1 => None,
            _ => self.session.shapes.of(object, dict),
        };
        match (shape, dict) {
            (Some(shape), _) => self.shaped_instance(object, dict, shape),
            (None, None) => self.start_reduce(object, Kind::Reduce),
            (None, Some(dict)) => {
                // The dict is seen elsewhere, or its keys cannot be a shape: it is a value of its own.
                let empty = match super::shapes::has_hook(dict) {
                    true => None,
                    false => self.session.shapes.without_names(object),
                };
                let Some(id) = empty else { return self.start_reduce(object, Kind::Reduce) };
                self.no_shadow();
                let Some(ordinal) = self.shape_ordinal(object, id)? else { return Ok(()) };
                let shape = self.session.shapes.get(id);
                let mut values: Vec<Obj> = shape.slots().filter_map(|slot| slot.value(object)).collect();
                values.push(dict);
                self.open_container(object, tag::INSTANCE_DICT, ordinal as usize);
                self.push_fields(values, id, NONE);
                Ok(())
            }
        }
    }

    /// An instance whose attributes are told by its shape: names in its dict, then slots that are set.
    fn shaped_instance(&mut self, object: Obj, dict: Option<Obj>, shape: ShapeId) -> Step {
        let known = self.session.shapes.get(shape);
        if known.hooked {
            return self.start_reduce(object, Kind::Reduce);
        }
        let slots = known.slot_count();
        let Some(ordinal) = self.shape_ordinal(object, shape)? else { return Ok(()) };
        let number = self.open_container(object, tag::INSTANCE, ordinal as usize);
        let in_dict = dict.map_or(0, Obj::dict_len);
        let len = in_dict + slots;
        let version = dict.map_or(0, Obj::dict_version);
        let fields = [u64::from(shape) | (len as u64) << 32, version];
        if let (0, Some(dict)) = (slots, dict) {
            let words = if self.builder().shadow.is_some() {
                let values = Values { pairs: Pairs::new(dict, len) };
                self.record(word::INSTANCE, number, &fields, values)
            } else {
                NONE
            };
            if len > 0 {
                self.push(FrameKind::Attributes { dict, position: 0, left: len, len, done: 0 }, words);
            }
            return Ok(());
        }
        let mut values = Vec::with_capacity(len);
        values.extend(dict.into_iter().flat_map(|dict| Values { pairs: Pairs::new(dict, in_dict) }));
        let known = self.session.shapes.get(shape);
        values.extend(known.slots().filter_map(|slot| slot.value(object)));
        let words = match self.builder().shadow.is_some() {
            true => self.record(word::INSTANCE, number, &fields, values.iter().copied()),
            false => NONE,
        };
        self.push_fields(values, shape, words);
        Ok(())
    }

    /// Goes on with the values of an instance.
    fn push_fields(&mut self, values: Vec<Obj>, shape: ShapeId, words: u32) {
        if !values.is_empty() {
            values.iter().for_each(|value| self.keep(*value));
            self.sequences.push(values);
            self.push(FrameKind::Values { next: 0, shape }, words);
        }
    }

    /// The ordinal of a shape in the current pod. `None`: its class must be visited first, and frames have been pushed.
    fn shape_ordinal(&mut self, object: Obj, shape: ShapeId) -> Step<Option<u32>> {
        if let Some(ordinal) = self.builder().known_shape(shape) {
            return Ok(Some(ordinal));
        }
        let class = self.session.shapes.get(shape).class;
        if let Some(id) = self.global_of(class)? {
            let builder = self.builder();
            if let Some(shadow) = &mut builder.shadow {
                shadow.push(header(word::NAMED_CLASS, id));
                shadow.push(class.addr() as u64);
            }
            return Ok(Some(builder.add_shape(shape, ClassPlace::Global(id))));
        }
        let Some(entry) = self.session.memo.get(class.addr()) else {
            if self.single {
                // One pod for everything: the class must be reduced in place, before the instance.
                return self.reduce_instance(object);
            }
            self.keep(object);
            self.push(FrameKind::Instance { object, at: At::NOWHERE }, NONE);
            self.visit_class(class)?;
            return Ok(None);
        };
        if self.single {
            return self.reduce_instance(object);
        }
        self.guard_siblings(entry.seq)?;
        let slot = self.export_slot(class, entry.pod);
        let builder = self.builder();
        builder.dependency(entry.pod);
        if let Some(shadow) = &mut builder.shadow {
            shadow.push(u64::from(word::CLASS));
            shadow.push(class.addr() as u64);
            shadow.push(u64::from(entry.pod) | u64::from(slot) << 32);
        }
        Ok(Some(builder.add_shape(shape, ClassPlace::Pod(entry.pod, slot))))
    }

    fn reduce_instance(&mut self, object: Obj) -> Step<Option<u32>> {
        self.start_reduce(object, Kind::Reduce)?;
        Ok(None)
    }

    /// The name under which a class or function is saved, if it is saved by name.
    pub(crate) fn global_of(&mut self, object: Obj) -> Step<Option<GlobalId>> {
        if let Some(answer) = self.session.names.known(object) {
            return Ok(answer);
        }
        let bound = object.bound(self.py);
        let answer = match self.session.names.importable(&bound, self.held) {
            Ok(answer) => answer,
            Err(NeedsHold) => {
                self.hold();
                self.session.names.importable(&bound, true).unwrap_or_default()
            }
        };
        // The answer holds for this address as long as the object lives.
        self.own(bound);
        self.session.names.remember(object, answer);
        Ok(answer)
    }

    /// The name of the interpreter's own names, which it puts into every dict that is used as globals.
    #[inline(always)]
    pub(crate) fn builtins_name(&mut self, object: Obj) -> Option<GlobalId> {
        if object.addr() != self.session.builtins {
            return None;
        }
        let name = GlobalName { module: "builtins".to_owned(), qualname: "__dict__".to_owned() };
        Some(self.session.names.id(name))
    }

    pub(crate) fn write_global(&mut self, id: GlobalId, at: At) {
        let builder = self.builder();
        builder.global(id);
        if at.word != NONE
            && let Some(shadow) = &mut builder.shadow
        {
            shadow.decide(at.word, child::NAMED);
            shadow.push(header(word::NAME, id));
        }
    }
}

/// The values alone.
struct Values {
    pairs: Pairs,
}

impl Iterator for Values {
    type Item = Obj;

    #[inline(always)]
    fn next(&mut self) -> Option<Obj> {
        self.pairs.next()?;
        self.pairs.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.pairs.left / 2, Some(self.pairs.left / 2))
    }
}

impl ExactSizeIterator for Values {}
