"""Reducers for what pyarrow and polars hold: arrays and tables by their buffers, and the functions that make them again.

A buffer is saved as an array of bytes over its memory: in place, by the chunk, and shared with all that shows the same
memory. A slice that shows less than half of its buffers leaves the rest of them behind.

The names of the ``make_`` functions are part of format version 1, as those of ``chipmink._rebuild`` are.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from chipmink._markers import Context, Value
from chipmink._values import NotAValue, described

__all__ = [
    "BY_NAME",
    "VALUES",
    "make_arrow_array",
    "make_arrow_buffer",
    "make_polars_frame",
    "make_polars_series",
]


def _library() -> Any:
    return importlib.import_module("pyarrow")


# --- buffers and arrays ----------------------------------------------------------------------------------------------


def _bytes(numpy: Any, buffer: Any) -> Any:
    """The memory of a buffer as an array."""
    if buffer is None:
        return None
    return numpy.frombuffer(buffer, dtype="u1") if buffer.size else numpy.empty(0, dtype="u1")


def reduce_buffer(buffer: Any, ctx: Context) -> Any:
    """Its memory."""
    numpy = _numpy()
    if numpy is None or not buffer.is_cpu:
        return buffer.__reduce_ex__(5)
    return make_arrow_buffer, (_bytes(numpy, buffer),)


def make_arrow_buffer(content: Any) -> Any:
    """Makes a buffer over the memory of an array of bytes."""
    return _library().py_buffer(content)


def reduce_array(array: Any, ctx: Context) -> Any:
    """Its type, and its buffers as arrays of bytes."""
    parts = array.__reduce__()
    numpy = _numpy()
    if numpy is None or parts[0] is not _library().lib._restore_array:
        return parts
    return make_arrow_array, _opened(numpy, parts[1][0])


def _numpy() -> Any:
    if "numpy" not in sys.modules:
        try:
            importlib.import_module("numpy")
        except ImportError:
            return None
    return sys.modules["numpy"]


def _opened(numpy: Any, data: tuple[Any, ...]) -> tuple[Any, ...]:
    """Type, length, nulls (-1: not counted), offset, buffers, children, dictionary."""
    kind, length, nulls, offset, buffers, children, dictionary = data
    opened = [_bytes(numpy, buffer) for buffer in buffers]
    if nulls == 0 and opened:
        # Arrow itself drops what says which are null when it makes an array again in which none is.
        opened[0] = None
    if not children and len(opened) > 1:
        offset = _cut(numpy, kind, length, offset, opened)
    inner = tuple(_opened(numpy, child) for child in children)
    values = None if dictionary is None else _opened(numpy, dictionary)
    return kind, length, nulls, offset, tuple(opened), inner, values


def _cut(numpy: Any, kind: Any, length: int, offset: int, buffers: list[Any]) -> int:
    """Leaves in ``buffers`` what a short slice shows; the offset that it has there."""
    width = _widths().get(kind.id)
    if width is None or buffers[1] is None:
        return offset
    bits = width or (kind.index_type.bit_width if hasattr(kind, "index_type") else kind.bit_width)
    has_offsets = len(buffers) == 3
    held = 8 * len(buffers[1]) // bits - has_offsets
    if 2 * length >= held:
        return offset
    first = offset - offset % 8
    end = offset + length
    if buffers[0] is not None:
        buffers[0] = buffers[0][first // 8 : (end + 7) // 8]
    buffers[1] = buffers[1][first * bits // 8 : ((end + has_offsets) * bits + 7) // 8]
    if has_offsets and buffers[2] is not None:
        places = buffers[1].view("i4" if bits == 32 else "i8")
        low, high = int(places[0]), int(places[-1])
        if 2 * (high - low) < len(buffers[2]):
            buffers[1] = (places - places[0]).view("u1")
            buffers[2] = buffers[2][low:high]
    return offset - first


_known_widths: dict[int, int] = {}


def _widths() -> dict[int, int]:
    """Bits of an item, or of its place in a buffer of bytes, by the number of the type; 0: to be asked of the type."""
    if not _known_widths:
        lib = _library().lib
        fixed = (
            "BOOL UINT8 INT8 UINT16 INT16 UINT32 INT32 UINT64 INT64 HALF_FLOAT FLOAT DOUBLE DATE32 DATE64 TIMESTAMP TIME32 "
            "TIME64 DURATION FIXED_SIZE_BINARY DECIMAL32 DECIMAL64 DECIMAL128 DECIMAL256 INTERVAL_MONTH_DAY_NANO DICTIONARY"
        )
        for names, bits in ((fixed, 0), ("STRING BINARY", 32), ("LARGE_STRING LARGE_BINARY", 64)):
            for name in names.split():
                number = getattr(lib, f"Type_{name}", None)
                if number is not None:
                    _known_widths[number] = bits
    return _known_widths


def make_arrow_array(
    kind: Any,
    length: int,
    nulls: int,
    offset: int,
    buffers: tuple[Any, ...],
    children: tuple[Any, ...],
    dictionary: tuple[Any, ...] | None,
) -> Any:
    """Makes an array over the memory of arrays of bytes."""
    library = _library()
    made = library.lib._restore_array(_closed(library, (kind, length, nulls, offset, buffers, children, dictionary)))
    made.validate()
    return made


def _closed(library: Any, parts: tuple[Any, ...]) -> tuple[Any, ...]:
    kind, length, nulls, offset, buffers, children, dictionary = parts
    closed = [None if content is None else library.py_buffer(content) for content in buffers]
    inner = [_closed(library, child) for child in children]
    values = None if dictionary is None else _closed(library, dictionary)
    return kind, length, nulls, offset, closed, inner, values


def type_value(kind: Any) -> Value:
    """A type, field or schema: the call by which it is pickled."""
    parts = kind.__reduce__()
    if len(parts) != 2 or parts[0].__module__ != "pyarrow.lib":
        raise NotAValue
    return Value(f"pyarrow.lib:{parts[0].__qualname__}", described(parts[1]))


# --- polars ----------------------------------------------------------------------------------------------------------

# Types whose series are the same again after a way through arrow.
_POLARS_TYPES = frozenset(
    "Boolean Int8 Int16 Int32 Int64 UInt8 UInt16 UInt32 UInt64 Float32 Float64 String Binary Date Datetime Duration Time".split()
)


def reduce_polars_series(series: Any, ctx: Context) -> Any:
    """Its name, and its memory as arrow has it."""
    opened = _open_series(series)
    return series.__reduce_ex__(5) if opened is None else (make_polars_series, opened)


def reduce_polars_frame(frame: Any, ctx: Context) -> Any:
    """Its columns."""
    columns = [_open_series(series) for series in frame.get_columns()]
    if any(column is None for column in columns):
        return frame.__reduce_ex__(5)
    return make_polars_frame, (columns, frame.height)


def _open_series(series: Any) -> tuple[Any, ...] | None:
    polars = sys.modules["polars"]
    if type(series) is not polars.Series or type(series.dtype).__name__ not in _POLARS_TYPES:
        return None
    numpy = _numpy()
    if numpy is None:
        return None
    try:
        _library()
    except ImportError:
        return None
    chunks = []
    for chunk in series.get_chunks() if series.n_chunks() > 1 else (series,):
        array = chunk.to_arrow(compat_level=polars.CompatLevel.newest())
        chunks.append(_opened(numpy, array.__reduce__()[1][0]))
    order = series.flags
    sorting = 1 if order.get("SORTED_ASC") else 2 if order.get("SORTED_DESC") else 0
    return series.name, tuple(chunks), sorting


def make_polars_series(name: str, chunks: tuple[Any, ...], sorting: int) -> Any:
    """Makes a series over the memory of arrays of bytes; ``sorting``: 1 known to ascend, 2 to descend."""
    polars = importlib.import_module("polars")
    arrays = [make_arrow_array(*chunk) for chunk in chunks]
    made = polars.from_arrow(arrays[0] if len(arrays) == 1 else _library().chunked_array(arrays), rechunk=False)
    made = made.alias(name)
    return made.set_sorted(descending=sorting == 2) if sorting else made


def make_polars_frame(columns: list[Any], height: int) -> Any:
    """Makes a frame of series."""
    polars = importlib.import_module("polars")
    made = [make_polars_series(*column) for column in columns]
    return polars.DataFrame(made) if made else polars.DataFrame(height=height) if height else polars.DataFrame()


# Classes found by their name among the bases of a type, so that nothing has to be imported for it.
BY_NAME: dict[tuple[str, str], Any] = {
    ("pyarrow.lib", "Buffer"): reduce_buffer,
    ("pyarrow.lib", "Array"): reduce_array,
    ("polars.series.series", "Series"): reduce_polars_series,
    ("polars.dataframe.frame", "DataFrame"): reduce_polars_frame,
}

_TYPES = (
    "DataType DictionaryType ListType LargeListType ListViewType LargeListViewType MapType FixedSizeListType StructType UnionType "
    "SparseUnionType DenseUnionType TimestampType Time32Type Time64Type DurationType FixedSizeBinaryType Decimal32Type "
    "Decimal64Type Decimal128Type Decimal256Type RunEndEncodedType UuidType JsonType Field Schema"
)

VALUES: dict[tuple[str, str], Any] = {("pyarrow.lib", name): type_value for name in _TYPES.split()}
