"""Loads of a large array from local disk with a warm page cache, out of a repository that is open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chipmink

from benches.measure import Result, Side, compare, folder
from benches.rows import Options, Row
from benches.rows.regions import CHUNK, GIBIBYTE


def load(options: Options) -> list[Result]:
    """Until the first element is there, and until all were read; then after twenty saves of a hundredth of the chunks."""
    import numpy

    random = numpy.random.default_rng(5)
    values = random.random(int(GIBIBYTE * options.arrays_scale) // 8)
    with folder() as place, chipmink.open(place / "repo", durable=False, verify="background") as repo:
        namespace = {"values": values}
        first = repo.save(namespace)
        plain = place / "plain.npy"
        numpy.save(plain, values)
        expected = values[0]

        def element(array: Any) -> None:
            if array[0] != expected:
                raise AssertionError("the first element is another")

        until_first = compare(
            "load of an array/first element",
            "numpy.load",
            0.02,
            Side(lambda _: element(repo.load(first)["values"])),
            Side(lambda _: element(numpy.load(plain))),
            repeats=options.repeats,
        )
        full = compare(
            "load of an array/full read",
            "numpy.load, mapped",
            1.1,
            Side(lambda _: repo.load(first)["values"].sum()),
            Side(lambda _: numpy.load(plain, mmap_mode="c").sum()),
            repeats=options.repeats,
        )
        for _ in range(20):
            for chunk in random.integers(0, max(1, values.nbytes // CHUNK), max(1, values.nbytes // CHUNK // 100)):
                part = values[chunk * CHUNK // 8 : (chunk + 1) * CHUNK // 8]
                part[:] = random.random(len(part))
            last = repo.save(namespace)
        numpy.save(plain, values)
        del values, namespace["values"]
        scattered = compare(
            "load of an array/full read after 20 saves of 1 %",
            "numpy.load + read",
            1.5,
            Side(lambda _: repo.load(last)["values"].sum()),
            Side(lambda _: numpy.load(plain).sum()),
            repeats=options.repeats,
        )
        kept = repo.load(last)
        count = mappings()
        del kept
    return [until_first, full, scattered, Result("load of an array/mappings after 20 saves", "256", count, 256, 1.0, "")]


def mappings() -> int:
    """Mappings of packs in this process."""
    return sum("/packs/" in line for line in Path("/proc/self/maps").read_text().splitlines())


ROWS: dict[str, Row] = {"arrays/load": load}
