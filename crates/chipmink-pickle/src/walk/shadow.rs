//! The identity shadow: per pod, what its objects pointed at, which proves it unchanged without producing bytes.
//!
//! A shadow is a sequence of 64-bit words in the order of the walk. Each container of the pod has a record: a header
//! word, a few words by kind, then one word for each child: the child's address with a [`Child`] in its lowest three bits.
//! What a child needs beyond that follows in the order of the children, mixed with the records of containers first
//! met there: an auxiliary word begins with a kind of its own, so that the words can be read straight through.
//!
//! Children that are exact immutable atoms are held by a reference: the same address then is the same value. Nothing else
//! is held; everything else is looked into.

use crate::py::Obj;

/// Atoms up to this size are held; a larger one is compared by length and digest in place.
pub(crate) const HELD_LIMIT: usize = 4096;

/// How a child was met.
pub(crate) mod child {
    /// A held atom.
    pub(crate) const ATOM: u64 = 0;
    /// A container met for the first time, in this pod: its record follows.
    pub(crate) const FIRST: u64 = 1;
    /// A pod's root met for the first time: a `CALL` follows.
    pub(crate) const CALL: u64 = 2;
    /// An object met before: a `REFERENCE` follows.
    pub(crate) const REFERENCE: u64 = 3;
    /// A large atom: an `ATOM_DIGEST` follows.
    pub(crate) const LARGE: u64 = 4;
    /// An object saved by name: a `NAME` follows.
    pub(crate) const NAMED: u64 = 5;
    /// Not decided yet; never in a finished shadow.
    pub(crate) const UNKNOWN: u64 = 7;
    pub(crate) const MASK: u64 = 7;
}

/// Lowest byte of a header or auxiliary word.
pub(crate) mod kind {
    /// Header, count, children.
    pub(crate) const LIST: u8 = 0x10;
    pub(crate) const TUPLE: u8 = 0x11;
    pub(crate) const SET: u8 = 0x12;
    pub(crate) const FROZENSET: u8 = 0x13;
    /// Header, count, version of the dict, keys and values in turn.
    pub(crate) const DICT: u8 = 0x14;
    /// Header, shape and count (upper half), version of the dict, values in it, values of slots.
    pub(crate) const INSTANCE: u8 = 0x15;
    /// Header, count, fingerprint of the layout, items.
    pub(crate) const OBJECT_ARRAY: u8 = 0x16;
    /// Header, length, content digest in two words.
    pub(crate) const BYTEARRAY: u8 = 0x17;
    /// Header, dtype, fingerprint of the layout, offset of the first item in what is stored, length of that, content digest
    /// in two words.
    pub(crate) const ARRAY: u8 = 0x18;
    /// Header, dtype, fingerprint of the layout, ordinal of the region: its digest stands in the pod's record.
    pub(crate) const ARRAY_REGION: u8 = 0x19;
    /// Header, dtype, fingerprint of the layout, distance from the owner of the memory; the owner.
    pub(crate) const ARRAY_VIEW: u8 = 0x1A;
    /// Header, ordinal of the region.
    pub(crate) const BYTEARRAY_REGION: u8 = 0x1B;
    /// Header, address of the type, value in two words.
    pub(crate) const NUMPY_SCALAR: u8 = 0x1C;
    /// Pod (upper half), export slot.
    pub(crate) const CALL: u8 = 0x20;
    /// Pod (upper half), export slot or memo number.
    pub(crate) const REFERENCE: u8 = 0x21;
    /// Type, digest in two words.
    pub(crate) const ATOM_DIGEST: u8 = 0x22;
    /// Number of the name (upper half).
    pub(crate) const NAME: u8 = 0x23;
    /// Before a record: address of a by-value class, pod (upper half) and export slot; first use of the class here.
    pub(crate) const CLASS: u8 = 0x24;
    /// Before a record: number of the name (upper half), address of a class saved by name; first use of the class here.
    pub(crate) const NAMED_CLASS: u8 = 0x25;
}

/// In a header: every child is a held atom, so the children's words equal the live pointers.
pub(crate) const ALL_ATOMS: u64 = 1 << 8;

/// Kind, flags and memo number of a record.
#[inline(always)]
pub(crate) fn header(kind: u8, number: u32) -> u64 {
    u64::from(kind) | u64::from(number) << 32
}

/// Whether a shadow may hold the object: an exact atom, not large.
#[inline(always)]
pub(crate) fn may_hold(object: Obj) -> bool {
    if object.is_str() {
        object.str_len() * object.str_width() <= HELD_LIMIT
    } else if object.is_bytes() {
        object.bytes_slice().len() <= HELD_LIMIT
    } else if object.is_int() {
        object.small_int().is_some() || object.int_value().is_some()
    } else {
        object.is_atom() || is_singleton(object)
    }
}

/// `()`, `...` and `NotImplemented`: one object each, for ever.
#[inline(always)]
pub(crate) fn is_singleton(object: Obj) -> bool {
    (object.is_tuple() && object.tuple_len() == 0) || object.is_ellipsis() || object.is_not_implemented()
}

/// A shadow under construction. Dropping it gives up what it holds.
pub(crate) struct ShadowWriter {
    words: Vec<u64>,
    /// The most words that it may have.
    limit: usize,
}

impl ShadowWriter {
    /// A shadow of at most `byte_limit` bytes.
    pub(crate) fn new(byte_limit: u64) -> Self {
        ShadowWriter { words: Vec::new(), limit: (byte_limit / 8) as usize }
    }

    /// Whether a record of so many children still fits.
    #[inline(always)]
    pub(crate) fn fits(&self, child_count: usize) -> bool {
        self.words.len() + child_count < self.limit
    }

    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        release(&self.words[len.min(self.words.len())..]);
        self.words.truncate(len);
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, word: u64) {
        self.words.push(word);
    }

    /// Begins a record whose children stand at `items`. Returns the position of the first child's word.
    #[inline]
    pub(crate) fn record(
        &mut self,
        kind: u8,
        number: u32,
        fields: &[u64],
        items: impl ExactSizeIterator<Item = Obj>,
    ) -> u32 {
        let at = self.words.len();
        self.words.push(header(kind, number));
        self.words.extend_from_slice(fields);
        let first = self.words.len();
        let mut all_atoms = true;
        self.words.reserve(items.len());
        for item in items {
            if may_hold(item) {
                item.incref();
                self.words.push(item.addr() as u64 | child::ATOM);
            } else {
                all_atoms = false;
                self.words.push(item.addr() as u64 | child::UNKNOWN);
            }
        }
        if all_atoms {
            self.words[at] |= ALL_ATOMS;
        }
        first as u32
    }

    /// Sets the memo number of a record whose first child's word is known.
    pub(crate) fn set_number(&mut self, header_at: usize, number: u32) {
        let low = self.words[header_at] & 0xFFFF_FFFF;
        self.words[header_at] = low | u64::from(number) << 32;
    }

    /// Says how the child whose word stands at `at` was met.
    #[inline(always)]
    pub(crate) fn decide(&mut self, at: u32, how: u64) {
        let word = &mut self.words[at as usize];
        *word = *word & !child::MASK | how;
    }

    pub(crate) fn finish(mut self) -> Shadow {
        Shadow { words: std::mem::take(&mut self.words).into() }
    }
}

impl Drop for ShadowWriter {
    fn drop(&mut self) {
        release(&self.words);
    }
}

/// A finished shadow. Dropping it gives up what it holds.
pub(crate) struct Shadow {
    words: Box<[u64]>,
}

impl Shadow {
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    pub(crate) fn byte_len(&self) -> usize {
        self.words.len() * 8
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        release(&self.words);
    }
}

/// Position of the first child's word and number of children words of the record at `at`; the record's length in words.
pub(crate) fn record_extent(words: &[u64], at: usize) -> (usize, usize) {
    match words[at] as u8 {
        kind::LIST | kind::TUPLE | kind::SET | kind::FROZENSET => (at + 2, words[at + 1] as usize),
        kind::DICT => (at + 3, 2 * words[at + 1] as usize),
        kind::INSTANCE => (at + 3, (words[at + 1] >> 32) as usize),
        kind::OBJECT_ARRAY => (at + 3, words[at + 1] as usize),
        kind::BYTEARRAY | kind::ATOM_DIGEST | kind::NUMPY_SCALAR => (at + 4, 0),
        kind::ARRAY => (at + 7, 0),
        kind::ARRAY_REGION => (at + 4, 0),
        kind::ARRAY_VIEW => (at + 4, 1),
        kind::CLASS => (at + 3, 0),
        kind::NAME => (at + 1, 0),
        // CALL, REFERENCE, NAMED_CLASS, BYTEARRAY_REGION
        _ => (at + 2, 0),
    }
}

/// Gives up the references of whole records.
fn release(words: &[u64]) {
    let mut at = 0;
    while at < words.len() {
        let (first, count) = record_extent(words, at);
        // A record cut off by a failed walk never reaches here: rolling back cuts at record borders.
        for word in &words[first..first + count] {
            if word & child::MASK == child::ATOM {
                // SAFETY: the shadow owns a reference to this atom.
                unsafe { Obj::from_ptr(*word as *mut pyo3::ffi::PyObject) }.decref();
            }
        }
        at = first + count;
    }
}
