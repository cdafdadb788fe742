"""Object graphs a to f: one kind of content each."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any


@dataclass
class Point:
    """Five attributes, as a program's records have them."""

    id: int
    x: float
    name: str
    note: object
    code: int


def a_bytes() -> Any:
    """A million byte strings of 100 bytes in 100 lists."""
    source = random.Random(1)
    return [[source.randbytes(100) for _ in range(10_000)] for _ in range(100)]


def b_mixed() -> Any:
    """Twenty thousand nested dicts of numbers, strings and lists: 760,000 values."""
    source = random.Random(1)
    return [
        {
            "id": i,
            "x": source.random(),
            "name": f"user{source.randrange(10**6)}",
            "tags": [f"t{source.randrange(1000)}" for _ in range(5)],
            "m": {j: source.random() for j in range(8)},
            "flag": bool(i & 1),
            "n": None,
            "big": source.randrange(1 << 40),
        }
        for i in range(20_000)
    ]


def c_records() -> Any:
    """Two hundred thousand dataclass instances."""
    source = random.Random(1)
    return [Point(i, source.random(), f"name{i}", None, source.randrange(1 << 20)) for i in range(200_000)]


def d_frame() -> Any:
    """A frame with a column of a million Python strings and a column of floats."""
    import numpy
    import pandas

    texts = pandas.Series([f"string value {i * 7919}" for i in range(1_000_000)], dtype=object)
    return pandas.DataFrame({"s": texts, "v": numpy.arange(1_000_000.0)})


def e_graph() -> Any:
    """A networkx graph of 50,000 nodes and 200,000 edges."""
    import networkx

    return networkx.gnm_random_graph(50_000, 200_000, seed=1)


def f_arrays() -> dict[str, Any]:
    """Forty arrays of floats, 1.0 GB in all."""
    import numpy

    return {f"arr{i}": numpy.random.default_rng(i).random(12_500_000 // 4) for i in range(40)}


MICRO = {"a": a_bytes, "b": b_mixed, "c": c_records, "d": d_frame, "e": e_graph}
