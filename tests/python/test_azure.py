"""Repositories in Azure Blob Storage, on Azurite, its emulator: ``npm install -g azurite``, or say where it is by
``AZURITE=/path/to/azurite-blob``."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import chipmink
import numpy
import pytest
from azurite_server import ACCOUNT, KEY
from buckets import free_port, opening, save_from_several_threads, without_credentials
from oracle import assert_same, canonical


class Azurite:
    """An emulator whose containers are gone when it ends."""

    def __init__(self) -> None:
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
        command = [sys.executable, str(Path(__file__).with_name("azurite_server.py")), str(port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if answer != b"ready\n":
            self.stop()
            assert answer == b"absent\n", "azurite does not start"
            pytest.skip("needs azurite, to imitate Azure: npm install -g azurite")

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def azurite():
    server = Azurite()
    yield server
    server.stop()


@pytest.fixture
def opened(azurite, request, monkeypatch, tmp_path):
    without_credentials(monkeypatch, tmp_path)
    options = {"endpoint": azurite.endpoint, "account_name": ACCOUNT, "account_key": KEY}
    with opening(f"az://container/{request.node.name}", **options) as open_it:
        yield open_it


def namespaces():
    array = numpy.arange(300_000, dtype="f8")
    for step in range(4):
        array = array.copy()
        array[step * 1000] = -1
        yield {"step": step, "array": array, "view": array[10:20], "text": "text " * step}


def test_saving_loading_and_going_back(opened):
    repo = opened()
    versions = []
    for namespace in namespaces():
        want = canonical(namespace)
        versions.append((repo.save(namespace), want))
    again = opened()
    for version, want in versions:
        assert_same(want, again.load(version))
    again.tag("first", versions[0][0])
    assert again.load("first", names=["step"]) == {"step": 0}
    assert again.verify().ok


def test_packs_of_many_parts(opened, tmp_path):
    namespace = {"large": numpy.random.default_rng(2).bytes(60_000_000)}
    opened(compression="none").save(namespace)
    assert opened().load() == namespace
    assert opened(cache=tmp_path / "cache").load() == namespace


def test_writers_of_one_line_and_of_their_own(opened):
    save_from_several_threads(opened, 5)


def test_sweeping_and_a_backup(opened, tmp_path):
    repo = opened()
    numbers = [repo.save(namespace) for namespace in namespaces()]
    repo.push(tmp_path / "backup")
    report = repo.sweep(keep_last=1, grace="0s")
    assert report.versions_dropped == tuple(numbers[:-1]) and report.freed_bytes > 0
    assert repo.load()["step"] == 3 and repo.verify().ok
    with chipmink.open(tmp_path / "backup") as backup:
        assert backup.load(numbers[0])["step"] == 0


def test_what_is_wrong_is_said(azurite, opened):
    other = base64.b64encode(b"another key").decode()
    with pytest.raises(chipmink.StorageError, match="does not accept the credentials|denies access") as caught:
        opened(account_key=other).save({"x": 1})
    assert other not in str(caught.value)
    with pytest.raises(chipmink.StorageError, match='no container "missing"'):
        chipmink.open("az://missing/x", endpoint=azurite.endpoint, account_name=ACCOUNT, account_key=KEY)
