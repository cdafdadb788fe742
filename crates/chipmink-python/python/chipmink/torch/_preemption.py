"""Signals by which a cluster announces that it is going to end the program."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable
from types import FrameType
from typing import Any

__all__ = ["Preemption"]


class Preemption:
    """Remembers that a signal came. A second one does what it did before, so that the program can still be ended by it.

    Nothing is saved by the handler itself: it may run in the middle of a step, of which half would be in the checkpoint.
    """

    def __init__(self) -> None:
        self._came = threading.Event()
        self._before: dict[int, Any] = {}

    @property
    def came(self) -> bool:
        """Whether a signal came."""
        return self._came.is_set()

    def watch(self, signals: Iterable[int]) -> None:
        """Takes over the handlers of these signals. Only the main thread may do that."""
        for number in signals:
            if number not in self._before:
                self._before[number] = signal.signal(number, self._take)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._came.set()
        self._give_back(number)

    def _give_back(self, number: int) -> None:
        before = self._before.pop(number, None)
        # Handlers that were not set from Python cannot be set again.
        signal.signal(number, signal.SIG_DFL if before is None else before)

    def stop(self) -> None:
        """Gives the handlers back."""
        if threading.current_thread() is threading.main_thread():
            for number in list(self._before):
                # Somebody else may have taken the signal over since.
                if signal.getsignal(number) == self._take:
                    self._give_back(number)
