"""What goes to a bucket, or comes from it, passes through bounded memory, however much it is."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from buckets import KEYS, PlainServer, without_credentials

MEBIBYTE = 1 << 20
BYTE_LEN = 512 * MEBIBYTE
MEMORY_MAX = 256 * MEBIBYTE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, to read how much memory a process has had")

PROGRAM = """
import json, re, sys
import chipmink, numpy

def status(name):
    text = open("/proc/self/status").read()
    return 1024 * int(re.search(rf"^{name}:\\s+(\\d+) kB$", text, re.M)[1])

what, byte_len, place, options = sys.argv[1], int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
expected = numpy.arange(byte_len // 8)
if what == "load":
    first, last, total = expected[0], expected[-1], expected.sum()
    del expected
with chipmink.open(place, compression="none", **options) as repo:
    if what == "load":
        repo.load(names=["small"])
    before = status("VmRSS")
    # From here on the peak counts anew.
    open("/proc/self/clear_refs", "w").write("5")
    if what == "save":
        repo.save({"array": expected, "small": [1]})
        print(status("VmHWM") - before)
    else:
        array = repo.load()["array"]
        print(status("VmHWM") - before - array.nbytes)
        assert (array[0], array[-1], array.sum()) == (first, last, total)
"""


def memory_of(what: str, place: str, options: dict[str, str]) -> int:
    command = [sys.executable, "-c", PROGRAM, what, str(BYTE_LEN), place, json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_version_that_is_larger_than_the_memory_it_may_take(monkeypatch, tmp_path):
    without_credentials(monkeypatch, tmp_path)
    server = PlainServer(tmp_path / "server")
    try:
        options = {"endpoint": server.endpoint, "region": "us-east-1", **KEYS}
        for what in ("save", "load"):
            taken = memory_of(what, "s3://bucket/memory", options)
            assert taken <= MEMORY_MAX, f"{what}: {taken / MEBIBYTE:.0f} MiB beside the array"
    finally:
        server.stop()
