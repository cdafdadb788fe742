"""What numpy offers beyond plain arrays of numbers: dtypes with fields, subclasses, masks, files mapped into memory."""

from __future__ import annotations

import os
from typing import Any

import chipmink
import pytest

np = pytest.importorskip("numpy")

POINT = [("x", "<i4"), ("y", ">f8")]
RNG = np.random.default_rng(7)


def copies(repo: chipmink.Repository, value: Any) -> list[Any]:
    """A value loaded from a repository after two saves, and from a stream."""
    repo.save({"value": value})
    return [repo.load(repo.save({"value": value}))["value"], chipmink.loads(chipmink.dumps(value))]


def same(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    assert left.dtype.__reduce__() == right.dtype.__reduce__()
    assert left.shape == right.shape
    assert left.flags.writeable == right.flags.writeable
    assert left.flags.f_contiguous == right.flags.f_contiguous or left.ndim < 2
    assert left.tobytes() == right.tobytes()


DTYPES = {
    "fields": np.dtype(POINT),
    "nested": np.dtype([("p", POINT), ("q", POINT, (2, 3)), ("s", "S5"), ("u", "U3")]),
    "gaps": np.dtype({"names": ["b", "a"], "formats": ["i2", "f4"], "offsets": [9, 1], "itemsize": 16}),
    "overlap": np.dtype({"names": ["all", "low"], "formats": ["u4", "u1"], "offsets": [0, 0]}),
    "aligned": np.dtype([("a", "i1"), ("b", "f8")], align=True),
    "titles": np.dtype([(("the first", "a"), "i1"), ("b", "f8")]),
    "metadata": np.dtype([("a", "i1")], metadata={"unit": "m"}),
    "no fields": np.dtype([]),
    "record": np.dtype((np.record, POINT)),
    "void": np.dtype("V7"),
    "bytes": np.dtype("S9"),
    "text": np.dtype("<U9"),
    "big text": np.dtype(">U9"),
    "date": np.dtype("M8[25s]"),
    "span": np.dtype("<m8[ns]"),
    "longdouble": np.dtype("g"),
    "half": np.dtype("e"),
}


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("length", [0, 5, 20_000])
def test_dtypes(repo, name, length):
    dtype = DTYPES[name]
    raw = RNG.integers(1, 100, length * max(1, dtype.itemsize), dtype="u1")
    raw = raw[: length * dtype.itemsize]
    if dtype.itemsize == 0:
        array = np.zeros(length, dtype)
    elif dtype.kind == "U":
        array = np.array([f"ü{i}" for i in range(length)], dtype)
    elif dtype.char == "g":
        array = raw[:length].astype(dtype)
    elif dtype.names is not None and "u" in dtype.names:
        array = np.zeros(length, dtype)
        array["q"]["x"] = 3
        array["u"] = "ab"
    else:
        array = raw.view(dtype)
    for copy in copies(repo, array):
        same(array, copy)
    for copy in copies(repo, dtype):
        assert copy.__reduce__() == dtype.__reduce__()


def test_a_dtype_with_fields_connects_no_variables(repo):
    dtype = np.dtype(POINT)
    names = {"a": np.zeros(50_000, dtype), "b": np.zeros(9, dtype), "c": dtype}
    repo.save(names)
    names["b"]["x"] = 4
    assert repo.save(names, accessed=["b"]).report.region_bytes == 0
    assert repo.load()["b"]["x"].tolist() == [4] * 9


def _structured() -> Any:
    table = np.zeros(30_000, POINT)
    table["x"] = np.arange(30_000)
    return {"whole": table, "rows": table[5:90], "field": table["x"], "part": table[["y"]], "turned": table[::-1]}


def _recarray() -> Any:
    table = np.rec.fromarrays([np.arange(30_000), np.arange(30_000.0)], names="x,y")
    return {"whole": table, "rows": table[5:90], "field": table.x, "plain": table.view(np.ndarray)[3:]}


def _matrix() -> Any:
    whole = np.arange(40_000.0).reshape(200, 200).view(np.matrix)
    return {"row": whole[1], "whole": whole, "plain": whole.view(np.ndarray)[:, 3], "turned": whole.T}


def _masked() -> Any:
    whole = np.ma.masked_array(np.arange(30_000.0), mask=np.arange(30_000) % 3 == 0, fill_value=-7.0)
    return {"rows": whole[4:900], "whole": whole, "data": whole.data[10:], "mask": whole.mask}


class Named(np.ndarray):
    """A subclass with an attribute of its own."""

    label: Any = None

    def __array_finalize__(self, obj: Any) -> None:
        self.label = getattr(obj, "label", None)


def _subclass() -> Any:
    whole = np.arange(30_000.0).view(Named)
    whole.label = ["a", whole]
    return {"whole": whole, "rows": whole[3:8], "plain": np.asarray(whole)[5:7]}


def _unaligned() -> Any:
    memory = bytearray(range(256)) * 400
    return {"one": np.frombuffer(memory, "<f4", 9_000, 3), "two": np.frombuffer(memory, "<i2", 9_000, 5), "raw": memory}


def _memoryviews() -> Any:
    memory = bytearray(range(256)) * 400
    view = memoryview(memory)
    return {"part": view[7:90_000], "step": view[3:900:7], "words": view[8:808].cast("H"), "read": view[5:90].toreadonly(), "raw": memory}


@pytest.mark.parametrize("make", [_structured, _recarray, _matrix, _masked, _subclass, _unaligned, _memoryviews])
@pytest.mark.parametrize("backwards", [False, True])
def test_what_lies_over_one_memory_does_so_again(repo, make, backwards):
    """Written through each in turn, it is seen in all others where it was before the save, and the bytes are stored once."""

    def ordered() -> Any:
        made = make()
        return dict(reversed(made.items())) if backwards else made

    held = ordered()
    first = repo.save({"value": held})
    assert first.report.region_bytes <= 1.3 * max(np.asarray(part).nbytes for part in held.values())
    assert repo.save({"value": held}).report.pods_dirty == 0
    for copy in [repo.load(first)["value"], chipmink.loads(chipmink.dumps(held))]:
        value = ordered()
        for name, part in value.items():
            assert type(copy[name]) is type(part)
        for name, part in value.items():
            before = {other: bytes(np.asarray(value[other]).tobytes()) for other in value}
            if not _write(part):
                continue
            assert _write(copy[name])
            for other in value:
                assert np.asarray(copy[other]).tobytes() == np.asarray(value[other]).tobytes(), (name, other)
            assert any(np.asarray(value[other]).tobytes() != before[other] for other in value)


def _write(part: Any) -> bool:
    plain = np.asarray(part)
    if not plain.flags.writeable or not plain.size:
        return False
    if plain.dtype.names is not None:
        plain = plain[plain.dtype.names[-1]]
    index = (plain.shape[0] // 3, *([0] * (plain.ndim - 1)))
    plain[index] = not plain[index] if plain.dtype.kind == "b" else 3 if plain[index] != 3 else 4
    return True


def test_masked_arrays_are_what_they_were(repo):
    shared = np.ma.masked_array([1.0, 2.0, 3.0], mask=[0, 1, 0])
    hard = np.ma.masked_array(np.arange(6).reshape(2, 3), mask=np.ma.nomask, hard_mask=True)
    table = np.ma.masked_array(np.zeros(3, POINT), mask=[(0, 1), (1, 0), (0, 0)])
    for value in (shared, hard, table, np.ma.masked, np.ma.masked_array(5, mask=True), shared[:0]):
        for copy in copies(repo, value):
            assert type(copy) is type(value)
            assert str(copy) == str(value)
            assert copy.dtype == value.dtype
            assert (copy.mask is np.ma.nomask) == (value.mask is np.ma.nomask)
            assert copy.hardmask == value.hardmask
            assert value is np.ma.masked or np.array_equal(copy.fill_value, value.fill_value)
    copy = copies(repo, hard)[0]
    copy[0, 0] = np.ma.masked
    assert copy.mask[0, 0]
    assert not np.ma.getmaskarray(hard)[0, 0]


def test_strings_of_any_length(repo):
    dtype = np.dtypes.StringDType(na_object=None)
    value = np.array(["", "x" * 300, None, "ü\0y", "short"] * 20, dtype).reshape(10, 10)
    for copy in copies(repo, {"a": value, "b": value.T}):
        assert copy["a"].dtype == dtype
        assert copy["a"].tolist() == value.tolist()
        assert copy["b"].tolist() == value.T.tolist()
    names = {"value": value}
    repo.save(names)
    assert repo.save(names).report.pods_dirty == 0


def test_objects_and_numbers_in_one_dtype(repo):
    value = np.array([(1, [2]), (3, None)], dtype=[("n", "i4"), ("o", "O")])
    value["o"][1] = value["o"][0]
    for copy in copies(repo, value):
        assert copy.tolist() == value.tolist()
        assert copy["o"][0] is copy["o"][1]


@pytest.fixture
def file(tmp_path):
    """A file of numbers that was written a while ago."""
    path = tmp_path / "numbers.bin"
    np.arange(60_000.0).tofile(path)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return path


def test_a_file_mapped_for_reading_is_mapped_again(repo, file):
    whole = np.memmap(file, "f8", "r", shape=(300, 200), order="F")
    late = np.memmap(file, "f8", "r", offset=8_008)
    value = {"whole": whole, "rows": whole[:, 3:5], "late": late[2:9], "step": whole[::2]}
    for copy in copies(repo, value):
        for name, part in value.items():
            assert type(copy[name]) is np.memmap
            assert np.array_equal(copy[name], part)
            assert not copy[name].flags.writeable
        assert copy["whole"].filename == str(file)
        assert copy["whole"].mode == copy["late"].mode == "r"
        assert copy["whole"].flags.f_contiguous


@pytest.mark.parametrize("spoil", ["gone", "written", "shorter", "touched"])
def test_a_mapped_file_that_is_another_counts_as_it_was(repo, file, spoil):
    value = np.memmap(file, "f8", "r")
    version = repo.save({"value": value})
    if spoil == "gone":
        file.unlink()
    elif spoil == "written":
        np.zeros(60_000).tofile(file)
    elif spoil == "shorter":
        np.zeros(6).tofile(file)
        os.utime(file, (1_000_000_000, 1_000_000_000))
    else:
        os.utime(file)
    copy = repo.load(version)["value"]
    assert type(copy) is np.memmap
    assert copy.filename is None
    assert np.array_equal(copy, np.arange(60_000.0))


@pytest.mark.parametrize("mode", ["r+", "c"])
def test_a_file_mapped_for_writing_comes_back_without_it(repo, file, mode):
    value = np.memmap(file, "f8", mode)
    value[5] = -1
    version = repo.save({"value": value, "part": value[3:7]})
    value[5] = -2
    value.flush()
    held = file.read_bytes()
    loaded = repo.load(version)
    assert type(loaded["value"]) is np.memmap
    assert loaded["value"][5] == -1
    loaded["value"][5] = -3
    assert loaded["part"][2] == -3
    assert file.read_bytes() == held


@pytest.mark.parametrize("mode", ["r", "r+", "c", "w+"])
@pytest.mark.parametrize("length", [10, 60_000])
def test_mapped_files_go_through_streams_by_value(tmp_path, mode, length):
    """What nobody can name in a stream was to be its own value there: the mapping that an array lies in."""
    path = tmp_path / "fresh.bin"
    np.arange(float(length)).tofile(path)
    value = np.memmap(path, "f8", mode, shape=(length,))
    if mode == "w+":
        value[:] = np.arange(float(length))
    whole = {"value": value, "part": value[3:7], "plain": value.view(np.ndarray)[2:], "view": memoryview(value)[1:5]}
    for held in (value, whole, list(reversed(whole.values()))):
        loaded = chipmink.loads(chipmink.dumps(held))
        if type(held) is dict:
            assert type(loaded["value"]) is np.memmap
            assert np.array_equal(loaded["value"], value)
            assert loaded["view"].tolist() == [1, 2, 3, 4]
            if mode != "r":
                loaded["value"][4] = -1
                assert loaded["part"][1] == loaded["plain"][2] == -1
    assert value[4] == 4


def test_arrays_of_very_many_items_that_are_one(repo):
    value = [np.broadcast_to(np.int8(3), 1 << 62), np.broadcast_to(np.arange(20_000.0), (1 << 40, 20_000))]
    for copy in copies(repo, value):
        assert copy[0].shape == (1 << 62,)
        assert copy[0].strides == (0,)
        assert copy[0][1 << 61] == 3
        assert copy[1].strides == value[1].strides
        assert np.array_equal(copy[1][1 << 39], np.arange(20_000.0))
