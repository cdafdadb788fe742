//! One walk: a depth-first pass over the active variables, with an explicit stack.
//!
//! Invariants:
//! 1. `stack`, `reductions` and `sequences` grow and shrink together; a frame owns the last entry of its side stack.
//! 2. `current` is the visit whose stream takes the next value; its mode is `Bytes` or `Shadow`.
//! 3. Before Python code or another thread may run, `hold` is called: from then on the walk owns a reference to every
//!    container that it has begun, so that no address is mistaken for another object and no borrowed pointer dies.
//! 4. Everything that a walk changes in the session is undone by forgetting the session (`PySession::forget`).

use super::builder::Builder;
use super::dumps::StreamState;
use super::frames::{Frame, FrameKind, Mode, Visit};
use super::memory::{Hint, SharedMemory};
use super::reduce::Reduction;
use super::session::{NONE, PySession};
use crate::py::Obj;
use chipmink_types::{BlobKind, BlobSink, Digest, SkippedVariable, WalkError, WalkStats};
use hashbrown::HashMap;
use pyo3::prelude::*;
use std::rc::Rc;

/// Pods wait here until their variable is complete, so that a variable that fails leaves nothing behind; beyond this
/// many bytes they go to the sink at the next step.
const QUEUE_BYTES: usize = 8 << 20;
/// Emptied buffers that are kept for further pods, at most so many and of so many bytes together.
const BUFFERS_MAX: usize = 16;
const BUFFER_BYTES_MAX: usize = 8 << 20;

/// Edge targets between two looks for Ctrl-C.
const SIGNAL_INTERVAL: u64 = 1 << 18;

/// Why the walk of a value stopped.
pub(crate) enum Stop {
    /// The variable cannot be saved.
    Variable(PyErr),
    /// The whole walk fails.
    Fatal(WalkError),
    /// The pod of this visit is not as its shadow says: its bytes must be produced.
    Miss(u32),
    /// The present root of this sibling refers to an object that its first root could not have met.
    Break(u32),
}

impl From<PyErr> for Stop {
    fn from(error: PyErr) -> Self {
        Stop::Variable(error)
    }
}

impl From<chipmink_types::BlobError> for Stop {
    fn from(error: chipmink_types::BlobError) -> Self {
        Stop::Fatal(WalkError::Blob(error))
    }
}

pub(crate) type Step<T = ()> = Result<T, Stop>;

pub(crate) struct Queued {
    pub visit: usize,
    pub digest: Digest,
    pub bytes: Vec<u8>,
}

pub(crate) struct Walker<'w, 'py> {
    pub py: Python<'py>,
    pub session: &'w mut PySession,
    pub sink: &'w mut dyn BlobSink,
    pub context: Py<PyAny>,
    pub stack: Vec<Frame>,
    pub reductions: Vec<Reduction>,
    pub sequences: Vec<Vec<Obj>>,
    pub visits: Vec<Visit>,
    pub current: u32,
    /// By pod: its visit in this walk, if it was proved unchanged; else [`NONE`].
    pub proved: Vec<u32>,
    /// Siblings whose later roots are being visited, outermost first.
    pub open_siblings: Vec<u32>,
    pub queue: Vec<Queued>,
    pub queued_bytes: usize,
    /// Builders to be used again.
    #[expect(
        clippy::vec_box,
        reason = "a builder moves between here and its visit; only the box should be copied"
    )]
    pub spare: Vec<Box<Builder>>,
    /// Emptied buffers of pods, to be used again.
    pub buffers: Vec<Vec<u8>>,
    /// References owned until the walk ends.
    pub kept: Vec<Obj>,
    pub held: bool,
    /// Addresses of objects that reducers made for this walk alone.
    pub fleeting: Vec<usize>,
    /// Objects that reducers have handed out, and that others refer to as well: perhaps only such as die with the walk.
    /// References owned until it ends.
    pub doubtful: Vec<Obj>,
    /// The object being begun, or entered now that its parts are written, was made by a reducer for this walk alone.
    pub is_temporary: bool,
    /// Which memory the objects met so far occupy.
    pub memory: SharedMemory,
    /// What the first visitors of shared memory have to store, as this walk found.
    pub hints: Vec<Hint>,
    /// Roots of the regions digested in this walk, by first and last address and row length.
    pub hashed: HashMap<(usize, usize, u64), Digest>,
    /// Threads that digest memory beside it.
    pub helpers: super::helpers::Helpers,
    /// What regions of new objects may resemble.
    pub earlier: super::earlier::Earlier<'w>,
    /// Everything goes into one pod (`dumps`).
    pub single: bool,
    /// What stands beside that pod.
    pub stream: Option<StreamState>,
    /// Dtypes met, by address; kept.
    pub dtypes: HashMap<usize, Option<Rc<super::arrays::Dtype>>>,
    /// What values met are written as, by their address; kept.
    pub literals: HashMap<usize, Option<Obj>>,
    /// The instances of subclasses whose memory an array of a reducer shows, by the address of that array; kept.
    pub stand_ins: HashMap<usize, Obj>,
    /// Whether objects of a type may own memory that other processes share, in a stream: mapped memory; the types are kept.
    pub sharing_types: HashMap<usize, bool>,
    /// By address of an object that owns memory of arrays; kept.
    pub owning: HashMap<usize, super::shared::Owning>,
    /// Regions that are on a device, and not stored yet.
    pub devices: Vec<super::devices::DeviceRegion>,
    /// Some variables are not walked: objects of theirs must be noticed.
    pub some_inactive: bool,
    /// Reducers by type, kept.
    pub rules: HashMap<usize, Option<Py<PyAny>>>,
    /// Components that turned out to be touched.
    pub activated: Vec<u32>,
    pub variable: u32,
    /// The object whose reducer was asked last, until it has answered.
    pub culprit: Option<Obj>,
    pub stubs: Vec<(u32, SkippedVariable)>,
    pub stats: WalkStats,
    pub witness: super::witness::Witness,
    /// How often the walk has let other threads run while it waited for a place far away.
    pub waits: u64,
    pub decisions: u64,
    pub next_signal_check: u64,
    /// Objects compared in vain; shadows are given up for the rest of the walk when it is too much.
    pub wasted: u64,
    /// Bytes of shadows kept or built so far.
    pub shadow_bytes: u64,
}

impl<'w, 'py> Walker<'w, 'py> {
    /// Begins a walk. `context` is what [`PySession::context`] made for it, `numpy` what `numpy_types` found.
    pub(crate) fn new(
        py: Python<'py>,
        session: &'w mut PySession,
        sink: &'w mut dyn BlobSink,
        namespace: Option<Obj>,
        context: Py<PyAny>,
        single: bool,
        numpy: (usize, usize),
    ) -> Self {
        session.kinds.begin_walk(py, numpy);
        session.names.begin_walk(namespace);
        session.identified.begin_walk();
        if !session.memo.begin_walk() {
            session.forget();
        }
        session.began_without_shapes = session.shapes.len() == 0;
        session.policy.begin();
        if let Some(live) = &mut session.live {
            live.begin_walk();
        }
        let memory = SharedMemory::new(session.hints.clone());
        let proved = vec![NONE; session.pods.len()];
        let shadow_bytes = session.shadow_total;
        Walker {
            py,
            session,
            sink,
            context,
            stack: Vec::new(),
            reductions: Vec::new(),
            sequences: Vec::new(),
            visits: Vec::new(),
            current: NONE,
            proved,
            open_siblings: Vec::new(),
            queue: Vec::new(),
            queued_bytes: 0,
            spare: Vec::new(),
            buffers: Vec::new(),
            kept: Vec::new(),
            held: false,
            fleeting: Vec::new(),
            doubtful: Vec::new(),
            is_temporary: false,
            memory,
            hints: Vec::new(),
            hashed: HashMap::new(),
            helpers: super::helpers::Helpers::default(),
            earlier: super::earlier::Earlier::default(),
            single,
            stream: None,
            dtypes: HashMap::new(),
            literals: HashMap::new(),
            stand_ins: HashMap::new(),
            rules: HashMap::new(),
            sharing_types: HashMap::new(),
            owning: HashMap::new(),
            devices: Vec::new(),
            some_inactive: false,
            activated: Vec::new(),
            variable: 0,
            culprit: None,
            stubs: Vec::new(),
            stats: WalkStats::default(),
            witness: super::witness::Witness::default(),
            waits: 0,
            decisions: 0,
            next_signal_check: SIGNAL_INTERVAL,
            wasted: 0,
            shadow_bytes,
        }
    }

    /// The builder of the current visit, which must be producing bytes.
    #[inline(always)]
    pub(crate) fn builder(&mut self) -> &mut Builder {
        match &mut self.visits[self.current as usize].mode {
            Mode::Bytes(builder) => builder,
            _ => unreachable!("values are written only while the current pod's bytes are produced"),
        }
    }

    #[inline(always)]
    pub(crate) fn current_pod(&self) -> u32 {
        self.visits[self.current as usize].pod
    }

    /// Takes references to everything met so far, before Python code or another thread runs for the first time.
    pub(crate) fn hold(&mut self) {
        if self.held {
            return;
        }
        self.held = true;
        for addr in self.session.memo.created() {
            // SAFETY: no Python code has run since the address was entered, and its owner still refers to it.
            let object = unsafe { Obj::from_ptr(addr as *mut pyo3::ffi::PyObject) };
            object.incref();
            self.kept.push(object);
        }
        for frame in &self.stack {
            for object in frame.objects().into_iter().flatten() {
                object.incref();
                self.kept.push(object);
            }
        }
        for object in self.sequences.iter().flatten() {
            object.incref();
            self.kept.push(*object);
        }
        self.begin_witness();
    }

    /// Keeps an object until the walk ends, if Python code may run from now on.
    #[inline(always)]
    pub(crate) fn keep(&mut self, object: Obj) {
        if self.held {
            object.incref();
            self.kept.push(object);
        }
    }

    /// Takes over a new reference until the walk ends.
    pub(crate) fn own(&mut self, object: Bound<'py, PyAny>) -> Obj {
        // SAFETY: `into_ptr` hands over a reference, which `kept` owns.
        let object = unsafe { Obj::from_ptr(object.into_ptr()) };
        self.kept.push(object);
        object
    }

    /// Enters an object that is created now, in the current pod, under this memo number.
    #[inline(always)]
    pub(crate) fn memoize(&mut self, object: Obj, number: u32) {
        self.keep(object);
        self.witness(object);
        if self.is_temporary {
            self.fleeting.push(object.addr());
        }
        let pod = self.visits[self.current as usize].pod;
        let stale = self.session.memo.put(object.addr(), pod, number);
        if self.some_inactive
            && let Some(stale) = stale
            && stale != pod
            // What lay at the address of an object that a reducer has only just made was another one.
            && !self.is_temporary
        {
            self.notice(stale);
        }
    }

    /// An object of this pod was met: if its variables are not being walked, they must be.
    #[cold]
    pub(crate) fn notice(&mut self, pod: u32) {
        if let Some(state) = self.session.pod(pod)
            && state.visit == NONE
        {
            let component = state.component;
            if self.session.tracker.activate(component) {
                self.activated.push(component);
            }
        }
    }

    /// Visits the values on the stack until it is empty.
    pub(crate) fn run(&mut self) -> Step {
        while !self.stack.is_empty() {
            match self.step() {
                Ok(()) => {}
                Err(Stop::Miss(visit)) => self.produce_instead(visit)?,
                Err(Stop::Break(visit)) => self.split_sibling(visit)?,
                Err(stop) => return Err(stop),
            }
        }
        Ok(())
    }

    /// Goes on with the topmost frame.
    fn step(&mut self) -> Step {
        if self.stats.objects >= self.next_signal_check {
            self.check_signals()?;
            if self.queued_bytes > QUEUE_BYTES {
                self.flush()?;
            }
        }
        let top = self.stack.len() - 1;
        let frame = self.stack[top];
        match frame.kind {
            FrameKind::List { .. }
            | FrameKind::Tuple { .. }
            | FrameKind::Items { .. }
            | FrameKind::Members { .. }
            | FrameKind::Values { .. } => self.step_sequence(top, frame),
            FrameKind::Dict { .. } => self.step_dict(top, frame),
            FrameKind::Attributes { .. } => self.step_attributes(top, frame),
            FrameKind::View { object, at, header } => {
                self.pop()?;
                self.is_temporary = frame.is_temporary;
                self.finish_view(object, at, header)
            }
            FrameKind::Reduce { object } => self.step_reduce(top, object),
            FrameKind::Shadow { .. } => self.step_shadow(top, frame),
            FrameKind::Root { visit, previous, emit, at } => self.end_root(visit, previous, emit, at),
            FrameKind::Instance { object, at } => {
                self.pop()?;
                self.is_temporary = frame.is_temporary;
                // The class may hold its own instance, which then exists already.
                if let Some(entry) = self.session.memo.get(object.addr()) {
                    self.made_inside();
                    return self.reference(object, entry, at);
                }
                self.instance(object, at)
            }
            FrameKind::CheckInstance { object } => {
                self.pop()?;
                self.check_record(object)
            }
        }
    }

    /// Puts a frame for the object that was just begun on the stack.
    #[inline(always)]
    pub(crate) fn push(&mut self, kind: FrameKind, words: u32) {
        let is_temporary = self.is_temporary || matches!(kind, FrameKind::Reduce { .. });
        self.stack.push(Frame { is_temporary, ..Frame::new(kind, words) });
    }

    /// Removes the topmost frame, closing its open sibling first.
    #[inline]
    pub(crate) fn pop(&mut self) -> Step {
        let top = self.stack.len() - 1;
        let sibling = self.stack[top].sibling;
        if sibling != NONE {
            self.close(sibling)?;
        }
        self.stack.pop();
        Ok(())
    }

    #[cold]
    pub(crate) fn check_signals(&mut self) -> Step {
        self.next_signal_check = self.stats.objects + SIGNAL_INTERVAL;
        self.sink.check_wanted()?;
        let is_interrupted = crate::py::take_interrupt();
        if !is_interrupted && !self.session.has_signal_handlers(self.py) {
            return Ok(());
        }
        // The program's own handlers run, and may do anything.
        self.hold();
        if is_interrupted {
            crate::py::give_interrupt_back();
        }
        self.py.check_signals().map_err(|error| self.interrupted(error))
    }

    /// An exception that ends the whole walk.
    pub(crate) fn interrupted(&mut self, error: PyErr) -> Stop {
        self.session.exception = Some(error);
        Stop::Fatal(WalkError::Interrupted)
    }

    /// Gives the waiting pods to the sink.
    pub(crate) fn flush(&mut self) -> Step {
        self.queued_bytes = 0;
        let mut queue = std::mem::take(&mut self.queue);
        if self.memory.is_survey {
            queue.clear();
        }
        for queued in queue.drain(..) {
            self.put(BlobKind::Pod, queued.digest, &queued.bytes)?;
            self.recycle(queued.bytes);
        }
        self.queue = queue;
        Ok(())
    }

    /// Keeps an emptied buffer for another pod, so that it need not grow from nothing.
    pub(crate) fn recycle(&mut self, mut buffer: Vec<u8>) {
        let kept: usize = self.buffers.iter().map(Vec::capacity).sum();
        if self.buffers.len() < BUFFERS_MAX && kept + buffer.capacity() <= BUFFER_BYTES_MAX {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }

    pub(crate) fn enqueue(&mut self, visit: usize, digest: Digest, bytes: Vec<u8>) {
        self.queued_bytes += bytes.len();
        self.queue.push(Queued { visit, digest, bytes });
        if self.queued_bytes > QUEUE_BYTES {
            // The sink may wait, and other threads run meanwhile: not here, but where the walk is prepared for it.
            self.next_signal_check = 0;
        }
    }
}

impl Drop for Walker<'_, '_> {
    fn drop(&mut self) {
        let mut gone = std::mem::take(&mut self.fleeting);
        for object in self.kept.drain(..) {
            if object.refcount() == 1 {
                gone.push(object.addr());
            }
            object.decref();
        }
        // All else that the walk has kept is gone by now, in whatever order it referred to these.
        for object in self.doubtful.drain(..) {
            if object.refcount() == 1 {
                gone.push(object.addr());
            }
            object.decref();
        }
        // Their addresses are used again, and must not be taken for theirs. A slot that is free at once is given to the
        // object that the reducer makes instead of this one in the next walk.
        for addr in gone {
            if let Some((pod, slot @ 1..)) = self.session.memo.forget(addr)
                && self.session.export_lists.offers(pod, slot, addr)
            {
                self.session.export_lists.of_mut(pod).vacate(slot as usize);
            }
        }
    }
}

impl Frame {
    /// The objects that the frame itself refers to.
    fn objects(&self) -> [Option<Obj>; 2] {
        match self.kind {
            FrameKind::List { list, .. } => [Some(list), None],
            FrameKind::Tuple { tuple, .. } => [Some(tuple), None],
            FrameKind::Dict { dict, value, .. } => [Some(dict), value],
            FrameKind::Attributes { dict, .. } => [Some(dict), None],
            FrameKind::Members { set, .. } => [Some(set), None],
            FrameKind::Items { array, .. } => [Some(array), None],
            FrameKind::View { object, .. }
            | FrameKind::Reduce { object }
            | FrameKind::Instance { object, .. }
            | FrameKind::CheckInstance { object } => [Some(object), None],
            FrameKind::Shadow { after, .. } => [after.map(|(object, _)| object), None],
            FrameKind::Values { .. } | FrameKind::Root { .. } => [None, None],
        }
    }
}
