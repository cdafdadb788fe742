"""Large arrays that change a little: bytes written, and time against hashing or writing all of it.

Weights are 16-bit numbers as bfloat16 has them (numpy has no such type, and none is needed to count bytes). ``--arrays-scale``
makes the arrays smaller for small machines; at 1 they have 512 MiB and 1 GiB.
"""

from __future__ import annotations

import functools
import os
import statistics
import time
from typing import Any

import chipmink

from benches.measure import Result, folder
from benches.rows import Options, Row

MEBIBYTE = 1 << 20
CHUNK = 64 << 10
BYTES_BAR = {"low bits": 0.013, "fresh values": 0.024}


def bfloat16(random: Any, count: int) -> Any:
    """Random weights: the upper halves of normally distributed 32-bit floats."""
    import numpy

    return (random.standard_normal(count, dtype=numpy.float32).view(numpy.uint32) >> 16).astype(numpy.uint16)


def sparse(which: str, options: Options) -> list[Result]:
    """A hundredth of the weights changes at random places."""
    import numpy

    random = numpy.random.default_rng(1)
    weights = bfloat16(random, int(512 * MEBIBYTE * options.arrays_scale) // 2)
    written, seconds = [], []
    with folder() as place, chipmink.open(place / "repo", durable=False) as repo:
        namespace = {"weights": weights}
        whole = repo.save(namespace).report.bytes_written
        for _ in range(options.repeats):
            places = random.integers(0, len(weights), len(weights) // 100)
            weights[places] = weights[places] ^ 1 if which == "low bits" else bfloat16(random, len(places))
            began = time.thread_time()
            saved = repo.save(namespace)
            seconds.append(time.thread_time() - began)
            written.append(saved.report.bytes_written)
        began = time.thread_time()
        same = bool((repo.load(saved)["weights"] == weights).all())
        loaded = time.thread_time() - began
    if not same:
        raise AssertionError("the last version is not what was saved")
    rates = f"save {weights.nbytes / statistics.median(seconds) / 1e9:.2f}, load {weights.nbytes / loaded / 1e9:.2f} GB/s of CPU, all included"
    return [Result(f"bf16, 1 % of elements/{which}", "the bytes of all", statistics.median(written), whole, BYTES_BAR[which], "B", note=rates)]


def dense(options: Options) -> list[Result]:
    """Every element changes: as many bytes as there are, in the time of writing them."""
    import numpy

    random = numpy.random.default_rng(2)
    state = random.standard_normal(int(512 * MEBIBYTE * options.arrays_scale) // 4, dtype=numpy.float32)
    ours, theirs, written = [], [], []
    with folder() as place, chipmink.open(place / "repo", durable=False) as repo:
        for turn in range(options.repeats + 3):
            state *= numpy.float32(1.0001)
            began = time.perf_counter()
            saved = repo.save({"state": state})
            middle = time.perf_counter()
            with open(place / "plain", "wb", buffering=0) as file:
                view = memoryview(state).cast("B")
                for start in range(0, len(view), MEBIBYTE):
                    file.write(view[start : start + MEBIBYTE])
            ended = time.perf_counter()
            if turn >= 3:
                ours.append(middle - began)
                theirs.append(ended - middle)
                written.append(saved.report.bytes_written)
    name = "fp32, every element"
    return [
        Result(f"{name}/time", "write(2) of the same", statistics.median(ours), statistics.median(theirs), 1.1, "s", note="no fsync on either side"),
        Result(f"{name}/bytes", "the bytes of all", statistics.median(written), state.nbytes, 1.02, "B"),
    ]


def one_element(options: Options) -> list[Result]:
    """One element of an array of floats changes."""
    import numpy

    values = numpy.random.default_rng(3).random(int(1024 * MEBIBYTE * options.arrays_scale) // 8)
    written, before = [], 0
    with folder() as place, chipmink.open(place / "repo", durable=False) as repo:
        namespace = {"values": values}
        repo.save(namespace)
        for turn in range(options.repeats):
            before = _disk(place)
            values[len(values) // 3 + turn] += 1
            repo.save(namespace)
            written.append(_disk(place) - before)
    return [Result("float64, one element", "a chunk and 16 KiB", max(written), CHUNK + 16 * 1024, 1.0, "B", note="all files, padding included")]


def _disk(place: Any) -> int:
    return sum(os.stat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(place) for name in names)


ROWS: dict[str, Row] = {f"arrays/bf16/{which}": functools.partial(sparse, which) for which in BYTES_BAR}
ROWS["arrays/fp32/dense"] = dense
ROWS["arrays/float64/one element"] = one_element
