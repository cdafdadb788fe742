"""What a checkout has to do: a live namespace compared with a version."""

from __future__ import annotations

from typing import Any, NamedTuple

from chipmink import _chipmink, _in_place

__all__ = ["Comparison", "compare"]

# What Python itself puts into the globals of a module; a checkout leaves them alone.
_INTERPRETERS = frozenset(
    {
        "__annotations__",
        "__builtins__",
        "__cached__",
        "__doc__",
        "__file__",
        "__loader__",
        "__name__",
        "__package__",
        "__spec__",
    }
)


class Comparison(NamedTuple):
    """How a namespace differs from a version."""

    lost: list[str]
    """Names whose objects no version holds."""
    different: list[str]
    """Names of the version that the namespace lacks, or has other objects for."""
    foreign: list[str]
    """Names that the version lacks."""
    stored: list[tuple[str, _chipmink.StoredRegion]]
    """Of the different ones, those that differ in one large buffer only, and what the version has of it."""


def compare(walked: _chipmink.Walked, namespace: dict[str, Any], number: int, base: int | None) -> Comparison:
    """Compares a namespace that was walked with a version; ``base`` is the version that it was last equal to."""
    against = [number] if base is None else [number, base]
    (foreign, missing, differing), *rest = walked.compare(against)
    stored = walked.restorable(number, _in_place.candidates(namespace, differing))
    foreign = [name for name in foreign if name in namespace and name not in _INTERPRETERS]
    unlike = {*foreign, *differing}
    if rest:
        added, _gone, changed = rest[0]
        unlike.intersection_update([*added, *changed])
    lost = [name for name in namespace if name in unlike and name not in _INTERPRETERS]
    different = [name for name in (*missing, *differing) if name not in _INTERPRETERS or name not in namespace]
    return Comparison(lost, different, foreign, stored)
