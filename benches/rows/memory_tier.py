"""Versions in memory: a checkpoint and an undo of a namespace of arrays, of which a hundredth of the chunks was written.

Beside a full copy stand ``copy.deepcopy`` and a snapshot by ``fork(2)``, whose cost comes with the first write to each page.
"""

from __future__ import annotations

import copy
import os
import signal
import statistics
import time
from collections.abc import Callable
from typing import Any

import chipmink

from benches.measure import Result
from benches.rows import Options, Row
from benches.rows.regions import CHUNK, GIBIBYTE, MEBIBYTE

ELEMENTS = CHUNK // 8
ARRAY_LEN = 16 * MEBIBYTE


def timed(act: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    kept = act()
    return time.perf_counter() - began, kept


def checkpoint_and_undo(options: Options) -> list[Result]:
    import numpy

    random = numpy.random.default_rng(8)
    count = max(1, int(GIBIBYTE * options.arrays_scale) // ARRAY_LEN)
    namespace = {f"a{i}": random.random(ARRAY_LEN // 8) for i in range(count)}
    chunks = count * ARRAY_LEN // CHUNK
    fresh = random.random(ELEMENTS)

    def write() -> None:
        for chunk in random.choice(chunks, max(1, chunks // 100), replace=False):
            name, at = divmod(int(chunk) * CHUNK, ARRAY_LEN)
            namespace[f"a{name}"][at // 8 : at // 8 + ELEMENTS] = fresh * random.random()

    seconds: dict[str, list[float]] = {"checkpoint": [], "undo": [], "full": [], "deepcopy": [], "fork": []}
    room = 4 * count * ARRAY_LEN + (1 << 30)
    with chipmink.open("memory://", memory_bytes=room, track_pages=True, compression="none") as repo:
        for _ in range(4):
            repo.save(namespace)
        for _ in range(options.repeats):
            write()
            spent, saved = timed(lambda: repo.save(namespace))
            seconds["checkpoint"].append(spent)
            write()
            spent, _ = timed(lambda saved=saved: repo.checkout(saved, namespace, force=True))
            seconds["undo"].append(spent)
            # What was loaded is new memory, which is looked at until it proves calm.
            for _ in range(3):
                repo.save(namespace)
            spent, kept = timed(lambda: {name: array.copy() for name, array in namespace.items()})
            seconds["full"].append(spent)
            del kept
            spent, kept = timed(lambda: copy.deepcopy(namespace))
            seconds["deepcopy"].append(spent)
            del kept
    # Apart from the others: a child makes the pages shared, and the tracking of those that are begins anew.
    for _ in range(options.repeats):
        seconds["fork"].append(forked(write) - timed(write)[0])
    full = statistics.median(seconds["full"])
    shown = {"deepcopy": "copy.deepcopy", "fork": "a forked snapshot"}
    rows = [Result(f"memory/{what}", "a full copy", statistics.median(seconds[what]), full, 0.1, "s") for what in ("checkpoint", "undo")]
    rows += [Result("memory/checkpoint", peer, statistics.median(seconds["checkpoint"]), statistics.median(seconds[what]), 1.0, "s") for what, peer in shown.items()]
    return rows


def forked(write: Callable[[], None]) -> float:
    """Seconds that a snapshot by fork costs, with the writes that find their pages shared."""
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    write()
    spent = time.perf_counter() - began
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return spent


ROWS: dict[str, Row] = {"arrays/memory": checkpoint_and_undo}
