"""Staging for asynchronous saves of ``torch.distributed.checkpoint``: a state dict is copied aside, so that training can go on.

1. A staged state dict shares no memory with the live one, nor with that of another save that is under way.
2. Shards are leaves that make their own ``WriteItem``s, and are found again by ``MetadataIndex``; whole tensors are tensors.
3. The copies go back when the save that staged them has let go of the state dict, and a later one uses them again: memory is
   asked for, and pinned, once.
"""

from __future__ import annotations

import copy
import dataclasses
import threading
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch.distributed.checkpoint.planner_helpers import _create_write_items
from torch.distributed.checkpoint.utils import find_tensor_shard

__all__ = ["Buffers", "StagedShards", "stage"]


class Buffers:
    """Copies that are in no use at the moment, by what they can hold."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: dict[Any, list[torch.Tensor]] = {}
        self._is_closed = False
        self.staged_bytes = 0
        """Bytes that were copied aside, by all saves."""

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy of a tensor in host memory."""
        key = (tensor.dtype, tuple(tensor.shape), tensor.device.type)
        with self._lock:
            free = self._free.get(key)
            made = free.pop() if free else None
            self.staged_bytes += tensor.numel() * tensor.element_size()
        if made is None:
            is_pinned = tensor.device.type == "cuda"
            made = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=is_pinned)
        with torch.no_grad():
            # Not from the device without waiting: what is staged has left the live tensor.
            return made.copy_(tensor.detach())

    def give_back(self, taken: list[tuple[torch.Tensor, str]]) -> None:
        """Lets a later save use copies, which were made of tensors on such devices."""
        with self._lock:
            for tensor, device in () if self._is_closed else taken:
                self._free.setdefault((tensor.dtype, tuple(tensor.shape), device), []).append(tensor)

    @property
    def free_bytes(self) -> int:
        """Bytes of the copies that are in no use."""
        with self._lock:
            return sum(each.numel() * each.element_size() for free in self._free.values() for each in free)

    def close(self) -> None:
        """Lets go of the copies, also of those that come back later."""
        with self._lock:
            self._is_closed = True
            self._free.clear()


class StagedShards:
    """This process' parts of a distributed tensor, copied aside."""

    def __init__(self, tensor: Any, buffers: Buffers, taken: list[tuple[torch.Tensor, str]]) -> None:
        self._items = _create_write_items("", tensor)
        self._shards = {}
        for item in self._items:
            live = find_tensor_shard(tensor, item.index)
            made = buffers.copy(live)
            taken.append((made, live.device.type))
            self._shards[item.index.offset] = made

    def __create_write_items__(self, fqn: str, _: Any) -> list[Any]:
        return [dataclasses.replace(item, index=dataclasses.replace(item.index, fqn=fqn)) for item in self._items]

    def shard(self, index: Any) -> torch.Tensor:
        """The part that an index names."""
        return self._shards[index.offset]


class StagedDict(dict[str, Any]):
    """A staged state dict; unlike a dict it can be watched."""


def stage(state_dict: Mapping[str, Any], buffers: Buffers) -> StagedDict:
    """Copies a state dict aside."""
    taken: list[tuple[torch.Tensor, str]] = []
    staged = StagedDict((key, _staged(value, buffers, taken)) for key, value in state_dict.items())
    weakref.finalize(staged, buffers.give_back, taken)
    return staged


def _staged(value: Any, buffers: Buffers, taken: list[tuple[torch.Tensor, str]]) -> Any:
    if hasattr(value, "__create_write_items__"):
        return StagedShards(value, buffers, taken)
    if isinstance(value, torch.Tensor):
        made = buffers.copy(value)
        taken.append((made, value.device.type))
        return made
    if isinstance(value, Mapping):
        return {key: _staged(item, buffers, taken) for key, item in value.items()}
    if type(value) in (list, tuple):
        items = [_staged(item, buffers, taken) for item in value]
        if any(isinstance(item, StagedShards) for item in items):
            # A list is looked into only if there is a tensor in it; the names inside are the same.
            return dict(enumerate(items))
        return type(value)(items)
    return copy.deepcopy(value)
