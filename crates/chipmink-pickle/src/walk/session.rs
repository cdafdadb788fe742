//! What is remembered between the walks of one session: pods, their shadows, and where their objects stand.
//!
//! 1. A pod's state changes only on adopt; a walk writes into its own visits.
//! 2. A pod keeps its number while its first root lives at its address; an address that is used again makes a changed
//!    pod, never a wrong one, because bytes or shadow decide.
//! 3. After a discard nothing is known, so nothing can be known wrongly.

use super::devices::WhenCaptured;
use super::identified::Identified;
use super::kinds::Kinds;
use super::memo::Memo;
use super::memory::Hint;
use super::names::Names;
use super::shadow::Shadow;
use super::shapes::Shapes;
use super::tracker::Tracker;
use crate::py::Obj;
use chipmink_podding::{BundleAll, Policy, TypePrior, Volatility};
use chipmink_types::{DeviceMemory, LiveDigests, PodRecord, SharedMemory};
use hashbrown::HashMap;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::sync::Arc;

/// No visit, no pod.
pub(crate) const NONE: u32 = u32::MAX;

/// The least number of shapes that a session may hold.
const SHAPE_LIMIT: usize = 4096;

/// Above the numbers of all signals on Linux and macOS; a number that is none is answered by an error.
const SIGNALS: u32 = 65;

/// How a session walks.
pub struct SessionOptions {
    /// Which objects share a pod.
    pub policy: Box<dyn Policy>,
    /// Bytes that the identity shadows may take in all; pods beyond it are compared by their bytes.
    pub shadow_bytes: u64,
    /// Knows digests of memory that nobody has written to; `None`: all is hashed.
    pub live: Option<Box<dyn LiveDigests>>,
    /// Reads memory that other processes share; `None`: objects over such memory cannot be saved.
    pub shared: Option<Box<dyn SharedMemory>>,
    /// Captures memory of devices; `None`: reducers bring it to the host.
    pub device: Option<Box<dyn DeviceMemory>>,
}

impl SessionOptions {
    /// For a walk of which nothing is remembered: no more pods than must be, no shadow, and all memory is read.
    pub(crate) fn for_one_walk() -> Self {
        SessionOptions {
            policy: Box::new(BundleAll),
            shadow_bytes: 0,
            live: None,
            shared: None,
            device: None,
        }
    }
}

/// What is known of a pod.
pub(crate) struct PodState {
    /// What was stored.
    pub record: Arc<PodRecord>,
    /// Identity of each root, in root order.
    pub roots: Vec<RootKey>,
    /// Export slot of each root.
    pub root_slots: Vec<u32>,
    /// The pod from which it was called, or [`NONE`] for a variable's.
    pub parent: u32,
    /// Several roots of one container share it.
    pub is_sibling: bool,
    /// Nothing below it is split off.
    pub is_final: bool,
    /// Its root is a class or function saved by value.
    pub is_definition: bool,
    /// Pods of which it refers to an inner object.
    pub inside: Vec<u32>,
    /// Proves it unchanged.
    pub shadow: Option<Arc<Shadow>>,
    /// Saves that looked at it, and those that found it changed.
    pub saves: u32,
    /// How many of the saves found it changed.
    pub changes: u32,
    /// Number of its component in the tracker.
    pub component: u32,
    /// Its visit in the present walk, or [`NONE`].
    pub visit: u32,
    /// Not to be tried by its shadow again in this walk.
    pub skip_shadow: bool,
}

impl PodState {
    pub(crate) fn shadow_byte_len(&self) -> u64 {
        self.shadow.as_ref().map_or(0, |shadow| shadow.byte_len() as u64)
    }
}

/// The export slots of a pod.
#[derive(Default)]
pub(crate) struct ExportList {
    /// Address of the object that each slot offers; 0 if vacant.
    pub slots: Vec<usize>,
    /// A slot was given out in this walk.
    pub has_new: bool,
    /// No slot below this one is vacant, but perhaps the first.
    pub gaps_from: usize,
}

impl ExportList {
    /// The lowest vacant slot, for an object at this address; slot 0 is the first root's.
    pub(crate) fn take_vacant(&mut self, addr: usize) -> usize {
        let from = self.gaps_from.max(1);
        let gap = self.slots.iter().skip(from).position(|taken| *taken == 0);
        let slot = gap.map_or(self.slots.len().max(1), |gap| from + gap);
        if slot >= self.slots.len() {
            self.slots.resize(slot + 1, 0);
        }
        self.slots[slot] = addr;
        self.gaps_from = slot + 1;
        self.has_new = true;
        slot
    }

    pub(crate) fn vacate(&mut self, slot: usize) {
        self.slots[slot] = 0;
        self.gaps_from = self.gaps_from.min(slot);
    }
}

/// The export slots of all pods, by pod number.
#[derive(Default)]
pub(crate) struct ExportLists(Vec<ExportList>);

impl ExportLists {
    #[inline(always)]
    pub(crate) fn of(&self, pod: u32) -> Option<&ExportList> {
        self.0.get(pod as usize)
    }

    /// Whether a pod offers the object at an address under this slot.
    #[inline(always)]
    pub(crate) fn offers(&self, pod: u32, slot: u32, addr: usize) -> bool {
        self.of(pod).and_then(|list| list.slots.get(slot as usize)) == Some(&addr)
    }

    /// The pod's slots, if it ever had any.
    pub(crate) fn known_mut(&mut self, pod: u32) -> Option<&mut ExportList> {
        self.0.get_mut(pod as usize).filter(|list| !list.slots.is_empty())
    }

    #[inline(always)]
    pub(crate) fn of_mut(&mut self, pod: u32) -> &mut ExportList {
        let at = pod as usize;
        if at >= self.0.len() {
            self.0.resize_with(at + 1, ExportList::default);
        }
        &mut self.0[at]
    }

    /// Forgets all but the first pods.
    pub(crate) fn truncate(&mut self, pod_count: usize) {
        self.0.truncate(pod_count);
    }

    pub(crate) fn remove(&mut self, pod: u32) {
        if let Some(list) = self.0.get_mut(pod as usize) {
            *list = ExportList::default();
        }
    }

    /// Bytes held.
    pub(crate) fn byte_len(&self) -> usize {
        let slots: usize = self.0.iter().map(|list| list.slots.capacity()).sum();
        self.0.capacity() * size_of::<ExportList>() + slots * size_of::<usize>()
    }
}

/// Identity of a pod's root between walks: its address, or its path if a reducer makes it anew each time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum RootKey {
    /// Address and type.
    Address(usize, usize),
    /// Digest of the parent's number and the position among its children.
    Path(u64),
}

/// The memory of a session.
pub struct PySession {
    pub(crate) memo: Memo,
    pub(crate) kinds: Kinds,
    pub(crate) names: Names,
    pub(crate) shapes: Shapes,
    /// Shapes hold classes; with more than this many the session forgets everything, so that redefined ones can go.
    pub(crate) shape_limit: usize,
    /// The present walk began without any shape.
    pub(crate) began_without_shapes: bool,
    pub(crate) tracker: Tracker,
    /// What the first visitors of memory that several objects share have to store.
    pub(crate) hints: Vec<Hint>,
    /// Memory of objects of the base, by first address: its end and the pod that stores it. Any of it may be gone.
    pub(crate) spans: BTreeMap<usize, (usize, u32)>,
    /// Pods by number; gone ones are empty.
    pub(crate) pods: Vec<Option<Box<PodState>>>,
    /// Root to pod.
    pub(crate) roots: HashMap<RootKey, u32>,
    /// Pod to what its export slots offer.
    pub(crate) export_lists: ExportLists,
    pub(crate) policy: Box<dyn Policy>,
    pub(crate) volatility: Box<dyn Volatility>,
    pub(crate) shadow_bytes: u64,
    /// Bytes that the pods' shadows take.
    pub(crate) shadow_total: u64,
    pub(crate) live: Option<Box<dyn LiveDigests>>,
    pub(crate) shared: Option<Box<dyn SharedMemory>>,
    pub(crate) device: Option<Box<dyn DeviceMemory>>,
    /// Who waits for the next walk to have read what is live.
    pub(crate) captured: Option<WhenCaptured>,
    /// The walk lets nobody run while it waits for a place far away.
    pub(crate) keeps_interpreter: bool,
    pub(crate) identified: Identified,
    pub(crate) reducers: Py<PyModule>,
    pub(crate) context_type: Py<PyAny>,
    /// Address of the dict of the interpreter's own names, which stays.
    pub(crate) builtins: usize,
    /// `signal.getsignal`, as the interpreter defines it.
    getsignal: Py<PyAny>,
    pub(crate) exception: Option<PyErr>,
    pub(crate) pending: Option<super::adopt::Pending>,
    pub(crate) tickets: u64,
    /// Counts how often everything was forgotten, so that pod keys are never used again.
    pub(crate) generation: u64,
}

// SAFETY: the raw pointers inside are touched only by methods that take `Python<'_>`, that is with the interpreter
// attached, and by Drop, which attaches first.
unsafe impl Send for PySession {}
// SAFETY: there is no method that changes anything through a shared reference.
unsafe impl Sync for PySession {}

impl PySession {
    /// Makes an empty session.
    ///
    /// # Errors
    /// When `chipmink._reducers` cannot be imported.
    pub fn new(py: Python<'_>, options: SessionOptions) -> PyResult<Self> {
        crate::dict_table::probe(py)?;
        let reducers = py.import("chipmink._reducers")?;
        Ok(PySession {
            memo: Memo::new(),
            kinds: Kinds::new(py)?,
            names: Names::new(py)?,
            shapes: Shapes::default(),
            shape_limit: SHAPE_LIMIT,
            began_without_shapes: true,
            tracker: Tracker::default(),
            hints: Vec::new(),
            spans: BTreeMap::new(),
            pods: Vec::new(),
            roots: HashMap::new(),
            export_lists: ExportLists::default(),
            policy: options.policy,
            volatility: Box::new(TypePrior),
            shadow_bytes: options.shadow_bytes,
            shadow_total: 0,
            live: options.live,
            shared: options.shared,
            device: options.device,
            captured: None,
            keeps_interpreter: false,
            identified: Identified::default(),
            context_type: reducers.getattr("Context")?.unbind(),
            reducers: reducers.unbind(),
            builtins: py.import("builtins")?.dict().as_ptr() as usize,
            getsignal: py.import("_signal")?.getattr("getsignal")?.unbind(),
            exception: None,
            pending: None,
            tickets: 0,
            generation: 0,
        })
    }

    /// What reducers are told of a walk over `namespace`, or over a single object.
    pub(crate) fn context(&self, py: Python<'_>, namespace: Option<Obj>) -> PyResult<Py<PyAny>> {
        self.context_type.call1(py, (namespace.map(|dict| dict.bound(py)),))
    }

    /// Shows the garbage collector the types that the session holds; all else that it holds can be in no cycle.
    ///
    /// # Errors
    /// What `visit` answers.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        for object in self.tracker.held_types().chain(self.shapes.held_types()) {
            // SAFETY: the collector runs in an attached thread.
            let py = unsafe { Python::assume_attached() };
            // SAFETY: a reference that the session owns. It is only shown, never given up.
            let shown = ManuallyDrop::new(unsafe { Bound::from_owned_ptr(py, object.ptr()) }.unbind());
            visit.call(&*shown)?;
        }
        Ok(())
    }

    /// Memory of devices, if it can be captured.
    pub fn device(&mut self) -> Option<&mut (dyn DeviceMemory + 'static)> {
        self.device.as_deref_mut()
    }

    /// Calls this in the next walk, as soon as nothing live is read any more: the program may go on then, as far as no fence
    /// keeps it from that. It is not called if the walk fails before, finds nothing to do, or could be found unsteady.
    pub fn when_captured(&mut self, told: Option<WhenCaptured>) {
        self.captured = told;
    }

    /// The exception that made the last walk fail, if it was a Python exception.
    pub fn take_exception(&mut self) -> Option<PyErr> {
        self.exception.take()
    }

    /// Whether the program has handlers of its own for signals other than Ctrl-C's, of which nothing says without running
    /// them whether they are due. No Python code runs.
    pub(crate) fn has_signal_handlers(&self, py: Python<'_>) -> bool {
        // 2 is SIGINT, wherever there are signals.
        (1..SIGNALS).filter(|number| *number != 2).any(|number| {
            let handler = self.getsignal.bind(py).call1((number,));
            handler.is_ok_and(|handler| handler.is_callable())
        })
    }

    /// Bytes held by shadows, memo and pod states (without the thesaurus, which is the store's).
    pub fn byte_len(&self) -> u64 {
        let pods: usize = self
            .pods
            .iter()
            .flatten()
            .map(|pod| {
                pod.shadow.as_ref().map_or(0, |shadow| shadow.byte_len())
                    + pod.roots.capacity() * (size_of::<RootKey>() + 4)
                    + size_of::<PodState>()
            })
            .sum();
        let maps = self.roots.capacity() * (size_of::<(RootKey, u32)>() + 1) + self.export_lists.byte_len();
        (self.memo.byte_len() + pods + maps) as u64 + self.identified.byte_len()
    }

    pub(crate) fn pod(&self, id: u32) -> Option<&PodState> {
        self.pods.get(id as usize)?.as_deref()
    }

    pub(crate) fn pod_mut(&mut self, id: u32) -> Option<&mut PodState> {
        self.pods.get_mut(id as usize)?.as_deref_mut()
    }

    /// Lets go of shapes that only old versions of classes have, once there are many.
    pub(crate) fn limit_shapes(&mut self) {
        if self.began_without_shapes {
            self.shape_limit = SHAPE_LIMIT.max(2 * self.shapes.len());
        } else if self.shapes.len() > self.shape_limit {
            self.forget();
        }
    }

    /// Forgets everything: the base is another version, or a save came to nothing.
    pub(crate) fn forget(&mut self) {
        self.memo.clear();
        self.tracker = Tracker::default();
        self.hints.clear();
        self.spans.clear();
        self.pods.clear();
        self.shadow_total = 0;
        self.roots.clear();
        self.export_lists = ExportLists::default();
        self.shapes.clear();
        self.pending = None;
        self.generation += 1;
    }
}

impl Drop for PySession {
    fn drop(&mut self) {
        // Without an interpreter (it has shut down) the references are leaked; there is nobody to give them back to.
        let attached = Python::try_attach(|_| self.forget());
        if attached.is_none() {
            std::mem::forget(std::mem::take(&mut self.pods));
            std::mem::forget(std::mem::take(&mut self.tracker));
            std::mem::forget(std::mem::take(&mut self.shapes));
        }
    }
}

/// The key under which a root is found again.
pub(crate) fn address_key(object: Obj) -> RootKey {
    RootKey::Address(object.addr(), object.ty_addr())
}
