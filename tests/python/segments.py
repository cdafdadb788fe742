"""Shared memory for tests, and other processes that attach to it."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import pytest
from chipmink import _shared


FOLDER = Path("/dev/shm")
CHUNK = 64 * 1024


@pytest.fixture
def segment(request) -> Iterator[SharedMemory]:
    """A segment full of different bytes."""
    size = getattr(request, "param", 3 * CHUNK + 17)
    shm = SharedMemory(create=True, size=size)
    shm.buf[:] = np.random.default_rng(size).bytes(size)
    yield shm
    gc.collect()
    with contextlib.suppress(BufferError):
        shm.close()
    with contextlib.suppress(FileNotFoundError):
        shm.unlink()


@pytest.fixture
def names(monkeypatch) -> list[str]:
    """The names that segments are given from now on."""
    given: list[str] = []
    give = _shared._give_name

    def record(descriptor: int, name: str) -> None:
        give(descriptor, name)
        given.append(name)

    monkeypatch.setattr(_shared, "_give_name", record)
    return given


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Another process, which knows this one's memory by name only."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def attached(name: str, code: str) -> str:
    """What another process prints that has attached to a segment as `shm`, without taking its name away at its end."""
    begin = """
        import sys
        from multiprocessing import resource_tracker
        resource_tracker.register = lambda *_: None
        from multiprocessing.shared_memory import SharedMemory
        shm = SharedMemory(sys.argv[1])
    """
    done = run(textwrap.dedent(begin) + code, name)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()
