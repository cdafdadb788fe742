"""Staging: what is kept in shared memory until it is durable, and watching it get there."""

from __future__ import annotations

import operator
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO, TypeVar

__all__ = ["Progress", "Status", "parse_size", "require_callable", "watcher"]

T = TypeVar("T")

_UNITS = {"": 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}


@dataclass(frozen=True)
class Status:
    """What is staged and what is durable, as ``Repository.status`` finds it."""

    staged_versions: int
    """Versions that are staged and not durable yet, of whichever process."""
    bytes_left: int
    """Bytes of these, and of saves under way."""
    durable: int
    """Number of the newest version that is durable."""
    persisted_versions: int
    """Versions that this repository object has made durable since it was opened."""
    persisted_bytes: int
    """Their bytes."""
    last_error: str | None
    """Why nothing can be made durable at this moment."""
    persister: int | None
    """The process that makes versions durable: this one, or an agent."""


Progress = bool | Callable[[Status], None]


def parse_size(size: int | str | None) -> int | None:
    """Bytes, given as a number or as text like ``"2GiB"``."""
    if size is None:
        return None
    if not isinstance(size, str):
        number = operator.index(size)
    else:
        found = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", size.strip())
        if found is None or found[2] not in _UNITS:
            raise ValueError(f'{size!r} is no size: give bytes, or text such as "64MiB" or "2GiB"')
        number = int(found[1]) << _UNITS[found[2]]
    if not 0 < number < 1 << 63:
        raise ValueError(f"{size!r} is no size: it must be positive and below 2**63 bytes")
    return number


def require_callable(progress: T) -> T:
    """``progress`` itself, if it can be called."""
    if not callable(progress):
        raise TypeError(f"progress is True, False or a function, not {progress!r}")
    return progress


def watcher(progress: Progress) -> Callable[[Status | None], None] | None:
    """What is called while something is waited for, with ``None`` at the end."""
    if progress is False:
        return None
    if progress is True:
        return _Bar(sys.stderr) if sys.stderr is not None and sys.stderr.isatty() else None
    callback = require_callable(progress)

    def call(status: Status | None) -> None:
        if status is not None:
            callback(status)

    return call


class _Bar:
    """One line of a terminal that says what is left."""

    WIDTH = 30

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._most = 0
        self._began = time.monotonic()
        self._shown = False

    def __call__(self, status: Status | None) -> None:
        if status is None:
            if self._shown:
                self._stream.write("\r\x1b[K")
                self._stream.flush()
            return
        self._most = max(self._most, status.bytes_left, 1)
        # Most waits are over before anybody could read a line.
        if time.monotonic() - self._began < 0.2:
            return
        done = self.WIDTH * (self._most - status.bytes_left) // self._most
        bar = "#" * done + "-" * (self.WIDTH - done)
        left = f"{status.staged_versions} staged, {status.bytes_left / 2**20:.1f} MiB left"
        self._stream.write(f"\r\x1b[Kchipmink [{bar}] {left}")
        self._stream.flush()
        self._shown = True
