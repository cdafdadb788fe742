"""Large arrays that change a little: bytes written, and time against hashing or writing all of it.

Weights are 16-bit numbers as bfloat16 has them (numpy has no such type, and none is needed to count bytes). ``--arrays-scale``
makes the arrays smaller for small machines; at 1 they have 512 MiB and 1 GiB, and the segment of shared memory 2 GiB.
"""

from __future__ import annotations

import functools
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import chipmink

from benches.measure import Result, anonymous_bytes, folder
from benches.rows import Options, Row

MEBIBYTE = 1 << 20
GIBIBYTE = 1 << 30
CHUNK = 64 << 10
BYTES_BAR = {"low bits": 0.013, "fresh values": 0.024}
#: Saves of a state of which every element changes each time.
DENSE_SAVES = 20


def hash_seconds(values: Any, repeats: int) -> float:
    """Time to hash an array by the chunk, with the algorithm of the digests."""
    import xxhash

    view = memoryview(values).cast("B")
    chunks = [view[start : start + CHUNK] for start in range(0, len(view), CHUNK)]
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        for chunk in chunks:
            xxhash.xxh3_128_digest(chunk)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def bfloat16(random: Any, count: int) -> Any:
    """Random weights: the upper halves of normally distributed 32-bit floats."""
    import numpy

    return (random.standard_normal(count, dtype=numpy.float32).view(numpy.uint32) >> 16).astype(numpy.uint16)


def sparse(which: str, options: Options) -> list[Result]:
    """A hundredth of the weights changes at random places."""
    import numpy

    random = numpy.random.default_rng(1)
    weights = bfloat16(random, int(512 * MEBIBYTE * options.arrays_scale) // 2)
    written: list[int] = []
    saves: tuple[list[float], list[float]] = ([], [])
    loads: tuple[list[float], list[float]] = ([], [])

    def timed(into: list[float], act: Callable[[], Any]) -> Any:
        began = time.process_time()
        kept = act()
        into.append(time.process_time() - began)
        return kept

    with folder() as place, chipmink.open(place / "repo", durable=False) as repo:
        namespace = {"weights": weights}
        whole = repo.save(namespace).report.bytes_written
        for _ in range(options.repeats):
            places = random.integers(0, len(weights), len(weights) // 100)
            weights[places] = weights[places] ^ 1 if which == "low bits" else bfloat16(random, len(places))
            saved = timed(saves[0], lambda: repo.save(namespace))
            written.append(saved.report.bytes_written)
            timed(saves[1], lambda: numpy.save(place / "all.npy", weights))
            loaded = timed(loads[0], lambda: repo.load(saved)["weights"])
            timed(loads[1], lambda: numpy.load(place / "all.npy"))
            if not (loaded == weights).all():
                raise AssertionError("the last version is not what was saved")
    name = f"bf16, 1 % of elements, {which}"
    # What the codec alone takes has a bar, in `codec`; these say what a user waits for who could write all of it as well.
    whole_save = Result(f"{name}/save", "numpy.save of all", *map(statistics.median, saves), math.inf, "CPU s", note="hashing, bases, deltas, writing")
    whole_load = Result(f"{name}/load", "numpy.load of all", *map(statistics.median, loads), math.inf, "CPU s", note="reading, chains, checking")
    return [Result(f"{name}/bytes", "the bytes of all", statistics.median(written), whole, BYTES_BAR[which], "B"), whole_save, whole_load]


def dense(durable: bool, options: Options) -> list[Result]:
    """Every element changes: as many bytes as there are, in the time of writing them."""
    import numpy

    random = numpy.random.default_rng(2)
    state = random.standard_normal(int(256 * MEBIBYTE * options.arrays_scale) // 4, dtype=numpy.float32)
    ours, theirs, written = [], [], []

    def write_plainly(turn: int) -> None:
        # All are kept, as all versions are: a file system takes longer for what is not removed at once.
        with open(place / f"plain {turn}", "wb", buffering=0) as file:
            view = memoryview(state).cast("B")
            for start in range(0, len(view), MEBIBYTE):
                file.write(view[start : start + MEBIBYTE])
            if durable:
                os.fsync(file.fileno())

    def timed(act: Callable[[], Any], into: list[float]) -> Any:
        began = time.perf_counter()
        kept = act()
        into.append(time.perf_counter() - began)
        return kept

    with folder() as place, chipmink.open(place / "repo", durable=durable) as repo:
        for turn in range(DENSE_SAVES):
            state *= numpy.float32(1.0001)
            if turn % 2:
                timed(lambda turn=turn: write_plainly(turn), theirs)
            written.append(timed(lambda: repo.save({"state": state}), ours).report.bytes_written)
            if turn % 2 == 0:
                timed(lambda turn=turn: write_plainly(turn), theirs)
    name, note = "fp32, every element", "fsync on both sides" if durable else "no fsync on either side"
    return [
        Result(f"{name}, {DENSE_SAVES} saves/time", "write(2) of the same", sum(ours), sum(theirs), 1.1, "s", note=note),
        Result(f"{name}, {DENSE_SAVES} saves/bytes", "the bytes of all", sum(written), state.nbytes * DENSE_SAVES, 1.02, "B"),
    ]


def one_element(options: Options) -> list[Result]:
    """One element of an array of floats changes."""
    import numpy

    values = numpy.random.default_rng(3).random(int(1024 * MEBIBYTE * options.arrays_scale) // 8)
    written, seconds = [], []
    hashing = hash_seconds(values, options.repeats)
    with folder() as place, chipmink.open(place / "repo", durable=False) as repo:
        namespace = {"values": values}
        repo.save(namespace)
        for turn in range(options.repeats):
            before = _disk(place)
            values[len(values) // 3 + turn] += 1
            began = time.perf_counter()
            repo.save(namespace)
            seconds.append(time.perf_counter() - began)
            written.append(_disk(place) - before)
    name = "float64, one element"
    return [
        Result(f"{name}/bytes", "a chunk and 16 KiB", max(written), CHUNK + 16 * 1024, 1.0, "B", note="all files, padding included"),
        Result(f"{name}/time", "hashing all", statistics.median(seconds), hashing, 1.2, "s"),
    ]


ATTACH = """
import sys
from multiprocessing import resource_tracker, shared_memory
resource_tracker.register = lambda *_: None
segment = shared_memory.SharedMemory(sys.argv[1])
print(segment.buf[int(sys.argv[2])])
"""


def shared_segment(options: Options) -> list[Result]:
    """A segment of shared memory is saved where it lies, and loaded as one that another process can attach to."""
    import numpy

    random = numpy.random.default_rng(4)
    size = int(2048 * MEBIBYTE * options.arrays_scale)
    shm = SharedMemory(create=True, size=size)
    try:
        for start in range(0, size, 16 * MEBIBYTE):
            length = min(16 * MEBIBYTE, size - start)
            shm.buf[start : start + length] = random.bytes(length)
        with folder() as place, chipmink.open(place / "repo", durable=False) as repo:
            repo.save({"nothing": None})
            before = anonymous_bytes()
            highest = [before]
            done = threading.Event()

            def watch() -> None:
                while not done.wait(0.002):
                    highest.append(max(highest.pop(), anonymous_bytes()))

            watcher = threading.Thread(target=watch)
            watcher.start()
            began = time.perf_counter()
            saved = repo.save({"shm": shm})
            middle = time.perf_counter()
            repo.save({"shm": shm})
            ended = time.perf_counter()
            done.set()
            watcher.join()
            loaded = repo.load(saved)["shm"]
            command = [sys.executable, "-c", ATTACH, loaded.name, str(size - 1)]
            there = int(subprocess.run(command, capture_output=True, check=True).stdout)
            if there != shm.buf[size - 1] or bytes(loaded.buf[: 16 * MEBIBYTE]) != bytes(shm.buf[: 16 * MEBIBYTE]):
                raise AssertionError("the loaded segment is not what was saved")
            del loaded
    finally:
        shm.close()
        shm.unlink()
    rates = f"first save {size / (middle - began) / 1e9:.2f}, unchanged {size / (ended - middle) / 1e9:.2f} GB/s"
    return [Result("shared memory saved", "64 MiB of anonymous memory", highest[0] - before, 64 * MEBIBYTE, 1.0, "B", note=rates)]


def _disk(place: Any) -> int:
    return sum(os.stat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(place) for name in names)


def codec(options: Options) -> list[Result]:
    """Making and taking apart differences alone, in one thread, by the program ``delta_speed`` of the crate that defines them."""
    command = ["cargo", "run", "--release", "--quiet", "-p", "chipmink-format", "--example", "delta_speed"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], check=True, stdout=subprocess.PIPE, text=True)
    results = []
    for line in done.stdout.splitlines():
        which, share, encode, decode = line.split("\t")
        for what, rate, least in (("encode", float(encode), 1.0), ("decode", float(decode), 1.5)):
            result = Result(f"bf16, 1 % of elements, {which}/{what}", f"{least} GB/s a core", rate, least, 1.0, "")
            result.value, result.note = least / rate, f"GB/s; {100 * float(share):.2f} % of the bytes"
            results.append(result)
    return results


ROWS: dict[str, Row] = {f"arrays/bf16/{which}": functools.partial(sparse, which) for which in BYTES_BAR}
ROWS["arrays/bf16/codec"] = codec
ROWS["arrays/fp32/dense"] = functools.partial(dense, True)
ROWS["arrays/fp32/dense, no fsync"] = functools.partial(dense, False)
ROWS["arrays/float64/one element"] = one_element
ROWS["arrays/shared memory"] = shared_segment
