"""Shared memory that a load has made, or that others use meanwhile: whose names it has, and what others do to it."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import subprocess
import sys
import textwrap
import time
import warnings
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import chipmink
import numpy as np
import pytest
from segments import CHUNK, FOLDER, run, segment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="shared memory is saved on Linux only")


# --- names -----------------------------------------------------------------------------------------------------------


def test_a_name_goes_with_the_last_that_refers_to_the_segment(repo, segment):
    version = repo.save({"shm": segment, "array": np.frombuffer(segment.buf, dtype="u1")})
    loaded = repo.load(version)
    name = loaded["shm"].name
    array = loaded.pop("array")
    loaded["shm"].close()
    gc.collect()
    # One that is closed can still be handed on by its name.
    assert (FOLDER / name).exists()
    del loaded
    gc.collect()
    assert (FOLDER / name).exists()
    del array
    gc.collect()
    assert not (FOLDER / name).exists()
    assert (FOLDER / segment.name).exists()


def test_a_name_that_was_given_to_another_segment_is_left(repo, segment):
    loaded = repo.load(repo.save({"shm": segment}))["shm"]
    name = loaded.name
    os.unlink(FOLDER / name)
    (FOLDER / name).write_bytes(b"somebody else's")
    del loaded
    gc.collect()
    assert (FOLDER / name).read_bytes() == b"somebody else's"
    os.unlink(FOLDER / name)
    resource_tracker.unregister(f"/{name}", "shared_memory")


LOADS = """
    import os, signal, sys, time
    import chipmink
    with chipmink.open(sys.argv[1], durable=False) as repo:
        shm = repo.load(int(sys.argv[2]))["shm"]
    print(shm.name, flush=True)
"""


@pytest.mark.parametrize(
    "end",
    ["", "shm.close(); shm.unlink()", "shm.unlink()", "os.fork() or os._exit(0)", "os.fork() or sys.exit(); time.sleep(1)"],
)
def test_a_process_that_ends_takes_its_names_with_it(tmp_path, segment, end):
    with chipmink.open(tmp_path / "repo", durable=False) as repo:
        version = repo.save({"shm": segment})
    is_forked = "sys.exit" in end
    check = "\nassert os.path.exists('/dev/shm/' + shm.name)" if is_forked else ""
    done = run(textwrap.dedent(LOADS) + end + check, tmp_path / "repo", int(version))
    assert (done.returncode, done.stderr) == (0, "")
    assert not (FOLDER / done.stdout.split()[0]).exists()
    assert (FOLDER / segment.name).exists()


def test_the_resource_tracker_removes_the_name_of_a_process_that_was_killed(tmp_path, segment):
    with chipmink.open(tmp_path / "repo", durable=False) as repo:
        version = repo.save({"shm": segment})
    done = run(textwrap.dedent(LOADS) + "os.kill(os.getpid(), signal.SIGKILL)", tmp_path / "repo", int(version))
    assert done.returncode == -9
    name = done.stdout.strip()
    until = time.monotonic() + 30
    while (FOLDER / name).exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not (FOLDER / name).exists()


# --- others who do harm ----------------------------------------------------------------------------------------------


def test_a_segment_that_was_shrunk_is_reported(repo):
    shm = SharedMemory(create=True, size=4 * CHUNK)
    small = SharedMemory(create=True, size=3 * mmap.PAGESIZE)
    records = np.ndarray((1000,), dtype=[("a", "i8"), ("b", "f8")], buffer=shm.buf)
    few = np.ndarray((10,), dtype=[("a", "i8"), ("b", "f8")], buffer=small.buf, offset=2 * mmap.PAGESIZE)
    namespace = {
        "shm": shm,
        "array": np.frombuffer(shm.buf, dtype="u1")[CHUNK:],
        "strided": np.frombuffer(shm.buf, dtype="u1")[CHUNK::7],
        "records": records[500:],
        "small": small,
        "few": few,
        "other": [1],
    }
    whole = repo.save(namespace)
    assert whole.report.skipped == ()
    for each in (shm, small):
        with open(FOLDER / each.name, "r+b") as file:
            os.ftruncate(file.fileno(), mmap.PAGESIZE)
    for turn in range(2):
        with pytest.warns(Warning, match="shrunk") if turn == 0 else contextlib.nullcontext():
            saved = repo.save(namespace)
        assert {lost.variable for lost in saved.report.skipped} == set(namespace) - {"other"}
        assert all("shrunk by another process" in lost.reason for lost in saved.report.skipped)
        loaded = repo.load(saved)
        assert loaded.pop("other") == [1]
        assert all(isinstance(lost, chipmink.Placeholder) for lost in loaded.values())
    for each in (shm, small):
        with open(FOLDER / each.name, "r+b") as file:
            os.ftruncate(file.fileno(), each.size)
    again = repo.save(namespace)
    assert again.report.skipped == ()
    loaded = repo.load(again)
    assert not any(loaded["small"].buf[mmap.PAGESIZE + i] for i in range(2 * mmap.PAGESIZE))
    del loaded
    del records, few, namespace
    gc.collect()
    for each in (shm, small):
        each.close()
        each.unlink()


def test_an_anonymous_mapping_whose_memory_was_taken_away(repo):
    descriptor = os.memfd_create("gone")
    os.ftruncate(descriptor, 3 * CHUNK)
    mapping = mmap.mmap(descriptor, 3 * CHUNK)
    array = np.frombuffer(mapping, dtype="u1")
    assert repo.save({"array": array}).report.skipped == ()
    os.ftruncate(descriptor, 0)
    with pytest.warns(Warning, match="shrunk"):
        assert len(repo.save({"array": array}).report.skipped) == 1
    del array
    mapping.close()
    os.close(descriptor)


def test_a_name_that_leads_elsewhere_by_now_is_not_followed(repo, segment, tmp_path):
    content = bytes(segment.buf)
    os.unlink(FOLDER / segment.name)
    for make in (os.mkfifo, lambda path: path.write_bytes(bytes(segment.size)), lambda path: path.symlink_to("/dev/zero")):
        make(FOLDER / segment.name)
        assert bytes(repo.load(repo.save({"shm": segment}))["shm"].buf) == content
        os.unlink(FOLDER / segment.name)
    resource_tracker.unregister(f"/{segment.name}", "shared_memory")


def test_a_segment_that_has_grown_is_saved_as_it_is_mapped(repo, segment):
    content = bytes(segment.buf)
    with open(FOLDER / segment.name, "r+b") as file:
        os.ftruncate(file.fileno(), 10 * len(content))
    loaded = repo.load(repo.save({"shm": segment}))["shm"]
    assert (loaded.size, bytes(loaded.buf)) == (len(content), content)


def test_a_process_that_shrinks_grows_and_overwrites_it_meanwhile(repo):
    shm = SharedMemory(create=True, size=512 * CHUNK)
    array = np.frombuffer(shm.buf, dtype="u1")
    code = """
        import os, random, sys
        descriptor = os.open(sys.argv[1], os.O_RDWR)
        size = int(sys.argv[2])
        print("ready", flush=True)
        while True:
            os.ftruncate(descriptor, random.randrange(size))
            os.ftruncate(descriptor, size)
            os.pwrite(descriptor, os.urandom(100_000), random.randrange(size - 100_000))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(FOLDER / shm.name), str(shm.size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            outcomes = set()
            for _ in range(25):
                saved = save_quietly(repo, {"shm": shm, "array": array[CHUNK:], "other": 1})
                outcomes.add(len(saved.report.skipped))
                loaded = repo.load(saved)
                assert loaded["other"] == 1
                if not saved.report.skipped:
                    assert bytes(loaded["shm"].buf[CHUNK:]) == loaded["array"].tobytes()
                del loaded
        finally:
            process.kill()
    assert outcomes <= {0, 1, 2}
    assert repo.verify() == []
    del array
    shm.close()
    shm.unlink()


def save_quietly(repo: chipmink.Repository, namespace: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return repo.save(namespace)


def test_what_a_save_takes_does_not_grow_with_the_segment(tmp_path):
    code = """
        import re, sys, threading
        import chipmink
        from multiprocessing.shared_memory import SharedMemory

        def anonymous():
            with open("/proc/self/status") as status:
                return int(re.search(r"RssAnon:\\s+(\\d+)", status.read())[1]) * 1024

        size = 512 << 20
        shm = SharedMemory(create=True, size=size)
        with open("/dev/urandom", "rb") as random:
            block = random.read(8 << 20)
        for at in range(0, size, len(block)):
            shm.buf[at : at + len(block)] = at.to_bytes(8, "little") + block[8:]
        with chipmink.open(sys.argv[1], durable=False) as repo:
            repo.save({"x": 1})
            before = peak = anonymous()
            done = threading.Event()
            def watch():
                global peak
                while not done.wait(0.002):
                    peak = max(peak, anonymous())
            watcher = threading.Thread(target=watch)
            watcher.start()
            version = repo.save({"shm": shm})
            saving = peak - before
            before = peak = anonymous()
            loaded = repo.load(version)["shm"]
            loading = peak - before
            done.set()
            watcher.join()
            assert loaded.buf[size - 1] == shm.buf[size - 1]
        shm.close()
        shm.unlink()
        print(saving, loading)
    """
    done = run(code, tmp_path / "repo")
    assert done.stderr == ""
    saving, loading = map(int, done.stdout.split())
    assert saving <= 64 << 20
    assert loading <= 64 << 20
