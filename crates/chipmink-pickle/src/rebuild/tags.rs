//! Every tag that is not among the few most frequent atoms.

use super::error::{Failure, Result};
use super::frame::{Build, DictBuild, TupleKind};
use super::loader::{Loader, Step, not_ascii};
use super::memo::{Mark, NO_NUMBER};
use super::object;
use super::pods::Offer;
use chipmink_format::tag;
use pyo3::prelude::*;

impl<'py> Loader<'py, '_> {
    /// Goes on where [`Loader::value`] met a tag that it leaves to this one.
    #[inline(never)]
    pub(super) fn other_value(&mut self, tag: u8, room: usize) -> Result<Step<'py>> {
        let py = self.py;
        let reader = &mut self.at.reader;
        // Values that take no memo number return from the match; others fall out of it.
        let object = match tag {
            tag::TRUE => return Ok(Step::Value(object::boolean(py, true))),
            tag::FALSE => return Ok(Step::Value(object::boolean(py, false))),
            tag::INT64 => return object::int(py, i64::from_le_bytes(reader.array()?)).map(Step::Value),
            tag::BIGINT => return object::big_int(py, reader.sized()?).map(Step::Value),
            tag::COMPLEX => {
                let real = f64::from_le_bytes(reader.array()?);
                return object::complex(py, real, f64::from_le_bytes(reader.array()?)).map(Step::Value);
            }
            tag::ELLIPSIS => return Ok(Step::Value(object::ellipsis(py))),
            tag::NOT_IMPLEMENTED => return Ok(Step::Value(object::not_implemented(py))),
            tag::EMPTY_TUPLE => return object::tuple(py, std::iter::empty()).map(Step::Value),
            tag::STR => {
                let content = reader.sized()?;
                if !content.is_ascii() {
                    return Err(not_ascii());
                }
                object::ascii(py, content)?
            }
            tag::STR_WIDE => {
                let width = reader.byte()?;
                let byte_len = reader.size()?.checked_mul(usize::from(width));
                let byte_len = byte_len.ok_or_else(|| Failure::damaged("a str is longer than memory"))?;
                object::wide_str(py, width, reader.take(byte_len)?)?
            }
            tag::BYTES => object::bytes(py, reader.sized()?)?,
            tag::BYTEARRAY => object::bytearray(py, reader.sized()?)?,
            tag::BUFFER => match reader.byte()? {
                0 => object::bytearray(py, reader.sized()?)?,
                1 => object::bytes(py, reader.sized()?)?,
                other => return Err(Failure::damaged(format!("a buffer is of kind {other}"))),
            },
            tag::LIST => return self.begin_list(),
            tag::DICT => return self.begin_dict(),
            tag::TUPLE => return self.begin_tuple(TupleKind::Tuple),
            tag::SET => return self.begin_set(),
            tag::FROZENSET => return self.begin_tuple(TupleKind::FrozenSet),
            tag::TUPLE_AGAIN | tag::FROZENSET_AGAIN => return self.begin_tuple(TupleKind::Again),
            tag::REF => {
                let number = reader.varint()?;
                let active = self.current()?;
                let entry = active.kept.position(number).and_then(|at| active.memo.get(at)).cloned();
                let entry = entry.ok_or_else(|| {
                    Failure::damaged(format!("memo number {number} is referred to, which no object has yet"))
                })?;
                return Ok(self.refer(entry));
            }
            tag::POD => {
                let tag_at = reader.at() - 1;
                let slot = reader.varint()?;
                return self.export_value(tag_at, slot, 0);
            }
            tag::POD_EXPORT => {
                let tag_at = reader.at() - 1;
                let slot = reader.varint()?;
                let export = reader.varint()?;
                return self.export_value(tag_at, slot, export);
            }
            tag::POD_RUN => return self.export_values(room),
            tag::GLOBAL => {
                let ordinal = reader.varint()?;
                return self.global(ordinal).map(Step::Value);
            }
            tag::INSTANCE => return self.begin_instance(false),
            tag::INSTANCE_DICT => return self.begin_instance(true),
            tag::REDUCE => return self.begin_reduction(false),
            tag::REDUCE_AGAIN => return self.begin_reduction(true),
            tag::REGION => self.region_object()?,
            tag::NDARRAY => return self.open_later(Build::Array),
            tag::NDARRAY_VIEW => return self.begin_array_view(false),
            tag::NDARRAY_OBJECT_VIEW => return self.begin_object_view(),
            tag::NDARRAY_VIEW_AGAIN => return self.begin_array_view(true),
            tag::NDARRAY_OBJECT => return self.begin_object_array(),
            tag::SIDE => {
                let ordinal = reader.varint()?;
                return self.side_value(ordinal).map(Step::Value);
            }
            tag::STUB => return self.open_later(Build::Stub),
            tag::NAMESPACE => return Ok(Step::Value(self.namespace.clone().into_any())),
            other => return Err(Failure::damaged(format!("tag {other:#04x} is not known to this chipmink"))),
        };
        self.number(&object)?;
        Ok(Step::Value(object))
    }

    /// An object of another pod; if that has not run, it runs now and the tag is read again.
    fn export_value(&mut self, tag_at: usize, slot: u64, export: u64) -> Result<Step<'py>> {
        let position = self.dependency(slot)?;
        match self.export(position, export)? {
            Offer::Object(entry) => Ok(self.refer(entry)),
            Offer::NotRun => {
                self.at.reader.rewind(tag_at);
                self.begin_pod(position)?;
                Ok(Step::Opened)
            }
        }
    }

    /// Objects of neighbouring export slots, onto the value stack.
    fn export_values(&mut self, room: usize) -> Result<Step<'py>> {
        let tag_at = self.at.reader.at() - 1;
        let slot = self.at.reader.varint()?;
        let first = self.at.reader.varint()?;
        let count = self.at.reader.size()?;
        if count < 2 || count > room {
            return Err(Failure::damaged(format!("a run of {count} values stands where {room} may")));
        }
        let position = self.dependency(slot)?;
        let base = self.values.len();
        for i in 0..count as u64 {
            let export =
                first.checked_add(i).ok_or_else(|| Failure::damaged("a run of values is too long"))?;
            match self.export(position, export)? {
                Offer::Object(entry) => {
                    if !entry.mark.is_settled() && self.is_open(entry.mark) {
                        self.mark = self.mark.outer(entry.mark);
                    }
                    self.values.push(entry.object);
                }
                Offer::NotRun => {
                    debug_assert_eq!(self.values.len(), base);
                    self.at.reader.rewind(tag_at);
                    self.begin_pod(position)?;
                    return Ok(Step::Opened);
                }
            }
        }
        Ok(Step::Values(count))
    }

    fn begin_list(&mut self) -> Result<Step<'py>> {
        let left = self.at.reader.size()?;
        let list = object::list(self.py, self.at.reserve(left))?;
        if left == 0 {
            self.number(&list)?;
            return Ok(Step::Value(list));
        }
        self.open(&list.clone(), Build::List { list, left })
    }

    fn begin_dict(&mut self) -> Result<Step<'py>> {
        let left = self.at.reader.count()?;
        // Tables of strs alone are of another, better kind, which a presized one never becomes.
        let room = match self.at.reader.peek() {
            Ok(tag::STR8 | tag::STR | tag::STR_WIDE | tag::REF) | Err(_) => 0,
            Ok(_) => self.at.reserve(left),
        };
        let dict = object::dict(self.py, room)?;
        if left == 0 {
            self.number(&dict)?;
            return Ok(Step::Value(dict));
        }
        let build =
            DictBuild { dict: dict.clone(), left, key: None, key_mark: Mark::SETTLED, wait: Mark::SETTLED };
        self.open(&dict, Build::Dict(build))
    }

    fn begin_set(&mut self) -> Result<Step<'py>> {
        let left = self.at.reader.size()?;
        let set = object::set(self.py)?;
        self.open(&set.clone(), Build::Set { set, left, wait: Mark::SETTLED })
    }

    fn begin_tuple(&mut self, kind: TupleKind) -> Result<Step<'py>> {
        let left = self.at.reader.size()?;
        self.open_later(Build::Tuple { start: self.values.len(), left, kind })
    }

    /// A value of the side record, which is decoded when it is first needed.
    fn side_value(&mut self, ordinal: u64) -> Result<Bound<'py, PyAny>> {
        if self.current()?.side.is_none() {
            let side = self.current_plan()?.side.clone();
            let bytes =
                side.ok_or_else(|| Failure::damaged("a side record is referred to that is not there"))?;
            if bytes.first() != Some(&tag::POD_VERSION) {
                return Err(Failure::damaged("the side record is of an unknown version"));
            }
            let atoms = self.atoms_alone(bytes.slice(1..))?;
            self.current()?.side = Some(atoms);
        }
        let value =
            usize::try_from(ordinal).ok().and_then(|at| self.current().ok()?.side.as_ref()?.get(at).cloned());
        value.ok_or_else(|| Failure::damaged(format!("value {ordinal} of the side record does not exist")))
    }

    /// Makes a placeholder for an object that could not be saved. It is a frame, so that those below say where they are.
    pub(super) fn fill_stub(&mut self) -> Result<()> {
        // These texts take no memo numbers.
        let (number, next_kept) = (self.at.number, self.at.next_kept);
        self.at.next_kept = NO_NUMBER;
        let texts = (self.text_atom(), self.text_atom(), self.text_atom());
        (self.at.number, self.at.next_kept) = (number, next_kept);
        let path = pyo3::types::PyString::new(self.py, &self.path()).into_any();
        let object = self.placeholder((texts.0?, texts.1?, texts.2?, path))?;
        self.number(&object)?;
        self.close(object)
    }

    fn text_atom(&mut self) -> Result<Bound<'py, PyAny>> {
        match self.at.reader.peek()? {
            tag::STR8 | tag::STR | tag::STR_WIDE => self.atom_alone(),
            other => Err(Failure::damaged(format!("tag {other:#04x} stands where a str must"))),
        }
    }

    /// An object that stands for one that is not there: kind, type name, reason, path.
    pub(super) fn placeholder(
        &self,
        parts: (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>),
    ) -> Result<Bound<'py, PyAny>> {
        let class = self.py.import("chipmink._placeholder")?.getattr("Placeholder")?;
        Ok(class.call1(parts)?)
    }
}
