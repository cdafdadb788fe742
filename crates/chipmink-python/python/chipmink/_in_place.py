"""Arrays that a checkout restores where they lie: those that only the namespace refers to, by the chunks that differ.

Whoever else holds an array, a view of it, or a weak reference to it, must go on seeing what it was; it is then made anew.
"""

from __future__ import annotations

import sys
import weakref
from typing import Any

from chipmink import _chipmink

__all__ = ["alone_in", "candidates"]

_LEAST_LEN = 1 << 16
"""Bytes of the smallest buffer that is a region."""


def candidates(namespace: dict[str, Any], names: list[str]) -> list[str]:
    """Names of large, writable arrays that own their memory."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return []

    def is_one(value: Any) -> bool:
        flags = value.flags
        return (
            flags.owndata
            and flags.writeable
            and flags.forc
            and not value.dtype.hasobject
            and value.dtype.char != "T"
            and value.nbytes >= _LEAST_LEN
        )

    return [name for name in names if type(namespace.get(name)) is numpy.ndarray and is_one(namespace[name])]


def alone_in(
    handle: _chipmink.Handle, namespace: dict[str, Any], stored: list[tuple[str, _chipmink.StoredRegion]]
) -> dict[str, _chipmink.Patch]:
    """What to write into those arrays of a namespace that nothing else refers to, by name."""
    patches = {}
    for name, region in stored:
        array = namespace[name]
        # The namespace, the variable above, and the argument.
        if sys.getrefcount(array) > 3 or weakref.getweakrefcount(array):
            continue
        patch = region.patch(handle, array.ravel(order="K").view("u1"))
        if patch is not None:
            patches[name] = patch
    return patches
