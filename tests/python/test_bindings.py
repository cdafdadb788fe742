"""Which variables a save with a hint leaves alone: those whose binding is proved, and no others."""

from __future__ import annotations

import ctypes
import sys

import chipmink
import pytest

needs_watchers = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="before 3.12 a dict says only whether anything in it has changed"
)


def namespace_of_lists() -> dict:
    return {"big": [[i] for i in range(1000)], "small": [1], "number": 1}


@needs_watchers
def test_other_names_that_change_do_not_make_a_list_be_looked_at(repo):
    namespace = namespace_of_lists()
    repo.save(namespace)
    for change in (
        lambda: namespace.update(number=2),
        lambda: namespace.update(added=[5]),
        lambda: namespace.pop("added"),
        lambda: namespace["small"].append(2),
    ):
        change()
        saved = repo.save(namespace, accessed=["small"])
        assert saved.report.objects < 100
        assert repo.load(saved) == namespace


CHANGES = {
    "bound anew": lambda namespace: namespace.update(big=[1]),
    "bound to an equal list": lambda namespace: namespace.update(big=list(namespace["big"])),
    "deleted": lambda namespace: namespace.pop("big"),
    "deleted and bound again": lambda namespace: namespace.update(big=[namespace.pop("big")]),
    "all deleted": lambda namespace: namespace.clear(),
    "all replaced": lambda namespace: (namespace.clear(), namespace.update({"big": [2], "other": [3]})),
    "in another order": lambda namespace: namespace.update(small=namespace.pop("small")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_bound_anew_is_found_without_a_hint(repo, change):
    namespace = namespace_of_lists()
    repo.save(namespace)
    CHANGES[change](namespace)
    version = repo.save(namespace, accessed=[])
    assert repo.load(version) == namespace
    assert list(repo.load(version)) == list(namespace)


def test_a_list_at_the_address_of_a_dead_one(repo):
    namespace = namespace_of_lists()
    repo.save(namespace)
    for i in range(20):
        del namespace["small"]
        namespace["small"] = [i, "new"]
        assert repo.load(repo.save(namespace, accessed=[]))["small"] == [i, "new"]


def test_another_dict(repo):
    first = namespace_of_lists()
    repo.save(first)
    second = {name: list(value) if type(value) is list else value for name, value in first.items()}
    second["big"][3] = "other"
    assert repo.load(repo.save(second, accessed=[])) == second
    first["big"][4] = "first"
    # Another dict is never trusted.
    assert repo.load(repo.save(first, accessed=[])) == first


class Meddler:
    """Binds a name anew while it is being saved."""

    def __init__(self, namespace: dict, name: str) -> None:
        self.namespace, self.name = namespace, name

    def __reduce__(self):
        self.namespace[self.name] = ["bound", "meanwhile"]
        return str, ("saved",)


@pytest.mark.parametrize("before", [True, False])
def test_a_name_bound_anew_during_a_save_is_found_by_the_next(repo, before):
    namespace: dict = {}
    if before:
        namespace["list"] = [1]
    namespace["meddler"] = Meddler(namespace, "list")
    if not before:
        namespace["list"] = [1]
    first = repo.save(namespace)
    namespace["meddler"].name = "elsewhere"
    assert repo.load(first)["list"] == [1]
    second = repo.save(namespace, accessed=[])
    assert repo.load(second)["list"] == ["bound", "meanwhile"]


def test_two_repositories_look_at_one_dict(tmp_path):
    namespace = namespace_of_lists()
    with chipmink.open(tmp_path / "a", durable=False) as first, chipmink.open(tmp_path / "b", durable=False) as second:
        first.save(namespace)
        second.save(namespace)
        namespace["small"] = [2]
        assert first.load(first.save(namespace, accessed=[])) == namespace
        first.close()
        namespace["big"] = [3]
        assert second.load(second.save(namespace, accessed=[])) == namespace


def test_a_namespace_that_dies_before_its_repository(repo):
    for i in range(10):
        namespace = {"x": [i], "y": [1]}
        repo.save(namespace)
        del namespace
        again = {"x": ["again", i], "y": [1]}
        assert repo.load(repo.save(again, accessed=[])) == again
        del again


CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p)


def free_watchers() -> list[int]:
    """Takes all watchers of the interpreter that are free."""
    add = ctypes.pythonapi.PyDict_AddWatcher
    taken = []
    while True:
        try:
            taken.append(add(ignore))
        except RuntimeError:
            return taken


@CALLBACK
def ignore(_event, _dict, _key, _value):
    return 0


def give_back(watchers: list[int]) -> None:
    for watcher in watchers:
        ctypes.pythonapi.PyDict_ClearWatcher(watcher)


@needs_watchers
def test_without_a_free_watcher_everything_is_compared(repo):
    taken = free_watchers()
    try:
        namespace = namespace_of_lists()
        repo.save(namespace)
        namespace["small"] = [2]
        saved = repo.save(namespace, accessed=[])
        assert saved.report.objects > 1000
        assert repo.load(saved) == namespace
    finally:
        give_back(taken)
    repo.save(namespace)
    namespace["small"] = [3]
    assert repo.save(namespace, accessed=[]).report.objects < 100


@needs_watchers
def test_the_watcher_is_given_back(tmp_path):
    taken = free_watchers()
    give_back(taken)
    repos = [chipmink.open(tmp_path / str(i), durable=False) for i in range(20)]
    namespaces = [namespace_of_lists() for _ in repos]
    for repo, namespace in zip(repos, namespaces, strict=True):
        repo.save(namespace)
    while_open = free_watchers()
    give_back(while_open)
    assert len(while_open) == len(taken) - 1
    for repo in repos:
        repo.close()
    after = free_watchers()
    give_back(after)
    assert len(after) == len(taken)
    # The dicts are told of no change any more.
    for namespace in namespaces:
        namespace["small"] = [2]
