"""Wrote ``repository.tar.gz``: a repository with every feature of format 1, for later versions to read.

    python tests/compat/v1/write.py tests/compat/v1/repository.tar.gz

It is not written again: that versions of today read what was written then is the point. A later format gets a folder of its own.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import io
import pathlib
import sys
import tarfile
import tempfile
import warnings
from typing import Any

import chipmink
import numpy

VERSIONS = 80
"""More than 64, after which a root state is written, and more than 16, after which indexes are merged."""

DEFINITIONS = """
import dataclasses, enum, typing

class Base:
    scale = 2
    def scaled(self):
        return self.value * self.scale

class Child(Base):
    def __init__(self, value):
        self.value = value

class Slotted:
    __slots__ = ("x", "__hidden", "unset")
    def __init__(self, x):
        self.x, self.__hidden = x, [x]
    def hidden(self):
        return self.__hidden

class Mixed(Slotted):
    pass

class Color(enum.Enum):
    RED = 1
    BLUE = "b"

@dataclasses.dataclass
class Point:
    x: int
    y: list = dataclasses.field(default_factory=list)

class Named(typing.NamedTuple):
    a: int
    b: str = "b"

class Node:
    registry = []
Node.registry.append(Node())

def counter():
    count = 0
    def up(by=1):
        nonlocal count
        count += by
        return count
    def read():
        return count
    return up, read

def reads_the_namespace():
    return text
"""


def turn(number: int) -> dict[str, Any]:
    """The data of a version: plain values, equal whenever they are made."""
    shared = [1, [2.5, None], {"key": number // 10}]
    cycle: list[Any] = [shared]
    cycle.append(cycle)
    deep: list[Any] = []
    for _ in range(1000):
        deep = [deep]
    large = numpy.arange(24_000, dtype="f8").reshape(200, 120) % 17
    large[number % 7, 5] = number
    base = numpy.arange(12, dtype="i4")
    data: dict[str, Any] = {
        "number": number,
        "text": "text " * 3,
        "name": f"version {number}",
        "long_text": "a long text, \u00e9 and \u4e16 " * 3500,
        "raw": bytes(range(256)) * 300,
        "big": 7**30_000,
        "atoms": (True, None, ..., -1.5, 2j, b"bytes", 2**70, -(2**70), float("inf"), "\U0001f40d"),
        "shared": shared,
        "again": {"shared": shared, "cycle": cycle},
        "deep": deep,
        "sets": [{1, "two", 3.0}, frozenset({(1, 2), "x"})],
        "buffer": bytearray(b"bytes" * 20),
        "ordered": collections.OrderedDict([("b", 1), ("a", [2])]),
        "counted": collections.Counter("mississippi"),
        "queue": collections.deque([1, [2]], maxlen=5),
        "library": [datetime.date(2024, 2, 29), decimal.Decimal("1.10"), fractions.Fraction(1, 3), pathlib.PurePosixPath("a/b")],
        "small_arrays": [base, numpy.array(1.5), numpy.asfortranarray(base.reshape(3, 4)), numpy.array(["x", None, shared], object)],
        "large_array": large,
        "views": [base, base[2:6]],
        "records": numpy.array([(1, 2.5)], [("a", "i4"), ("b", "f8")]),
        "dates": numpy.array(["2024-01-01", "NaT"], "M8[ns]"),
        "module": sys,
        "type": dict,
        "log": [f"entry {i}" for i in range(number)],
    }
    if number % 3 == 0:
        data["sometimes"] = [number]
    data.update({f"v{i:03}": (i * number) % 1000 for i in range(200)})
    data.update({f"l{i:02}": [i, number // (i + 1)] for i in range(40)})
    return data


def by_value(namespace: dict[str, Any]) -> dict[str, Any]:
    """Classes and functions of a namespace, and objects of them."""
    exec(DEFINITIONS, namespace)
    up, read = namespace["counter"]()
    up(5)
    second = namespace["counter"]()
    namespace["objects"] = [
        namespace["Child"](21),
        namespace["Slotted"]("x"),
        namespace["Mixed"]("m"),
        namespace["Color"].BLUE,
        namespace["Point"](1, [2]),
        namespace["Named"](7),
        namespace["Node"].registry[0],
    ]
    namespace["objects"][2].more = {"in": "dict"}
    namespace["closures"] = [up, read, *second]
    namespace["square"] = eval("lambda x: x * x", {"__name__": "elsewhere"})
    left_out = ("__builtins__", "__name__", "dataclasses", "enum", "typing")
    return {name: value for name, value in namespace.items() if name not in left_out}


def lost() -> dict[str, Any]:
    """What cannot be saved."""
    return {"generator": (i for i in "abc"), "holds_one": ["before", (i for i in "abc"), "after"], "refuses": Refuses()}


class Refuses:
    """Cannot be saved as a whole."""

    def __reduce__(self) -> Any:
        raise TypeError("never")


def write(folder: pathlib.Path) -> None:
    """Writes the repository, with several policies: few large pods first, then many small ones."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    definitions, holes = by_value(namespace), lost()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for first, last, policy in ((1, 40, "lga-siblings"), (41, 60, "split-all"), (61, VERSIONS, "lga")):
            with chipmink.open(folder, durable=False, policy=policy) as repository:
                for number in range(first, last + 1):
                    namespace.clear()
                    namespace.update(turn(number))
                    if number in (1, 40, 41, VERSIONS):
                        namespace.update(definitions)
                        namespace.update(holes)
                    version = repository.save(namespace, message=f"turn {number}", author="the writer", code=f"turn({number})")
                    assert version == number


def main(target: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder) / "repository"
        write(place)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=9) as archive:
            for path in sorted(place.rglob("*")):
                entry = tarfile.TarInfo(str(path.relative_to(place.parent)))
                if path.is_file():
                    entry.size = path.stat().st_size
                    archive.addfile(entry, io.BytesIO(path.read_bytes()))
        pathlib.Path(target).write_bytes(packed.getvalue())
        print(f"{len(packed.getvalue())} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
