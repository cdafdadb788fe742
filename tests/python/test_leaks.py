"""Saving and loading in a loop holds on to nothing."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from pathlib import Path
from typing import Any

import chipmink
import graph_types as kinds
import pytest
from chipmink import _chipmink


def resident_bytes() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def graph() -> dict[str, Any]:
    shared = [1, 2]
    key = kinds.Key(1)
    table = {key: shared, "t": (shared, frozenset({1}))}
    key.content = table
    instances = [kinds.Record(i, [i]) for i in range(50)] + [kinds.Reduced([1], "r"), kinds.ReducedAll(3), kinds.WithNewArgs(number=2)]
    for instance in (*instances, key):
        vars(instance)  # any look at `__dict__` makes the dict, once and for all
    return {
        "lists": [[i, str(i), {"k": [i]}] for i in range(200)],
        "table": table,
        "instances": instances,
        "function": (lambda value: lambda: value)(shared),
        "bytes": b"x" * 100_000,
        "bytearray": bytearray(100_000),
    }


def references(namespace: dict[str, Any]) -> list[int]:
    """Reference counts of the objects that a save visits, except the atoms that it may keep."""
    gc.collect()
    found: list[int] = []
    stack = list(namespace.values())
    seen: set[int] = set()
    while stack:
        value = stack.pop()
        if id(value) in seen or value is None or isinstance(value, (int, str, bytes, float)) or callable(value):
            continue
        seen.add(id(value))
        found.append(sys.getrefcount(value))
        stack.extend(gc.get_referents(value) if not isinstance(value, type) else ())
    return found


@pytest.mark.parametrize("accessed", [None, ["lists"]])
def test_no_hold_on_the_program_between_saves(repo, accessed):
    namespace = graph()
    before = references(namespace)
    for step in range(5):
        repo.save(namespace, accessed=accessed)
        assert references(namespace) == before, f"after save {step}"


def test_dumps_and_loads_hold_nothing():
    namespace = graph()
    before = references(namespace)
    for _ in range(5):
        chipmink.loads(chipmink.dumps(namespace))
    assert references(namespace) == before


def test_saved_objects_die(repo):
    class Watched(kinds.Plain):
        pass

    value = Watched()
    value.big = bytearray(1_000_000)
    namespace = {"x": [value]}
    repo.save(namespace)
    repo.save(namespace)
    watch = weakref.ref(value)
    del value, namespace
    gc.collect()
    assert watch() is None


def test_a_bytearray_can_be_resized_after_a_save(repo):
    value = bytearray(200_000)
    repo.save({"x": value})
    value.extend(b"more")
    chipmink.dumps(value)
    value.extend(b"more")
    assert len(value) == 200_008


def test_loaded_objects_die(repo):
    saved = repo.save(graph())
    gc.collect()
    loaded = repo.load(saved)
    watch = weakref.ref(loaded["instances"][0])
    del loaded
    gc.collect()
    assert watch() is None
    view = repo.at(saved)
    watch = weakref.ref(view["instances"][0])
    del view
    gc.collect()
    assert watch() is None


def test_the_repository_dies(tmp_path):
    repo = chipmink.open(tmp_path / "repo", durable=False)
    repo.save(graph())
    watch = weakref.ref(repo)
    repo.close()
    del repo
    gc.collect()
    assert watch() is None


def test_failed_saves_and_loads_hold_nothing(repo):
    class Bad:
        def __reduce__(self) -> Any:
            raise RuntimeError("no")

    namespace = {**graph(), "bad": [Bad()]}
    before = references(namespace)
    for _ in range(5):
        with pytest.raises(chipmink.UnsupportedError):
            repo.save(namespace, strict=True)
        with pytest.raises((RuntimeError, chipmink.UnsupportedError)):
            chipmink.dumps(namespace)
        with pytest.raises(KeyError):
            repo.load(999_999)
        with pytest.raises(ValueError):
            chipmink.loads(b"nonsense")
    assert references(namespace) == before


def _flat(action: Any, rounds: int, allowed_bytes: int) -> None:
    for _ in range(rounds // 4):
        action()
    gc.collect()
    objects, resident = len(gc.get_objects()), resident_bytes()
    for _ in range(rounds):
        action()
    gc.collect()
    grown = resident_bytes() - resident
    assert len(gc.get_objects()) - objects < 100
    assert grown < allowed_bytes, f"{grown} bytes in {rounds} rounds"


def test_memory_stays_flat_over_dumps_and_loads():
    namespace = graph()
    _flat(lambda: chipmink.loads(chipmink.dumps(namespace)), 400, 4 << 20)


def test_memory_stays_flat_over_loads(repo):
    saved = repo.save(graph())
    _flat(lambda: repo.load(saved), 300, 6 << 20)


def test_memory_stays_flat_over_unchanged_saves(repo):
    namespace = graph()
    _flat(lambda: repo.save(namespace), 200, 6 << 20)


def test_memory_stays_flat_over_changing_saves(repo):
    """New content in every save: what was saved before is given up, but for bounded caches."""
    namespace = graph()
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        namespace["bytes"] = os.urandom(100_000)
        namespace["lists"][count % 200] = [count, str(count), {"k": [count]}]
        namespace["instances"][count % 50] = record = kinds.Record(count, [count])
        vars(record)
        repo.save(namespace)

    _flat(step, 200, 12 << 20)


def test_memory_stays_flat_over_opening(tmp_path):
    namespace = graph()
    with chipmink.open(tmp_path / "repo", durable=False) as repo:
        saved = repo.save(namespace)

    def step() -> None:
        with chipmink.open(tmp_path / "repo", durable=False) as again:
            again.load(saved, names=["table"])

    _flat(step, 60, 8 << 20)


def handles() -> int:
    gc.collect()
    return sum(type(found) is _chipmink.Handle for found in gc.get_objects())


@pytest.mark.parametrize("by_value", [True, False])
def test_a_repository_in_a_cycle_with_what_it_saved_dies(tmp_path, by_value):
    before = handles()
    if by_value:

        class Holder:
            pass

    else:
        Holder = kinds.Plain  # noqa: N806
    repo = chipmink.open(tmp_path / "repo", durable=False)
    holder = Holder()
    holder.repo = repo
    holder.name = "n"
    if by_value:
        Holder.repo = repo
    namespace = {"Holder": Holder, "holder": holder, "repo": repo, "more": [Holder(), Holder()]}
    for _ in range(3):
        repo.save(namespace)
        assert repo.load()["holder"].name == "n"
    reference = weakref.ref(repo)
    del repo, holder, namespace, Holder
    assert handles() == before
    assert reference() is None


def test_collecting_while_a_repository_is_in_use_harms_nothing(repo):
    class Collects:
        def __reduce__(self):
            gc.collect()
            return int, ()

    class Holder:
        pass

    Holder.repo = repo
    namespace = {"Holder": Holder, "x": [Holder(), Collects(), Holder()]}
    for _ in range(3):
        version = repo.save(namespace)
        gc.collect()
        assert repo.load(version)["x"][1] == 0
