"""A save while other threads change what it looks at holds one state, or says that it may not."""

from __future__ import annotations

import sys
import threading
import time
import warnings

import chipmink
import pytest


class Busy:
    """Its reducer computes for a while, in which other threads get their turns."""

    def __reduce__(self):
        total = 0
        for i in range(20_000):
            total += i
        return Busy, ()


class Waits:
    """Its reducer offers the interpreter to other threads until one has changed a list."""

    watched: list | None = None

    def __reduce__(self):
        if Waits.watched is not None:
            before, deadline = Waits.watched[0], time.monotonic() + 10
            while Waits.watched[0] == before and time.monotonic() < deadline:
                time.sleep(0.001)
        return Waits, ()


class Pair:
    """Plain instances: `first` is always as large as `second`, or one larger."""

    def __init__(self):
        self.first, self.second = 0, 0


class Slots:
    __slots__ = ("value",)


def step_lists(namespace):
    namespace["a"][0] += 1
    namespace["b"][0] += 1


def step_dicts(namespace):
    namespace["a"]["n"] = namespace["a"].get("n", 0) + 1
    namespace["b"]["n"] = namespace["b"].get("n", 0) + 1


def step_instances(namespace):
    namespace["a"].n += 1
    namespace["b"].value += 1


class Count:
    n = 0


def lists():
    return {"a": [0], "b": [0]}, step_lists, lambda loaded: loaded["a"][0] - loaded["b"][0]


def dicts():
    return {"a": {}, "b": {}}, step_dicts, lambda loaded: loaded["a"].get("n", 0) - loaded["b"].get("n", 0)


def instances():
    a, b = Count(), Slots()
    a.n, b.value = 0, 0
    return {"a": a, "b": b}, step_instances, lambda loaded: loaded["a"].n - loaded["b"].value


class Stepper:
    """Steps in another thread, until the end of the block."""

    def __init__(self, step, namespace):
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(step, namespace))

    def run(self, step, namespace):
        while not self.stop.is_set():
            step(namespace)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_error):
        self.stop.set()
        self.thread.join()


@pytest.fixture
def fast_switching():
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    yield
    assert sys.getswitchinterval() == pytest.approx(0.0005)
    sys.setswitchinterval(before)


@pytest.mark.parametrize("kind", [lists, dicts, instances])
def test_a_version_is_one_state(repo, kind, fast_switching):
    parts, step, difference = kind()
    namespace = {"a": parts["a"], "busy": [Busy(), Busy()], "b": parts["b"]}
    with Stepper(step, namespace), warnings.catch_warnings():
        warnings.simplefilter("ignore", chipmink.UnsteadyVariableWarning)
        versions = [repo.save(namespace) for _ in range(10)]
    steady = [version for version in versions if not version.report.unsteady]
    # In the last attempt other threads get fewer turns.
    assert steady
    for version in steady:
        assert difference(repo.load(version)) in (0, 1)


def test_what_never_stands_still_is_reported(repo, fast_switching, monkeypatch):
    parts, step, _ = lists()
    namespace = {"a": parts["a"], "waits": Waits(), "b": parts["b"], "calm": [1]}
    monkeypatch.setattr(Waits, "watched", parts["a"])
    with Stepper(step, namespace):
        with pytest.warns(chipmink.UnsteadyVariableWarning, match="'a'"):
            version = repo.save(namespace)
        with pytest.raises(chipmink.UnsupportedError, match="strict=True and 'a'"):
            repo.save(namespace, strict=True)
    assert "a" in version.report.unsteady
    assert "calm" not in version.report.unsteady
    assert repo.load(version)["calm"] == [1]
    monkeypatch.setattr(Waits, "watched", None)
    after = repo.save(namespace, strict=True)
    assert repo.load(after)["a"] == namespace["a"]


def test_one_change_during_a_walk_is_walked_again(repo):
    namespace: dict = {"a": [0], "b": [0]}
    begun, changed = threading.Event(), threading.Event()

    class Meets:
        def __reduce__(self):
            begun.set()
            changed.wait(5)
            return int, ()

    def change():
        begun.wait(5)
        namespace["a"].append("both")
        namespace["b"].append("both")
        changed.set()

    namespace = {"a": namespace["a"], "meets": Meets(), "b": namespace["b"]}
    thread = threading.Thread(target=change)
    thread.start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        version = repo.save(namespace)
    thread.join()
    loaded = repo.load(version)
    assert loaded["a"] == loaded["b"] == [0, "both"]
    assert version.report.unsteady == ()


def test_an_idle_thread_changes_nothing(repo):
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        namespace = {"a": [0], "busy": Busy(), "pair": Pair()}
        for _ in range(3):
            version = repo.save(namespace)
            assert version.report.unsteady == ()
        assert version.report.pods_dirty == 0
    finally:
        stop.set()
        thread.join()


def test_two_threads_that_only_save_and_step(repo, fast_switching):
    parts, step, difference = lists()
    namespace = {"a": parts["a"], "b": parts["b"], "data": [[i] for i in range(1000)]}
    # Nothing here runs Python code: no other thread gets a turn in a walk.
    with Stepper(step, namespace):
        for _ in range(20):
            version = repo.save(namespace)
            assert version.report.unsteady == ()
            assert difference(repo.load(version)) in (0, 1)
