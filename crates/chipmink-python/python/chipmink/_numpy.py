"""Reducers for what numpy's plain arrays are not: subclasses, masked arrays, files mapped into memory, dtypes with fields.

An array of a subclass is saved as a plain array over its memory and its class, so that it shares memory with others as
plain arrays do.

A file that is mapped for reading only comes back mapped, if it is as it was; what was saved of it counts as soon as its
size or time of change is another. Arrays mapped in another mode come back without a file: what they show in a version
is not what the file holds later, and a write to them must not reach it.

The names of the ``make_`` and ``_setstate`` functions are part of format version 1, as those of ``chipmink._rebuild`` are.
"""

from __future__ import annotations

import importlib
import mmap
import os
import sys
import time
import warnings
import weakref
from typing import Any

from chipmink._markers import Context, Value

__all__ = ["BY_NAME", "VALUES", "array_over", "describe_dtype", "make_memmap", "make_subarray", "subarray_setstate"]


def _library() -> Any:
    return sys.modules["numpy"]


def _imported(kind: type) -> type:
    """The class, with its module loaded: numpy loads ``numpy.rec`` only when it is asked for, and has its classes before."""
    if kind.__module__.startswith("numpy.") and kind.__module__ not in sys.modules:
        importlib.import_module(kind.__module__)
    return kind


# --- dtypes ----------------------------------------------------------------------------------------------------------


def describe_dtype(dtype: Any) -> tuple[str, Value] | None:
    """What a dtype without a string of its own is made of, as text and as a value; ``None`` if that is not all of it."""
    numpy = _library()
    try:
        described = _description(dtype)
        # How it is pickled says all that a dtype is, the metadata included.
        if described is None or numpy.dtype(described).__reduce__() != dtype.__reduce__():
            return None
    except (TypeError, ValueError):
        return None
    return repr(described), Value("numpy:dtype", (described,))


def _description(dtype: Any) -> Any:
    if dtype.subdtype is not None:
        item, shape = dtype.subdtype
        return _description(item), shape
    if dtype.names is None:
        return dtype.str
    fields = [dtype.fields[name] for name in dtype.names]
    described: dict[str, Any] = {
        "names": list(dtype.names),
        "formats": [_description(field[0]) for field in fields],
        "offsets": [field[1] for field in fields],
        "itemsize": dtype.itemsize,
    }
    titles = [field[2] if len(field) > 2 else None for field in fields]
    if any(title is not None for title in titles):
        if not all(title is None or type(title) is str for title in titles):
            return None
        described["titles"] = titles
    if dtype.isalignedstruct:
        described["aligned"] = True
    return described if dtype.type is _library().void else (_imported(dtype.type), described)


def dtype_value(dtype: Any) -> Value | None:
    """A dtype among the parameters of another type."""
    if dtype.names is None and dtype.subdtype is None:
        return Value("numpy:dtype", (dtype.str,)) if _library().dtype(dtype.str) == dtype else None
    described = describe_dtype(dtype)
    return None if described is None else described[1]


# --- subclasses ------------------------------------------------------------------------------------------------------


def reduce_subarray(array: Any, ctx: Context) -> Any:
    """A plain array over its memory, its class, and its attributes."""
    numpy = _library()
    if type(array) is numpy.ndarray:
        # One that the walker does not write itself, for its dtype.
        return array.__reduce_ex__(5)
    plain = numpy.ndarray.view(array, numpy.ndarray)
    attributes = getattr(array, "__dict__", None)
    if not attributes:
        return make_subarray, (plain, _imported(type(array)))
    return make_subarray, (plain, _imported(type(array))), dict(attributes), None, None, subarray_setstate


def reduce_masked(array: Any, ctx: Context) -> Any:
    """Its data; its mask and all else among its attributes."""
    numpy = _library()
    if isinstance(array, numpy.ma.core.mvoid) or type(array).__reduce__ is not numpy.ma.MaskedArray.__reduce__:
        return array.__reduce_ex__(5)
    plain = numpy.ndarray.view(array, numpy.ndarray)
    return make_subarray, (plain, type(array)), dict(array.__dict__), None, None, subarray_setstate


def make_subarray(plain: Any, kind: type) -> Any:
    """Makes an array of a subclass over the memory of a plain one."""
    import numpy

    return numpy.ndarray.view(plain, kind)


def subarray_setstate(array: Any, state: dict[str, Any]) -> None:
    """Sets the attributes of an array of a subclass, past its own ways of setting them."""
    array.__dict__.clear()
    array.__dict__.update(state)


def array_over(view: memoryview) -> Any:
    """A plain array over what a view of memory shows; ``None`` if numpy is not in use or takes it otherwise."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    try:
        made = _asarray(numpy, view)
        again = memoryview(made)
    except (RuntimeError, TypeError, ValueError):
        return None
    if again.itemsize != view.itemsize or (again.format != view.format and not view.c_contiguous):
        return None
    return made


def _asarray(numpy: Any, view: memoryview) -> Any:
    if not view.format.startswith("T{"):
        return numpy.asarray(view)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of structures of ctypes, which tell their size wrongly
        return numpy.asarray(view)


# --- files mapped into memory ----------------------------------------------------------------------------------------


def reduce_memmap(array: Any, ctx: Context) -> Any:
    """What it shows; and, if it was mapped for reading only, where that lies in which file."""
    numpy = _library()
    plain = numpy.ndarray.view(array, numpy.ndarray)
    place = _place_in_file(array)
    if place is None:
        return make_subarray, (plain, type(array))
    return make_memmap, (plain, type(array), *place)


# A file that was changed a moment ago may change again without another time of change.
_SETTLED_NANOSECONDS = 2_000_000_000


def _place_in_file(array: Any) -> tuple[str, int, int, int] | None:
    """Path, first byte, and size and time of change of the file, if the array can be mapped of it again."""
    mapped = getattr(array, "_mmap", None)
    path = getattr(array, "filename", None)
    if mapped is None or path is None or array.mode != "r" or not array.flags.forc or not array.size:
        return None
    try:
        facts = os.stat(path)
        start = _library().frombuffer(mapped, dtype="u1").__array_interface__["data"][0]
    except (OSError, ValueError):
        return None
    if time.time_ns() - facts.st_mtime_ns < _SETTLED_NANOSECONDS:
        return None
    first = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY + array.__array_interface__["data"][0] - start
    return os.fspath(path), first, facts.st_size, facts.st_mtime_ns


def make_memmap(plain: Any, kind: type, path: str, first: int, size: int, changed: int) -> Any:
    """Maps a file for reading, if it is as large and as old as it was; else it is an array of what was saved.

    ``first`` counts bytes from the start of the file, ``changed`` nanoseconds since 1970.
    """
    import numpy

    whole = _mapped(numpy, path, size, changed)
    if whole is None or not 0 <= first <= size - plain.nbytes:
        return numpy.ndarray.view(plain, kind)
    order = "C" if plain.flags.c_contiguous else "F"
    part = whole[first : first + plain.nbytes].view(plain.dtype).reshape(plain.shape, order=order)
    return numpy.ndarray.view(part, kind)


def _mapped(numpy: Any, path: str, size: int, changed: int) -> Any:
    key = (path, size, changed)
    try:
        facts = os.stat(path)
        if (facts.st_size, facts.st_mtime_ns) != (size, changed):
            return None
        whole = _files.get(key)
        if whole is None:
            whole = _files[key] = numpy.memmap(path, dtype="u1", mode="r")
    except (OSError, ValueError):
        return None
    return whole


# The whole of each file that is mapped, by path, size and time of change.
_files: weakref.WeakValueDictionary[tuple[str, int, int], Any] = weakref.WeakValueDictionary()


# The classes of dtypes are known to the walker.
VALUES: dict[tuple[str, str], Any] = {
    ("numpy.dtypes", f"{name}DType"): dtype_value
    for name in (
        "Bool Int8 UInt8 Int16 UInt16 Int32 UInt32 Int64 UInt64 LongLong ULongLong Float16 Float32 Float64 LongDouble "
        "Complex64 Complex128 CLongDouble Object Bytes Str Void DateTime64 TimeDelta64"
    ).split()
}

# Classes found by their name among the bases of a type, so that nothing has to be imported for it.
BY_NAME: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): reduce_subarray,
    ("numpy", "memmap"): reduce_memmap,
    ("numpy.ma", "MaskedArray"): reduce_masked,
    ("numpy.ma.core", "MaskedArray"): reduce_masked,
}
