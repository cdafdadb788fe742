"""What a restore writes into live objects: planned in full first, done when nothing can fail any more.

1. Planning reads and compares, and changes nothing that is live; whatever does not fit raises then.
2. A tensor that several names share is written once. If the checkpoint has different values for them, that is an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from chipmink._device import fill_tensor
from chipmink._errors import UnsupportedError

__all__ = ["Writes", "address", "is_sharded", "like", "reach"]

#: A live tensor, and the one that it is made.
Copy = tuple[torch.Tensor, torch.Tensor]


class Writes:
    """Copies into live tensors, and calls to make after them."""

    def __init__(self) -> None:
        self._copies: list[Copy] = []
        self._sources: dict[Any, tuple[str, torch.Tensor]] = {}
        self._made: dict[tuple[int, str], tuple[torch.Tensor, torch.Tensor]] = {}
        self.stepped: list[torch.Tensor] = []
        """What was made, and what the next step of the training will write to."""
        self._calls: list[Callable[[], Any]] = []

    def copy(self, name: str, target: torch.Tensor, source: torch.Tensor) -> None:
        """Plans to make a tensor what another is; ``name`` is what errors call it."""
        if target.numel() == 0:
            return
        target, source = _without_repeats(name, target, source)
        place = reach(target)
        before = self._sources.get(place)
        if before is None:
            self._sources[place] = (name, source)
            self._copies.append((target, source))
        elif reach(before[1]) != reach(source) and not torch.equal(before[1], source):
            raise UnsupportedError(
                f"{before[0]} and {name} are one tensor here and two in the checkpoint, with different values: "
                "untie them before restoring"
            )

    def make(self, source: torch.Tensor, device: torch.device) -> torch.Tensor:
        """A tensor of the checkpoint for the program to keep; equal calls give the same one.

        On its own device it is the one that was loaded, which nobody else has: if it is mapped, its pages are read when
        they are needed, and copied when they are written.
        """
        key = (id(source), str(device))
        if key not in self._made:
            # (The source is kept, so that its id stays its own.)
            self._made[key] = (source, source.detach().to(device))
        return self._made[key][1]

    def call(self, action: Callable[[], Any]) -> None:
        """Plans a call, after all copies."""
        self._calls.append(action)

    def apply(self, fast: Callable[[list[Copy]], list[Copy]] = lambda copies: copies) -> None:
        """Does what was planned, and lets go of it. ``fast`` copies what it can, and returns the rest."""
        with torch.no_grad():
            for target, source in fast(self._copies):
                if not fill_tensor(target, source):
                    # What was made in inference mode lets nobody write outside of it.
                    with torch.inference_mode() if target.is_inference() else contextlib.nullcontext():
                        target.copy_(source)
            for action in self._calls:
                action()
        self._copies, self._sources, self._made, self._calls = [], {}, {}, []


def address(tensor: torch.Tensor) -> int | None:
    """Where the memory begins that a tensor is over. ``None``: that is not all of it; it is sparse, quantized, or made of other tensors."""
    if tensor.is_quantized:
        return None
    try:
        found = int(tensor.untyped_storage().data_ptr())
    except (NotImplementedError, RuntimeError):
        return None
    return found if found or not tensor.numel() else None


def reach(tensor: torch.Tensor) -> Any:
    """Which memory a tensor shows, and how: equal for two tensors that show the same, as long as both live."""
    if address(tensor) is None:
        return id(tensor)
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())


def _without_repeats(name: str, target: torch.Tensor, source: torch.Tensor) -> Copy:
    """Of dimensions that show the same elements again and again, one round: torch writes to no such tensor."""
    if address(target) is None:
        return target, source
    for dimension, (length, stride) in enumerate(zip(target.shape, target.stride(), strict=True)):
        if stride or length == 1:
            continue
        once = source.narrow(dimension, 0, 1)
        if source.stride(dimension) and not torch.equal(once.expand_as(source), source):
            raise UnsupportedError(
                f"{name} shows the same elements again along dimension {dimension} here, and different ones in the checkpoint: "
                "give it memory of its own before restoring"
            )
        target, source = target.narrow(dimension, 0, 1), once
    return target, source


def like(left: Any, right: Any) -> bool:
    """Whether both are tensors of which one can be written into the other without a conversion."""
    if not isinstance(left, torch.Tensor) or not isinstance(right, torch.Tensor):
        return False
    if is_lazy(left) or is_lazy(right) or left.device.type == "meta" or left.layout != right.layout:
        return False
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    # Of sparse layouts only coordinates can be as many as they like.
    return left.layout in (torch.strided, torch.sparse_coo) or bool(left._nnz() == right._nnz())


def is_sharded(value: Any) -> bool:
    """Whether a tensor is one process' part of a distributed one."""
    return isinstance(value, torch.Tensor) and hasattr(value, "device_mesh") and hasattr(value, "placements")
