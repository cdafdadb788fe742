"""Restricted loads: data needs no grant, and a refusal says where it was met."""

from __future__ import annotations

import datetime
import os

import chipmink
import graph_types as kinds
import numpy
import pytest
from chipmink import NotAllowedError, Placeholder

ARRAYS = {
    "float64": numpy.arange(5.0),
    "big-endian": numpy.arange(5, dtype=">i4"),
    "bool": numpy.array([[True, False]]),
    "complex": numpy.ones((2, 2), "c8", order="F"),
    "large": numpy.arange(100_000, dtype="u2").reshape(100, -1),
    "datetimes": numpy.array(["2024-01-01", "NaT"], "M8[ns]"),
    "text": numpy.array(["a", "bcd"]),
    "bytes": numpy.array([b"a", b"bcd"]),
    "no elements": numpy.zeros((0, 3), "f4"),
    "no dimensions": numpy.array(1.5),
}


def test_plain_arrays_need_no_grant(repo):
    ARRAYS["no dimensions"].flags.writeable = False
    version = repo.save({"arrays": ARRAYS, "again": [ARRAYS["float64"]], "plain": {"a": [1, "b", (2.5, None)]}})
    loaded = repo.load(version, allow=[])
    for name, array in ARRAYS.items():
        assert loaded["arrays"][name].dtype == array.dtype
        numpy.testing.assert_array_equal(loaded["arrays"][name], array)
        assert loaded["arrays"][name].flags.writeable == array.flags.writeable
    assert loaded["again"][0] is loaded["arrays"]["float64"]
    assert loaded["plain"] == {"a": [1, "b", (2.5, None)]}
    streamed = chipmink.loads(chipmink.dumps(ARRAYS), allow=[])
    numpy.testing.assert_array_equal(streamed["large"], ARRAYS["large"])


def test_other_dtypes_need_one(repo):
    version = repo.save({"x": numpy.zeros(3, [("a", "i4"), ("b", "f8")])})
    with pytest.raises(NotAllowedError, match="numpy"):
        repo.load(version, allow=[])


class Slotted:
    __slots__ = ("first", "second")

    def __init__(self, second):
        self.first, self.second = 1, second


def nested(value):
    record = kinds.Record(1, {"deep": [0, (1, value)]})
    return [[], {"a": 1, "key": record}]


NESTED = {
    "list": (lambda value: [1, 2, value], "x[2]"),
    "tuple": (lambda value: (1, value), "x[1]"),
    "tuple in tuples": (lambda value: ((0, 1), (2, (3, 4, value))), "x[1][1][2]"),
    "dict": (lambda value: {"a": 1, 5: value}, "x[5]"),
    "attributes": (nested, "x[1]['key'].content['deep'][1][1]"),
    "slots": (lambda value: [Slotted(value)], "x[0].second"),
    "key": (lambda value: {value: 1}, "x.keys()"),
    "array of objects": (lambda value: numpy.array([None, value, None], object), "x.flat[1]"),
    "alone": (lambda value: value, "x"),
}
GRANTS = ["graph_types.Record", f"{Slotted.__module__}.Slotted", "builtins.list", "builtins.dict"]


@pytest.mark.parametrize("policy", ["bundle-all", "lga-siblings", "split-all"])
@pytest.mark.parametrize("name", NESTED)
def test_a_refusal_says_where(tmp_path, name, policy):
    make, path = NESTED[name]
    with chipmink.open(tmp_path / "repo", durable=False, policy=policy) as repo:
        by_name = repo.save({"a": 1, "x": make(os.getcwd)})
        reduced = repo.save({"a": 1, "x": make(datetime.timedelta(1))})
        for version, refused in ((by_name, "getcwd"), (reduced, "datetime.timedelta")):
            with pytest.raises(NotAllowedError) as failure:
                repo.load(version, allow=GRANTS)
            assert refused in str(failure.value)
            assert f" at {path};" in str(failure.value)


@pytest.mark.parametrize("name", [name for name in NESTED if name != "key"])
def test_a_placeholder_says_where(repo, name):
    make, path = NESTED[name]
    with pytest.warns(chipmink.SkippedVariableWarning):
        version = repo.save({"a": 1, "x": make(i for i in range(3))})
    found = repo.load(version)["x"]
    lost = []

    def look(value):
        if isinstance(value, Placeholder):
            lost.append(value)
        elif isinstance(value, (list, tuple)):
            for item in value:
                look(item)
        elif isinstance(value, numpy.ndarray):
            look(value.tolist())
        elif isinstance(value, dict):
            look(list(value.values()))
        elif isinstance(value, Slotted):
            look(value.second)
        elif isinstance(value, kinds.Record):
            look(value.content)

    look(found)
    assert len(lost) == 1
    assert f" at {path}: " in repr(lost[0])


def test_a_stream_has_no_variables():
    with pytest.raises(NotAllowedError, match=r" at \[1\]\['k'\];"):
        chipmink.loads(chipmink.dumps([0, {"k": datetime.timedelta(1)}]), allow=[])


def test_long_paths_are_cut(repo):
    value = datetime.timedelta(1)
    for _ in range(200):
        value = [value]
    with pytest.raises(NotAllowedError, match="…") as failure:
        repo.load(repo.save({"x": value}), allow=[])
    assert len(str(failure.value)) < 400


class Fails:
    def __setstate__(self, state):
        raise RuntimeError("not again")


def test_an_exception_of_the_program_says_where(repo):
    failing = Fails()
    failing.x = 1
    version = repo.save({"good": 1, "bad": [0, {"key": failing}], "gone": os.getcwd})
    with pytest.raises(RuntimeError, match="^not again") as failure:
        repo.load(version)
    assert failure.value.__notes__ == ["raised while bad[1]['key'] was loaded; load the other variables by their names"]
    assert repo.load(version, names=["good"]) == {"good": 1}
    with pytest.raises(RuntimeError) as failure:
        chipmink.loads(chipmink.dumps([failing]))
    assert failure.value.__notes__ == ["raised while [0] was loaded"]


def gone_later():
    pass


def test_a_name_that_is_gone_says_where(repo, monkeypatch):
    gone_later.__module__ = kinds.__name__
    monkeypatch.setattr(kinds, "gone_later", gone_later, raising=False)
    version = repo.save({"alone": gone_later, "other": 1})
    monkeypatch.undo()
    with pytest.raises(AttributeError, match="gone_later") as failure:
        repo.load(version)
    assert failure.value.__notes__ == ["raised while alone was loaded; load the other variables by their names"]
