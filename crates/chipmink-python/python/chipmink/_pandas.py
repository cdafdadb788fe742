"""Reducers for what pandas frames, series and indexes are made of, and the functions that make it again.

pandas shares memory lazily: several blocks may lie over one buffer, and each knows the others, so that the first write
to one copies. A block is saved with the object by which it knows them; without it, a write to one loaded frame would
change another.

The names of the ``make_`` and ``_setstate`` functions are part of format version 1, as those of ``chipmink._rebuild`` are.
"""

from __future__ import annotations

import copyreg
import sys
from typing import Any

from chipmink._markers import Context, Value
from chipmink._values import described

__all__ = [
    "BY_NAME",
    "VALUES",
    "arrow_backed_setstate",
    "backed_setstate",
    "index_setstate",
    "make_arrow_backed",
    "make_block",
    "make_references",
    "make_single_manager",
]


def reduce_block(block: Any, ctx: Context) -> Any:
    """Its values, and who else has them."""
    references = getattr(block, "refs", None)
    if references is None:
        return block.__reduce__()
    return make_block, (block.values, block.mgr_locs.indexer, block.ndim, references)


def make_block(values: Any, placement: Any, ndim: int, references: Any) -> Any:
    """Makes a block of ``values`` that knows the others over the same memory."""
    from pandas._libs.internals import BlockPlacement  # type: ignore[import-untyped, unused-ignore]
    from pandas.core.internals import blocks  # type: ignore[import-untyped, unused-ignore]

    return blocks.new_block(values, BlockPlacement(placement), ndim=ndim, refs=references)


def reduce_single_manager(manager: Any, ctx: Context) -> Any:
    """Its block and its index; by itself it would give away the values without their block."""
    block = manager.blocks[0]
    if getattr(block, "refs", None) is None:
        return manager.__reduce_ex__(5)
    return make_single_manager, (block, manager.axes[0])


def make_single_manager(block: Any, axis: Any) -> Any:
    """Makes what holds the values of a series."""
    from pandas.core.internals import managers  # type: ignore[import-untyped, unused-ignore]

    return managers.SingleBlockManager(block, axis)


def reduce_frame(frame: Any, ctx: Context) -> Any:
    """What it says itself, but for a list that all frames of its class have in common."""
    state = frame.__getstate__()
    if state.get("_metadata") is type(frame)._metadata:
        del state["_metadata"]
    return copyreg.__newobj__, (type(frame),), state  # type: ignore[attr-defined]


def reduce_references(references: Any, ctx: Context) -> Any:
    """Nothing but its identity: blocks and indexes enter themselves."""
    return make_references, ()


def make_references() -> Any:
    """Makes the object by which blocks over the same memory know each other."""
    from pandas._libs.internals import BlockValuesRefs  # type: ignore[import-untyped, unused-ignore]

    return BlockValuesRefs()


def reduce_index(index: Any, ctx: Context) -> Any:
    """What it says itself, and the blocks that have the same memory."""
    parts = index.__reduce__()
    references = getattr(index, "_references", None)
    if references is None or len(parts) != 2 and any(part is not None for part in parts[2:]):
        return parts
    return (*parts[:2], references, None, None, index_setstate)


def index_setstate(index: Any, references: Any) -> None:
    """Lets an index know the blocks over the same memory, and them know it."""
    index._references = references
    references.add_index_reference(index)


def reduce_arrow_array(array: Any, ctx: Context) -> Any:
    """Its attributes but for the cache; pickle has it put all of its chunks together, at each save anew."""
    state = {name: part for name, part in array.__dict__.items() if name != "_cache"}
    return make_arrow_backed, (type(array),), state, None, None, arrow_backed_setstate


def make_arrow_backed(kind: type) -> Any:
    """Makes an array of pandas over memory of arrow; its attributes follow."""
    return object.__new__(kind)


def arrow_backed_setstate(array: Any, state: dict[str, Any]) -> None:
    """Sets the attributes of an array over memory of arrow."""
    array.__dict__.update(state)
    array.__dict__["_cache"] = {}


def reduce_backed_array(array: Any, ctx: Context) -> Any:
    """What it says itself, but for the cache, which reading fills."""
    parts = array.__reduce__()
    if len(parts) != 3 or type(parts[2]) is not tuple or not 2 <= len(parts[2]) <= 3:
        return parts
    first, second, *rest = parts[2]
    attributes = {name: part for name, part in rest[0].items() if name != "_cache"} if rest and type(rest[0]) is dict else {}
    state = (first, second, attributes) if attributes else (first, second)
    return (*parts[:2], state, None, None, backed_setstate)


def backed_setstate(array: Any, state: tuple[Any, ...]) -> None:
    """Sets dtype, values and attributes of an array of pandas over one of numpy."""
    array.__setstate__(state if len(state) == 3 else (*state, {}))


# --- dtypes ----------------------------------------------------------------------------------------------------------


def string_dtype_value(dtype: Any) -> Value:
    """Storage, and what stands for a missing string, if it is not what pandas takes without being told."""
    pandas = sys.modules["pandas"]
    missing = getattr(dtype, "na_value", pandas.NA)
    arguments = (dtype.storage,) if missing is pandas.NA else (dtype.storage, described(missing))
    return Value("pandas:StringDtype", arguments)


def arrow_dtype_value(dtype: Any) -> Value:
    """The type of arrow."""
    return Value("pandas:ArrowDtype", (described(dtype.pyarrow_dtype),))


def zoned_dtype_value(dtype: Any) -> Value:
    """Unit and time zone."""
    return Value("pandas:DatetimeTZDtype", (dtype.unit, described(dtype.tz)))


def plain_dtype_value(dtype: Any) -> Value:
    """Nothing but its class."""
    return Value(f"pandas:{type(dtype).__qualname__}", ())


_INDEXES = {
    "base": "Index",
    "category": "CategoricalIndex",
    "datetimes": "DatetimeIndex",
    "interval": "IntervalIndex",
    "period": "PeriodIndex",
    "timedeltas": "TimedeltaIndex",
}

# Classes found by their name among the bases of a type, so that nothing has to be imported for it.
BY_NAME: dict[tuple[str, str], Any] = {
    ("pandas.core.generic", "NDFrame"): reduce_frame,
    ("pandas._libs.arrays", "NDArrayBacked"): reduce_backed_array,
    ("pandas._libs.internals", "Block"): reduce_block,
    ("pandas._libs.internals", "BlockValuesRefs"): reduce_references,
    ("pandas.core.internals.managers", "SingleBlockManager"): reduce_single_manager,
    **{(f"pandas.core.indexes.{module}", name): reduce_index for module, name in _INDEXES.items()},
    **{("pandas", name): reduce_index for name in _INDEXES.values()},
    ("pandas.arrays", "ArrowExtensionArray"): reduce_arrow_array,
    ("pandas.core.arrays.arrow.array", "ArrowExtensionArray"): reduce_arrow_array,
}

_PLAIN_DTYPES = {
    "integer": "Int8Dtype Int16Dtype Int32Dtype Int64Dtype UInt8Dtype UInt16Dtype UInt32Dtype UInt64Dtype",
    "floating": "Float32Dtype Float64Dtype",
    "boolean": "BooleanDtype",
}

VALUES: dict[tuple[str, str], Any] = {
    ("pandas", "ArrowDtype"): arrow_dtype_value,
    ("pandas", "StringDtype"): string_dtype_value,
    ("pandas", "DatetimeTZDtype"): zoned_dtype_value,
    ("pandas.core.dtypes.dtypes", "ArrowDtype"): arrow_dtype_value,
    ("pandas.core.dtypes.dtypes", "DatetimeTZDtype"): zoned_dtype_value,
    ("pandas.core.arrays.string_", "StringDtype"): string_dtype_value,
    **{
        (module, name): plain_dtype_value
        for place, names in _PLAIN_DTYPES.items()
        for name in names.split()
        for module in ("pandas", f"pandas.core.arrays.{place}")
    },
}
