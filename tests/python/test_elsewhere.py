"""What versions name outside of themselves, values of a cluster and files that Spark has written, goes where they go."""

from __future__ import annotations

import json
import os
import secrets

import chipmink
import pytest
from buckets import KEYS, Moto, without_credentials
from chipmink.ray import _values
from chipmink.spark import _settle

pandas = pytest.importorskip("pandas")
parquet = pytest.importorskip("pyarrow.parquet")


class Named:
    """Saved as what a rule of a cluster would have answered."""

    def __init__(self, make, kind, name, identity):
        self.arguments = make, (kind, identity, "", "", "from the repository", "alive", name.encode(), json.dumps({"type": "X"}))

    def __reduce__(self):
        return self.arguments


class Place:
    """A repository, and what others have written beside its versions."""

    def __init__(self, path):
        self.path = path
        self.repository = chipmink.open(path, durable=False)

    def value(self, value):
        """On a line of its own, as processes of a Ray cluster save it."""
        line = "remote/" + secrets.token_hex(16)
        with chipmink.open(self.path, durable=False, ref=line) as repository:
            repository.save({"ab": value})
        return Named(_values.make_value, "ray.object", line, b"\xab")

    def frame(self, *numbers):
        """In a folder, as Spark writes it."""
        name = f"remote/{secrets.token_hex(16)}.parquet"
        for part, number in enumerate(numbers):
            os.makedirs(self.path / name, exist_ok=True)
            parquet.write_table(pandas_table(number), self.path / name / f"part-{part}.parquet")
        (self.path / name / "_SUCCESS").write_bytes(b"")
        return Named(_settle.make_frame, "spark.frame", name, name)


def pandas_table(number):
    import pyarrow

    return pyarrow.table({"x": [number]})


def loaded(repository, version=None):
    return {
        name: list(thing["x"]) if isinstance(thing, pandas.DataFrame) else repr(thing) if isinstance(thing, chipmink.Placeholder) else thing
        for name, thing in repository.load(version, as_pandas=True).items()
    }


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path / "source")
    yield made
    made.repository.close()


def sets(repository):
    return sorted(name for name, *_ in repository._usable().file_sets())


def lines(repository):
    return sorted(name for name in repository._usable().refs() if name.startswith("remote/"))


def test_all_of_it_is_pushed_once(place, tmp_path):
    place.repository.save({"value": place.value([1, 2]), "frame": place.frame(3, 4), "plain": 5})
    assert loaded(place.repository) == {"value": [1, 2], "frame": [3, 4], "plain": 5}
    told = []
    done = place.repository.push(tmp_path / "copy", progress=lambda each: told.append(each.phase))
    assert "copying" in told and done.bytes > 100
    with chipmink.open(tmp_path / "copy") as copy:
        assert loaded(copy) == loaded(place.repository)
        assert sets(copy) == sets(place.repository) and lines(copy) == lines(place.repository)
        assert [version.number for version in copy.log()] == [version.number for version in place.repository.log()]
    again = place.repository.push(tmp_path / "copy")
    assert (again.bytes, again.versions) == (0, 0)
    # What was lost there is brought again.
    (name,) = sets(place.repository)
    (tmp_path / "copy" / "remote" / name / "part-1.parquet").unlink()
    assert place.repository.push(tmp_path / "copy").bytes > 100
    with chipmink.open(tmp_path / "copy") as copy:
        assert loaded(copy) == loaded(place.repository)


def test_of_a_part_goes_what_that_names(place, tmp_path):
    older, inner = place.frame(1), place.value("inner")
    first = place.repository.save({"older": older, "outer": place.value({"inner": inner})})
    second = place.repository.save({"newer": place.frame(2), "other": place.frame(3), "outer": place.value("new")})
    place.repository.branch("side", first)
    place.frame(99), place.value(99)
    for number, (options, expected_sets, expected_lines) in enumerate(
        [
            ({"refs": ["side"]}, 1, 2),
            ({"refs": ["main"]}, 3, 3),
            ({"since": int(second)}, 2, 1),
            ({"since": int(second), "refs": ["main"]}, 2, 1),
            ({"refs": ["main"], "names": ["newer"]}, 1, 0),
            ({"names": ["older", "newer"]}, 2, 0),
        ]
    ):
        target = tmp_path / str(number)
        place.repository.push(target, **options)
        with chipmink.open(target) as copy:
            assert (len(sets(copy)), len(lines(copy))) == (expected_sets, expected_lines), options
            for version in copy.log():
                assert "placeholder" not in repr(loaded(copy, version.number)), options
        again = place.repository.push(target, **options)
        assert (again.bytes, again.versions) == (0, 0), options
    with chipmink.open(tmp_path / "pulled") as pulled:
        pulled.pull(tmp_path / "source", refs=["side"])
        assert loaded(pulled, "side") == {"older": [1], "outer": {"inner": "inner"}}
        assert pulled.branches == {"side": pulled.branches["side"]}


def test_a_push_that_cannot_be_moves_nothing(place, tmp_path):
    place.repository.save({"frame": place.frame(1), "value": place.value(2)})
    with chipmink.open(tmp_path / "other") as other:
        other.save({"theirs": 1})
        for options in ({}, {"refs": ["main"]}):
            with pytest.raises(chipmink.RefMovedError):
                place.repository.push(other, **options)
        assert sets(other) == lines(other) == []


def test_a_bucket_keeps_it_and_gives_it_back(place, tmp_path, monkeypatch):
    without_credentials(monkeypatch, tmp_path)
    server = Moto()
    try:
        server.make_bucket("bucket")
        options = {"endpoint": server.endpoint, "region": "us-east-1", **KEYS}
        place.repository.save({"frame": place.frame(1, 2), "value": place.value([3])})
        place.repository.push("s3://bucket/all", **options)
        with chipmink.open("s3://bucket/all", **options) as far, chipmink.open(tmp_path / "back") as back:
            assert loaded(far) == {"frame": [1, 2], "value": [3]}
            back.pull(far, refs=["main"])
            assert loaded(back) == {"frame": [1, 2], "value": [3]}
            # It goes with the last version that names it.
            far.save({"nothing": 1})
            assert far.sweep(keep_last=1).released == 0
            assert far.sweep(keep_last=1, grace="0s").released == 2
            assert sets(far) == lines(far) == []
    finally:
        server.stop()


def test_a_frame_that_is_not_there_says_so(place, tmp_path):
    version = place.repository.save({"frame": place.frame(1), "model": Named(_settle.make_model, "spark.model", "remote/x.model", "x")})
    (name,) = sets(place.repository)
    place.repository._usable().delete_file_set(name)
    assert sets(place.repository) == []
    for path in (tmp_path / "source" / "remote").iterdir():
        path.rmdir()
    said = loaded(place.repository, version)
    assert "push or pull it again from a repository that has it" in said["frame"]
    assert "push or pull it again from a repository that has it" in said["model"]
    with chipmink.open("memory://") as memory:
        memory.pull(place.repository)
        said = loaded(memory)
        assert "push it again from a repository that has them" in said["frame"]
        assert "pull the version into a folder that the session reaches" in said["model"]
    assert "load the version from there" in repr(chipmink.loads(chipmink.dumps(Named(_settle.make_frame, "spark.frame", "remote/x", "x"))))
