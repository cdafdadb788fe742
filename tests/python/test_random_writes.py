"""Arrays of every layout under random writes and random saves: every version loads as it was, with what shares memory.

A program makes arrays and views, writes through any of them, resizes, flips and replaces them, and saves now with, now
without naming what it touched. It runs with every codec, with and without tracked pages, mapped and read.
"""

from __future__ import annotations

import random
import tempfile
import warnings
from pathlib import Path
from typing import Any

import chipmink
import pytest
from array_oracle import Oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import sources

np = pytest.importorskip("numpy")

#: Bytes: nothing, a few, below a region, a region, and what is worth mapping and tracking.
SIZES = (0, 48, 4_800, 96_000, 1_600_000)
DTYPES = ("f8", "<i4", ">u2", "u1", "M8[s]", "S6", "<U3", "c16", [("a", "<i4"), ("b", ">f8")], [("p", "u1", (2, 3))])
OPTIONS = [
    {"compression": codec, "track_pages": track, "map": mapped}
    for codec, track, mapped in (
        ("auto", False, True),
        ("auto", True, True),
        ("none", True, True),
        ("none", False, False),
        ("lz4", True, False),
        ("zstd", False, True),
    )
]


class Program:
    """Arrays by name, and what was touched since the last save."""

    def __init__(self, source: Any):
        self.source = source
        self.arrays: dict[str, Any] = {}
        self.touched: set[str] = set()
        self.count = 0

    def step(self) -> None:
        source = self.source
        ways = (self.make, self.view, self.view, self.write, self.write, self.write, self.scatter, self.resize, self.replace, self.drop)
        source.choice(ways)()

    def pick(self) -> str | None:
        return self.source.choice(sorted(self.arrays)) if self.arrays else None

    def add(self, array: Any) -> None:
        self.count += 1
        name = f"a{self.count}"
        self.arrays[name] = array
        self.touched.add(name)

    def make(self) -> None:
        source = self.source
        dtype = np.dtype(source.choice(DTYPES))
        items = source.choice(SIZES) // dtype.itemsize
        raw = np.random.default_rng(source.randrange(1 << 30)).integers(0, 90, items * dtype.itemsize, dtype="u1")
        choice = source.randrange(6)
        if choice == 0:
            # Between two words, in memory that is not numpy's.
            memory = bytearray(1) + raw.tobytes()
            self.add(np.frombuffer(memory, dtype, items, 1) if items else np.empty(0, dtype))
        elif choice == 1:
            self.add(np.asfortranarray(raw.view(dtype)[: items - items % 4].reshape(-1, 4)))
        elif choice == 2:
            self.add(raw.view(dtype)[: items - items % 4].reshape(4, -1))
        elif choice == 3:
            self.add(raw.view(dtype).view(np.recarray if dtype.names else np.memmap))
        else:
            self.add(np.frombuffer(raw.tobytes(), dtype).copy())

    def view(self) -> None:
        name = self.pick()
        if name is None:
            return
        source = self.source
        array = self.arrays[name]
        choice = source.randrange(7)
        if choice == 0:
            array = array.T
        elif choice == 1 and array.ndim:
            array = array[::-1]
        elif choice == 2 and array.ndim:
            array = array[:: source.choice((2, 3, -2))]
        elif choice in (3, 4) and array.ndim:
            low = source.randrange(len(array) + 1)
            array = array[low : low + source.randrange(len(array) + 2)]
        elif choice == 5 and array.flags.c_contiguous and array.dtype.names is None and type(array) is np.ndarray and array.ndim == 1:
            array = array.view("u1")
        else:
            array = array[...]
            array.flags.writeable = False
        self.touched.add(name)
        self.add(array)

    def write(self) -> None:
        name = self.pick()
        if name is None:
            return
        array = self.arrays[name].view(np.ndarray)
        if not array.size or not array.flags.writeable:
            return
        source = self.source
        self.touched.add(name)
        place = tuple(source.randrange(length) for length in array.shape)
        other = tuple(source.randrange(length) for length in array.shape)
        if source.randrange(3) == 0 and array.ndim:
            low = source.randrange(len(array))
            array[low : low + source.randrange(1, 2_000)] = array[other]
        elif source.randrange(2):
            array[place] = array[other]
        else:
            array[place] = np.frombuffer(source.randbytes(array.dtype.itemsize).translate(_SMALL), array.dtype)[0]

    def scatter(self) -> None:
        """A few elements far apart."""
        for _ in range(5):
            self.write()

    def resize(self) -> None:
        name = self.pick()
        if name is None:
            return
        array = self.arrays[name]
        if array.base is not None or type(array) is not np.ndarray or not array.flags.writeable or array.ndim != 1:
            return
        try:
            # Nobody shows it: numpy counts the references, of which this frame has one more.
            array.resize(self.source.randrange(2 * len(array) + 2), refcheck=False) if not self.is_shown(name) else None
        except ValueError:
            return
        self.touched.add(name)

    def is_shown(self, name: str) -> bool:
        owner = self.arrays[name]
        return any(other is not owner and _owner(other) is owner for other in self.arrays.values())

    def replace(self) -> None:
        name = self.pick()
        if name is None:
            return
        array = self.arrays[name]
        choice = self.source.randrange(3)
        if choice == 0:
            array = array.copy(order=self.source.choice("CF"))
        elif choice == 1 and array.dtype.kind in "fiu":
            array = array.astype(self.source.choice(("f4", "i8", "u1")), casting="unsafe")
        elif array.ndim:
            array = np.concatenate([array, array[:1]]).view(type(array))
        self.arrays[name] = array
        self.touched.add(name)

    def drop(self) -> None:
        name = self.pick()
        if name is not None and len(self.arrays) > 2:
            del self.arrays[name]


_SMALL = bytes(byte % 90 for byte in range(256))


def _owner(array: Any) -> Any:
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array


def run(source: Any, options: dict[str, Any], saves: int) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # Where the kernel cannot track pages, all are hashed; and numbers that do not fit are cut.
        warnings.simplefilter("ignore", RuntimeWarning)
        with chipmink.open(Path(folder) / "repo", durable=False, **options) as repo:
            play(repo, source, saves)


def play(repo: chipmink.Repository, source: Any, saves: int) -> None:
    program = Program(source)
    known: list[tuple[Any, Oracle]] = []
    for _ in range(saves):
        for _ in range(source.randrange(1, 9)):
            program.step()
        oracle = Oracle(program.arrays)
        accessed = sorted(program.touched & set(program.arrays)) if known and source.randrange(2) else None
        version = repo.save(dict(program.arrays), accessed=accessed) if source.randrange(4) == 0 else repo.save(program.arrays, accessed=accessed)
        program.touched.clear()
        assert not version.report.skipped
        known.append((version, oracle))
        if source.randrange(4) == 0:
            written = repo.load(version)
            oracle.check(written)
            for array in written.values():
                # What a program does to what it loaded reaches no file.
                if array.size and array.flags.writeable:
                    array.view(np.ndarray)[...] = np.zeros(1, array.dtype)[0]
    for version, oracle in known:
        oracle.check(repo.load(version))
        if oracle.names:
            oracle.check(repo.load(version, names=source.sample(oracle.names, source.randrange(1, len(oracle.names) + 1))))
    known[-1][1].check(chipmink.loads(chipmink.dumps(program.arrays)))


@settings(max_examples=40, deadline=None)
@given(source=sources, options=st.sampled_from(OPTIONS), saves=st.integers(1, 5))
def test_random_writes(source, options, saves):
    run(source, options, saves)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))
@pytest.mark.parametrize("seed", range(12))
def test_seeded_writes(options, seed):
    run(random.Random(seed), options, 8)
