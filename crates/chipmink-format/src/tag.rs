//! Tags of the pod stream, version 1. `FORMAT.md` ("Pods") is the normative text; this is its table.
//!
//! A pod is `POD_VERSION`, its root values one after another, the trailer, and the trailer's length as u32
//! little-endian. The trailer lists the memo numbers that `REF` uses: a varint count, then ascending varint differences
//! (the first from 0). All varints are LEB128 of a u64, in their shortest form. Fixed-width numbers are little-endian.
//!
//! Memo numbers are implicit: values marked *memo* below take the next number of their pod, either before their content
//! ("first") or after it ("last"). Numbers, `None`, booleans, globals and references take none.

/// First byte of every pod.
pub const POD_VERSION: u8 = 1;

/// `None`.
pub const NONE: u8 = 0x00;
/// `True`.
pub const TRUE: u8 = 0x01;
/// `False`.
pub const FALSE: u8 = 0x02;
/// int in -128..=127: 1 byte.
pub const INT8: u8 = 0x03;
/// int that needs two bytes: i16.
pub const INT16: u8 = 0x04;
/// int that needs three or four bytes: i32.
pub const INT32: u8 = 0x05;
/// int that needs five to eight bytes: i64.
pub const INT64: u8 = 0x06;
/// Larger int: varint byte count, then two's complement in its shortest form, little-endian.
pub const BIGINT: u8 = 0x07;
/// float: its 8 bytes.
pub const FLOAT: u8 = 0x08;
/// complex: real and imaginary part, 8 bytes each.
pub const COMPLEX: u8 = 0x09;
/// ASCII str of at most 255 characters: u8 length, bytes. *memo last*
pub const STR8: u8 = 0x0A;
/// Longer ASCII str: varint length, bytes. *memo last*
pub const STR: u8 = 0x0B;
/// Other str: u8 width (1, 2 or 4: the narrowest that fits), varint count, code points in that width. *memo last*
pub const STR_WIDE: u8 = 0x0C;
/// bytes of at most 255 bytes: u8 length, bytes. *memo last*
pub const BYTES8: u8 = 0x0D;
/// Longer bytes: varint length, bytes. *memo last*
pub const BYTES: u8 = 0x0E;
/// bytearray: varint length, bytes. *memo last*
pub const BYTEARRAY: u8 = 0x0F;
/// `Ellipsis`.
pub const ELLIPSIS: u8 = 0x10;
/// `NotImplemented`.
pub const NOT_IMPLEMENTED: u8 = 0x11;
/// `()`.
pub const EMPTY_TUPLE: u8 = 0x12;
/// tuple: varint count, items. *memo last*
pub const TUPLE: u8 = 0x13;
/// A tuple that came to exist while its items were read: varint count, items (dropped), then a reference to it.
pub const TUPLE_AGAIN: u8 = 0x14;
/// list: varint count, items. *memo first*
pub const LIST: u8 = 0x15;
/// dict: varint count, then key and value of each item. *memo first*
pub const DICT: u8 = 0x16;
/// set: varint count, items. *memo first*
pub const SET: u8 = 0x17;
/// frozenset: varint count, items. *memo last*
pub const FROZENSET: u8 = 0x18;
/// As `TUPLE_AGAIN`, of a frozenset.
pub const FROZENSET_AGAIN: u8 = 0x19;
/// The object of this pod with memo number: varint.
pub const REF: u8 = 0x1A;
/// Export slot 0 of another pod: varint dependency slot.
pub const POD: u8 = 0x1B;
/// An export of another pod: varint dependency slot, varint export slot.
pub const POD_EXPORT: u8 = 0x1C;
/// As many values as counted, from neighbouring export slots: varint dependency slot, varint first export slot, varint
/// count (at least 2). It stands only among the items of a list, tuple, set or frozenset and never crosses its end.
pub const POD_RUN: u8 = 0x1D;
/// An object saved by name: varint global ordinal.
pub const GLOBAL: u8 = 0x1E;
/// A plain instance: varint shape ordinal, then a value for each dict name and each slot name of the shape. The object
/// is made by `object.__new__(cls)`, attributes are set without calling Python code. *memo first*
pub const INSTANCE: u8 = 0x1F;
/// A plain instance whose `__dict__` is a value of its own: varint shape ordinal (a shape with no dict names), then a
/// value for each slot name, then the dict, which becomes the instance's `__dict__` itself. *memo first*
pub const INSTANCE_DICT: u8 = 0x20;
/// A reduced object: flags byte (`REDUCE_*`), callable, argument tuple, then as flagged: varint count and list items;
/// varint count and dict items; the state setter; the state. *memo after the arguments, before everything else*
pub const REDUCE: u8 = 0x21;
/// A reduced object that came to exist while its arguments were read: flags byte (only `NEWOBJ` bits), callable,
/// arguments (dropped, nothing is called), then a reference to it.
pub const REDUCE_AGAIN: u8 = 0x22;
/// Contents of a buffer below the region threshold: u8 read-only (0: bytearray, 1: bytes), varint length, bytes. *memo last*
pub const BUFFER: u8 = 0x23;
/// A region as an object: u8 kind (`REGION_*`), varint region ordinal, varint view ordinal. *memo last*
pub const REGION: u8 = 0x24;
/// numpy array of a dtype without objects: dtype value, u8 order (b'C' or b'F'), u8 writable, u8 ndim, varint for each
/// dimension, then u8 0, varint length and bytes, or u8 1, varint region ordinal and varint view ordinal. *memo last*
pub const NDARRAY: u8 = 0x25;
/// numpy array of dtype object: u8 order, u8 writable, u8 ndim, varint for each dimension, then (memo here) one value for each
/// element in that order.
pub const NDARRAY_OBJECT: u8 = 0x26;
/// A value of the side record: varint ordinal. It takes no memo number.
pub const SIDE: u8 = 0x27;
/// A placeholder for an object that cannot be saved: three str values (no memo numbers): kind, type name, reason. *memo last*
pub const STUB: u8 = 0x28;
/// The namespace itself: the dict that names are loaded into.
pub const NAMESPACE: u8 = 0x29;

/// numpy array that shows part of a buffer: dtype value, u8 writable, u8 ndim, for each dimension its varint length and
/// zigzag varint stride in bytes, then where its first element lies (`ARRAY_*`). *memo last*
pub const NDARRAY_VIEW: u8 = 0x2A;
/// As `TUPLE_AGAIN`, of such an array that came to exist while the object whose memory it shows was read.
pub const NDARRAY_VIEW_AGAIN: u8 = 0x2B;

/// numpy array of dtype object that shows part of a run of references: u8 writable, u8 ndim, for each dimension its varint
/// length and zigzag varint stride in references, varint place of the first element in the run, varint count, then (memo here)
/// so many values.
pub const NDARRAY_OBJECT_VIEW: u8 = 0x2C;

/// The bytes follow. For `NDARRAY_VIEW` the varint offset of the first element stands before their varint length.
pub const ARRAY_INLINE: u8 = 0;
/// A view of a region: varint region ordinal, varint view ordinal.
pub const ARRAY_REGION: u8 = 1;
/// Only for `NDARRAY_VIEW`: zigzag varint distance in bytes from the first byte of an object, which follows as a value.
pub const ARRAY_SHARED: u8 = 2;

/// `callable.__new__(callable, *args)`.
pub const REDUCE_NEWOBJ: u8 = 1;
/// `callable.__new__(callable, *args[0], **args[1])`.
pub const REDUCE_NEWOBJ_EX: u8 = 2;
/// List items follow.
pub const REDUCE_LIST: u8 = 4;
/// Dict items follow.
pub const REDUCE_DICT: u8 = 8;
/// A state follows.
pub const REDUCE_STATE: u8 = 16;
/// A state setter stands before the state: it is called with object and state.
pub const REDUCE_SETTER: u8 = 32;

/// A writable buffer: comes back as bytearray.
pub const REGION_BYTEARRAY: u8 = 0;
/// bytes.
pub const REGION_BYTES: u8 = 1;
/// ASCII str.
pub const REGION_STR1_ASCII: u8 = 2;
/// str of code points below 256.
pub const REGION_STR1: u8 = 3;
/// str of 16-bit code points.
pub const REGION_STR2: u8 = 4;
/// str of 32-bit code points.
pub const REGION_STR4: u8 = 5;
/// int: two's complement, little-endian.
pub const REGION_INT: u8 = 6;

/// A signed number as an unsigned one, small if it is small either way: 2n for n ≥ 0, else -2n - 1.
pub const fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

/// The number of which [`zigzag`] made this one.
pub const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// Buffers, str, bytes and ints of at least this many bytes leave the stream as regions.
pub const REGION_THRESHOLD: usize = 64 * 1024;

/// A str or bytes of at most this many bytes is always written out, never as `REF`, so that a pod's bytes do not depend
/// on which equal strings the interpreter happens to share.
pub const ALWAYS_INLINE: usize = 32;
