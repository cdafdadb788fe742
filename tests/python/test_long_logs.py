"""The log of a repository may be longer than memory: it is read and printed as it goes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import chipmink
import pytest

VERSIONS = 1500
#: None of it shrinks, and all of it is more than a log may take.
MESSAGE_LEN = 40_000


@pytest.mark.skipif(sys.platform != "linux", reason="needs the peak of memory in KiB")
def test_a_log_takes_no_more_memory_for_being_long(tmp_path):
    text = random.Random(3)
    with chipmink.open(tmp_path / "repo", durable=False) as repo:
        for step in range(VERSIONS):
            repo.save({"step": step}, message=f"{step} {text.randbytes(MESSAGE_LEN // 2).hex()}")

    def log(limit):
        """Versions printed, and the peak of memory."""
        command = [sys.executable, "-m", "chipmink", "log", str(tmp_path / "repo"), "--json", "--limit", str(limit)]
        with (tmp_path / "out").open("wb") as out:
            process = subprocess.Popen(command, stdout=out)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        printed = json.loads((tmp_path / "out").read_bytes())
        return [int(version["message"].split()[0]) for version in printed], usage.ru_maxrss * 1024

    few, low = log(10)
    every, high = log(VERSIONS)
    assert few == every[:10] and every == list(range(VERSIONS))[::-1]
    assert high - low < VERSIONS * MESSAGE_LEN / 3, (low, high)
