"""Saves that know from the kernel which pages were written (``track_pages=True``), against hashing all of the memory.

The repository is in memory, so that no disk is measured. Detection is what a save says that it took: asking the kernel which pages were
written, and hashing their chunks.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import chipmink

from benches.measure import Result
from benches.rows import Options, Row
from benches.rows.regions import CHUNK, GIBIBYTE, hash_seconds

ELEMENTS = CHUNK // 8
SAVES = 20


def settled(values: Any) -> Any:
    """A repository that tracks the array."""
    repo = chipmink.open("memory://", memory_bytes=8 * values.nbytes + (1 << 30), track_pages=True, compression="none")
    for _ in range(4):
        repo.save({"values": values})
    return repo


def detection(options: Options) -> list[Result]:
    """A clean array, and one of which a hundredth of the chunks was written."""
    import numpy

    random = numpy.random.default_rng(6)
    values = random.random(int(GIBIBYTE * options.arrays_scale) // 8)
    chunks = len(values) // ELEMENTS
    hashing = hash_seconds(values, options.repeats)
    namespace = {"values": values}
    # Clean; written again as it was; written anew.
    saves: dict[str, list[float]] = {"clean": [], "1 % of chunks, contents known": [], "1 % of chunks, new": []}
    detections: dict[str, list[float]] = {what: [] for what in saves}
    with settled(values) as repo:
        for _ in range(options.repeats):
            for what, times in saves.items():
                chosen = random.choice(chunks, max(1, chunks // 100), replace=False) if what != "clean" else ()
                for chunk in chosen:
                    part = values[chunk * ELEMENTS : (chunk + 1) * ELEMENTS]
                    part[:] = part.copy() if "known" in what else random.random(ELEMENTS)
                began = time.perf_counter()
                report = repo.save(namespace).report
                times.append(time.perf_counter() - began)
                detections[what].append(report.seconds["detection"])
                if not report.unwritten_bytes:
                    return [Result("dirty pages", "hashing all", 0, hashing, 0.02, "s", value=float("nan"), note="not available here")]
    return [
        Result(f"dirty pages/{what}/{kind}", "hashing all", statistics.median(times[what]), hashing, bar, "s")
        for kind, times, bar in (("detection", detections, 0.02), ("whole save", saves, 0.05))
        for what in saves
    ]


def own_code(options: Options) -> list[Result]:
    """How much slower the program itself is for being tracked: it sums an array and writes a part of it, between saves.

    And what that is worth: the program with its saves, tracked and not.
    """
    import numpy

    spent: dict[bool, float] = {}
    with_saves: dict[bool, float] = {}
    for _ in range(2):
        for tracked in (True, False):
            random = numpy.random.default_rng(7)
            values = random.random(int(GIBIBYTE * options.arrays_scale) // 8)
            chunks = len(values) // ELEMENTS
            repo = chipmink.open("memory://", memory_bytes=8 * values.nbytes + (1 << 30), track_pages=tracked, compression="none")
            total = in_saves = 0.0
            with repo:
                for _ in range(4):
                    repo.save({"values": values})
                for _ in range(SAVES):
                    part = 10 ** -float(random.integers(1, 4))
                    chosen = random.choice(chunks, max(1, int(chunks * part)), replace=False)
                    fresh = random.random(ELEMENTS)
                    began = time.thread_time()
                    values.sum()
                    for chunk in chosen:
                        values[chunk * ELEMENTS : (chunk + 1) * ELEMENTS] = fresh
                    total += time.thread_time() - began
                    began = time.thread_time()
                    repo.save({"values": values})
                    in_saves += time.thread_time() - began
            spent[tracked] = min(spent.get(tracked, total), total)
            with_saves[tracked] = min(with_saves.get(tracked, total + in_saves), total + in_saves)
    note = f"{SAVES} saves, 0.1 to 10 % written"
    return [
        Result("dirty pages/the program's own code", "untracked", spent[True], spent[False], 1.03, "CPU s", note=note),
        Result("dirty pages/the program with its saves", "untracked", with_saves[True], with_saves[False], 1.0, "CPU s", note=note),
    ]


ROWS: dict[str, Row] = {"arrays/pages/detection": detection, "arrays/pages/own code": own_code}
