"""Repositories in shared memory: they outlive their process, are bounded, and are seen by others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import chipmink


@pytest.fixture
def segment() -> Iterator[str]:
    name = f"chipmink-test-{uuid.uuid4().hex}"
    yield f"shm://{name}"
    Path("/dev/shm", name).unlink(missing_ok=True)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "chipmink", *arguments], capture_output=True, text=True)


def test_versions_outlive_a_process_that_is_killed(segment: str) -> None:
    program = f"""
import chipmink, numpy as np, os, signal
repo = chipmink.open({segment!r}, size="16MiB")
shared = ["a"]
repo.save({{"x": np.arange(100_000), "one": [shared], "two": shared}})
repo.save({{"x": np.arange(100_000) * 2, "one": [shared], "two": shared}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", program])
    assert ended.returncode == -signal.SIGKILL
    with chipmink.open(segment) as repository:
        assert [version.number for version in repository.log()] == [2, 1]
        found = repository.load(1)
        assert np.array_equal(found["x"], np.arange(100_000))
        assert found["one"][0] is found["two"]
        assert repository.verify() == []
        assert repository.save({"x": 1}) == 3


def test_two_open_it_and_see_each_others_versions(segment: str) -> None:
    first = chipmink.open(segment, size="4MiB")
    second = chipmink.open(segment, ref="other")
    t1 = first.save({"a": [1]})
    assert second.load(int(t1)) == {"a": [1]}
    t2 = second.save({"b": [2]})
    assert first.load(int(t2)) == {"b": [2]}
    third = chipmink.open(segment)
    third.save({"a": [3]})
    with pytest.raises(chipmink.RefMovedError):
        first.save({"a": [4]})


def test_a_full_segment_fails_the_save_and_keeps_every_version(segment: str) -> None:
    repository = chipmink.open(segment, size="2MiB")
    source = np.random.default_rng(1)
    saved = {}
    with pytest.raises(chipmink.StorageError, match="is full"):
        for step in range(20):
            array = source.random(30_000)
            saved[repository.save({"x": array})] = array
    assert 3 < len(saved) < 20
    for number, array in saved.items():
        assert np.array_equal(repository.load(number)["x"], array)
    # What is small still fits, and the failed save left nothing behind.
    assert repository.save({"small": 1}) == max(saved) + 1
    assert repository.verify() == []


def test_sizes_are_checked(segment: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        chipmink.open(segment, size="2 gigabytes")
    with pytest.raises(chipmink.ChipminkError, match="too few"):
        chipmink.open(segment, size=1000)
    with pytest.raises(chipmink.ChipminkError, match="reserving"):
        chipmink.open(segment, size="64TiB")
    assert not Path("/dev/shm", segment.removeprefix("shm://")).exists()
    chipmink.open(segment, size="1MiB").close()
    with pytest.raises(chipmink.UnsupportedError, match="not 2097152"):
        chipmink.open(segment, size="2MiB")
    with pytest.raises(ValueError, match="size is that of shared memory"):
        chipmink.open("folder", size="2MiB")
    with pytest.raises(chipmink.UnsupportedError):
        chipmink.open("shm://")


def test_the_command_lists_shows_and_removes(segment: str) -> None:
    with chipmink.open(segment, size="1MiB") as repository:
        repository.save({"a": 1}, message="hello")
    assert f"{segment}  repository" in command("shm", "list").stdout
    assert "hello" in command("log", segment).stdout
    assert command("verify", segment).returncode == 0
    assert command("shm", "rm", segment).returncode == 0
    assert segment not in command("shm", "list").stdout
    again = command("shm", "rm", segment)
    assert again.returncode == 1
    assert "No such file" in again.stderr
    assert "no chipmink repository" in command("log", segment).stderr


def test_a_forked_child_harms_nothing(segment: str) -> None:
    repository = chipmink.open(segment, size="4MiB")
    repository.save({"a": [1]})
    pid = os.fork()
    if pid == 0:
        try:
            repository.save({"a": [2]})
        except chipmink.ClosedError:
            with chipmink.open(segment, ref="child") as own:
                own.save({"a": ["child"]})
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert repository.save({"a": [3]}) == 3
    assert repository.load(2) == {"a": ["child"]}


@pytest.mark.parametrize("seed", range(8))
def test_hostile_bytes_give_errors_and_no_crash(segment: str, seed: int) -> None:
    with chipmink.open(segment, size="1MiB") as repository:
        for step in range(3):
            repository.save({"x": list(range(step * 100))})
    path = Path("/dev/shm", segment.removeprefix("shm://"))
    source = np.random.default_rng(seed)
    with path.open("r+b") as file:
        for _ in range(30):
            # Most of it is behind the slots; the head and the slots are hit, too.
            file.seek(int(source.integers(0, 200_000 if seed % 2 else 20_000)))
            file.write(source.bytes(int(source.integers(1, 40))))
    # In a process of its own: a crash would end it with a signal.
    program = f"""
import chipmink
try:
    repo = chipmink.open({segment!r})
    repo.verify()
    for version in repo.log():
        repo.load(version.number)
    repo.save({{"x": 1}})
except chipmink.ChipminkError:
    pass
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_a_segment_that_is_cut_while_it_is_read_gives_errors(segment: str) -> None:
    repository = chipmink.open(segment, size="4MiB")
    repository.save({"x": np.random.default_rng(1).random(100_000)})
    os.truncate(Path("/dev/shm", segment.removeprefix("shm://")), 300_000)
    with pytest.raises(chipmink.ChipminkError):
        chipmink.open(segment)
    with pytest.raises(chipmink.ChipminkError):
        repository.load(1)
    with pytest.raises(chipmink.ChipminkError):
        repository.save({"y": 1})
