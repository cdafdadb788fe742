"""numpy's scalars: exact types and values, sharing, and change noticed."""

from __future__ import annotations

import pickle
from typing import Any

import chipmink
import pytest

np = pytest.importorskip("numpy")

#: Of every fixed-size type the extremes and what compares oddly; types that go through their reducers, too.
VALUES: list[Any] = [
    *(np.bool_(flag) for flag in (False, True)),
    *(kind(limit) for kind in (np.int8, np.int16, np.int32, np.int64) for limit in (np.iinfo(kind).min, -1, np.iinfo(kind).max)),
    *(kind(limit) for kind in (np.uint8, np.uint16, np.uint32, np.uint64) for limit in (0, 1, np.iinfo(kind).max)),
    *(kind(x) for kind in (np.float16, np.float32, np.float64) for x in (0.0, -0.0, 1.1, float("inf"), float("nan"))),
    *(kind(complex(1.1, -0.0)) for kind in (np.complex64, np.complex128)),
    np.longdouble("1.1"),
    np.datetime64("2020-01-02T03", "h"),
    np.timedelta64(3, "s"),
    np.str_("text"),
    np.bytes_(b"bytes"),
    np.void(b"\x01\x02"),
]


class Length(np.float64):
    """A subclass that says itself how it is made again; numpy's own reducer would forget it."""

    def __reduce__(self) -> Any:
        return Length, (float(self),)


def same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and left.dtype == right.dtype and left.tobytes() == right.tobytes()


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}-{value}")
def test_round_trip(value, tmp_path):
    assert same(chipmink.loads(chipmink.dumps(value)), value)
    with chipmink.open(tmp_path / "repo", durable=False) as repo:
        loaded = repo.load(repo.save({"alone": value, "inside": [value, [value]]}))
    assert same(loaded["alone"], value)
    assert loaded["inside"][0] is loaded["inside"][1][0] is loaded["alone"]


def test_a_subclass_keeps_its_type():
    loaded = chipmink.loads(chipmink.dumps(Length(2.5)))
    assert type(loaded) is Length
    assert loaded == 2.5


def test_many_with_one_shared_between_variables(tmp_path):
    shared = np.float64(1.5)
    namespace: dict[str, Any] = {
        "table": {f"k{i}": np.int64(i) for i in range(2_000)},
        "left": [shared, np.float32(2)],
        "right": {"s": shared, "equal": np.float64(1.5)},
    }
    with chipmink.open(tmp_path / "repo", durable=False) as repo:
        loaded = repo.load(repo.save(namespace))
        assert loaded["table"] == namespace["table"]
        assert {type(value) for value in loaded["table"].values()} == {np.int64}
        assert loaded["left"][0] is loaded["right"]["s"]
        assert loaded["right"]["equal"] is not loaded["right"]["s"]


def test_another_value_is_noticed(tmp_path):
    """Each changed place is found though the new scalar lies where the old one lay, and nothing is stored without a change."""
    table = {f"k{i}": np.int64(i) for i in range(500)}
    with chipmink.open(tmp_path / "repo", durable=False) as repo:
        for _ in range(3):
            report = repo.save({"table": table}).report
        assert report.pods_dirty == 0
        assert report.pods_shadow >= 1
        for i in range(0, 500, 50):
            del table[f"k{i}"]
            table[f"k{i}"] = np.int64(-i - 1)
            saved = repo.save({"table": table})
            assert repo.load(saved)["table"] == table
        table["k1"] = np.int32(1)
        assert type(repo.load(repo.save({"table": table}))["table"]["k1"]) is np.int32


def test_a_registered_reducer_comes_first(monkeypatch):
    import copyreg

    seen = []

    def reduce(value: Any) -> Any:
        seen.append(value)
        return np.int16, (int(value),)

    monkeypatch.setitem(copyreg.dispatch_table, np.int16, reduce)
    assert same(chipmink.loads(chipmink.dumps(np.int16(7))), np.int16(7))
    assert len(seen) == 1


def test_says_what_pickle_says():
    """The same call of the same callable, so that whoever may load the one may load the other."""
    with pytest.raises(chipmink.NotAllowedError) as refused:
        chipmink.loads(chipmink.dumps(np.int64(5)), allow=[])
    assert pickle.loads(pickle.dumps(np.int64(5))) == 5
    assert "scalar" in str(refused.value)
