"""A staging tier in front of a folder: returned once staged, durable later, and never lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import chipmink
from staging_kills import KINDS, one


@pytest.fixture
def segment() -> Iterator[str]:
    name = f"chipmink-test-{uuid.uuid4().hex}"
    yield f"shm://{name}"
    Path("/dev/shm", name).unlink(missing_ok=True)


def agent(segment: str, folder: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "chipmink", "agent", "--staging", segment, "--to", str(folder), "--json", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stop(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@contextlib.contextmanager
def attached(segment: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """An agent that has the lease of the segment, in front of a new repository."""
    chipmink.open(folder).close()
    process = agent(segment, folder, "--size", "8MiB")
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "attached"
        yield process
    finally:
        stop(process)


def test_a_save_is_staged_and_then_durable(tmp_path: Path, segment: str) -> None:
    with chipmink.open(tmp_path / "repo", staging=segment, size="16MiB") as repository:
        shared = [1, 2]
        saved = repository.save({"a": shared, "b": [shared]})
        assert saved.wait("staged") is saved
        assert repository.load(saved)["a"] == [1, 2]
        assert saved.wait() is saved
        assert saved.done
        with chipmink.open(tmp_path / "repo") as below:
            found = below.load(saved)
            assert found["b"][0] is found["a"]
        status = repository.status()
        assert (status.staged_versions, status.bytes_left, status.durable) == (0, 0, 1)
        assert status.persisted_versions == 1
        assert status.persister == os.getpid()
        with pytest.raises(ValueError, match="no stage"):
            saved.wait("fenced")
    assert saved.done


def test_close_waits_and_the_next_opening_goes_on(tmp_path: Path, segment: str) -> None:
    arrays = [np.random.default_rng(step).random(20_000) for step in range(10)]
    with chipmink.open(tmp_path, staging=segment, size="16MiB") as repository:
        for array in arrays:
            last = repository.save({"x": array})
    assert last.done
    with chipmink.open(tmp_path) as below:
        assert len(below.log()) == 10
        assert below.verify() == []
    # With or without the tier it is the same repository.
    with chipmink.open(tmp_path) as below:
        below.save({"x": 1})
    with chipmink.open(tmp_path, staging=segment) as repository:
        assert repository.save({"x": 2}) == 12
        assert repository.diff(11, 12).changed == ("x",)
        for number, array in enumerate(arrays, 1):
            assert np.array_equal(repository.load(number)["x"], array)


def test_a_program_that_does_not_close_leaves_its_versions_durable(tmp_path: Path, segment: str) -> None:
    program = f"""
import chipmink
repo = chipmink.open({str(tmp_path)!r}, staging={segment!r}, size="8MiB")
for step in range(5):
    repo.save({{"x": step}})
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    with chipmink.open(tmp_path) as below:
        assert below.load() == {"x": 4}


def test_saves_wait_for_room_and_large_ones_fail(tmp_path: Path, segment: str) -> None:
    source = np.random.default_rng(1)
    with chipmink.open(tmp_path, staging=segment, size="2MiB") as repository:
        arrays = [source.random(60_000) for _ in range(12)]
        for array in arrays:
            repository.save({"x": array})
        for number, array in enumerate(arrays, 1):
            assert np.array_equal(repository.load(number)["x"], array)
        repository.save({"x": 0}).wait()
        with pytest.raises(chipmink.StorageError, match="is full"):
            repository.save({"x": source.random(500_000)})
        repository.save({"x": 1}).wait()


def test_a_failure_in_the_background_is_told_and_nothing_is_lost(tmp_path: Path, segment: str) -> None:
    repository = chipmink.open(tmp_path / "repo", staging=segment, size="8MiB")
    repository.save({"x": 0}).wait()
    packs = tmp_path / "repo" / "packs"
    packs.rename(tmp_path / "away")
    packs.write_bytes(b"no folder")
    saved = repository.save({"x": list(range(1000))})
    with pytest.raises(chipmink.StorageError, match="tried again"):
        saved.wait(timeout=10)
    assert repository.status().last_error
    with pytest.raises(chipmink.StorageError, match="tried again"):
        repository.load(1)
    # It is said once, and what is staged can still be read.
    assert repository.load(saved) == {"x": list(range(1000))}
    packs.unlink()
    (tmp_path / "away").rename(packs)
    deadline = time.monotonic() + 20
    while not repository.status().durable == saved and time.monotonic() < deadline:
        time.sleep(0.05)
    assert saved.wait() == 2
    assert repository.status().last_error is None
    repository.close()


def test_others_who_publish_below_lose_nothing_of_the_staged(tmp_path: Path, segment: str) -> None:
    repository = chipmink.open(tmp_path, staging=segment, size="8MiB")
    repository.save({"x": 0}).wait()
    with chipmink.open(tmp_path) as below:
        below.save({"theirs": 1})
    # It builds on a version that the ref does not point at any more.
    with pytest.raises(chipmink.RefMovedError):
        repository.save({"x": 1})
    repository.close()
    with chipmink.open(tmp_path) as below:
        assert below.load() == {"theirs": 1}


def test_what_was_staged_when_others_published_goes_beside(tmp_path: Path, segment: str) -> None:
    with attached(segment, tmp_path) as process:
        # It has the lease, and does nothing with it for a while.
        process.send_signal(signal.SIGSTOP)
        repository = chipmink.open(tmp_path, staging=segment)
        saved = repository.save({"mine": 1})
        with chipmink.open(tmp_path) as below:
            below.save({"theirs": 2})
        process.send_signal(signal.SIGCONT)
        with pytest.raises(chipmink.RefMovedError, match="another program"):
            saved.wait(timeout=30)
        assert repository.load(saved) == {"mine": 1}
        with pytest.raises(chipmink.ChipminkError, match="open it again"):
            repository.save({"mine": 3})
        repository.close()
        with chipmink.open(tmp_path, staging=segment) as again:
            assert again.load() == {"theirs": 2}
            mine, theirs = again.log()
            assert (mine.number, theirs.number) == (2, 1)
            assert mine.ref.startswith("main@staged-")
            assert again.load(2) == {"mine": 1}
            assert again.verify() == []


def test_an_agent_persists_for_a_dead_saver_and_leaves_its_session(tmp_path: Path, segment: str) -> None:
    folder = tmp_path / "repo"
    process = agent(segment, folder, "--size", "8MiB")
    try:
        program = f"""
import chipmink, os, signal
repo = chipmink.open({str(folder)!r}, staging={segment!r})
repo.save({{"x": list(range(100))}}).wait("staged")
os.killpg(0, signal.SIGKILL)
"""
        ended = subprocess.run([sys.executable, "-c", program], start_new_session=True)
        assert ended.returncode == -signal.SIGKILL
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "persisted":
                break
        assert (event["version"], event["staged_as"]) == (1, 1)
        assert os.getsid(process.pid) == process.pid
        with chipmink.open(folder) as below:
            assert below.load() == {"x": list(range(100))}
    finally:
        stop(process)


def test_a_saver_beside_an_agent_waits_for_it(tmp_path: Path, segment: str) -> None:
    with attached(segment, tmp_path) as process:
        with chipmink.open(tmp_path, staging=segment) as repository:
            for step in range(5):
                repository.save({"x": step}).wait(timeout=30)
            status = repository.status()
            assert (status.persister, status.persisted_versions) == (process.pid, 0)
            # When the agent dies, the saver goes on by itself.
            stop(process)
            repository.save({"x": "alone"}).wait(timeout=30)
            assert repository.status().persister == os.getpid()
        with chipmink.open(tmp_path) as below:
            assert len(below.log()) == 6


def test_one_that_is_let_go_of_without_being_closed_lets_others_run(tmp_path: Path, segment: str) -> None:
    repository = chipmink.open(tmp_path, staging=segment, size="300MiB")
    ticks: list[float] = []
    is_over = threading.Event()

    def tick() -> None:
        while not is_over.wait(0.001):
            ticks.append(time.monotonic())

    other = threading.Thread(target=tick)
    other.start()
    saved = repository.save({"x": np.random.default_rng(1).bytes(200 << 20)})
    # It has begun to be persisted, and is far from its end: it is persisted to that.
    have_been = len(ticks)
    while len(ticks) < have_been + 5:
        time.sleep(0.001)
    assert not saved.done
    begun = time.monotonic()
    del saved, repository
    ended = time.monotonic()
    is_over.set()
    other.join()
    assert sum(begun < at < ended for at in ticks) > 10
    with chipmink.open(tmp_path, staging=segment) as again:
        assert len(again.load()["x"]) == 200 << 20


def test_who_waits_hears_that_the_repository_was_closed(tmp_path: Path, segment: str) -> None:
    with attached(segment, tmp_path) as process:
        # It has the lease, and does nothing with it.
        process.send_signal(signal.SIGSTOP)

        def enough(_: chipmink.Status) -> None:
            raise InterruptedError("enough")

        repository = chipmink.open(tmp_path, staging=segment, progress=enough)
        saved = repository.save({"x": 1})
        heard: list[BaseException] = []

        def wait() -> None:
            try:
                saved.wait(timeout=20)
            except BaseException as error:
                heard.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.3)
        with pytest.raises(InterruptedError, match="enough"):
            repository.close()
        waiting.join()
        assert isinstance(heard[0], chipmink.ClosedError), heard


def test_an_agent_refuses_what_is_not_its_own(tmp_path: Path, segment: str) -> None:
    with chipmink.open(tmp_path / "one", staging=segment, size="4MiB") as repository:
        repository.save({"x": 1})
    chipmink.open(tmp_path / "two").close()
    for place, reason in ((tmp_path / "two", "another repository"), (tmp_path / "none", "no chipmink repository")):
        process = agent(segment, place, "--until-durable")
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert reason in errors
    with pytest.raises(chipmink.UnsupportedError, match="staging tier of a repository elsewhere"):
        chipmink.open(segment)
    with pytest.raises(chipmink.UnsupportedError, match=r"shm://run7"):
        chipmink.open(tmp_path / "one", staging="run7")
    # Empty as it is, it may serve another.
    with chipmink.open(tmp_path / "two", staging=segment) as repository:
        repository.save({"x": 2})
    with chipmink.open(tmp_path / "two") as below:
        assert below.load() == {"x": 2}


def test_progress_is_reported(tmp_path: Path, segment: str) -> None:
    seen: list[chipmink.Status] = []
    with chipmink.open(tmp_path, staging=segment, size="64MiB", progress=seen.append) as repository:
        for step in range(3):
            saved = repository.save({"x": np.random.default_rng(step).random(500_000)})
        saved.wait(progress=True)
    assert all(isinstance(status, chipmink.Status) for status in seen)


def test_a_forked_child_leaves_the_staging_alone(tmp_path: Path, segment: str) -> None:
    repository = chipmink.open(tmp_path, staging=segment, size="8MiB")
    saved = repository.save({"x": 1})
    pid = os.fork()
    if pid == 0:
        try:
            saved.wait()
        except chipmink.ClosedError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    repository.save({"x": 2}).wait(timeout=30)
    repository.close()


@pytest.mark.parametrize("round_", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_kills_lose_and_tear_nothing(kind: str, round_: int) -> None:
    staged, problems = one(10_000 + round_, kind)
    assert problems == []
    assert staged > 0
