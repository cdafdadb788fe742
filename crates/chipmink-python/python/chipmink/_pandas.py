"""Reducers for what pandas frames, series and indexes are made of, and the functions that make it again.

pandas shares memory lazily: several blocks may lie over one buffer, and each knows the others, so that the first write
to one copies. A block is saved with the object by which it knows them; without it, a write to one loaded frame would
change another.

The names of the ``make_`` and ``_setstate`` functions are part of format version 1, as those of ``chipmink._rebuild`` are.
"""

from __future__ import annotations

from typing import Any

from chipmink._markers import Context

__all__ = ["BY_NAME", "index_setstate", "make_block", "make_references", "make_single_manager"]


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
    ("pandas._libs.internals", "Block"): reduce_block,
    ("pandas._libs.internals", "BlockValuesRefs"): reduce_references,
    ("pandas.core.internals.managers", "SingleBlockManager"): reduce_single_manager,
    **{(f"pandas.core.indexes.{module}", name): reduce_index for module, name in _INDEXES.items()},
    **{("pandas", name): reduce_index for name in _INDEXES.values()},
}
