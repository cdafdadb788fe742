"""Training runs that are killed go on to the same bits. ``make soak-training`` kills 50 times."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")


def test_a_killed_run_has_the_losses_of_one_in_peace():
    command = [sys.executable, str(Path(__file__).with_name("training_kills.py")), "--kills", "4", "--steps", "60"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 of 4 kills, 0 losses differ" in done.stdout
