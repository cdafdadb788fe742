//! Whether other threads changed what a walk had already seen.
//!
//! While Python code runs in a walk, or the walk waits for a place far away, another thread may run as well, and change
//! containers that are written already together with some that are not: what was stored would be a state that never was. So a fingerprint of each container that is walked
//! natively is taken when it is met, and all are compared at the end, in one go, without running Python code. If all are as
//! they were, every container held what was written of it at that one moment.
//!
//! 1. Nothing is noted as long as no Python code has run and the walk has not waited, or while there is no other thread.
//! 2. What reducers answer, and the bytes of arrays, are taken as they were when they were read (but see `waits`).
//! 3. A fingerprint only finds changes: containers are compared by the pointers in them, numbers and text by value, since an
//!    address is soon used again.

use super::kinds::Kind;
use super::walker::Walker;
use crate::py::Obj;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// How often a walk is begun anew before what other threads do to it is only reported.
pub(crate) const ATTEMPTS: u32 = 3;

/// Seconds after which a thread has to give up the interpreter if another waits for it: ten times what is usual. More would keep
/// the walk waiting, too, wherever a reducer of its own offers the interpreter.
const LONG_INTERVAL: f64 = 0.05;

/// What the containers of a walk looked like.
#[derive(Default)]
pub(crate) struct Witness {
    /// There are other threads, and Python code has run.
    is_needed: bool,
    /// Container, fingerprint and variable. The walk owns a reference to each.
    seen: Vec<(Obj, u64, u32)>,
    /// Sequence number at which each variable begins, and the variable.
    starts: Vec<(u32, u32)>,
    /// Variables of which something changed.
    unsteady: Vec<u32>,
}

impl Walker<'_, '_> {
    /// Notes where a variable begins.
    pub(crate) fn witness_variable(&mut self, variable: u32) {
        self.witness.starts.push((self.session.memo.next_seq(), variable));
    }

    /// From now on other threads may run: looks at everything that was met so far, which is still as it was written.
    pub(crate) fn begin_witness(&mut self) {
        self.witness.is_needed = !self.single && has_other_threads();
        if !self.witness.is_needed {
            return;
        }
        let met: Vec<usize> = self.session.memo.created().collect();
        let first = self.session.memo.next_seq() - met.len() as u32;
        let starts = std::mem::take(&mut self.witness.starts);
        let mut at = 0;
        for (seq, addr) in (first..).zip(met) {
            while starts.get(at + 1).is_some_and(|(start, _)| *start <= seq) {
                at += 1;
            }
            let variable = starts.get(at).map_or(u32::MAX, |(_, variable)| *variable);
            // SAFETY: no Python code has run since the address was entered, and its owner still refers to it.
            let object = unsafe { Obj::from_ptr(addr as *mut ffi::PyObject) };
            self.see(object, variable);
        }
    }

    /// Notes a container that is met now.
    #[inline(always)]
    pub(crate) fn witness(&mut self, object: Obj) {
        if self.witness.is_needed {
            self.see(object, self.variable);
        }
    }

    fn see(&mut self, object: Obj, variable: u32) {
        if let Some(fingerprint) = self.fingerprint(object) {
            self.witness.seen.push((object, fingerprint, variable));
        }
    }

    /// Whether other threads may change what was met.
    pub(crate) fn is_witnessed(&self) -> bool {
        self.witness.is_needed
    }

    /// Something of the variable that is walked is not what was written of it.
    pub(crate) fn note_unsteady(&mut self) {
        self.witness.unsteady.push(self.variable);
    }

    /// How many containers were noted.
    pub(crate) fn witnessed(&self) -> usize {
        self.witness.seen.len()
    }

    /// The variable cannot be saved: what was noted since counts only if it changed.
    pub(crate) fn give_up_witness(&mut self, since: usize) {
        let given_up = self.witness.seen.split_off(since.min(self.witness.seen.len()));
        self.compare(&given_up);
    }

    /// Variables of which something is not as it was when it was written. No Python code runs.
    pub(crate) fn unsteady_variables(&mut self) -> Vec<u32> {
        let seen = std::mem::take(&mut self.witness.seen);
        self.compare(&seen);
        let mut unsteady = std::mem::take(&mut self.witness.unsteady);
        unsteady.sort_unstable();
        unsteady.dedup();
        unsteady
    }

    fn compare(&mut self, seen: &[(Obj, u64, u32)]) {
        for (object, fingerprint, variable) in seen {
            if self.fingerprint(*object) != Some(*fingerprint) {
                self.witness.unsteady.push(*variable);
            }
        }
    }

    /// `None`: not a container that is walked natively, or it never changes.
    fn fingerprint(&mut self, object: Obj) -> Option<u64> {
        let mut hash = Hash(object.ty_addr() as u64);
        if object.is_list() {
            object.list_items().iter().for_each(|item| hash.add(*item));
        } else if object.is_dict() {
            hash.add_dict(object);
        } else if object.is_set() {
            let mut position = 0;
            while let Some(member) = object.set_next(&mut position) {
                hash.add(member);
            }
        } else if object.is_bytearray() {
            hash.word(object.bytearray_slice().len() as u64);
        } else if self.session.kinds.of(self.py, object) == Kind::Plain {
            if let Some(dict) = object.instance_dict() {
                hash.add_dict(dict);
            }
            if let Some(shape) = self.session.shapes.known_slots(object) {
                shape.iter().for_each(|slot| match slot.value(object) {
                    Some(value) => hash.add(value),
                    None => hash.word(0),
                });
            }
        } else {
            return None;
        }
        Some(hash.0)
    }
}

struct Hash(u64);

impl Hash {
    #[inline(always)]
    fn word(&mut self, word: u64) {
        // The multiplier of the FxHash of rustc.
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    #[inline(always)]
    fn add(&mut self, object: Obj) {
        self.word(object.addr() as u64);
        if object.is_float() {
            self.word(object.float_value().to_bits());
        } else if object.is_int() {
            self.word(object.small_int().unwrap_or_default().cast_unsigned());
        } else if object.is_str() {
            self.text(object.str_raw());
        } else if object.is_bytes() {
            self.text(object.bytes_slice());
        }
    }

    fn text(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let head = bytes.first_chunk::<8>().map_or(0, |head| u64::from_le_bytes(*head));
        let tail = bytes.last_chunk::<8>().map_or(0, |tail| u64::from_le_bytes(*tail));
        self.word(head);
        self.word(tail);
    }

    fn add_dict(&mut self, dict: Obj) {
        let version = dict.dict_version();
        if version != 0 {
            return self.word(version);
        }
        let mut position = 0;
        while let Some((key, value)) = dict.dict_next(&mut position) {
            self.add(key);
            self.add(value);
        }
    }
}

/// Whether the interpreter knows other threads.
fn has_other_threads() -> bool {
    // SAFETY: the thread is attached; thread states are linked and unlinked only by attached threads.
    unsafe {
        let first = ffi::PyInterpreterState_ThreadHead(ffi::PyInterpreterState_Get());
        !first.is_null() && !ffi::PyThreadState_Next(first).is_null()
    }
}

/// Makes threads change less often, until it is dropped.
pub(crate) struct RareSwitching<'py> {
    py: Python<'py>,
    before: Option<Bound<'py, PyAny>>,
}

impl<'py> RareSwitching<'py> {
    pub(crate) fn begin(py: Python<'py>) -> Self {
        let before = functions(py).and_then(|(get, _)| get.bind(py).call0()).ok();
        let rare = RareSwitching { py, before };
        if rare.before.is_some() {
            rare.set(LONG_INTERVAL);
        }
        rare
    }

    fn set(&self, seconds: impl IntoPyObject<'py>) {
        if let Ok((_, set)) = functions(self.py) {
            // Nothing depends on it: the walk is compared again.
            drop(set.bind(self.py).call1((seconds,)));
        }
    }
}

impl Drop for RareSwitching<'_> {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            self.set(before);
        }
    }
}

/// `sys.getswitchinterval` and `sys.setswitchinterval`.
fn functions(py: Python<'_>) -> PyResult<&'static (Py<PyAny>, Py<PyAny>)> {
    static FUNCTIONS: PyOnceLock<(Py<PyAny>, Py<PyAny>)> = PyOnceLock::new();
    FUNCTIONS.get_or_try_init(py, || {
        let sys = py.import("sys")?;
        Ok((sys.getattr("getswitchinterval")?.unbind(), sys.getattr("setswitchinterval")?.unbind()))
    })
}
