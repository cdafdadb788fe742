"""Repositories in Google Cloud Storage, whose XML interface is that of S3 but for its headers: moto answers, behind a
translation of what a conditional write is called.

No emulator of Google's own interface will do: fake-gcs-server knows no XML uploads, and gcp-storage-emulator neither
conditions nor uploads in parts.
"""

from __future__ import annotations


import chipmink
import numpy
import pytest
from buckets import Moto, answering, forward, opening, save_from_several_threads, without_credentials
from oracle import assert_same, canonical


@pytest.fixture(scope="module")
def moto():
    server = Moto()
    server.make_bucket("bucket")
    yield server
    server.stop()


#: Nobody's token is empty, which moto takes for a broken one, and nobody reads what belongs to somebody. It looks no closer.
SOMEBODY = "AWS4-HMAC-SHA256 Credential=AKIATEST/20250101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


def translated(moto, handler):
    # Google removes an object by one request of its own.
    assert not (handler.command == "POST" and "?delete" in handler.path)
    assert "If-None-Match" not in handler.headers
    may_create = handler.headers["x-goog-if-generation-match"] == "0"
    condition = {"If-None-Match": "*"} if may_create else {}
    return forward(moto, handler, {"Authorization": SOMEBODY, **condition})


@pytest.fixture(scope="module")
def google(moto):
    with answering(lambda handler: translated(moto, handler)) as endpoint:
        yield endpoint


@pytest.fixture
def opened(google, request, monkeypatch, tmp_path):
    without_credentials(monkeypatch, tmp_path)
    with opening(f"gs://bucket/{request.node.name}", endpoint=google, anonymous=True) as open_it:
        yield open_it


def test_saving_loading_and_going_back(opened, tmp_path):
    repo = opened()
    versions = []
    array = numpy.arange(300_000, dtype="f8")
    for step in range(4):
        array = array.copy()
        array[step * 1000] = -1
        namespace = {"step": step, "array": array, "view": array[10:20], "text": "text " * step}
        versions.append((repo.save(namespace), canonical(namespace)))
    again = opened()
    for version, want in versions:
        assert_same(want, again.load(version))
    again.push(tmp_path / "backup")
    report = again.sweep(keep_last=1, grace="0s")
    assert report.versions_dropped == tuple(number for number, _ in versions[:-1]) and report.packs_deleted > 0
    assert_same(versions[-1][1], opened().load())
    assert opened().verify().ok
    with chipmink.open(tmp_path / "backup") as backup:
        assert_same(versions[0][1], backup.load(versions[0][0]))


def test_packs_of_many_parts(opened):
    namespace = {"large": numpy.random.default_rng(2).bytes(20_000_000)}
    opened(compression="none").save(namespace)
    assert opened().load() == namespace


def test_writers_of_one_line_and_of_their_own(opened):
    save_from_several_threads(opened, 4)


def test_a_service_that_ignores_conditions_is_refused(opened, moto):
    """Whoever forgets the condition on the way would let two writers overwrite each other's versions."""
    with answering(lambda handler: forward(moto, handler, {"Authorization": SOMEBODY})) as careless:
        with pytest.raises(chipmink.UnsupportedError, match="conditional writes.*single_writer=True"):
            opened(endpoint=careless).save({"x": [1]})
        alone = opened(endpoint=careless, single_writer=True)
        assert alone.load(alone.save({"x": [1]})) == {"x": [1]}
