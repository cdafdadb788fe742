"""Objects over the same memory are so again after a load: writing to one is seen in the other.

The oracle (`array_oracle`) is taken before the save, of addresses alone.
"""

from __future__ import annotations

import array
import pickle
import random
import tempfile
from pathlib import Path
from typing import Any

import chipmink
import pytest
from array_oracle import Oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import sources

np = pytest.importorskip("numpy")

SMALL, LARGE = 600, 20_000  # items of eight bytes: below and above the size of a region


def make_base(source: Any) -> Any:
    items = source.choice((1, 40, SMALL, LARGE))
    data = np.random.default_rng(source.randrange(1 << 30)).integers(0, 1 << 60, items)
    choice = source.randrange(6)
    if choice == 0 and items >= 40:
        return np.asfortranarray(data[: items - items % 8].reshape(-1, 8))
    if choice == 1 and items >= 40:
        return data[: items - items % 4].reshape(4, -1).copy()
    if choice == 2:
        return np.frombuffer(bytearray(data.tobytes()), dtype=np.int64)
    if choice == 3:
        return np.frombuffer(array.array("q", data.tolist()), dtype=np.float64)
    if choice == 4:
        return np.array([int(value) if value % 3 else [int(value)] for value in data[:40]], dtype=object)
    return data


def make_view(source: Any, base: Any) -> Any:
    for _ in range(source.randrange(1, 4)):
        choice = source.randrange(8)
        if choice == 0:
            base = base.T
        elif choice == 1 and base.ndim:
            base = base[::-1]
        elif choice == 2 and base.ndim:
            base = base[:: source.choice((2, 3, -2))]
        elif choice == 3 and base.ndim:
            low = source.randrange(len(base) + 1)
            base = base[low : low + source.randrange(1, len(base) + 2)]
        elif choice == 4 and base.ndim == 2:
            base = base[:, source.randrange(base.shape[1]) :] if base.shape[1] else base
        elif choice == 5 and base.ndim == 1 and base.size % 4 == 0:
            base = base.reshape(4, -1)
        elif choice == 6 and base.dtype.itemsize == 8 and not base.dtype.hasobject:
            base = base.view(source.choice((np.float64, np.uint64, "M8[us]")))
            if base.flags.c_contiguous and base.ndim and source.randrange(2):
                base = base.view(np.int16)
        elif choice == 7:
            base = base[...]
            base.flags.writeable = False
    return base


class Session:
    """Arrays and views of them, by name, some behind containers, some of whose bases nobody names any more."""

    def __init__(self, source: Any):
        self.source = source
        self.arrays: dict[str, Any] = {}
        self.boxed: set[str] = set()
        self.count = 0

    def step(self) -> None:
        source = self.source
        choice = source.randrange(10)
        if choice < 2 or not self.arrays:
            self.add(make_base(source))
        elif choice < 6:
            self.add(make_view(source, self.arrays[source.choice(sorted(self.arrays))]))
        elif choice < 8:
            changed = self.arrays[source.choice(sorted(self.arrays))]
            if changed.size and changed.flags.writeable:
                changed.flat[source.randrange(changed.size)] = changed.flat[source.randrange(changed.size)]
        elif len(self.arrays) > 1:
            del self.arrays[source.choice(sorted(self.arrays))]
        if choice == 9:
            items = list(self.arrays.items())
            source.shuffle(items)
            self.arrays = dict(items)

    def add(self, value: Any) -> None:
        self.count += 1
        name = f"a{self.count}"
        self.arrays[name] = value
        if self.source.randrange(3) == 0:
            self.boxed.add(name)

    def namespace(self) -> dict[str, Any]:
        return {name: [value, name] if name in self.boxed else value for name, value in self.arrays.items()}

    def open(self, loaded: dict[str, Any]) -> dict[str, Any]:
        return {name: value[0] if name in self.boxed else value for name, value in loaded.items()}


def run(repo: chipmink.Repository, source: Any, steps: int) -> None:
    session = Session(source)
    known: list[tuple[Any, Oracle, set[str]]] = []
    for _ in range(steps):
        for _ in range(source.randrange(1, 6)):
            session.step()
        names = session.namespace()
        oracle = Oracle(session.arrays)
        version = repo.save(names)
        assert not version.report.skipped
        known.append((version, oracle, set(session.boxed)))
        oracle.check(session.open(chipmink.loads(chipmink.dumps(names))))
    for version, oracle, boxed in known:
        session.boxed = boxed
        oracle.check(session.open(repo.load(version)))
        some = source.sample(oracle.names, source.randrange(1, len(oracle.names) + 1))
        oracle.check(session.open(repo.load(version, names=some)))
    version, oracle, boxed = known[source.randrange(len(known))]
    live: dict[str, Any] = {}
    repo.checkout(version, live)
    oracle.check(session.open({name: live[name] for name in oracle.names}))


@settings(max_examples=30, deadline=None)
@given(source=sources, steps=st.integers(1, 4))
def test_random_arrays(source, steps):
    with tempfile.TemporaryDirectory() as folder, chipmink.open(Path(folder) / "repo", durable=False) as repo:
        run(repo, source, steps)


@pytest.mark.parametrize("seed", range(60))
def test_seeded_arrays(repo, seed):
    run(repo, random.Random(seed), 4)


def test_a_region_is_what_views_reach(repo):
    """A slice does not drag its parent along, and parts that do not touch are regions of their own."""
    parent = np.random.default_rng(0).random(200_000)
    assert repo.save({"slice": parent[100:110]}).report.bytes_written < 2_000
    assert repo.save({"column": parent.reshape(-1, 100)[:, 3]}).report.bytes_written < 20_000
    version = repo.save({"low": parent[:20_000], "high": parent[100_000:120_000]})
    assert version.report.region_bytes == 320_000
    assert repo.load(version, names=["low"])["low"][5] == parent[5]
    together = repo.load(repo.save({"both": [parent[:20_000], parent[100_000:120_000]]}))["both"]
    assert np.array_equal(together[1], parent[100_000:120_000])


def test_an_array_and_its_views_are_hashed_once(repo):
    parent = np.arange(100_000.0)
    names = {"view": parent[5:90_000], "parent": parent, "flipped": parent[::-1]}
    repo.save(names)
    for _ in range(3):
        report = repo.save(names).report
        assert report.region_bytes == parent.nbytes
        assert report.pods_dirty == 0
    assert report.pods_shadow == report.pods_clean > 0
    parent[7] = -1.0
    report = repo.save(names).report
    assert report.pods_dirty == 0
    assert report.region_bytes == parent.nbytes
    loaded = repo.load(repo.save(names))
    assert loaded["view"][2] == loaded["flipped"][-8] == -1.0


def test_a_view_of_a_variable_that_was_not_touched(repo):
    names: dict[str, Any] = {"a": np.arange(1000.0), "b": [np.arange(9).reshape(3, 3)[1:]]}
    repo.save(names)
    names["c"] = names["a"][5:]
    names["d"] = names["b"][0].base[3:5]
    loaded = repo.load(repo.save(names, accessed=["c", "d"]))
    loaded["c"][0] = loaded["d"][0] = -1
    assert loaded["a"][5] == loaded["b"][0][0, 0] == -1


def test_a_view_that_outlives_its_array(repo):
    names: dict[str, Any] = {"a": np.arange(1000.0)}
    names["b"], names["c"] = names["a"][10:20], names["a"][15:30]
    repo.save(names)
    del names["a"]
    loaded = repo.load(repo.save(names, accessed=[]))
    assert loaded["b"].tolist() == list(range(10, 20))
    loaded = repo.load(repo.save(names))
    loaded["b"][5] = -1
    assert loaded["c"][0] == -1


def test_a_column_added_or_dropped_does_not_shift_the_others(repo):
    """Rows of a block begin chunks of their own."""
    rows = np.random.default_rng(1).random((6, 20_001))
    repo.save({"block": rows})
    assert repo.save({"block": rows[[0, 2, 3, 4, 5]]}).report.bytes_written < 6_000
    more = np.vstack([rows[:3], np.ones((1, 20_001)), rows[3:]])
    assert repo.save({"block": more}).report.bytes_written < 20_001 * 8 + 6_000
    assert repo.save({"block": np.asfortranarray(rows.T)}).report.bytes_written < 6_000


@pytest.mark.parametrize("value", ["x" * 70_000, "ü" * 70_000, "\U0001f40d" * 20_000, b"y" * 70_000, 7**200_000, bytearray(70_000)], ids=lambda value: type(value).__name__)
def test_long_atoms_are_regions(repo, value):
    version = repo.save({"value": [value, 1]})
    assert version.report.region_bytes >= 65_536
    assert repo.load(version)["value"][0] == value
    assert repo.save({"value": [value, 2]}).report.bytes_written < 2_500


def test_a_load_keeps_its_views_in_memory(repo):
    """A bytearray cannot be resized below an array that shows it."""
    content = bytearray(b"0123456789")
    loaded = repo.load(repo.save({"view": np.frombuffer(content, "u1")[2:4], "content": content}))
    with pytest.raises(BufferError):
        loaded["content"].extend(b"more")
    del loaded["view"]
    loaded["content"].extend(b"more")


def test_arrays_over_the_memory_of_other_objects(repo):
    numbers = array.array("d", range(20_000))
    table = np.zeros(9_000, dtype=[("n", "<i4"), ("x", "<f8")])
    matrix = np.matrix(np.arange(12.0).reshape(3, 4))
    content = memoryview(bytearray(range(100)))
    value = {
        "first": np.frombuffer(numbers)[3:7],
        "numbers": numbers,
        "table": table,
        "field": table["x"],
        "row": matrix.view(np.ndarray)[1],
        "matrix": matrix,
        "content": content,
        "bytes": np.frombuffer(content, "u1")[5:],
    }
    for _ in range(2):
        loaded = repo.load(repo.save(value))
        assert loaded["numbers"] == numbers
        loaded["numbers"][4] = loaded["field"][7] = loaded["matrix"][1, 2] = -1
        loaded["content"][6] = 255
        assert loaded["first"][1] == loaded["table"]["x"][7] == loaded["row"][2] == -1
        assert loaded["bytes"][1] == 255
        assert type(loaded["matrix"]) is np.matrix
    assert repo.save(value).report.bytes_written < 1_000


class Block:
    """What a third party may have: memory of its own, and arrays over it."""

    def __init__(self, memory: Any):
        self.memory = memory


class Samples(Block):
    """The same, saved through the buffer protocol alone."""


def test_a_registered_reducer_hands_out_memory(repo):
    chipmink.register_reducer(Block, lambda block: (Block, (block.memory,)))
    chipmink.register_reducer(Samples, lambda samples: (Samples, (pickle.PickleBuffer(samples.memory),)))
    numbers = np.random.default_rng(5).random(100_000)
    names = {"block": Block(numbers), "view": numbers[7:9], "samples": Samples(numbers * 2)}
    repo.save(names)
    numbers[7] = names["samples"].memory[50_000] = -1
    version = repo.save(names)
    assert version.report.bytes_written < 3 * 65_536
    loaded = repo.load(version)
    assert type(loaded["samples"].memory) is bytearray
    assert np.array_equal(np.frombuffer(loaded["samples"].memory), names["samples"].memory)
    loaded["block"].memory[8] = -2
    assert loaded["view"].tolist() == [-1, -2]


def _frames(pandas: Any) -> dict[str, Any]:
    rows = 9_000
    frame = pandas.DataFrame(
        {
            "a": np.arange(float(rows)),
            "b": np.arange(float(rows)) * 2,
            "c": np.arange(rows),
            # Of Python strings: what pandas makes of them by itself depends on whether pyarrow is there.
            "text": pandas.Series([f"t{i}" for i in range(rows)], dtype=object),
            "kind": pandas.Categorical(["u", "v"] * (rows // 2)),
            "whole": pandas.array([1, None] * (rows // 2), dtype="Int64"),
            "when": pandas.date_range("2024", periods=rows, freq="s"),
        }
    )
    return {
        "series": frame["a"],
        "frame": frame,
        "copy": frame.copy(deep=False),
        "part": frame[["a", "c", "whole", "when"]],
        "rows": frame.iloc[5:50],
        "index": frame.set_index("a", drop=False),
        "box": [frame["c"], frame.rename(columns=str.upper)],
    }


def _parts(names: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in names.items() if name != "box"} | dict(zip(("box0", "box1"), names["box"], strict=True))


def test_frames_that_share_lazily_never_see_each_others_writes(repo):
    pandas = pytest.importorskip("pandas")
    version = repo.save(_frames(pandas))
    want = _parts(_frames(pandas))
    for name, value in want.items():
        columns = [0] if value.ndim == 1 else range(value.shape[1])
        for column in columns:
            loaded = _parts(repo.load(version))
            if value.ndim == 1:
                loaded[name].iloc[3] = -1
            else:
                loaded[name].iloc[3, column] = loaded[name].iloc[4, column]
            for other, expected in want.items():
                if other != name:
                    check = pandas.testing.assert_series_equal if expected.ndim == 1 else pandas.testing.assert_frame_equal
                    check(loaded[other], expected)
            assert loaded["index"].index.equals(want["index"].index) or name == "index"
    loaded = repo.load(version)
    assert np.shares_memory(loaded["series"].to_numpy(), loaded["frame"]["a"].to_numpy())
    assert repo.save(_frames(pandas)).report.region_bytes == 5 * 9_000 * 8
