"""Backups: what is pushed to another place is all there, costs what changed, and survives every interruption."""

from __future__ import annotations

import datetime
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import chipmink
import numpy
import pytest
from buckets import KEYS, Moto, without_credentials
from oracle import assert_same, canonical


def namespaces(steps=4):
    shared = [1, [2.5, None]]
    cycle = [shared]
    cycle.append(cycle)
    array = numpy.random.default_rng(1).standard_normal(300_000)
    for step in range(steps):
        array = array.copy()
        array[step * 1000] = -1
        yield {"step": step, "shared": shared, "again": {"shared": shared, "cycle": cycle}, "array": array, "view": array[10:20]}


def fill(repo, steps=4):
    return [(repo.save(namespace, message=f"step {namespace['step']}"), canonical(namespace)) for namespace in namespaces(steps)]


def check(repo, saved):
    for number, want in saved:
        assert_same(want, repo.load(number))
    report = repo.verify(full=True)
    assert report.ok and report == [] and report.lost == ()


def test_a_backup_is_a_copy_with_the_same_numbers(tmp_path):
    repo = chipmink.open(tmp_path / "session")
    saved = fill(repo)
    repo.tag("first", saved[0][0])
    repo.branch("experiment", saved[1][0])
    done = repo.push(tmp_path / "backup")
    assert done.versions == 4 and done.bytes > 2_000_000 and set(done.refs) == {"main", "tag/first", "experiment"}
    with chipmink.open(tmp_path / "backup") as backup:
        check(backup, saved)
        assert backup.tags == repo.tags and backup.branches == repo.branches
        assert [entry.commit for entry in backup.log()] == [entry.commit for entry in repo.log()]
    again = repo.push(tmp_path / "backup")
    assert (again.versions, again.bytes, again.refs) == (0, 0, ())
    number = repo.save({"step": 9}, message="later")
    assert repo.push(tmp_path / "backup").versions == 1
    with chipmink.open(tmp_path / "backup") as backup:
        assert backup.load(number) == {"step": 9}
        assert backup.save({"step": 10}) > number


def test_a_push_costs_what_changed(tmp_path):
    repo = chipmink.open(tmp_path / "session")
    # As a session does: many small objects, and some large arrays.
    state = {f"table{i}": [[j, f"row {i} {j}", j / 7] for j in range(200)] for i in range(200)}
    state["weights"] = numpy.random.default_rng(2).standard_normal(2_000_000)
    repo.save(state)
    first = repo.push(tmp_path / "backup")
    for i in range(2):
        state[f"table{i}"][0][1] = "changed"
    state["weights"][400_000:420_000] += 1
    repo.save(state)
    second = repo.push(tmp_path / "backup")
    assert 0 < second.bytes <= 0.012 * first.bytes
    with chipmink.open(tmp_path / "backup") as backup:
        assert_same(canonical(state), backup.load())


def test_pull_brings_versions_here(tmp_path):
    theirs = chipmink.open(tmp_path / "theirs")
    saved = fill(theirs)
    mine = chipmink.open("memory://")
    assert mine.pull(tmp_path / "theirs").versions == 4
    assert_same(saved[-1][1], mine.load())
    namespace = mine.load()
    mine.checkout(None, namespace, force=True)
    namespace["step"] = 100
    mine.save(namespace)
    assert theirs.pull(mine).versions == 1
    assert theirs.load()["step"] == 100
    with pytest.raises(chipmink.NotFoundError):
        mine.pull(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_lines_that_went_another_way(tmp_path):
    mine, theirs = chipmink.open(tmp_path / "mine"), chipmink.open(tmp_path / "theirs")
    mine.save({"x": 1})
    mine.push(theirs)
    theirs.checkout(None, {}, force=True)
    theirs.save({"x": 2})
    mine.save({"x": 3})
    with pytest.raises(chipmink.RefMovedError, match="another way.*--ref main:theirs"):
        mine.push(theirs)
    assert mine.push(theirs, refs="main:mine").refs == ("mine",)
    assert theirs.load("mine") == {"x": 3} and theirs.load("main") == {"x": 2}
    # Who is ahead is left alone.
    assert theirs.push(mine, refs="mine:main").ahead == () and mine.load() == {"x": 3}
    theirs.pull(mine, mirror=True)
    assert theirs.branches.keys() == {"main"} and theirs.load("main") == {"x": 3}


def test_some_variables_and_some_versions(tmp_path):
    repo = chipmink.open(tmp_path / "session")
    base = 10

    def plus(x):
        return x + base

    shared = [1]
    for step in range(3):
        repo.save({"a": [shared, step], "b": shared, "plus": plus, "large": numpy.arange(100_000) + step, "base": base})
    done = repo.push(tmp_path / "part", names=["a"], since=2)
    assert done.versions == 2 and done.bytes < 20_000
    with chipmink.open(tmp_path / "part") as part:
        loaded = part.load()
        assert loaded.keys() == {"a", "b"} and loaded["a"][0] is loaded["b"] and loaded["a"][1] == 2
        assert part.verify().ok
    tomorrow = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    assert repo.push(tmp_path / "nothing", since=tomorrow).versions == 0
    with pytest.raises(chipmink.NotFoundError, match="no version.*'nobody'|\"nobody\""):
        repo.push(tmp_path / "nobody", names=["nobody"])


def test_what_it_is_asked_for_is_checked(tmp_path):
    repo = chipmink.open(tmp_path / "session")
    repo.save({"x": 1})
    for wrong, error in [
        ({"limit": "fast"}, ValueError),
        ({"limit": 0}, ValueError),
        ({"limit": 1e6}, TypeError),
        ({"since": -1}, ValueError),
        ({"since": 1.5}, TypeError),
        ({"since": "2026-01-01"}, TypeError),
        ({"progress": None}, TypeError),
        ({"refs": []}, ValueError),
        ({"refs": "main:"}, chipmink.UnsupportedError),
        ({"refs": "none"}, chipmink.NotFoundError),
        ({"names": []}, ValueError),
        ({"colour": "red"}, TypeError),
    ]:
        with pytest.raises(error):
            repo.push(tmp_path / "backup", **wrong)
    with pytest.raises(chipmink.UnsupportedError):
        repo.push("ftp://somewhere")
    assert not (tmp_path / "backup").exists()
    assert repo.push(tmp_path / "backup", since=numpy.int64(0), limit=numpy.int64(1 << 40)).versions == 1


def test_progress_and_limit(tmp_path):
    repo = chipmink.open(tmp_path / "session")
    repo.save({"x": numpy.random.default_rng(3).bytes(3_000_000)})
    told = []
    began = time.monotonic()
    repo.push(tmp_path / "backup", progress=told.append, limit="10MB/s")
    assert {progress.phase for progress in told} >= {"comparing", "publishing"} and time.monotonic() - began < 60
    assert all(progress.done <= progress.total for progress in told)

    def enough(progress):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        repo.push(tmp_path / "other", progress=enough)
    assert repo.push(tmp_path / "other").versions == 1


def test_the_command(tmp_path):
    saved = fill(chipmink.open(tmp_path / "session"))

    def run(*arguments, status=0):
        done = subprocess.run([sys.executable, "-m", "chipmink", *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        return done.stdout if status == 0 else done.stderr

    assert "4 versions to" in run("push", tmp_path / "session", tmp_path / "backup")
    assert json.loads(run("mirror", tmp_path / "session", tmp_path / "backup", "--json"))["versions"] == 0
    assert "1 version to" in run("pull", tmp_path / "backup", tmp_path / "part", "--since", saved[-1][0], "--limit", "50MB/s")
    assert "another way" not in run("push", tmp_path / "session", tmp_path / "part", "--ref", "main:whole")
    assert "no rate" in run("push", tmp_path / "session", tmp_path / "backup", "--limit", "much", status=2)
    stats = json.loads(run("stats", tmp_path / "backup", "--json"))
    assert stats["versions"] == 4 and stats["stored_bytes"] > 2_000_000
    assert "versions  4 on 1 line" in run("stats", tmp_path / "backup")
    du = {", ".join(row["names"]): row for row in json.loads(run("du", tmp_path / "backup", "--json"))}
    assert du["array, view"]["own_bytes"] > 2_000_000 and du["step"]["bytes"] == 0
    versions = json.loads(run("du", tmp_path / "backup", "--versions", "--json"))
    assert [row["version"] for row in versions] == [4, 3, 2, 1]
    assert all(row["own_bytes"] < 0.1 * row["bytes"] for row in versions)
    run("export", tmp_path / "backup", saved[1][0], "--to", tmp_path / "out.pkl")
    assert_same(saved[1][1], pickle.loads((tmp_path / "out.pkl").read_bytes()))
    assert "cannot be pickled" in _export_of_a_lambda(tmp_path, run)
    assert "no chipmink repository" in run("export", tmp_path / "none", 1, "--to", tmp_path / "x", status=1)
    for version, name, missing in ((99, "array", "99"), ("²", "array", "²"), (1, "nobody", "nobody")):
        told = run("export", tmp_path / "backup", version, "--to", tmp_path / "x", "--names", name, "--json", status=1)
        error = json.loads(told)["error"]
        assert error["kind"] == "not-found" and missing in error["message"]


def _export_of_a_lambda(tmp_path, run):
    saver = "import chipmink, sys; chipmink.open(sys.argv[1]).save({'f': lambda x: x, 'y': 2})"
    subprocess.run([sys.executable, "-c", saver, str(tmp_path / "functions")], check=True)
    text = run("export", tmp_path / "functions", 1, "--to", tmp_path / "f.pkl", status=1)
    assert not (tmp_path / "f.pkl").exists()
    run("export", tmp_path / "functions", 1, "--to", tmp_path / "f.pkl", "--names", "y")
    assert pickle.loads((tmp_path / "f.pkl").read_bytes()) == {"y": 2}
    return text


@pytest.fixture
def segment():
    name = f"chipmink-test-{uuid.uuid4().hex}"
    yield f"shm://{name}"
    Path("/dev/shm", name).unlink(missing_ok=True)


def test_shared_memory_at_either_end(tmp_path, segment):
    with chipmink.open(segment, size="64MiB") as repo:
        saved = fill(repo)
        repo.tag("first", saved[0][0])
        assert repo.push(tmp_path / "backup").versions == 4
        with chipmink.open(tmp_path / "backup") as backup:
            check(backup, saved)
            assert backup.tags == repo.tags
            number = backup.save({"step": 9})
            assert repo.pull(backup).versions == 1
        assert repo.load(number) == {"step": 9}
        check(repo, saved)
        repo.sweep(keep_last=1, grace="0s")
        repo.push(tmp_path / "backup", mirror=True)
    with chipmink.open(tmp_path / "backup") as backup:
        assert backup.load(number) == {"step": 9} and backup.verify().ok
    with chipmink.open("memory://") as elsewhere:
        with chipmink.open(segment) as repo, pytest.raises(chipmink.StorageError, match="full|room|space"):
            # Another repository's line goes to a name of its own; what does not fit is refused and harms nothing.
            elsewhere.save({"x": numpy.random.default_rng(1).bytes(80_000_000)})
            elsewhere.push(repo, refs="main:theirs")
        with chipmink.open(segment) as repo:
            assert repo.load() == {"step": 9} and repo.verify().ok and "theirs" not in repo.branches


def test_a_staging_tier_at_either_end(tmp_path, segment):
    with chipmink.open(tmp_path / "session", staging=segment, size="64MiB") as repo:
        saved = fill(repo)
        # What is only staged goes, too, under the number that it keeps.
        assert repo.push(tmp_path / "backup").versions == 4
        saved[-1][0].wait()
        assert repo.push(tmp_path / "backup").versions == 0
        with chipmink.open(tmp_path / "backup") as backup:
            check(backup, saved)
            number = backup.save({"step": 9})
        assert repo.pull(tmp_path / "backup").versions == 1
        assert repo.load(number) == {"step": 9}
        # It goes on from there, and all of it becomes durable.
        repo.checkout(None, {}, force=True)
        last = repo.save({"step": 10}).wait()
        assert repo.push(tmp_path / "backup").versions == 1
    with chipmink.open(tmp_path / "session") as below, chipmink.open(tmp_path / "backup") as backup:
        check(below, [*saved, (number, canonical({"step": 9})), (last, canonical({"step": 10}))])
        assert [entry.commit for entry in below.log()] == [entry.commit for entry in backup.log()]


KILLED = """
import chipmink, sys
told = lambda now: print(now.phase, now.done, now.total, flush=True)
chipmink.open(sys.argv[1]).push(sys.argv[2], limit="12MB/s", progress=told)
"""


def killed_push(source, destination, share):
    """Kills a push when so much of the bytes was copied."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(source), str(destination)], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        phase, done, total = line.split()
        if phase == "copying" and int(total) and int(done) >= share * int(total):
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_a_push_that_was_killed_goes_on(tmp_path):
    repo = chipmink.open(tmp_path / "session")
    content = numpy.random.default_rng(4).bytes(40_000_000)
    number = repo.save({"x": content})
    backup = tmp_path / "backup"
    for share in (0.1, 0.9, 0.95, 0.95, 0.95):
        killed_push(tmp_path / "session", backup, share)
        with chipmink.open(backup) as repository:
            assert repository.branches == {} and repository.verify().ok
        if share > 0.5 and any((backup / "packs").iterdir()):
            break
    done = repo.push(backup)
    assert done.packs_resumed > 0 and done.bytes < 35_000_000
    assert done.bytes + done.bytes_resumed < 45_000_000
    with chipmink.open(backup) as repository:
        assert repository.load(number) == {"x": content} and repository.verify().ok


@pytest.fixture(scope="module")
def moto():
    server = Moto()
    server.make_bucket("bucket")
    yield server
    server.stop()


def test_a_bucket_as_a_backup(moto, tmp_path, monkeypatch):
    without_credentials(monkeypatch, tmp_path)
    options = {"endpoint": moto.endpoint, "region": "us-east-1", **KEYS}
    repo = chipmink.open(tmp_path / "session")
    saved = fill(repo)
    assert repo.push("s3://bucket/backup", **options).versions == 4
    assert repo.push("s3://bucket/backup", **options).bytes == 0
    with chipmink.open("s3://bucket/backup", **options) as backup:
        check(backup, saved)
        backup.push("s3://bucket/other", **options)
    restored = chipmink.open(tmp_path / "restored")
    assert restored.pull("s3://bucket/other", **options).versions == 4
    check(restored, saved)
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    place = f"s3://bucket/command?endpoint={moto.endpoint}"
    run = subprocess.run(
        [sys.executable, "-m", "chipmink", "push", str(tmp_path / "session"), place], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0 and "4 versions to s3://bucket/command:" in run.stdout, run.stderr
