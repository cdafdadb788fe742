"""Dicts and lists of a program as parts of a training run: restored in place, with the tensors in them.

1. A container stays the same object, and so does a tensor at the same place in it that fits.
2. What was one memory in the checkpoint is one afterwards, and what was two is two: where the live tensors are tied otherwise,
   those of the checkpoint take their place.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch

from chipmink.torch._writes import Writes, address, like

__all__ = ["merged", "refuse_parts"]

Pair = tuple[str, Any, Any]


def refuse_parts(name: str, value: Any, seen: set[int] | None = None) -> None:
    """Raises if a container holds what must be a part by itself, since it would come back as another object."""
    seen = set() if seen is None else seen
    if type(value) not in (dict, list, tuple) or id(value) in seen:
        return
    seen.add(id(value))
    for key, item in value.items() if type(value) is dict else enumerate(value):
        place = f"{name}[{key!r}]"
        has_state = callable(getattr(item, "state_dict", None)) and callable(getattr(item, "load_state_dict", None))
        if has_state or isinstance(item, torch.Generator):
            raise TypeError(f"{place} is a {type(item).__qualname__}, which cannot be restored in a {type(value).__name__}: give it by a name of its own")
        refuse_parts(place, item, seen)


def merged(name: str, live: Any, stored: Any, writes: Writes) -> None:
    """Plans to make a container what another is."""
    pairs = list(_pairs(name, live, stored, set()))
    storages: tuple[dict[Any, set[Any]], ...] = (defaultdict(set), defaultdict(set))
    for _, left, right in pairs:
        if like(left, right):
            mine, theirs = _storage(left), _storage(right)
            storages[0][mine].add(theirs)
            storages[1][theirs].add(mine)
    # By the stored object: what takes its place, wherever it stands.
    places: dict[int, Any] = {}
    taken: set[int] = set()
    for place, left, right in pairs:
        is_container = type(left) is type(right) and type(left) in (dict, list)
        if id(right) in places or id(left) in taken:
            continue
        if is_container:
            places[id(right)] = left
        elif like(left, right) and len(storages[0][_storage(left)]) == len(storages[1][_storage(right)]) == 1:
            places[id(right)] = left
            writes.copy(place, left, right)
        else:
            continue
        taken.add(id(left))
    for _, left, right in pairs:
        if type(left) in (dict, list) and places.get(id(right)) is left:
            writes.call(functools.partial(_fill, left, right, places))


def _pairs(name: str, live: Any, stored: Any, seen: set[int]) -> Iterator[Pair]:
    """What stands at the same place in both, containers before what is in them."""
    yield name, live, stored
    if id(stored) in seen or type(live) is not type(stored) or type(live) not in (dict, list):
        return
    seen.add(id(stored))
    if isinstance(stored, dict):
        for key, value in stored.items():
            if key in live:
                yield from _pairs(f"{name}[{key!r}]", live[key], value, seen)
    else:
        for at, (mine, value) in enumerate(zip(live, stored, strict=False)):
            yield from _pairs(f"{name}[{at}]", mine, value, seen)


def _storage(tensor: torch.Tensor) -> Any:
    place = address(tensor)
    return id(tensor) if place is None else (tensor.device, place)


def _fill(live: Any, stored: Any, places: dict[int, Any]) -> None:
    if isinstance(live, dict):
        content = {key: places.get(id(value), value) for key, value in stored.items()}
        live.clear()
        live.update(content)
    else:
        live[:] = [places.get(id(value), value) for value in stored]
