"""How things are timed: interleaved, repeated, medians; CPU of the whole process where a bar is about CPU.

1. Our side and the peer's alternate within one process, and swap who goes first, so that drift of the machine hits both.
2. What is prepared for a repetition (a fresh folder, a copy to load into) is not timed.
3. A ratio is median over median.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

#: Repetitions of each side; the bars speak of the median of five.
REPEATS = 5


@dataclass
class Result:
    """One line of the table."""

    row: str
    peer: str
    ours: float
    theirs: float
    #: Infinite if the line is printed and not judged.
    bar: float
    unit: str
    #: Set if the bar is on something else than ours / theirs.
    value: float | None = None
    note: str = ""
    samples: dict[str, list[float]] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        if self.value is not None:
            return self.value
        return self.ours / self.theirs if self.theirs else float("inf")

    @property
    def passed(self) -> bool:
        return self.ratio <= self.bar

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio, "passed": self.passed}


@dataclass
class Side:
    """What one side does in a repetition: `prepare` gives what `run` is called with, `finish` clears it away."""

    run: Callable[[Any], Any]
    prepare: Callable[[], Any] = lambda: None
    finish: Callable[[Any], None] = lambda made: None


def interleaved(ours: Side, theirs: Side, clock: Callable[[], float] = time.perf_counter, repeats: int = REPEATS) -> tuple[list[float], list[float]]:
    """Seconds of each repetition of both sides."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for repetition in range(repeats):
        sides = [(ours, seconds[0]), (theirs, seconds[1])]
        for side, into in sides if repetition % 2 == 0 else reversed(sides):
            made = side.prepare()
            gc.collect()
            began = clock()
            kept = side.run(made)
            into.append(clock() - began)
            del kept
            side.finish(made)
    return seconds


def compare(row: str, peer: str, bar: float, ours: Side, theirs: Side, *, repeats: int = REPEATS, note: str = "") -> Result:
    """Times both sides and makes a line of it."""
    mine, other = interleaved(ours, theirs, repeats=repeats)
    return Result(row, peer, statistics.median(mine), statistics.median(other), bar, "s", note=note, samples={"ours": mine, "theirs": other})


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder on the disk that is measured: `BENCH_DIR`, else where temporary files go."""
    path = Path(tempfile.mkdtemp(prefix="chipmink-bench-", dir=os.environ.get("BENCH_DIR")))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def bytes_in(path: Path) -> int:
    """File lengths under a folder, summed."""
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())


@contextlib.contextmanager
def second_thread(wanted: bool) -> Iterator[None]:
    """An idle Python thread for the length of a measurement, as every notebook kernel has some."""
    if not wanted:
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=done.wait, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def anonymous_bytes() -> int:
    """Memory of this process in RAM that belongs to no file, nor to a segment of shared memory."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def bytes_read() -> int:
    """Bytes that this process has asked read calls for, from any file."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])
