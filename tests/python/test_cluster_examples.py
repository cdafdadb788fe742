"""The examples of Ray and Spark do what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import chipmink
import pytest
import ray_clusters
import spark_servers

ROOT = Path(__file__).parents[2]


def run(name: str) -> str:
    package = str(Path(chipmink.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(ROOT / "examples" / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


RAY, SPARK = ray_clusters.is_possible(), spark_servers.is_possible()


@pytest.mark.skipif(RAY is not None, reason=str(RAY))
def test_a_session_of_ray_is_taken_up_again():
    first, resumed, restarted = re.split(r"^A driver of .* resumes:\n", run("ray_session.py"), flags=re.M)
    assert all(f"by {mode}:" in said for mode in ("reference", "pin", "materialize") for said in (first, resumed, restarted))
    # The driver that owned the table is gone; its copy and its value are not.
    assert "counter: live, and says 2" in resumed and "table: live, [0, 1, 4, 9, 16]" in resumed
    assert ": live" not in restarted and restarted.count("table: [0, 1, 4, 9, 16]") == 1
    assert "counter: {'count': 1}" in restarted


@pytest.mark.skipif(SPARK is not None, reason=str(SPARK))
def test_a_session_of_spark_is_taken_up_again():
    _, resumed = run("spark_session.py").split("A second program resumes:\n")
    by_reference, by_value = resumed.split("by materialize:")
    assert "numbers: 1000 rows" in by_reference and "view: <chipmink placeholder" in by_reference
    assert "view: 1000 rows" in by_value and "even: 500 rows" in by_value and "without Spark: 500 rows" in by_value
