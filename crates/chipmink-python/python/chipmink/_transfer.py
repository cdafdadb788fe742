"""What moves bytes: what push and pull are asked for and say, and watching them and what is done in a cluster."""

from __future__ import annotations

import datetime
import operator
import re
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TextIO

from chipmink._staging import parse_size, require_callable

__all__ = ["Transfer", "TransferProgress", "Watch", "parse_limit", "parse_refs", "parse_since", "watcher"]


@dataclass(frozen=True)
class Transfer:
    """What ``Repository.push`` or ``Repository.pull`` did."""

    versions: int
    """Versions that became visible in the destination."""
    swept: int
    """Versions of the source whose content is no longer there, and which were left out."""
    refs: tuple[str, ...]
    """Branches, and tags as ``tag/NAME``, that were made, moved or taken away in the destination."""
    ahead: tuple[str, ...]
    """Branches that have newer versions in the destination, and were left alone."""
    blobs: int
    """Blobs that were copied."""
    bytes: int
    """Bytes that were copied, as they are stored."""
    packs: int
    """Packs that were written."""
    packs_resumed: int
    """Packs of an earlier transfer that was interrupted, which were found and used."""
    bytes_resumed: int
    """Bytes of these."""
    seconds: float
    """Time that it took."""


@dataclass(frozen=True)
class TransferProgress:
    """How far a transfer is, or what a save does in a cluster."""

    phase: str
    """``"comparing"``, ``"copying"`` or ``"publishing"``; of a save ``"pinning"``, ``"materializing"`` or ``"writing"``."""
    done: int
    """Bytes copied, pinned or saved; while publishing, versions; while Spark is writing, its objects."""
    total: int
    """Of so many; 0 while that is not known."""


Watch = bool | Callable[[TransferProgress], object]


def parse_refs(refs: Iterable[str] | str | None) -> list[str]:
    """The refs to carry; none means all."""
    if refs is None:
        return []
    found = [refs] if isinstance(refs, str) else list(refs)
    if not found:
        raise ValueError("refs is empty, so nothing would be carried; leave it out to carry all")
    for name in found:
        if not isinstance(name, str):
            raise TypeError(f"a ref is a str, not {name!r}")
    return found


def parse_since(since: int | datetime.datetime | None) -> tuple[int | None, int | None]:
    """A version, or microseconds since 1970."""
    if since is None:
        return None, None
    if isinstance(since, datetime.datetime):
        epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        # One without a zone is in that of this machine, as `timestamp` has it.
        return None, (since.astimezone(datetime.UTC) - epoch) // datetime.timedelta(microseconds=1)
    if not hasattr(since, "__index__"):
        raise TypeError(f"since is the number of a version or a datetime, not {since!r}")
    first = operator.index(since)
    if not 0 <= first < 1 << 64:
        raise ValueError(f"since is the number of a version, and {first} is none")
    return first, None


_DECIMAL = {"kB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_limit(limit: int | str | None) -> int | None:
    """Bytes per second, given as a number or as text like ``"10MB/s"``."""
    if not isinstance(limit, str):
        return parse_size(limit)
    text = limit.strip().removesuffix("/s").strip()
    found = re.fullmatch(r"(\d+)\s*([kMG]B)", text)
    return parse_size(int(found[1]) * _DECIMAL[found[2]] if found else text)


def watcher(progress: Watch) -> tuple[Callable[[str, int, int], None] | None, Callable[[], None]]:
    """What is called while a transfer runs, and what is called at its end."""
    if progress is True:
        if sys.stderr is None or not sys.stderr.isatty():
            return None, lambda: None
        bar = _Bar(sys.stderr)
        return bar, bar.clear
    if progress is False:
        return None, lambda: None
    callback = require_callable(progress)

    def call(phase: str, done: int, total: int) -> None:
        callback(TransferProgress(phase, done, total))

    return call, lambda: None


#: What is counted in each phase.
_UNITS = {"copying": "bytes", "pinning": "bytes", "materializing": "bytes", "writing": "objects"}


class _Bar:
    """One line of a terminal that says how far it is and how long it will take."""

    WIDTH = 30

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._phase = ""
        self._began = time.monotonic()
        self._drawn = 0.0
        self._shown = False

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._began = phase, now
        if now - self._drawn < 0.1 or not total:
            return
        self._drawn = now
        filled = self.WIDTH * done // total
        bar = "#" * filled + "-" * (self.WIDTH - filled)
        left = ""
        if done and now - self._began > 1:
            left = f", {(now - self._began) * (total - done) / done:.0f} s left"
        unit = _UNITS.get(phase, "versions")
        counted = f"{done / 2**20:.1f} of {total / 2**20:.1f} MiB" if unit == "bytes" else f"{done} of {total} {unit}"
        self._stream.write(f"\r\x1b[K{phase} [{bar}] {counted}{left}")
        self._stream.flush()
        self._shown = True

    def clear(self) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
