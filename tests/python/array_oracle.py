"""What a set of arrays is, taken before a save, of addresses alone.

For each pair of arrays: which of their elements are the same bytes. It knows nothing of bases, owners or regions.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np


class Oracle:
    """What a set of arrays is: values, layout, and which bytes they have in common."""

    def __init__(self, arrays: dict[str, Any]):
        self.names = sorted(arrays)
        self.values = {name: arrays[name].copy() for name in self.names}
        self.kinds = {name: _kind(arrays[name]) for name in self.names}
        self.shared = {pair: _distance(arrays[pair[0]], arrays[pair[1]]) for pair in itertools.combinations(self.names, 2)}
        #: Strides count for all that shows the same bytes as another.
        self.strides = {
            name: arrays[name].strides
            for pair in self.shared
            if self.shared[pair] is not None and arrays[pair[0]] is not arrays[pair[1]]
            for name in pair
        }

    def check(self, loaded: dict[str, Any]) -> None:
        names = [name for name in self.names if name in loaded]
        for name in names:
            got = loaded[name]
            assert (type(got), got.dtype, got.shape, got.flags.writeable) == self.kinds[name], name
            # Not by value: NaNs keep their bits.
            want = self.values[name]
            assert np.array_equal(got, want) if got.dtype.hasobject else got.tobytes() == want.tobytes(), name
            if name in self.strides:
                assert _same_strides(got, self.strides[name]), name
        for pair in itertools.combinations(names, 2):
            assert _distance(loaded[pair[0]], loaded[pair[1]]) == self.shared[pair], pair


def _kind(array: Any) -> tuple[Any, ...]:
    return type(array), array.dtype, array.shape, array.flags.writeable


def _distance(left: Any, right: Any) -> int | None:
    """How far the first elements of two arrays lie apart if the arrays have bytes in common, else None."""
    if not np.shares_memory(left, right):
        return None
    return int(right.__array_interface__["data"][0] - left.__array_interface__["data"][0])


def _same_strides(got: Any, strides: tuple[int, ...]) -> bool:
    return all(length <= 1 or mine == other for length, mine, other in zip(got.shape, got.strides, strides, strict=True))
