"""What pyarrow, polars and pandas' arrow-backed columns hold: by its buffers, in place, shared again after a load."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import chipmink
import pytest

np = pytest.importorskip("numpy")
pa = pytest.importorskip("pyarrow")

RNG = np.random.default_rng(3)


def copies(repo: chipmink.Repository, value: Any) -> list[Any]:
    """A value loaded from a repository after two saves, and from a stream."""
    repo.save({"value": value})
    return [repo.load(repo.save({"value": value}))["value"], chipmink.loads(chipmink.dumps(value))]


def _arrays() -> dict[str, Any]:
    texts = [None if i % 7 == 0 else f"text {i}" for i in range(300)]
    made = {
        "empty": pa.array([], pa.int64()),
        "null": pa.nulls(300),
        "bool": pa.array([i % 3 == 0 if i % 5 else None for i in range(300)]),
        "int": pa.array(range(300), pa.int16()),
        "float": pa.array(RNG.random(300)),
        "half": pa.array(RNG.random(300).astype("f2")),
        "date": pa.array([datetime.date(2024, 1, 1)] * 300),
        "time": pa.array([datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)] * 300, pa.timestamp("us", "UTC")),
        "decimal": pa.array([decimal.Decimal("1.25")] * 300),
        "fixed": pa.array([b"abc", None, b"xyz"] * 100, pa.binary(3)),
        "text": pa.array(texts),
        "large text": pa.array(texts, pa.large_string()),
        "view": pa.array([text and text * 5 for text in texts], pa.string_view()),
        "bytes": pa.array([b"a" * (i % 9) for i in range(300)]),
        "dictionary": pa.array(["u", "v", None] * 100).dictionary_encode(),
        "list": pa.array([[i, None] * (i % 3) for i in range(300)]),
        "struct": pa.array([{"a": i, "b": f"x{i}"} for i in range(300)]),
        "map": pa.array([[(f"k{i}", i)] for i in range(300)], pa.map_(pa.string(), pa.int32())),
        "union": pa.UnionArray.from_dense(pa.array([0, 1] * 2, pa.int8()), pa.array([0, 0, 1, 1], pa.int32()), [pa.array([1, 2]), pa.array(["a", "b"])]),
        "runs": pa.RunEndEncodedArray.from_arrays([100, 300], ["a", "b"]),
    }  # fmt: skip
    made["chunks"] = pa.chunked_array([made["text"], made["text"].slice(5, 20), made["text"].slice(0, 0)])
    made["batch"] = pa.record_batch({"a": made["int"], "b": made["struct"]})
    made["table"] = pa.table({"a": made["int"], "b": made["dictionary"]}).replace_schema_metadata({"k": "v"})
    return made


@pytest.mark.parametrize("name", list(_arrays()))
def test_arrays(repo, name):
    whole = _arrays()[name]
    parts = [whole, whole.slice(3), whole.slice(17, 9), whole.slice(8, 200), whole.slice(1, 0)]
    for copy in copies(repo, parts):
        for part, loaded in zip(parts, copy, strict=True):
            loaded.validate(full=True)
            assert type(loaded) is type(part)
            assert loaded.equals(part)
            if name != "chunks":
                described = loaded.schema if hasattr(loaded, "schema") else loaded.type
                assert described.equals(part.schema if hasattr(part, "schema") else part.type, check_metadata=True)


def test_types_fields_and_schemas_connect_nothing(repo):
    table = pa.table({"x": np.arange(50_000)})
    names = {"table": table, "other": pa.array([1, 2]), "type": pa.int64(), "schema": table.schema, "field": table.schema.field(0)}
    version = repo.save(names)
    for name, loaded in repo.load(version).items():
        assert loaded.equals(names[name])
    names["more"] = pa.array([3])
    assert repo.save(names, accessed=["other", "type", "schema", "field"]).report.region_bytes == 0


def _addresses(array: Any) -> list[int]:
    return [buffer.address for buffer in array.buffers() if buffer is not None]


def test_arrays_over_one_buffer_are_so_again(repo):
    whole = pa.array([f"text number {i}" for i in range(20_000)])
    memory = np.arange(20_000.0)
    numbers = pa.array(memory)
    value = {
        "late": whole.slice(5_000),
        "whole": whole,
        "table": pa.table({"a": whole, "b": numbers}),
        "numbers": numbers,
        "memory": memory,
        "buffer": whole.buffers()[2],
    }
    version = repo.save(value)
    held = sum(buffer.size for buffer in [*whole.buffers(), *numbers.buffers()] if buffer is not None)
    assert version.report.region_bytes <= held + 64
    assert repo.save(value).report.pods_dirty == 0
    for copy in [repo.load(version), chipmink.loads(chipmink.dumps(value))]:
        assert copy["table"].equals(value["table"])
        assert copy["late"].equals(value["late"])
        assert _addresses(copy["late"]) == _addresses(copy["whole"]) == _addresses(copy["table"]["a"].chunk(0))
        assert copy["buffer"].address == _addresses(copy["whole"])[-1]
        assert _addresses(copy["numbers"]) == _addresses(copy["table"]["b"].chunk(0)) == [copy["memory"].ctypes.data]


def test_a_short_slice_before_its_array_shares_its_memory(repo):
    """What has the memory is made anew at each walk, also between the two that find out how it is shared."""
    whole = pa.array(np.arange(200_000))
    value = {"few": whole.slice(190_000, 50), "whole": whole, "early": whole.slice(8, 90_000)}
    for _ in range(3):
        version = repo.save(value)
        assert repo.load(version, names=["few"])["few"].equals(value["few"])
        loaded = repo.load(version)
        assert all(loaded[name].equals(value[name]) for name in value)
        start = loaded["whole"].buffers()[1].address
        for name in ("few", "early"):
            first = loaded[name].buffers()[1].address + 8 * loaded[name].offset
            assert first - start == 8 * value[name].offset
        held = [repo.save(value).report.pods_dirty for _ in range(2)]
    assert held == [0, 0]


def test_what_reducers_make_anew_stays_the_same_wherever_it_lies(repo):
    """Buffers are wrapped anew at each save; where the wrappers lay had a say in what was stored."""
    names = {f"a{i}": pa.array([i, i + 1, None]) for i in range(40)}
    names["table"] = pa.table({"x": np.arange(50_000), "s": [f"t{i}" for i in range(50_000)]})
    repo.save(names)
    for turn in range(6):
        # Other addresses for what comes next.
        hold = [pa.array([turn]).buffers()[1] for _ in range(7 * turn)]
        assert repo.save(names).report.pods_dirty == 0, turn
        names[f"new{turn}"] = pa.array([turn])
        report = repo.save(names, accessed=["a1", "a2"]).report
        assert report.region_bytes == 0, turn
        del hold


def test_a_short_slice_leaves_the_rest_behind(repo):
    whole = pa.table({"n": np.arange(200_000), "s": [f"text number {i}" for i in range(200_000)]})
    version = repo.save({"slice": whole.slice(100_003, 50)})
    assert version.report.bytes_written < 6_000
    assert repo.load(version)["slice"].equals(whole.slice(100_003, 50))


def test_buffers_of_every_owner(repo):
    memory = bytearray(range(200))
    value = [pa.py_buffer(b"abc"), pa.py_buffer(memory), pa.py_buffer(b""), pa.allocate_buffer(70_000), pa.py_buffer(memory).slice(3, 9)]
    for copy in copies(repo, [memory, *value]):
        for buffer, loaded in zip(value, copy[1:], strict=True):
            assert loaded.equals(buffer)
        copy[0][4] = 255
        assert copy[2][4] == copy[5][1] == 255


def _frame(pandas: Any, rows: int) -> Any:
    return pandas.DataFrame(
        {
            "n": np.arange(rows),
            "text": pandas.Series([None if i % 7 == 0 else f"t{i}" for i in range(rows)], dtype="str"),
            "old text": pandas.Series([f"t{i}" for i in range(rows)], dtype="string"),
            "x": pandas.array(np.arange(float(rows)), dtype="float64[pyarrow]"),
            "when": pandas.date_range("2024", periods=rows, freq="s", tz="Europe/Berlin"),
            "whole": pandas.array([1, None] * (rows // 2), dtype="Int64"),
        }
    )


def test_frames(repo):
    pandas = pytest.importorskip("pandas")
    frame = _frame(pandas, 9_000)
    value = {"frame": frame, "rows": frame.iloc[30:70], "text": frame["text"], "kinds": list(frame.dtypes), "index": frame.set_index("text").index}
    loaded = copies(repo, value)
    assert repo.save({"value": value}).report.pods_dirty == 0
    for copy in loaded:
        pandas.testing.assert_frame_equal(copy["frame"], frame)
        pandas.testing.assert_frame_equal(copy["rows"], value["rows"])
        pandas.testing.assert_series_equal(copy["text"], value["text"])
        pandas.testing.assert_index_equal(copy["index"], value["index"])
        assert copy["kinds"] == value["kinds"]
        copy["frame"].loc[31, "text"] = "changed"
        copy["frame"].loc[31, "x"] = -1.0
        pandas.testing.assert_frame_equal(copy["rows"], value["rows"])
        pandas.testing.assert_series_equal(copy["text"], value["text"])
        assert "_metadata" not in copy["frame"].__dict__


def test_frames_do_not_share_what_all_frames_have(repo):
    """Dtypes, time zones and lists of the class belong to nobody, so a change of one frame does not touch the others."""
    pandas = pytest.importorskip("pandas")
    names = {"a": _frame(pandas, 9_000), "b": _frame(pandas, 10), "c": _frame(pandas, 12)["text"], "zone": datetime.UTC}
    repo.save(names)
    names["b"].loc[3, "n"] = 7
    for _ in range(5):
        names["new"] = _frame(pandas, 14)
        assert repo.save(names, accessed=["b", "c"]).report.region_bytes == 0
    assert repo.load()["zone"] is datetime.UTC


def test_subclasses_of_frames_keep_what_they_add(repo):
    pandas = pytest.importorskip("pandas")

    class Measured(pandas.DataFrame):  # type: ignore[misc,name-defined]
        _metadata = ["unit"]

        @property
        def _constructor(self) -> Any:
            return Measured

    frame = Measured({"a": [1, 2]})
    frame.unit = ["mm"]
    frame.attrs["source"] = frame.unit
    for copy in copies(repo, frame):
        assert copy.unit is copy.attrs["source"]
        assert copy.unit == ["mm"]
        assert type(copy).__name__ == "Measured"
        assert copy.iloc[:1].unit == ["mm"]


def test_columns_of_a_million_strings(repo):
    """One buffer each, however many strings: nothing is met string by string."""
    pandas = pytest.importorskip("pandas")
    texts = pandas.Series(pa.array([f"{i:07}" for i in range(1_000_000)]), dtype="str")
    first = repo.save({"texts": texts})
    assert first.report.objects < 200
    texts.iloc[500_000] = "changed"
    assert repo.save({"texts": texts}).report.objects < 200
    assert repo.load(first)["texts"].iloc[500_000] == "0500000"
    assert repo.load()["texts"].iloc[500_000] == "changed"


def test_polars(repo):
    polars = pytest.importorskip("polars")
    rows = 9_000
    frame = polars.DataFrame(
        {
            "n": np.arange(rows),
            "text": [None if i % 7 == 0 else f"text number {i}" for i in range(rows)],
            "flag": [i % 3 == 0 for i in range(rows)],
            "when": [datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)] * rows,
            "bytes": [b"x" * (i % 20) for i in range(rows)],
        }
    )
    value = {
        "frame": frame,
        "rows": frame[40:60],
        "series": frame["n"].set_sorted(),
        "chunks": polars.concat([frame["text"], frame["text"]], rechunk=False),
        "empty": polars.DataFrame(),
        "kinds": polars.Series("k", ["a", "b", "a"], dtype=polars.Categorical),
        "lists": polars.DataFrame({"l": [[1], [], [2, 3]]}),
        "lazy": frame.lazy().select("n"),
    }
    for copy in copies(repo, value):
        for name, part in value.items():
            assert type(copy[name]) is type(part)
            if name != "lazy":
                assert copy[name].equals(part)
        assert copy["frame"].schema == frame.schema
        assert copy["series"].flags == value["series"].flags
        assert copy["lazy"].collect().equals(frame.select("n"))
    names = {"series": value["series"], "numbers": frame.select("n", "when"), "kinds": value["kinds"]}
    repo.save(names)
    assert repo.save(names).report.pods_dirty == 0


def test_a_polars_frame_shares_the_memory_of_its_columns(repo):
    polars = pytest.importorskip("polars")
    numbers = np.arange(50_000.0)
    frame = polars.DataFrame({"x": numbers, "y": numbers * 2})
    version = repo.save({"frame": frame, "x": frame["x"], "also": frame.select("y")})
    assert version.report.region_bytes == 2 * numbers.nbytes
    loaded = repo.load(version)
    address = [part.to_arrow().buffers()[1].address for part in (loaded["frame"]["x"], loaded["x"], loaded["frame"]["y"], loaded["also"]["y"])]
    assert address[0] == address[1]
    assert address[2] == address[3]
