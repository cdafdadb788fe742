"""Sweeps: what is dropped goes and says so, what stays loads, and others save meanwhile."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import subprocess
import sys
import textwrap
import warnings

import chipmink
import numpy
import pytest
from buckets import KEYS, Moto, without_credentials

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples" / "plain_reader"))

from chipmink_reader import Reader  # noqa: E402


def size_of(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in (folder / "packs").iterdir())


def step(number: int) -> dict[str, object]:
    """What version ``number`` holds: some of it changes, some does not."""
    weights = numpy.arange(40_000, dtype="f8")
    weights[number * 100 : number * 100 + 50] = -1
    return {
        "weights": weights,
        "part": weights[:10],
        "noise": numpy.random.default_rng(number).bytes(20_000),
        "table": {"rows": list(range(number, number + 300)), "name": f"step {number}"},
        "same": ["a"] * 500,
    }


def assert_step(loaded: dict[str, object], number: int) -> None:
    want = step(number)
    assert list(loaded) == list(want)
    assert numpy.array_equal(loaded["weights"], want["weights"]) and numpy.shares_memory(loaded["weights"], loaded["part"])
    assert all(loaded[name] == want[name] for name in ("noise", "table", "same"))


@pytest.fixture
def repo(tmp_path):
    with chipmink.open(tmp_path / "repo", durable=False) as opened:
        yield opened


def test_what_is_dropped_is_gone_and_what_stays_loads(repo, tmp_path):
    versions = [repo.save(step(number)) for number in range(12)]
    before = size_of(tmp_path / "repo")
    report = repo.sweep(keep_last=3, grace="0s")
    assert report.versions_dropped == tuple(versions[:9]) and report.versions_kept == 3
    assert report.freed_bytes > 0 and report.waiting_bytes == 0 and not report.dry_run
    assert before - report.freed_bytes <= size_of(tmp_path / "repo") < before - report.freed_bytes + report.moved_bytes + 50_000
    assert [entry.number for entry in repo.log()] == versions[:8:-1]
    for reader in (repo, chipmink.open(tmp_path / "repo")):
        for number in range(9, 12):
            assert_step(reader.load(versions[number]), number)
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        for use in (reader.load, reader.at, reader.names, lambda version: reader.diff(version, versions[11])):
            with pytest.raises(chipmink.NotFoundError, match=f"version 1 of .* was dropped by a sweep on {today}"):
                use(versions[0])
        with pytest.raises(chipmink.NotFoundError, match="dropped by a sweep"):
            reader.tag("late", versions[2])
        assert reader.verify(full=True) == []
    # Saving goes on, from what the object knew.
    more = repo.save(step(12))
    assert_step(chipmink.open(tmp_path / "repo").load(more), 12)
    plain = Reader(tmp_path / "repo")
    assert [number for number, _ in plain.versions()] == [more, *versions[:8:-1]]
    assert plain.load(more)["table"] == step(12)["table"]


def test_rules_join_and_a_dry_run_tells_what_is_then_done(repo, tmp_path):
    versions = [repo.save(step(number)) for number in range(20)]
    repo.tag("good", versions[4])
    before = size_of(tmp_path / "repo")
    rules = {"keep_last": 2, "keep_every": 8, "grace": datetime.timedelta(0)}
    said = repo.sweep(**rules, dry_run=True)
    assert said.dry_run and size_of(tmp_path / "repo") == before and len(repo.log()) == 20
    done = repo.sweep(**rules)
    figures = vars(done) | {"dry_run": True}
    assert vars(said) == figures
    assert [entry.number for entry in repo.log()] == [20, 19, 15, 7, 5]
    assert_step(repo.load("good"), 4)
    assert repo.sweep(older_than="1h", grace="0s").versions_dropped == ()
    report = repo.sweep(keep_last=1, keep_tagged=False, grace="0s")
    assert report.tags_deleted == ("good",) and repo.tags == {} and report.versions_kept == 1
    assert repo.verify(full=True) == []


def test_a_bound_of_bytes(repo, tmp_path):
    for number in range(20):
        repo.save(step(number))
    bound = size_of(tmp_path / "repo") // 2
    report = repo.sweep(max_bytes=bound, grace="0s")
    assert 1 < report.versions_kept < 20 and report.kept_bytes <= bound
    # The index of the pack that was written comes on top.
    assert size_of(tmp_path / "repo") < bound * 1.1
    assert [entry.number for entry in repo.log()] == list(range(20, 20 - report.versions_kept, -1))


def test_the_grace_lets_readers_finish(repo, tmp_path):
    noise = [numpy.random.default_rng(number).bytes(20_000) for number in range(8)]
    versions = [repo.save({"early": noise[number], "late": [noise[number + 4]]}) for number in range(4)]
    other = chipmink.open(tmp_path / "repo")
    lazy = other.at(versions[0])
    report = repo.sweep(keep_last=1)
    assert report.freed_bytes == 0 and report.waiting_bytes > 0
    assert lazy["early"] == noise[0]
    late = repo.sweep(grace="0s")
    assert late.freed_bytes == report.waiting_bytes and late.versions_dropped == ()
    with pytest.raises(chipmink.NotFoundError, match="dropped by a sweep"):
        lazy["late"]


def test_versions_can_be_named(repo):
    for number in range(1, 7):
        repo.save({"number": number})
    repo.tag("two", 2)
    assert repo.sweep(drop=[2, 3, 6], grace="0s").versions_dropped == (3,)
    report = repo.sweep(drop=[2], keep_tagged=False, grace="0s")
    assert (report.versions_dropped, report.tags_deleted) == ((2,), ("two",))
    assert [repo.load(number)["number"] for number in (1, 4, 5, 6)] == [1, 4, 5, 6]


def test_text_names_no_versions_to_drop(repo):
    repo.save({"x": 1})
    repo.save({"x": 2})
    for drop in ("1", ["1"], [1.0]):
        with pytest.raises(TypeError):
            repo.sweep(drop=drop)
    assert [version.number for version in repo.log()] == [2, 1]


def test_a_sweep_without_rules_clears_away_what_died(repo, tmp_path):
    repo.save(step(0))
    orphan = tmp_path / "repo" / "packs" / ("0" * 31 + "1")
    orphan.write_bytes(next((tmp_path / "repo" / "packs").iterdir()).read_bytes())
    assert repo.sweep().orphans_condemned == 0 and orphan.exists()
    old = orphan.stat().st_mtime - 7200
    os.utime(orphan, (old, old))
    assert repo.sweep().orphans_condemned == 1 and orphan.exists()
    report = repo.sweep(grace="0s")
    assert report.packs_deleted == 1 and not orphan.exists() and report.versions_kept == 1


def test_a_base_that_was_swept_costs_a_full_save(tmp_path):
    first = chipmink.open(tmp_path / "repo", on_conflict="branch")
    version = first.save(step(0))
    second = chipmink.open(tmp_path / "repo")
    for number in range(1, 4):
        second.save(step(number))
    # The first goes on from its version, of which it has a part unchanged.
    second.sweep(keep_last=1, grace="0s")
    namespace = step(0)
    saved = first.save(namespace)
    assert saved.ref == "main-2" and saved > version
    assert_step(chipmink.open(tmp_path / "repo").load(saved), 0)
    namespace["table"]["more"] = 1
    saved = first.save(namespace)
    assert chipmink.open(tmp_path / "repo").load(saved)["table"]["more"] == 1
    assert first.verify(full=True) == []


def test_unchanged_variables_of_a_dropped_base_are_saved_anew(tmp_path):
    repo, other = chipmink.open(tmp_path / "repo"), chipmink.open(tmp_path / "repo")
    namespace = {"kept": list(range(2000)), "changed": [0], "buffer": numpy.random.default_rng(1).bytes(100_000)}
    first = repo.save(namespace)
    repo.save({"nothing": 1})
    live: dict[str, object] = {}
    repo.checkout(first, live, force=True)
    other.sweep(keep_last=1, grace="0s")
    live["changed"].append(1)
    version = repo.save(live, accessed=["changed"])
    assert chipmink.open(tmp_path / "repo").load(version) == {**namespace, "changed": [0, 1]}
    assert repo.verify(full=True) == []


def test_memory_gives_room_back():
    with chipmink.open("memory://", memory_bytes=1_000_000) as repo:
        for number in range(40):
            version = repo.save(step(number))
            repo.sweep(keep_last=1, grace="0s")
            assert_step(repo.load(version), number)


def test_a_staged_repository_is_swept_below(tmp_path):
    name = f"sweep-test-{os.getpid()}"
    with chipmink.open(tmp_path / "repo", staging=f"shm://{name}", size="64MiB") as repo:
        try:
            versions = [repo.save(step(number)) for number in range(8)]
            report = repo.sweep(keep_last=2, grace="0s")
            assert report.versions_dropped == tuple(versions[:6]) and repo.status().staged_versions == 0
            versions.append(repo.save(step(8)).wait())
            for number in range(6, 9):
                assert_step(repo.load(versions[number]), number)
            with pytest.raises(chipmink.NotFoundError, match="dropped"):
                repo.load(versions[0])
        finally:
            repo.close()
            subprocess.run([sys.executable, "-m", "chipmink", "shm", "rm", name, "--force"], check=True)
    with chipmink.open(tmp_path / "repo") as again:
        assert_step(again.load(versions[8]), 8)
        assert again.verify(full=True) == []


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"keep_last": 0}, "keep_last is at least 1"),
        ({"keep_every": 0}, "keep_every is at least 1"),
        ({"keep_every": "0d"}, "longer than no time"),
        ({"keep_every": numpy.int64(0)}, "keep_every is at least 1"),
        ({"keep_every": "1 day"}, "keep_every is a timedelta or text"),
        ({"older_than": "9" * 400 + "w"}, "older_than is a timedelta or text"),
        ({"older_than": 3600}, "older_than is a timedelta or text"),
        ({"grace": datetime.timedelta(-1)}, "grace cannot be negative"),
        ({"max_bytes": "1 parsec"}, "is no size"),
        ({"max_bytes": numpy.int64(0)}, "is no size"),
        ({"drop": [1, -1]}, "one of .* is none"),
    ],
)
def test_arguments_that_mean_nothing(repo, arguments, match):
    repo.save({"x": 1})
    with pytest.raises(ValueError, match=match):
        repo.sweep(**arguments)


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    shown = [str(argument) for argument in arguments]
    return subprocess.run([sys.executable, "-m", "chipmink", *shown], capture_output=True, text=True, check=False)


def test_the_command_sweeps(repo, tmp_path):
    for number in range(10):
        repo.save(step(number))
    said = command("sweep", tmp_path / "repo", "--keep-last", 3, "--grace", "0s", "--dry-run", "--json")
    said = json.loads(said.stdout)
    assert said["dry_run"] and said["versions_dropped"] == list(range(1, 8)) and said["entry"] is None
    text = command("sweep", tmp_path / "repo", "--keep-last", 3, "--grace", "0s")
    assert text.returncode == 0 and "dropped: 7 versions (1, 2, 3, 4, 5, 6, 7); 3 left" in text.stdout
    assert len(json.loads(command("log", tmp_path / "repo", "--json").stdout)) == 3
    shown = command("show", tmp_path / "repo", 4, "--json")
    assert shown.returncode == 1 and json.loads(shown.stderr)["error"]["kind"] == "not-found"
    wrong = command("sweep", tmp_path / "repo", "--keep-last", 0)
    assert wrong.returncode == 2
    assert command("verify", tmp_path / "repo").returncode == 0


SAVER = """
    import sys, warnings
    import chipmink, numpy
    place, name, count, options = sys.argv[1], sys.argv[2], int(sys.argv[3]), eval(sys.argv[4])
    repo = chipmink.open(place, ref=name, **options)
    shared = numpy.arange(30_000, dtype="f8")
    for number in range(count):
        # Now and then what was there long ago comes back.
        noise = numpy.random.default_rng(number % 3).bytes(5000)
        version = repo.save({"shared": shared, "noise": noise, "number": [number], "name": name})
    print(int(version))
"""


READER = """
    import json, random, sys
    import chipmink, numpy
    place, options = sys.argv[1], eval(sys.argv[2])
    repo = chipmink.open(place, **options)
    loaded = dropped = 0
    while True:
        # Mostly what the log has, some of which is dropped meanwhile; and what is dropped soon for certain.
        number = random.choice(repo.log()).number if random.random() < 0.8 else 1
        try:
            found = repo.load(number) if random.random() < 0.5 else {**repo.at(number)}
        except chipmink.NotFoundError as error:
            assert "dropped by a sweep" in str(error), error
            dropped += 1
        else:
            step = found["number"][0]
            assert found["noise"] == numpy.random.default_rng(step).bytes(150_000)
            assert numpy.array_equal(found["weights"], numpy.arange(30_000, dtype="f8") + step)
            loaded += 1
        print(json.dumps([loaded, dropped]), flush=True)
"""


def read_beside_sweeps(place: str, options: dict[str, object], readers: int, saves: int) -> None:
    """Readers get what was saved or hear that it was dropped, though nobody waits for them."""
    repo = chipmink.open(place, **options)
    running = []
    for number in range(saves):
        weights = numpy.arange(30_000, dtype="f8") + number
        repo.save({"weights": weights, "noise": numpy.random.default_rng(number).bytes(150_000), "number": [number]})
        if not running:
            command = [sys.executable, "-c", textwrap.dedent(READER), place, repr(options)]
            running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(readers)]
            # From here on each has its repository open.
            assert all(process.stdout is not None and process.stdout.readline() for process in running)
        repo.sweep(keep_last=2, grace="0s")
    loaded = dropped = 0
    for process in running:
        assert process.poll() is None, "a reader has failed"
        process.kill()
        last = json.loads(process.communicate()[0].splitlines()[-1])
        loaded, dropped = loaded + last[0], dropped + last[1]
    assert loaded > 5 * readers and dropped > 0, (loaded, dropped)
    assert repo.verify(full=True) == []
    repo.close()


def test_readers_beside_sweeps_that_do_not_wait(tmp_path):
    read_beside_sweeps(str(tmp_path / "repo"), {"durable": False}, 2, 120)


def save_beside_sweeps(place: str, options: dict[str, object], processes: int, saves: int, graces: tuple[str, ...]) -> None:
    script = textwrap.dedent(SAVER)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, place, f"line{number}", str(saves), repr(options)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    repo = chipmink.open(place, **options)
    sweeps = 0
    while any(process.poll() is None for process in running):
        try:
            repo.sweep(keep_last=2, grace=graces[sweeps % len(graces)])
        except chipmink.StorageError as error:
            assert "sweep again" in str(error)
        sweeps += 1
    assert sweeps > 2
    newest = {}
    for number, process in enumerate(running):
        printed, _ = process.communicate()
        assert process.returncode == 0
        newest[f"line{number}"] = int(printed)
    repo.sweep(keep_last=2, grace="0s")
    with chipmink.open(place, **options) as again:
        assert again.branches == newest
        for name, version in newest.items():
            loaded = again.load(version)
            assert loaded["name"] == name and loaded["number"] == [saves - 1]
            assert loaded["noise"] == numpy.random.default_rng((saves - 1) % 3).bytes(5000)
        assert len(again.log()) == 2 * processes
        assert again.verify(full=True) == []
    repo.close()


def test_processes_save_beside_a_sweeper(tmp_path):
    chipmink.open(tmp_path / "repo").close()
    save_beside_sweeps(str(tmp_path / "repo"), {"durable": False}, 4, 40, ("0s", "1h"))


def test_processes_save_to_and_read_a_bucket_beside_a_sweeper(monkeypatch, tmp_path):
    without_credentials(monkeypatch, tmp_path)
    warnings.simplefilter("ignore", ResourceWarning)
    server = Moto()
    try:
        server.make_bucket("bucket")
        options = {"endpoint": server.endpoint, "region": "us-east-1", **KEYS}
        chipmink.open("s3://bucket/swept", **options).close()
        save_beside_sweeps("s3://bucket/swept", options, 4, 8, ("1h", "0s"))
        read_beside_sweeps("s3://bucket/read", options, 2, 30)
    finally:
        server.stop()
