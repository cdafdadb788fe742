//! Plain instances: made without calling the class, attributes set without calling any code of theirs.

use super::containers::wrong_frame;
use super::error::{Failure, Result};
use super::frame::Build;
use super::loader::{Loader, Step};
use super::shape::ShapeStep;

impl<'py> Loader<'py, '_> {
    /// Begins an instance; `own_dict`: its `__dict__` is a value that follows the slots.
    pub(super) fn begin_instance(&mut self, own_dict: bool) -> Result<Step<'py>> {
        let tag_at = self.at.reader.at() - 1;
        let ordinal = self.at.reader.varint()?;
        let shape = match self.shape(ordinal)? {
            ShapeStep::Shape(shape) => shape,
            ShapeStep::RunFirst(position) => {
                self.at.reader.rewind(tag_at);
                self.begin_pod(position)?;
                return Ok(Step::Opened);
            }
        };
        if own_dict && shape.has_dict_names() {
            return Err(Failure::damaged("the shape of an instance with a dict of its own names attributes"));
        }
        let object = shape.instance(self.py)?;
        let build = if own_dict {
            Build::InstanceDict { object: object.clone(), shape, next: 0 }
        } else {
            Build::Instance { object: object.clone(), shape, next: 0 }
        };
        self.open(&object, build)
    }

    pub(super) fn fill_instance(&mut self, top: usize) -> Result<()> {
        let Build::Instance { object, shape, next } = &self.stack[top].build else {
            return Err(wrong_frame());
        };
        let (object, shape, mut next) = (object.clone(), shape.clone(), *next);
        let mut delivered = self.delivered.take();
        while next < shape.names.len() {
            let step = match delivered.take() {
                Some(value) => Step::Value(value),
                None => self.value(0)?,
            };
            let Step::Value(value) = step else {
                let Build::Instance { next: kept, .. } = &mut self.stack[top].build else {
                    return Err(wrong_frame());
                };
                *kept = next;
                return Ok(());
            };
            self.absorb(top);
            shape.set(self.py, &object, next, &value)?;
            next += 1;
        }
        self.close(object)
    }

    pub(super) fn fill_instance_dict(&mut self, top: usize) -> Result<()> {
        let Build::InstanceDict { object, shape, next } = &self.stack[top].build else {
            return Err(wrong_frame());
        };
        let (object, shape, mut next) = (object.clone(), shape.clone(), *next);
        let mut delivered = self.delivered.take();
        loop {
            let step = match delivered.take() {
                Some(value) => Step::Value(value),
                None => self.value(0)?,
            };
            let Step::Value(value) = step else {
                let Build::InstanceDict { next: kept, .. } = &mut self.stack[top].build else {
                    return Err(wrong_frame());
                };
                *kept = next;
                return Ok(());
            };
            self.absorb(top);
            if next == shape.names.len() {
                shape.set_dict(self.py, &object, &value)?;
                return self.close(object);
            }
            shape.set(self.py, &object, next, &value)?;
            next += 1;
        }
    }
}
