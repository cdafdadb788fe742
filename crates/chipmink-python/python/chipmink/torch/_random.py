"""The random numbers of a program: the states of its generators, so that a resumed run draws what the first would have drawn."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch

from chipmink.torch._writes import Writes

__all__ = ["RandomState"]


class RandomState:
    """Generators of Python, numpy and torch that belong to the process. As a part it can stand among others."""

    kind = "random"

    def capture(self) -> dict[str, Any]:
        """Their states. Of numpy only if it is in use, of CUDA only if it was started."""
        state: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            state["numpy"] = numpy.random.get_state(legacy=False)
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            state["cuda"] = torch.cuda.get_rng_state_all()
        return state

    def plan(self, stored: Any, writes: Writes, strict: bool) -> None:
        """Plans to put the states back, as far as there are such generators here."""
        writes.call(lambda: self._put(stored))

    @staticmethod
    def _put(stored: dict[str, Any]) -> None:
        random.setstate(stored["python"])
        torch.set_rng_state(stored["torch"].cpu())
        if "numpy" in stored:
            import numpy

            numpy.random.set_state(stored["numpy"])
        states = stored.get("cuda", [])
        if states and torch.cuda.is_available():
            for device, state in enumerate(states[: torch.cuda.device_count()]):
                torch.cuda.set_rng_state(state.cpu(), device)
