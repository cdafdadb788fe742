//! The decoder's loop: takes the frame on top of the stack as far as it goes, again and again.
//!
//! 1. Nothing here recurses; depth is bounded by memory alone.
//! 2. Whatever is half built is owned by a frame, by the value stack or by the memo, so that leaving on an error frees
//!    everything.
//! 3. Python code may run at any value that is not an atom, and may change every object that exists by then; what is
//!    read from such an object is read anew after each value.

use super::array_view::NumpyCalls;
use super::defer::Waiting;
use super::error::{Cause, Failure, RebuildError, Result};
use super::frame::{Build, Frame, NOT_KEPT};
use super::mapped::{MapRegions, OurAllocator};
use super::memo::{Entry, Mark};
use super::numpy::Numpy;
use super::object;
use super::options::RebuildOptions;
use super::pods::{Active, PodState, Run};
use super::restrict::Restriction;
use super::shape::ShapeTable;
use super::strings::StringCache;
use super::supply::Supply;
use bytes::Bytes;
use chipmink_format::tag;
use chipmink_types::{Digest, GlobalName, LoadPod, LoadVariable};
use hashbrown::HashMap;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Everything that one load holds.
pub(super) struct Loader<'py, 'a> {
    pub(super) py: Python<'py>,
    pub(super) plan: &'a [LoadPod],
    /// What is loaded, for messages.
    pub(super) variables: &'a [LoadVariable],
    pub(super) supply: &'a mut dyn Supply<'py>,
    pub(super) restriction: Option<Restriction<'a>>,
    pub(super) namespace: Bound<'py, PyDict>,
    /// By position in the plan.
    pub(super) states: Vec<PodState<'py>>,
    /// Pods that have begun and not ended, the one being read last.
    pub(super) active: Vec<Active<'py>>,
    /// Where the decoder stands in the pod being read.
    pub(super) at: Run,
    pub(super) stack: Vec<Frame<'py>>,
    /// Items of tuples and frozensets under construction.
    pub(super) values: Vec<Bound<'py, PyAny>>,
    /// The object that the last frame made, for the frame below it.
    pub(super) delivered: Option<Bound<'py, PyAny>>,
    /// What the value just read leads to that is not settled; the reader of the value takes it away.
    pub(super) mark: Mark,
    pub(super) strings: StringCache<'py>,
    pub(super) globals: HashMap<&'a GlobalName, Bound<'py, PyAny>>,
    pub(super) shapes: ShapeTable<'py>,
    /// Items that wait for the end of the frame at this depth.
    pub(super) waiting: HashMap<u32, Vec<Waiting<'py>>>,
    /// Counts the items that ever waited.
    pub(super) waited: u64,
    pub(super) numpy: Option<Numpy<'py>>,
    /// A string and the dtype that it describes.
    pub(super) last_dtype: Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)>,
    pub(super) numpy_calls: Option<NumpyCalls>,
    pub(super) mapper: Option<&'a dyn MapRegions>,
    /// Once it was looked for: how numpy takes memory over, if it can.
    pub(super) allocator: Option<Option<OurAllocator<'py>>>,
    /// Atoms that stand outside the pods, by the digest of their content and the kind of region.
    pub(super) large_atoms: HashMap<(Digest, u8), Bound<'py, PyAny>>,
    serial: u32,
    ticks: u32,
}

/// What reading a value led to.
pub(super) enum Step<'py> {
    /// The value.
    Value(Bound<'py, PyAny>),
    /// A frame lies on top now. It delivers the value, or (a pod) makes it possible to read the same tag again.
    Opened,
    /// So many values lie on the value stack.
    Values(usize),
}

impl<'py, 'a> Loader<'py, 'a> {
    pub(super) fn new(
        py: Python<'py>,
        plan: &'a [LoadPod],
        supply: &'a mut dyn Supply<'py>,
        options: &'a RebuildOptions,
    ) -> Self {
        let namespace = match &options.namespace {
            Some(namespace) => namespace.bind(py).clone(),
            None => PyDict::new(py),
        };
        Loader {
            py,
            plan,
            variables: &[],
            supply,
            restriction: options.allow.as_ref().map(Restriction::new),
            namespace,
            states: plan.iter().map(|_| PodState::Waiting).collect(),
            active: Vec::new(),
            at: Run::alone(Bytes::new()),
            stack: Vec::new(),
            values: Vec::new(),
            delivered: None,
            mark: Mark::SETTLED,
            strings: StringCache::new(),
            globals: HashMap::new(),
            shapes: ShapeTable::default(),
            waiting: HashMap::new(),
            waited: 0,
            numpy: None,
            last_dtype: None,
            numpy_calls: None,
            mapper: options.mapper.as_deref(),
            allocator: None,
            large_atoms: HashMap::new(),
            serial: 0,
            ticks: 0,
        }
    }

    /// Works until the stack is as high as `floor` again.
    pub(super) fn run(&mut self, floor: usize) -> Result<()> {
        while self.stack.len() > floor {
            self.tick()?;
            let top = self.stack.len() - 1;
            match &self.stack[top].build {
                Build::List { .. } => self.fill_list(top)?,
                Build::Dict(_) => self.fill_dict(top)?,
                Build::Tuple { .. } => self.fill_tuple(top)?,
                Build::Instance { .. } => self.fill_instance(top)?,
                Build::Set { .. } => self.fill_set(top)?,
                Build::Pod(_) => self.fill_pod()?,
                Build::Reduce(_) => self.fill_reduction(top)?,
                Build::InstanceDict { .. } => self.fill_instance_dict(top)?,
                Build::Again => self.fill_again()?,
                Build::Array => self.fill_array()?,
                Build::ArrayView(_) => self.fill_array_view(top)?,
                Build::ObjectArray { .. } => self.fill_object_array(top)?,
                Build::Stub => self.fill_stub()?,
                Build::Refused(name) => {
                    let error = RebuildError::Refused { name: name.clone(), place: String::new() };
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Lets Ctrl-C in, now and then.
    #[inline(always)]
    pub(super) fn tick(&mut self) -> Result<()> {
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(1 << 14) { self.check_signals() } else { Ok(()) }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn check_signals(&mut self) -> Result<()> {
        // SAFETY: the thread is attached.
        object::done(self.py, unsafe { ffi::PyErr_CheckSignals() })
    }

    #[inline(always)]
    pub(super) fn next_serial(&mut self) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }

    /// Begins an object that exists from now on: it takes its memo number before its content.
    #[inline(always)]
    pub(super) fn open(&mut self, object: &Bound<'py, PyAny>, build: Build<'py>) -> Result<Step<'py>> {
        let serial = self.next_serial();
        let mark = Mark { depth: self.stack.len() as u32, serial };
        let memo = self.number_open(object, mark)?;
        self.stack.push(Frame { serial, memo, mark: Mark::SETTLED, build });
        Ok(Step::Opened)
    }

    /// Begins an object that will exist once its parts do.
    #[inline(always)]
    pub(super) fn open_later(&mut self, build: Build<'py>) -> Result<Step<'py>> {
        let serial = self.next_serial();
        self.stack.push(Frame { serial, memo: NOT_KEPT, mark: Mark::SETTLED, build });
        Ok(Step::Opened)
    }

    /// Gives the next memo number to an object that is complete.
    #[inline(always)]
    pub(super) fn number(&mut self, object: &Bound<'py, PyAny>) -> Result<()> {
        self.number_open(object, Mark::SETTLED).map(drop)
    }

    /// Gives the next memo number to an object; returns its position if it is kept.
    #[inline(always)]
    pub(super) fn number_open(&mut self, object: &Bound<'py, PyAny>, mark: Mark) -> Result<u32> {
        let number = self.at.number;
        self.at.number = number + 1;
        if number != self.at.next_kept {
            return Ok(NOT_KEPT);
        }
        let active = self.current()?;
        let position = active.memo.len();
        active.memo.push(Entry { object: object.clone(), mark });
        let next_kept = active.kept.number(position + 1);
        self.at.next_kept = next_kept;
        Ok(position as u32)
    }

    /// Ends the frame on top, whose object this is.
    pub(super) fn close(&mut self, object: Bound<'py, PyAny>) -> Result<()> {
        let Some(frame) = self.stack.pop() else {
            return Err(Failure::damaged("an object ends that did not begin"));
        };
        let depth = self.stack.len() as u32;
        // What the object leads to further out is still being built; itself and what lay above it is done.
        let mark = if frame.mark.depth < depth { frame.mark } else { Mark::SETTLED };
        if !mark.is_settled()
            && frame.memo != NOT_KEPT
            && let Some(entry) = self.current()?.memo.get_mut(frame.memo as usize)
        {
            entry.mark = mark;
        }
        if !self.waiting.is_empty() {
            self.settle(depth, mark)?;
        }
        self.delivered = Some(object);
        self.mark = mark;
        Ok(())
    }

    #[inline(always)]
    pub(super) fn take_mark(&mut self) -> Mark {
        std::mem::replace(&mut self.mark, Mark::SETTLED)
    }

    /// Moves the mark of the value just read to the frame that it belongs to.
    #[inline(always)]
    pub(super) fn absorb(&mut self, top: usize) {
        if !self.mark.is_settled() {
            let mark = self.take_mark();
            self.stack[top].mark = self.stack[top].mark.outer(mark);
        }
    }

    /// Whether the frame that a mark names is still there.
    #[inline(always)]
    pub(super) fn is_open(&self, mark: Mark) -> bool {
        self.stack.get(mark.depth as usize).is_some_and(|frame| frame.serial == mark.serial)
    }

    /// Takes a kept object as the value just read.
    #[inline(always)]
    pub(super) fn refer(&mut self, entry: Entry<'py>) -> Step<'py> {
        if !entry.mark.is_settled() && self.is_open(entry.mark) {
            self.mark = entry.mark;
        }
        Step::Value(entry.object)
    }

    /// Reads a value, or begins it. `room`: how many values may come at once.
    #[inline(always)]
    pub(super) fn value(&mut self, room: usize) -> Result<Step<'py>> {
        let py = self.py;
        let reader = &mut self.at.reader;
        let object = match reader.byte()? {
            tag::NONE => object::none(py),
            tag::INT8 => object::int(py, i64::from(reader.byte()?.cast_signed()))?,
            tag::INT16 => object::int(py, i64::from(i16::from_le_bytes(reader.array()?)))?,
            tag::INT32 => object::int(py, i64::from(i32::from_le_bytes(reader.array()?)))?,
            tag::FLOAT => object::float(py, f64::from_le_bytes(reader.array()?))?,
            tag::STR8 => {
                let len = usize::from(reader.byte()?);
                let content = reader.take(len)?;
                if !content.is_ascii() {
                    return Err(not_ascii());
                }
                let object = if len <= tag::ALWAYS_INLINE {
                    self.strings.get(py, content)?
                } else {
                    object::ascii(py, content)?
                };
                self.number(&object)?;
                object
            }
            tag::BYTES8 => {
                let len = usize::from(reader.byte()?);
                let object = object::bytes(py, reader.take(len)?)?;
                self.number(&object)?;
                object
            }
            other => return self.other_value(other, room).or_else(|failure| self.refuse_later(failure)),
        };
        Ok(Step::Value(object))
    }

    /// Reads one atom that stands alone: a variable's inline value, or one of a side record.
    pub(super) fn atom_alone(&mut self) -> Result<Bound<'py, PyAny>> {
        match self.at.reader.peek()? {
            tag::NONE..=tag::BYTES | tag::ELLIPSIS | tag::NOT_IMPLEMENTED | tag::EMPTY_TUPLE => {}
            other => return Err(Failure::damaged(format!("tag {other:#04x} stands where an atom must"))),
        }
        match self.value(0)? {
            Step::Value(object) => Ok(object),
            Step::Opened | Step::Values(_) => Err(Failure::damaged("no atom stands where one must")),
        }
    }

    /// Reads all atoms of `bytes`, which stand outside any pod.
    pub(super) fn atoms_alone(&mut self, bytes: Bytes) -> Result<Vec<Bound<'py, PyAny>>> {
        let before = std::mem::replace(&mut self.at, Run::alone(bytes));
        let mut atoms = Vec::new();
        let mut result = Ok(());
        while !self.at.reader.is_at_end() && result.is_ok() {
            result = self.atom_alone().map(|atom| atoms.push(atom));
        }
        self.at = before;
        result.map(|()| atoms)
    }

    /// What messages call the plan's pod at `position`.
    #[cold]
    pub(super) fn pod_name(&self, position: usize) -> String {
        match self.plan.get(position) {
            Some(pod) => self.supply.pod_name(position, pod),
            None => format!("pod {position}, which does not exist,"),
        }
    }

    /// Says where a failure happened, as a Python exception.
    pub(super) fn explain(&self, failure: Failure) -> PyErr {
        match failure.into_cause() {
            Cause::Python(error) => {
                self.note_place(&error);
                error
            }
            Cause::Known(error) => self.with_place(error).into_exception(self.py),
            Cause::Damaged(reason) => {
                let pod = match self.active.last() {
                    Some(active) => self.pod_name(active.position),
                    None => "a value outside any pod".to_owned(),
                };
                RebuildError::Damaged { pod, byte_offset: self.at.reader.at() as u64, reason }
                    .into_exception(self.py)
            }
        }
    }
}

#[cold]
#[inline(never)]
pub(super) fn not_ascii() -> Failure {
    Failure::damaged("a str that is said to be ASCII is not")
}
