"""Functions whose globals are a dict that is saved, too: they are bound to that dict again."""

from __future__ import annotations

import chipmink
import pytest
from reducing import run

SCRIPT = """
    count = 0
    table = {"a": 1}
    def bump(by=1):
        global count
        count += by
        return count
    def look(key): return table[key], bump
    class Counter:
        def bump(self): return bump(10)
"""


@pytest.mark.parametrize("order", ["scope first", "functions first"])
def test_a_dict_and_what_was_made_in_it(repo, order):
    scope = run(SCRIPT, "script")
    names = {"bump": scope["bump"], "counter": scope["Counter"](), "box": [scope["look"]], "scope": scope}
    if order == "scope first":
        names = dict(reversed(names.items()))
    for _ in range(2):
        version = repo.save(names)
        assert version.report.skipped == ()
        loaded = repo.load(version)
        assert loaded["bump"].__globals__ is loaded["scope"]
        assert loaded["scope"]["bump"] is loaded["bump"]
        assert loaded["bump"]() == 1
        assert loaded["counter"].bump() == 11
        assert loaded["scope"]["count"] == 11
        assert loaded["box"][0]("a") == (1, loaded["bump"])
        assert scope["count"] == 0
    assert repo.save(names).report.pods_dirty == 0


def test_each_alone_brings_the_dict(repo):
    scope = run(SCRIPT, "script")
    version = repo.save({"bump": scope["bump"], "scope": scope, "other": 1})
    loaded = repo.load(version, names=["bump"])
    assert loaded["bump"](3) == 3
    assert loaded["bump"].__globals__["table"] == {"a": 1}
    loaded = repo.load(version, names=["scope"])
    assert loaded["scope"]["bump"].__globals__ is loaded["scope"]


def test_inside_other_containers_and_in_streams(repo):
    scope = run(SCRIPT, "script")
    for loaded in (
        repo.load(repo.save({"deep": [{"scope": scope}]}))["deep"][0]["scope"],
        chipmink.loads(chipmink.dumps(scope)),
    ):
        assert loaded["bump"].__globals__ is loaded
        assert loaded["Counter"]().bump() == loaded["count"] == 10


def test_a_change_through_a_function_is_found(repo):
    scope = run(SCRIPT, "script")
    names = {"bump": scope["bump"], "scope": scope, "other": [1]}
    repo.save(names)
    scope["bump"](5)
    version = repo.save(names, accessed=["bump"])
    assert repo.load(version)["scope"]["count"] == 5
    assert repo.load(version)["bump"]() == 6


def test_the_names_of_the_interpreter_stay_its_own(repo):
    scope = run("def f(): return len([1])", "script")
    assert scope["__builtins__"] is vars(__import__("builtins"))
    names = {"scope": scope, "deep": [scope]}
    repo.save(names)
    loaded = repo.load(repo.save(names))
    assert loaded["scope"]["__builtins__"] is vars(__import__("builtins"))
    assert loaded["scope"]["f"]() == 1
    assert loaded["deep"][0] is loaded["scope"]
    assert repo.save(names).report.pods_dirty == 0


def test_a_checkout_binds_them_too(repo):
    scope = run(SCRIPT, "script")
    namespace = {"scope": scope, "bump": scope["bump"]}
    first = repo.save(namespace)
    namespace["bump"]()
    repo.save(namespace)
    repo.checkout(first, namespace)
    assert namespace["bump"].__globals__ is namespace["scope"]
    assert namespace["bump"]() == namespace["scope"]["count"] == 1


def test_a_dict_that_is_not_saved_is_not_dragged_along(repo):
    scope = run(SCRIPT + "    large = 'x' * 1_000_000\n", "script")
    version = repo.save({"bump": scope["bump"]})
    assert version.report.bytes_written < 10_000
    assert "large" not in repo.load(version)["bump"].__globals__
