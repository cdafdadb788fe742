"""Signals, forks, worker processes and other threads while a repository is used: no save is spoilt, none hangs."""

from __future__ import annotations

import gc
import signal
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import chipmink
import numpy
from custom import Custom, rebuilt, reduced_by
from workers import in_child, load_first


def many_objects(count: int) -> list[Any]:
    gc.disable()
    try:
        return [[i, str(i), (i, [i])] for i in range(count)]
    finally:
        gc.enable()


def test_interrupt_during_a_walk(repo):
    value = many_objects(400_000)
    namespace = {"x": value, "y": [1]}
    first = repo.save({"y": [0]})

    def interrupt(_signal: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    try:
        for delay in (0.001, 0.005, 0.02, 0.05, 0.1):
            signal.setitimer(signal.ITIMER_REAL, delay)
            try:
                repo.save(namespace)
            except KeyboardInterrupt:
                interrupted += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            value[len(value) // 2][0] += 1
    finally:
        signal.signal(signal.SIGALRM, before)
    assert interrupted, "the walk was never interrupted; it has to ask for signals"
    saved = repo.save(namespace)
    assert repo.load(saved) == namespace
    assert repo.load(first) == {"y": [0]}


def test_other_handlers_run_during_a_walk(repo):
    namespace = {"x": many_objects(600_000)}
    running = 0

    def count(_signal: int, _frame: Any) -> None:
        nonlocal running
        running += 1

    before = signal.signal(signal.SIGALRM, count)
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    try:
        version = repo.save(namespace)
        during = running
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    # Once would be when the save has returned to Python.
    assert during > 2
    assert repo.load(version) == namespace


def test_handlers_that_change_what_is_saved(repo):
    rows = many_objects(200_000)
    namespace: dict[str, Any] = {"rows": rows, "buffer": bytearray(70 << 20), "small": {"a": 1}}
    refused: list[str] = []

    def meddle(_signal: int, _frame: Any) -> None:
        # One at a time: the next is asked for at the end.
        for change in (
            lambda: rows.append([0]),
            lambda: rows.__setitem__(5, None),
            lambda: namespace["buffer"].extend(b"more"),
            lambda: namespace.update(small={"b": 2}),
            lambda: repo.save({}),
        ):
            try:
                change()
            except (BufferError, chipmink.BusyError) as error:
                refused.append(type(error).__name__)
        if not is_over:
            signal.setitimer(signal.ITIMER_REAL, 0.01)

    is_over = False
    before = signal.signal(signal.SIGALRM, meddle)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            saved = repo.save(namespace)
            repo.load(saved)
    finally:
        is_over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert refused
    version = repo.save(namespace)
    assert repo.load(version) == namespace
    assert repo.verify() == []


def test_fork_between_saves(repo, tmp_path):
    namespace = {"x": [1], "y": list(range(1_000))}
    saved = repo.save(namespace)
    path = tmp_path / "repo"

    def own() -> Any:
        with chipmink.open(path, durable=False) as mine:
            return mine.load(saved, names=["x"])

    assert in_child(own) == repr({"x": [1]})

    def inherited() -> Any:
        try:
            return repo.load(saved, names=["x"])
        except chipmink.ChipminkError:
            return {"x": [1]}

    assert in_child(inherited) == repr({"x": [1]})
    namespace["x"].append(2)
    assert repo.load(repo.save(namespace)) == namespace


def test_fork_during_a_save(repo, tmp_path):
    """A reducer forks: the child leaves at once, or uses a repository of its own; the parent's save is complete."""
    texts: list[str] = []
    path = tmp_path / "repo"

    def reducer(self: Any) -> Any:
        texts.append(in_child(lambda: 1))
        texts.append(in_child(lambda: [entry.message for entry in chipmink.open(path, durable=False).log()]))
        return (rebuilt, (self.content,))

    with reduced_by(reducer):
        repo.save({"a": 1}, message="first")
        saved = repo.save({"x": [[1], Custom([2]), [3]], "y": {"k": [4]}}, message="second")
        loaded = repo.load(saved)
    assert texts == ["1", "['first']"]
    assert loaded["x"][1].content == [2] and loaded["x"][2] == [3] and loaded["y"] == {"k": [4]}


def wait_for(event: threading.Event) -> None:
    if not event.wait(60):
        raise TimeoutError


def test_fork_while_another_thread_saves_and_one_loads(repo, monkeypatch):
    """The child has no such threads: what they hold must not be waited for."""
    view = repo.at(repo.save({"slow": Custom([1]), "other": Custom([2])}))
    assert view["other"].content == [2]
    begun = [threading.Event(), threading.Event()]
    forked = threading.Event()

    def slowly(self: Any) -> Any:
        begun[0].set()
        wait_for(forked)
        return (rebuilt, (self.content,))

    def slow_state(self: Any, state: Any) -> None:
        begun[1].set()
        wait_for(forked)
        self.__dict__.update(state)

    def outcome(use: Any) -> str:
        try:
            return repr(use())
        except chipmink.ChipminkError as error:
            return type(error).__name__

    def in_the_child() -> Any:
        uses = (lambda: repo.save({}), lambda: view["slow"], lambda: view["other"], repo.close, lambda: repo.closed)
        return [outcome(use) for use in uses]

    threads = [
        threading.Thread(target=lambda: repo.save({"slow": Custom([3])})),
        threading.Thread(target=lambda: view["slow"]),
    ]
    monkeypatch.setattr(Custom, "__setstate__", slow_state, raising=False)
    with reduced_by(slowly):
        for thread, has_begun in zip(threads, begun, strict=True):
            thread.start()
            wait_for(has_begun)
        try:
            said = in_child(in_the_child, seconds=10)
        finally:
            forked.set()
            for thread in threads:
                thread.join()
    assert said == repr(["ClosedError", "ClosedError", "ClosedError", "None", "True"])
    assert view["slow"].content == [1] and repo.load()["slow"].content == [3]


def test_fork_while_the_pages_of_what_was_loaded_are_looked_up(repo):
    """The thread that looks them up is not in the child, which lets go of what was loaded all the same."""
    repo.save({"array": numpy.random.default_rng(0).integers(0, 256, 200 << 20, dtype="u1")})
    for _ in range(5):
        loaded = repo.load()
        assert in_child(loaded.clear, seconds=20) == "None"


def test_worker_processes(repo, tmp_path):
    import multiprocessing

    numbers = [int(repo.save({"x": [i]})) for i in range(4)]
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            found = pool.map(load_first, [(str(tmp_path / "repo"), number) for number in numbers])
        assert found == [0, 1, 2, 3]


def test_two_threads_save_to_one_repository_object(repo):
    versions: dict[int, list[Any]] = {}

    def work(which: int) -> None:
        namespace: dict[str, Any] = {f"t{which}": [which], "list": [[i] for i in range(200)]}
        for step in range(25):
            namespace[f"t{which}"].append(step)
            expected = list(namespace[f"t{which}"])
            number = int(repo.save(namespace))
            if number in versions:
                raise AssertionError(f"number {number} was given out twice")
            versions[number] = [f"t{which}", expected]
            if step % 5 == 0:
                assert repo.load(number, names=[f"t{which}"]) == {f"t{which}": expected}

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    assert len(versions) == 50
    for number, (name, expected) in versions.items():
        loaded = repo.load(number)
        assert loaded[name] == expected and loaded["list"] == [[i] for i in range(200)]


def test_a_thread_changes_what_is_saved(repo):
    """The interpreter may switch threads in a save: each version is some state, and none crashes."""
    value: list[Any] = [[0] for _ in range(2_000)]
    namespace = {"x": value}
    done = threading.Event()

    def change() -> None:
        step = 0
        while not done.is_set():
            step += 1
            value[step % 2_000] = [step]
            value.append([step])
            del value[-1]
            time.sleep(0)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(20):
            loaded = repo.load(repo.save(namespace))
            assert len(loaded["x"]) in (2_000, 2_001) and all(len(entry) == 1 for entry in loaded["x"])
    finally:
        done.set()
        thread.join()
    assert repo.load(repo.save(namespace)) == namespace
