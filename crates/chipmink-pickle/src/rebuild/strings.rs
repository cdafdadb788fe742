//! Short strs by content, so that equal names become one object whose hash is computed once.

use super::error::Result;
use super::object;
use pyo3::ffi;
use pyo3::prelude::*;

/// Number of slots at first, and once a load has met more strs than that; powers of two. 2048 slots of 16 bytes stay in
/// the first-level cache; a small load should not have to clear them.
const SLOTS: [usize; 2] = [64, 2048];

/// A direct-mapped cache: a str stays until another falls into its slot twice in a row.
///
/// A str that comes once leaves only its hash. A column of a million different strs would else push every one out
/// again when it has long left the processor's caches (measured: a seventh of the time of such a load).
pub(super) struct StringCache<'py> {
    slots: Vec<Slot<'py>>,
    /// How many strs it has made since it was small.
    made: usize,
}

struct Slot<'py> {
    /// Hash of the object's content.
    hash: u32,
    /// Hash of the last content that was not the object's.
    candidate: u32,
    object: Option<Bound<'py, PyAny>>,
}

impl<'py> StringCache<'py> {
    pub(super) fn new() -> Self {
        StringCache { slots: empty_slots(SLOTS[0]), made: 0 }
    }

    /// The str of these bytes, which are ASCII.
    #[inline(always)]
    pub(super) fn get(&mut self, py: Python<'py>, content: &[u8]) -> Result<Bound<'py, PyAny>> {
        let wide = hash(content);
        // The slot and what tells its contents apart come from different bits.
        let hash = (wide >> 32) as u32;
        let at = wide as usize & (self.slots.len() - 1);
        let slot = &mut self.slots[at];
        if let Some(object) = &slot.object
            && slot.hash == hash
            && ascii_content(object) == content
        {
            return Ok(object.clone());
        }
        let object = object::ascii(py, content)?;
        if slot.candidate == hash {
            slot.hash = hash;
            slot.object = Some(object.clone());
        } else {
            slot.candidate = hash;
        }
        self.made += 1;
        if self.made == SLOTS[0] {
            self.slots = empty_slots(SLOTS[1]);
        }
        Ok(object)
    }
}

fn empty_slots<'py>(count: usize) -> Vec<Slot<'py>> {
    (0..count).map(|_| Slot { hash: 0, candidate: 0, object: None }).collect()
}

/// The bytes of a str that this cache made.
#[inline(always)]
fn ascii_content<'a>(object: &'a Bound<'_, PyAny>) -> &'a [u8] {
    // SAFETY: the cache holds compact ASCII strs only, which never change while it holds a reference: `len` bytes stand
    // at `PyUnicode_DATA`.
    unsafe {
        let len = ffi::PyUnicode_GET_LENGTH(object.as_ptr()) as usize;
        std::slice::from_raw_parts(ffi::PyUnicode_DATA(object.as_ptr()).cast::<u8>().cast_const(), len)
    }
}

/// A quick hash of a short byte string: two words of it, its length, one multiplication each. Collisions cost time only.
#[inline(always)]
fn hash(content: &[u8]) -> u64 {
    let (head, tail) = match (content.first_chunk::<8>(), content.last_chunk::<8>()) {
        (Some(head), Some(tail)) => (u64::from_le_bytes(*head), u64::from_le_bytes(*tail)),
        _ => match (content.first_chunk::<4>(), content.last_chunk::<4>()) {
            (Some(head), Some(tail)) => {
                (u64::from(u32::from_le_bytes(*head)), u64::from(u32::from_le_bytes(*tail)))
            }
            _ => (content.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)), 0),
        },
    };
    let mixed = (head ^ (content.len() as u64) << 56).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ tail.rotate_left(29).wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
    mixed ^ mixed >> 29
}
