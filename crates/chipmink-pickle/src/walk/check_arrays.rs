//! Comparing arrays, and the regions of a pod, with its identity shadow.
//!
//! The bytes of a pod name its regions by ordinal only, so another content of a region changes the pod's record and
//! nothing else: it is stored at once, and the pod stays proved.

use super::arrays::{Form, form};
use super::check::{Words, same};
use super::memory::Place;
use super::ndarray::view;
use super::regions::{Content, span_words};
use super::shadow::{ALL_ATOMS, child, kind};
use super::walker::{Step, Walker};
use crate::py::Obj;
use chipmink_format::tag;

impl Walker<'_, '_> {
    /// Compares an array with a record of its own or of shared memory.
    pub(super) fn check_array(&mut self, object: Obj, at: usize, number: u32) -> Step {
        let (Words(words), _) = self.shadow_here();
        let array = view(object);
        // SAFETY: an array always has a dtype.
        let descr = unsafe { Obj::from_ptr(array.descr) };
        let Some(dtype) = self.simple_dtype(descr)? else { return self.miss() };
        if dtype.id != words[at + 1] {
            return self.miss();
        }
        let own = array.span(dtype.item_len);
        let place = self.array_place(object, own, &dtype)?;
        let stored = match place.place {
            Place::Own(stored) | Place::Union(stored) => stored,
            Place::Of(owner, distance) => {
                let is_same = words[at] as u8 == kind::ARRAY_VIEW
                    && array.fingerprint(true) == words[at + 2]
                    && distance as u64 == words[at + 3]
                    && owner.addr() as u64 == words[at + 4] & !child::MASK;
                if !is_same {
                    return self.miss();
                }
                let all_atoms = words[at] & ALL_ATOMS != 0;
                if all_atoms {
                    self.enter(object, number)?;
                }
                self.children(at + 4, 1, all_atoms, Some((object, number)));
                return Ok(());
            }
        };
        let form = form(array, &dtype, own, &place.place);
        if form == Form::Copied || array.fingerprint(form == Form::Raw) != words[at + 2] {
            return self.miss();
        }
        let content = self.array_content(object, &place, stored, form);
        let is_region = stored.len() >= tag::REGION_THRESHOLD;
        match (words[at] as u8, is_region) {
            (kind::ARRAY, false) => {
                let fields = [content.byte_offset, stored.len() as u64];
                if fields != words[at + 3..at + 5] || span_words(stored) != words[at + 5..at + 7] {
                    return self.miss();
                }
                self.enter(object, number)?;
                self.own_memory(object, &place, (own, stored), true, None);
                self.advance(at + 7);
            }
            (kind::ARRAY_REGION, true) => {
                let region = words[at + 3] as u32;
                // A signal handler may run meanwhile and drop every other reference.
                let _alive = object.bound(self.py);
                self.check_region(region, &content)?;
                self.enter(object, number)?;
                self.own_memory(object, &place, (own, stored), true, Some(region));
                self.advance(at + 4);
            }
            _ => return self.miss(),
        }
        Ok(())
    }

    /// Compares an array of objects with its record, but for the objects behind the pointers.
    pub(super) fn check_object_array(&mut self, object: Obj, Words(words): Words<'_>) -> Step {
        let array = view(object);
        // SAFETY: an array always has a dtype.
        let descr = unsafe { Obj::from_ptr(array.descr) };
        let Some(dtype) = self.simple_dtype(descr)?.filter(|dtype| dtype.is_object) else {
            return self.miss();
        };
        if array.order().is_none() || array.fingerprint(false) != words[2] {
            return self.miss();
        }
        let own = array.span(dtype.item_len);
        let place = self.array_place(object, own, &dtype)?;
        if !matches!(place.place, Place::Own(_))
            || !same(array.object_items(), &words[3..], words[0] & ALL_ATOMS != 0)
        {
            return self.miss();
        }
        self.own_memory(object, &place, (own, own), true, None);
        Ok(())
    }

    /// Compares a region of the current pod with what was stored, and stores what is new.
    pub(super) fn check_region(&mut self, region: u32, content: &Content) -> Step {
        let pod = self.current_pod();
        let known =
            self.session.pod(pod).and_then(|state| state.record.regions.get(region as usize).cloned());
        let Some(known) = known else { return self.miss() };
        let mut record = self.region_record(content, Some(&known))?;
        record.buffer_id = known.buffer_id;
        if record != known {
            self.visits[self.current as usize].regions.push((region, record));
        }
        Ok(())
    }
}
