"""Graphs that are deep, lead on without end, or have very many shapes: time and stack stay bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chipmink
import graph_types as kinds
import pytest
from custom import rebuilt


def _nest(make: Callable[[Any], Any], depth: int) -> Any:
    value: Any = None
    for _ in range(depth):
        value = make(value)
    return value


def _unnest(value: Any, step: Callable[[Any], Any]) -> int:
    depth = 0
    while value is not None:
        value = step(value)
        depth += 1
    return depth


def _plain(value: Any) -> kinds.Plain:
    plain = kinds.Plain()
    plain.a = value
    return plain


def test_a_list_a_million_deep(repo):
    value = _nest(lambda inner: [inner], 1_000_000)
    copy = chipmink.loads(chipmink.dumps(value))
    assert _unnest(copy, lambda outer: outer[0]) == 1_000_000
    del copy
    namespace = {"x": value, "y": [1]}
    first = repo.save(namespace)
    assert _unnest(repo.load(first)["x"], lambda outer: outer[0]) == 1_000_000
    for accessed in (None, ["y"], ["x", "y"]):
        namespace["y"].append(2)
        again = repo.save(namespace, accessed=accessed)
        assert repo.load(again, names=["y"])["y"] == namespace["y"]


DEEP: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "tuples": (lambda inner: (inner,), lambda outer: outer[0]),
    "dicts": (lambda inner: {"k": inner}, lambda outer: outer["k"]),
    "instances": (_plain, lambda outer: outer.a),
    "reduced": (kinds.ReducedWithState, lambda outer: outer.number),
    "arguments in lists": (lambda inner: kinds.Reduced([inner], "r"), lambda outer: outer.items[0]),
    "list children": (lambda inner: kinds.ListChild([inner]), lambda outer: outer[0]),
    "frozensets": (lambda inner: frozenset([inner]), lambda outer: next(iter(outer))),
}


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("policy", ["bundle-all", "split-all", "lga-siblings"])
def test_deep_nesting(tmp_path, name, policy):
    make, step = DEEP[name]
    depth = 3_000 if name == "frozensets" else 20_000  # the hash of nested frozensets recurses in C
    value = _nest(make, depth)
    assert _unnest(chipmink.loads(chipmink.dumps(value)), step) == depth
    with chipmink.open(tmp_path / "repo", durable=False, policy=policy) as repo:
        assert _unnest(repo.load(repo.save({"x": value}))["x"], step) == depth


# --- reducers without end


class LeadsToItself:
    def __reduce__(self):
        return rebuilt, (self,)


class LeadsToAnother:
    def __reduce__(self):
        return rebuilt, (self.other,)


class LeadsOn:
    def __reduce__(self):
        return rebuilt, (LeadsOn(),)


def _in_turns() -> Any:
    first, second = LeadsToAnother(), LeadsToAnother()
    first.other, second.other = second, first
    return first


@pytest.mark.parametrize("make", [LeadsToItself, _in_turns, LeadsOn], ids=["itself", "in turns", "ever new"])
def test_reducers_that_never_end_are_an_error(repo, make):
    with pytest.warns(chipmink.SkippedVariableWarning):
        saved = repo.save({"bad": [make()], "good": [1]})
    (skip,) = saved.report.skipped
    assert skip.variable == "bad" and "without end" in skip.reason
    assert repo.load(saved)["good"] == [1]
    with pytest.raises(RecursionError, match="without end"):
        chipmink.dumps(make())


class Nested:
    def __init__(self, inner: Any):
        self.inner = inner

    def __reduce__(self):
        return Nested, (self.inner,)


def test_reducers_that_do_end_may_be_deep(repo):
    made = None
    for _ in range(20_000):
        made = Nested(made)
    for loaded in (repo.load(repo.save({"x": made}))["x"], chipmink.loads(chipmink.dumps(made))):
        depth = 0
        while loaded is not None:
            loaded = loaded.inner
            depth += 1
        assert depth == 20_000


# --- many shapes


def test_instances_that_have_no_two_attributes_in_common(repo):
    class Loose:
        pass

    things = []
    for i in range(6_000):
        thing = Loose()
        setattr(thing, f"attribute {i}", [i])
        setattr(thing, "common", things and things[-1])
        things.append(thing)
    namespace = {"x": things, "class": Loose}
    saved = repo.save(namespace)
    assert repo.save(namespace).report.pods_dirty == 0
    things[77].common = None
    again = repo.save(namespace)
    for version, common in ((saved, True), (again, False)):
        loaded = repo.load(version)["x"]
        assert all(vars(thing)[f"attribute {i}"] == [i] for i, thing in enumerate(loaded))
        assert (loaded[77].common is loaded[76]) is common and loaded[78].common is loaded[77]
