//! Arrays over memory that was mapped.
//!
//! numpy takes the memory over as if it had allocated it, through its interface for allocators (`PyDataMem_SetHandler`,
//! numpy 1.22): the array owns its data like any other, can be resized, and gives the memory back when it dies.
//!
//! 1. Memory is handed out once: to the one allocation for which it was made pending, in the thread that made it so.
//! 2. What numpy frees or resizes is either such memory, found by its address, or came from numpy's own allocator and goes
//!    back there.

use super::error::{Failure, Result};
use super::loader::Loader;
use super::numpy::Numpy;
use chipmink_types::{BlobError, RegionRecord};
use pyo3::ffi;
use pyo3::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::raw::{c_char, c_void};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Memory that holds the bytes of a region.
///
/// # Safety
/// From `start`, `byte_len` bytes can be read and written until it is dropped, from any thread, and belong to nobody else.
pub unsafe trait RegionMemory: Send {
    /// The first byte.
    fn start(&self) -> NonNull<u8>;

    /// Length in bytes.
    fn byte_len(&self) -> usize;

    /// The region whose bytes it holds.
    fn region(&self) -> &RegionRecord;
}

/// Gives memory with the bytes of regions, where that is better than reading them.
pub trait MapRegions {
    /// Memory with the bytes of a region; `None`: they must be read.
    ///
    /// # Errors
    /// When a chunk or node is missing or damaged.
    fn map(&self, region: &RegionRecord) -> std::result::Result<Option<Box<dyn RegionMemory>>, BlobError>;
}

/// `PyDataMemAllocator`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Allocator {
    context: *mut c_void,
    malloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    calloc: unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void,
    realloc: unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void, *mut c_void, usize),
}

/// `PyDataMem_Handler`.
#[repr(C)]
struct Handler {
    name: [c_char; 127],
    version: u8,
    allocator: Allocator,
}

/// numpy's own allocator and ours, whose capsule lives as long as the process.
struct Handlers {
    default: Allocator,
    ours: Handler,
}

// SAFETY: numpy's own allocator may be called from any thread, and its context is never changed.
unsafe impl Send for Handlers {}
// SAFETY: as above; nothing in it is written after it was made.
unsafe impl Sync for Handlers {}

static HANDLERS: OnceLock<Handlers> = OnceLock::new();

/// Memory that belongs to arrays, by address.
static HELD: Mutex<BTreeMap<usize, Box<dyn RegionMemory>>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// Memory for the next allocation of this thread.
    static PENDING: RefCell<Option<Box<dyn RegionMemory>>> = const { RefCell::new(None) };
}

fn held() -> MutexGuard<'static, BTreeMap<usize, Box<dyn RegionMemory>>> {
    // Insertion and removal leave the map whole.
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn default() -> &'static Allocator {
    &HANDLERS.get().expect("numpy knows our allocator only once this is set").default
}

unsafe extern "C" fn malloc(_: *mut c_void, byte_len: usize) -> *mut c_void {
    // A thread that is ending has nothing pending.
    let pending =
        PENDING.try_with(|pending| pending.borrow_mut().take_if(|memory| memory.byte_len() == byte_len));
    if let Ok(Some(memory)) = pending {
        let start = memory.start();
        held().insert(start.as_ptr() as usize, memory);
        return start.as_ptr().cast();
    }
    let default = default();
    // SAFETY: passed on as numpy asked.
    unsafe { (default.malloc)(default.context, byte_len) }
}

unsafe extern "C" fn calloc(_: *mut c_void, count: usize, item_len: usize) -> *mut c_void {
    let default = default();
    // SAFETY: passed on as numpy asked.
    unsafe { (default.calloc)(default.context, count, item_len) }
}

unsafe extern "C" fn realloc(_: *mut c_void, old: *mut c_void, byte_len: usize) -> *mut c_void {
    let default = default();
    let memory = held().remove(&(old as usize));
    let Some(memory) = memory else {
        // SAFETY: passed on as numpy asked; it is memory of numpy's own allocator.
        return unsafe { (default.realloc)(default.context, old, byte_len) };
    };
    // SAFETY: an allocation as numpy makes it.
    let new = unsafe { (default.malloc)(default.context, byte_len) };
    if new.is_null() {
        held().insert(old as usize, memory);
        return new;
    }
    let kept = byte_len.min(memory.byte_len());
    // SAFETY: both have at least so many bytes, and the new ones are known to nobody else.
    unsafe { std::ptr::copy_nonoverlapping(memory.start().as_ptr(), new.cast::<u8>(), kept) };
    new
}

unsafe extern "C" fn free(_: *mut c_void, old: *mut c_void, byte_len: usize) {
    // Bound before it is dropped, so that the lock is not held while memory is unmapped.
    let memory = held().remove(&(old as usize));
    if memory.is_none() {
        let default = default();
        // SAFETY: passed on as numpy asked; it is memory of numpy's own allocator.
        unsafe { (default.free)(default.context, old, byte_len) }
    }
}

/// The region over whose memory an array lies that begins at this address, if it was mapped by a load and is alive. What the
/// program has written there since is not looked at.
pub fn region_at(address: usize) -> Option<RegionRecord> {
    held().get(&address).map(|memory| memory.region().clone())
}

const HANDLER_NAME: &std::ffi::CStr = c"mem_handler";
/// numpy 1.22, as `PyArray_GetNDArrayCFeatureVersion` counts.
const FEATURE_VERSION: u32 = 0xF;
/// Places in numpy's table of C functions (`__multiarray_api.h`).
const GET_FEATURE_VERSION: usize = 211;
const SET_HANDLER: usize = 304;
const DEFAULT_HANDLER: usize = 306;

/// Lets numpy allocate with our allocator.
#[derive(Clone)]
pub(super) struct OurAllocator<'py> {
    set_handler: unsafe extern "C" fn(*mut ffi::PyObject) -> *mut ffi::PyObject,
    capsule: Bound<'py, PyAny>,
}

impl<'py> OurAllocator<'py> {
    /// `None`: numpy is too old.
    fn find(py: Python<'py>) -> PyResult<Option<Self>> {
        let table = super::array_view::api_table(py)?;
        type GetVersion = unsafe extern "C" fn() -> u32;
        type SetHandler = unsafe extern "C" fn(*mut ffi::PyObject) -> *mut ffi::PyObject;
        // SAFETY: numpy's table has this function, of this type, since 1.4.
        let version =
            unsafe { std::mem::transmute::<*const c_void, GetVersion>(*table.add(GET_FEATURE_VERSION))() };
        if version < FEATURE_VERSION {
            return Ok(None);
        }
        // SAFETY: the table of this version has both entries; the second is the address of a capsule's address.
        let (set_handler, default) = unsafe {
            (
                std::mem::transmute::<*const c_void, SetHandler>(*table.add(SET_HANDLER)),
                *(*table.add(DEFAULT_HANDLER)).cast::<*mut ffi::PyObject>(),
            )
        };
        // SAFETY: numpy's own capsule, alive as long as numpy is.
        let handler = unsafe { ffi::PyCapsule_GetPointer(default, HANDLER_NAME.as_ptr()) };
        if handler.is_null() {
            return Err(PyErr::fetch(py));
        }
        // SAFETY: a capsule of this name holds such a struct.
        let default = unsafe { (*handler.cast::<Handler>()).allocator };
        let handlers = HANDLERS.get_or_init(|| {
            let mut name = [0; 127];
            b"chipmink".iter().enumerate().for_each(|(i, byte)| name[i] = *byte as c_char);
            let allocator = Allocator { context: std::ptr::null_mut(), malloc, calloc, realloc, free };
            Handlers { default, ours: Handler { name, version: 1, allocator } }
        });
        let pointer = std::ptr::from_ref(&handlers.ours).cast_mut().cast::<c_void>();
        // SAFETY: the struct lives for ever, as does the name.
        let capsule = unsafe { ffi::PyCapsule_New(pointer, HANDLER_NAME.as_ptr(), None) };
        // SAFETY: a new reference, or null with an exception.
        let capsule = unsafe { Bound::from_owned_ptr_or_err(py, capsule) }?;
        Ok(Some(OurAllocator { set_handler, capsule }))
    }

    fn set(&self, py: Python<'py>, handler: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: a capsule of a handler; the interpreter is attached.
        let before = unsafe { (self.set_handler)(handler.as_ptr()) };
        // SAFETY: a new reference to the handler before, or null with an exception.
        unsafe { Bound::from_owned_ptr_or_err(py, before) }
    }

    /// Runs `make`, whose first allocation of this length gets the memory. `None`: it made none of it.
    fn with(
        &self,
        py: Python<'py>,
        memory: Box<dyn RegionMemory>,
        make: impl FnOnce() -> Result<Bound<'py, PyAny>>,
    ) -> Result<Option<Bound<'py, PyAny>>> {
        let before = self.set(py, &self.capsule)?;
        PENDING.set(Some(memory));
        let made = make();
        let is_left = PENDING.take().is_some();
        self.set(py, &before)?;
        Ok((!is_left).then_some(made?))
    }
}

impl<'py> Loader<'py, '_> {
    /// An array that `make` makes with numpy, of exactly the region's bytes, over memory that holds them. `None`: they
    /// must be read.
    pub(super) fn mapped_array(
        &mut self,
        region: &RegionRecord,
        make: impl FnOnce(&mut Self, &Numpy<'py>) -> Result<Bound<'py, PyAny>>,
    ) -> Result<Option<Bound<'py, PyAny>>> {
        let Some(mapper) = self.mapper else { return Ok(None) };
        let numpy = self.numpy()?;
        let allocator = match &self.allocator {
            Some(allocator) => allocator.clone(),
            None => self.allocator.insert(OurAllocator::find(self.py)?).clone(),
        };
        let Some(allocator) = allocator else { return Ok(None) };
        let Some(memory) = mapper.map(region).map_err(Failure::from)? else { return Ok(None) };
        if memory.byte_len() as u64 != region.byte_len {
            return Ok(None);
        }
        let start = memory.start().as_ptr();
        let array = allocator.with(self.py, memory, || make(self, &numpy))?;
        Ok(array.filter(|array| super::numpy::memory(array).0 == start))
    }
}
