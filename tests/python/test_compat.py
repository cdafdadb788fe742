"""Repositories written by earlier versions are read, and go on being written.

Each folder of ``tests/compat`` has a repository and the script that wrote it.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tarfile
from pathlib import Path

import chipmink
import numpy
import pytest
from oracle import assert_same, canonical

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = sorted(path for path in (ROOT / "tests" / "compat").iterdir() if path.name.startswith("v"))
#: The minor version of Python that wrote it, whose byte code is in it.
WRITTEN_BY = (3, 11)

sys.path.insert(0, str(ROOT / "examples" / "plain_reader"))

from chipmink_reader import Reader  # noqa: E402


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda path: path.name)
def written(request, tmp_path_factory):
    """The folder of the repository, and the module that wrote it."""
    spec = importlib.util.spec_from_file_location("compat_write", request.param / "write.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    place = tmp_path_factory.mktemp("compat")
    with tarfile.open(request.param / "repository.tar.gz") as archive:
        archive.extractall(place, filter="data")
    return place / "repository", module


DEFINED = {"objects", "closures", "square", "counter", "reads_the_namespace"}
LOST = {"generator", "holds_one", "refuses"}


def test_every_version_is_as_it_was(written):
    place, module = written
    with chipmink.open(place, durable=False) as repo:
        assert repo.verify() == []
        log = repo.log()
        assert [version.number for version in log] == list(range(module.VERSIONS, 0, -1))
        assert (log[0].message, log[0].author) == (f"turn {module.VERSIONS}", "the writer")
        for number in range(1, module.VERSIONS + 1):
            expected = module.turn(number)
            loaded = repo.load(number, names=list(expected))
            assert_same(canonical(expected), loaded, note=f"version {number}")
        loaded = repo.load(module.VERSIONS, names=["views", "small_arrays", "shared", "again", "cycle"][:4])
        assert loaded["again"]["shared"] is loaded["shared"]
        assert loaded["views"][0] is loaded["small_arrays"][0]


def test_differences(written):
    place, _ = written
    with chipmink.open(place, durable=False) as repo:
        diff = repo.diff(50, 51)
        assert diff.added == ("sometimes",)
        assert {"number", "name", "log", "large_array"} <= set(diff.changed)
        assert "text" not in diff.changed
        assert set(repo.diff(1, 2).removed) >= DEFINED | LOST


def test_what_was_lost_says_so(written):
    place, module = written
    with chipmink.open(place, durable=False) as repo:
        for number in (1, 40, 41, module.VERSIONS):
            loaded = repo.load(number, names=sorted(LOST))
            assert "generator" in repr(loaded["generator"])
            assert loaded["holds_one"][::2] == ["before", "after"]
            assert isinstance(loaded["holds_one"][1], chipmink.Placeholder)
            assert "never" in repr(loaded["refuses"])


@pytest.mark.skipif(sys.version_info[:2] != WRITTEN_BY, reason="byte code runs on the version of Python that saved it")
def test_classes_and_functions(written):
    place, module = written
    with chipmink.open(place, durable=False) as repo:
        for number in (1, 40, 41, module.VERSIONS):
            loaded = repo.load(number)
            child, slotted, mixed, color, point, named, node = loaded["objects"]
            assert type(child) is loaded["Child"]
            assert child.scaled() == 42
            assert (slotted.x, slotted.hidden(), hasattr(slotted, "unset")) == ("x", ["x"], False)
            assert (mixed.x, mixed.more) == ("m", {"in": "dict"})
            assert color is loaded["Color"].BLUE
            assert point == loaded["Point"](1, [2])
            assert named == (7, "b")
            assert node is loaded["Node"].registry[0]
            up, read, other_up, other_read = loaded["closures"]
            assert (up(), read(), other_read()) == (6, 6, 0)
            assert (other_up(2), other_read(), read()) == (2, 2, 6)
            assert loaded["square"](5) == 25
            loaded["text"] = "bound to what was loaded"
            assert loaded["reads_the_namespace"]() == "bound to what was loaded"


@pytest.mark.skipif(sys.version_info[:2] == WRITTEN_BY, reason="this version of Python can run the byte code")
def test_functions_of_another_python_are_placeholders(written):
    place, _ = written
    with chipmink.open(place, durable=False) as repo:
        assert isinstance(repo.load(1, names=["square"])["square"], chipmink.Placeholder)


def test_it_goes_on_being_written(written, tmp_path):
    place, module = written
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", place, copy], check=True)
    expected = module.turn(module.VERSIONS)
    with chipmink.open(copy, durable=False) as repo:
        first = repo.save(expected)
        assert first == module.VERSIONS + 1
        # All of it but some pods' layout is in the repository already.
        assert first.report.bytes_written < 60_000
        expected["large_array"][0, 0] = -1.0
        second = repo.save(expected)
        assert_same(canonical(expected), repo.load(second))
        assert_same(canonical(module.turn(3)), repo.load(3))
        assert repo.verify() == []


def test_the_plain_reader_agrees(written):
    place, module = written
    reader = Reader(place)
    assert [number for number, _ in reader.versions()] == list(range(module.VERSIONS, 0, -1))
    for number in (1, 17, 64, 65, module.VERSIONS):
        expected = module.turn(number)
        found = reader.load(number, [name for name in expected if name not in ("library", "type", "module")])
        for name in ("number", "text", "name", "long_text", "raw", "big", "shared", "log", "buffer", "v007", "l11"):
            assert found[name] == expected[name], name
        assert found["again"]["shared"] is found["shared"]
        assert numpy.array_equal(numpy.array(found["large_array"].tolist()).reshape(200, 120), expected["large_array"])


def test_it_has_what_long_histories_have(written):
    place, module = written
    names = {path.name for path in place.rglob("*") if path.is_file()}
    assert len(names) > 2 * module.VERSIONS
    reader = Reader(place)
    assert reader.repository.refs["main"][1] == module.VERSIONS
