"""Restoring large tensors where they lie: their bytes are read straight into live memory, by several threads.

1. A chunk is compared with its digest before it is written.
2. With ``verify="eager"`` all is compared before the first byte is written.
3. What cannot be read that way is left to ``copy_``: other devices and layouts, small tensors, what is not stored as it is.
"""

from __future__ import annotations

from typing import Any

import torch

from chipmink import _chipmink
from chipmink._errors import DamagedError
from chipmink._repository import Repository
from chipmink.torch._writes import address

__all__ = ["Fill"]

#: Shorter regions are not mapped.
_LEAST_LEN = 256 << 10


class Fill:
    """One load whose tensors go into live ones."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._handle = repository._usable()
        self._loaded: _chipmink.Loaded | None = None

    def load(self, number: int, names: list[str]) -> dict[str, Any]:
        """The variables; large tensors are mapped, and cost nothing as long as they are not looked at."""
        loaded = _chipmink.Loaded()
        made = self._repository._load(number, names, into=loaded)
        if not loaded.check_first(self._handle):
            # Looks for whole copies of what is damaged, and raises if there are none.
            return self._repository._load(number, names)
        self._loaded = loaded
        return made

    def copy(self, copies: list[tuple[torch.Tensor, torch.Tensor]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Makes tensors what others are, and returns those pairs with which that is still to be done."""
        if self._loaded is None:
            return copies
        fitting = [pair for pair in copies if _fits(*pair)]
        if _overlap([target for target, _ in fitting]):
            fitting = []
        if not fitting:
            return copies
        targets = [target.detach().view(-1).view(torch.uint8).numpy() for target, _ in fitting]
        try:
            self._loaded.fill([source.data_ptr() for _, source in fitting], targets)
        except DamagedError as error:
            raise DamagedError(
                f"{error}; some tensors are those of this checkpoint by now and others are not: restore another one before "
                "you go on"
            ) from error
        for target, _ in fitting:
            if not target.is_inference():
                # As every other change in place.
                torch.autograd.graph.increment_version(target)
        filled = {id(target) for target, _ in fitting}
        return [pair for pair in copies if id(pair[0]) not in filled]

    def end(self, written: list[torch.Tensor]) -> None:
        """Lets the rest be checked that the program has got. ``written`` is what it will write to with its next step."""
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            loaded.end(self._handle, [each.data_ptr() for each in written if address(each) is not None])


def _fits(target: torch.Tensor, source: torch.Tensor) -> bool:
    size = source.numel() * source.element_size()
    return (
        size >= _LEAST_LEN
        and type(target) in (torch.Tensor, torch.nn.Parameter)
        and target.device.type == "cpu"
        and source.device.type == "cpu"
        and target.layout == source.layout == torch.strided
        and not target.is_quantized
        and not getattr(target, "has_names", bool)()
        and target.is_contiguous()
        and source.is_contiguous()
        # Conjugated and negated views show something else than what lies there.
        and not target.is_complex()
        and not target.is_neg()
        and not source.is_neg()
        and _chipmink.Loaded.is_region(source.data_ptr(), size)
    )


def _overlap(targets: list[torch.Tensor]) -> bool:
    """Whether two of them show the same memory: then the order in which they are written matters."""
    spans = sorted((each.data_ptr(), each.numel() * each.element_size()) for each in targets)
    return any(start + size > following for (start, size), (following, _) in zip(spans, spans[1:], strict=False))
