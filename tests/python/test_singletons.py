"""Objects of a program that want to be saved under a name in its own module, where no other program finds them."""

from __future__ import annotations

import chipmink
import pytest
from reducing import run

SCRIPT = """
    class Missing:
        only = None
        def __new__(cls):
            if cls.only is None:
                cls.only = super().__new__(cls)
            return cls.only
        def __reduce__(self):
            return "MISSING"
    MISSING = Missing()
    MISSING.note = ["kept"]
    class Slotted:
        __slots__ = ("value", "unset")
        def __reduce__(self):
            return "SLOTTED"
    SLOTTED = Slotted()
    SLOTTED.value = MISSING
    table = {"a": MISSING, "b": [MISSING, SLOTTED]}
    def is_missing(value):
        return value is MISSING
"""


@pytest.fixture
def program():
    return run(SCRIPT)


def test_they_are_saved_by_value_and_stay_single(repo, program):
    for _ in range(2):
        version = repo.save(program)
        assert version.report.skipped == version.report.stubs == ()
    assert version.report.pods_dirty == 0
    loaded = repo.load(version)
    missing = loaded["MISSING"]
    assert loaded["table"]["a"] is loaded["table"]["b"][0] is loaded["SLOTTED"].value is loaded["Missing"].only is missing
    assert loaded["Missing"]() is missing
    assert missing.note == ["kept"]
    assert loaded["table"]["b"][1] is loaded["SLOTTED"]
    assert not hasattr(loaded["SLOTTED"], "unset")
    assert loaded["is_missing"](missing)


def test_parts_of_a_version_have_them(repo, program):
    version = repo.save(program)
    table = repo.load(version, names=["table"])["table"]
    assert table["a"] is table["b"][0]
    assert table["a"].note == ["kept"]
    view = repo.at(version)
    assert view["table"]["a"] is view["MISSING"]


def test_a_checkout_keeps_one(repo, program):
    first = repo.save(program)
    program["table"]["c"] = 1
    repo.save(program)
    repo.checkout(first, program)
    assert "c" not in program["table"]
    assert program["is_missing"](program["table"]["a"])
    assert program["table"]["b"][1].value is program["MISSING"]


def test_streams_hold_them_by_value(program):
    loaded = chipmink.loads(chipmink.dumps(program["table"]))
    assert loaded["a"] is loaded["b"][0] is loaded["b"][1].value
    assert loaded["a"].note == ["kept"]


class Lost:
    """Of a module that can be imported, in which nothing of that name is found."""

    def __reduce__(self):
        return "NOWHERE"


def test_a_name_that_an_import_would_not_find_is_refused(repo):
    with pytest.warns(chipmink.SkippedVariableWarning, match="lost.*saved by name.*NOWHERE"):
        saved = repo.save({"lost": [Lost()], "other": [1]})
    assert [skip.variable for skip in saved.report.skipped] == ["lost"]
    assert repo.load(saved)["other"] == [1]
