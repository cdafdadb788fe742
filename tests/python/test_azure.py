"""Repositories in Azure Blob Storage, on Azurite, its emulator: ``npm install -g azurite``, or say where it is by
``AZURITE=/path/to/azurite-blob``."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import shutil
import urllib.request
from email.utils import formatdate

import chipmink
import numpy
import pytest
from buckets import free_port, opening, save_from_several_threads, started, without_credentials
from oracle import assert_same, canonical

ACCOUNT, KEY = "tests", base64.b64encode(b"a key of tests, and of nothing else").decode()


class Azurite:
    """An emulator whose containers are gone when it ends."""

    def __init__(self) -> None:
        program = os.environ.get("AZURITE") or shutil.which("azurite-blob")
        if program is None:
            pytest.skip("needs azurite, to imitate Azure: npm install -g azurite")
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
        command = [program, "--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--blobPort", str(port)]
        self._process = started(command, port, AZURITE_ACCOUNTS=f"{ACCOUNT}:{KEY}")

    def make_container(self, name: str) -> None:
        """Asks for it with the account's key, as the service's "Shared Key" authorization has it."""
        about = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        signed = "".join(f"{header}:{value}\n" for header, value in sorted(about.items()))
        text = "PUT" + "\n" * 12 + signed + f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
        signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), hashlib.sha256)).decode()
        about["Authorization"] = f"SharedKey {ACCOUNT}:{signature}"
        request = urllib.request.Request(f"{self.endpoint}/{name}?restype=container", method="PUT", headers=about)
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60).close()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def azurite():
    server = Azurite()
    server.make_container("container")
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
