"""What is damaged is found and named, costs no more than it must, and comes back from a mirror."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import chipmink
import numpy
import pytest
from buckets import KEYS, Moto, without_credentials
from oracle import assert_same, canonical

VERSIONS = [
    {"numbers": list(range(500)), "large": numpy.arange(200_000, dtype="f8") + step, "text": f"version {step}" * 20, "f": [step]}
    for step in range(3)
]


@pytest.fixture
def session(tmp_path):
    with chipmink.open(tmp_path / "session") as repo:
        numbers = [repo.save(version) for version in VERSIONS]
        repo.push(tmp_path / "mirror")
    return tmp_path / "session", numbers


def packs(folder):
    return sorted((folder / "packs").iterdir(), key=lambda path: path.stat().st_size)


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def loads_of(place, numbers, **options):
    """For each version and variable whether it loads; nothing may load wrong."""
    found = {}
    with chipmink.open(place, verify="eager", **options) as repo:
        for number, want in zip(numbers, VERSIONS, strict=True):
            for name in want:
                try:
                    loaded = repo.load(number, names=[name])
                # Also if a file is gone.
                except chipmink.DamagedError as error:
                    assert "packs/" in str(error) or "blob" in str(error)
                    found[number, name] = False
                else:
                    assert_same(canonical({name: want[name]}), loaded)
                    found[number, name] = True
    return found


def test_the_report_says_what_loads(session):
    folder, numbers = session
    pack = packs(folder)[-1]
    flip(pack, pack.stat().st_size // 2)
    with chipmink.open(folder) as repo:
        report = repo.verify()
    assert not report.ok and len(report) == report.damaged_count > 0
    assert any(pack.name in item.object for item in report.damaged)
    lost = {(item.version, name) for item in report.lost for name in item.variables}
    loads = loads_of(folder, numbers)
    assert lost == {what for what, is_well in loads.items() if not is_well} and lost
    assert {name for _, name in lost} == {"large"}


@pytest.mark.parametrize("harm", ["remove", "cut", "swap", "zero"])
def test_objects_that_are_not_what_they_were(session, harm):
    folder, numbers = session
    small, *_, large = packs(folder)
    if harm == "remove":
        large.unlink()
    elif harm == "cut":
        large.write_bytes(large.read_bytes()[:-100])
    elif harm == "zero":
        large.write_bytes(bytes(large.stat().st_size))
    else:
        one, other = small.read_bytes(), large.read_bytes()
        small.write_bytes(other)
        large.write_bytes(one)
    with chipmink.open(folder) as repo:
        quick, full = repo.verify(full=False), repo.verify()
    assert not quick.ok and not full.ok
    assert any(large.name in item.object for item in full.damaged)
    lost = {(item.version, name) for item in full.lost for name in item.variables}
    whole = {item.version for item in full.lost if item.whole}
    for (number, name), is_well in loads_of(folder, numbers).items():
        assert is_well or (number, name) in lost or number in whole
        assert not (is_well and (number, name) in lost)
    with chipmink.open(folder) as repo:
        report = repo.repair(folder.parent / "mirror")
        assert report.ok and report.packs_replaced > 0 and report.before.damaged_count > 0
        assert repo.verify().ok
    assert all(loads_of(folder, numbers).values())
    with chipmink.open(folder) as repo:
        assert repo.load(repo.save({"later": [1]})) == {"later": [1]}


def test_without_a_mirror_the_rest_stays(session):
    folder, numbers = session
    pack = packs(folder)[-1]
    flip(pack, pack.stat().st_size // 2)
    before = loads_of(folder, numbers)
    contents = {path: path.read_bytes() for path in packs(folder)}
    with chipmink.open(folder) as repo:
        report = repo.repair()
        assert not report.ok and report.after.lost == report.before.lost != ()
        mirror = chipmink.open(folder.parent / "mirror")
        assert repo.repair(mirror).ok
    assert not all(before.values()) and all(loads_of(folder, numbers).values())
    assert all(path.read_bytes() == content for path, content in contents.items()), "nothing that was there is changed"


def test_the_command(session):
    folder, numbers = session
    pack = packs(folder)[-1]
    flip(pack, pack.stat().st_size // 2)

    def run(*arguments, status):
        done = subprocess.run([sys.executable, "-m", "chipmink", *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == status, done.stderr + done.stdout
        return done.stdout

    text = run("verify", folder, status=1)
    assert "DAMAGED" in text and pack.name in text and "has lost large; its other variables load" in text
    report = json.loads(run("verify", folder, "--json", status=1))
    assert not report["clean"] and {"version": numbers[0], "variables": ["large"], "whole": False} in report["lost"]
    assert "--from MIRROR" in run("repair", folder, status=1)
    assert "repaired" in run("repair", folder, "--from", folder.parent / "mirror", status=0)
    assert "nothing is damaged" in run("repair", folder, status=0)
    assert json.loads(run("repair", folder, "--json", status=0))["clean"]
    assert "no damage" in run("verify", folder, status=0)


def test_a_mirror_in_a_bucket(session, tmp_path, monkeypatch):
    boto3 = pytest.importorskip("boto3", reason="needs moto[server], to imitate S3")
    without_credentials(monkeypatch, tmp_path)
    moto = Moto()
    try:
        moto.make_bucket("bucket")
        options = {"endpoint": moto.endpoint, "region": "us-east-1", **KEYS}
        folder, numbers = session
        with chipmink.open(folder) as repo:
            repo.push("s3://bucket/mirror", **options)
            packs(folder)[-1].unlink()
            assert repo.repair("s3://bucket/mirror", **options).ok
        assert all(loads_of(folder, numbers).values())
        # And the other way: what is damaged is in the bucket.
        with chipmink.open("s3://bucket/mirror", **options) as mirror:
            keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
            client = boto3.client("s3", endpoint_url=moto.endpoint, **keys)
            found = client.list_objects_v2(Bucket="bucket", Prefix="mirror/packs/")["Contents"]
            client.put_object(Bucket="bucket", Key=found[0]["Key"], Body=b"damaged")
            assert not mirror.verify().ok
            assert mirror.repair(folder).ok and mirror.verify().ok
    finally:
        moto.stop()


@pytest.fixture(scope="module")
def moto():
    server = Moto()
    server.make_bucket("bucket")
    yield server
    server.stop()


@pytest.mark.parametrize("harm", ["remove", "cut", "swap"])
def test_objects_of_a_bucket_that_are_not_what_they_were(session, harm, moto, tmp_path, monkeypatch):
    boto3 = pytest.importorskip("boto3", reason="needs moto[server], to imitate S3")
    without_credentials(monkeypatch, tmp_path)
    options = {"endpoint": moto.endpoint, "region": "us-east-1", **KEYS}
    place = f"s3://bucket/{harm}"
    numbers = []
    with chipmink.open(place, **options) as repo:
        for version in VERSIONS:
            numbers.append(repo.save(version))
        repo.push(tmp_path / "other")
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=moto.endpoint, **keys)
    found = client.list_objects_v2(Bucket="bucket", Prefix=f"{harm}/packs/")["Contents"]
    small, *_, large = (found["Key"] for found in sorted(found, key=lambda found: found["Size"]))
    content = {key: client.get_object(Bucket="bucket", Key=key)["Body"].read() for key in (small, large)}
    if harm == "remove":
        client.delete_object(Bucket="bucket", Key=large)
    elif harm == "cut":
        client.put_object(Bucket="bucket", Key=large, Body=content[large][:-100])
    else:
        client.put_object(Bucket="bucket", Key=large, Body=content[small])
        client.put_object(Bucket="bucket", Key=small, Body=content[large])
    with chipmink.open(place, **options) as repo:
        report = repo.verify()
        assert not report.ok and any(large.rpartition("/")[2] in item.object for item in report.damaged)
        lost = {(item.version, name) for item in report.lost for name in item.variables}
        whole = {item.version for item in report.lost if item.whole}
        loads = loads_of(place, numbers, **options)
        assert any(loads.values()) and not all(loads.values())
        for (number, name), is_well in loads.items():
            assert is_well or (number, name) in lost or number in whole
            assert not (is_well and (number, name) in lost)
        assert repo.repair(tmp_path / "other").ok
    assert all(loads_of(place, numbers, **options).values())


def test_a_damaged_backup_is_no_mirror_of_what_it_lacks(session):
    folder, numbers = session
    shutil.copytree(folder, folder.parent / "copy")
    for place in (folder, folder.parent / "copy"):
        pack = packs(place)[-1]
        flip(pack, pack.stat().st_size // 2)
    with chipmink.open(folder) as repo:
        report = repo.repair(folder.parent / "copy")
        assert not report.ok and report.packs_replaced == 0
    assert any(loads_of(folder, numbers).values())
