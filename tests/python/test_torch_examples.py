"""The examples of training runs do what they say. (That of a run that is killed is in ``test_torch_resume.py``.)"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str) -> str:
    done = subprocess.run([sys.executable, str(EXAMPLES / name)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_adapters_cost_what_they_are():
    said = run("lora_checkpoints.py")
    ours, theirs = re.search(r"together: ([\d.]+) MiB on disk, ([\d.]+) MiB", said).groups()
    assert float(ours) < 0.3 * float(theirs)
    assert "each comes back whole" in said


@pytest.mark.skipif(
    not torch.distributed.is_available() or tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6),
    reason="this torch shards on devices only, or not at all",
)
def test_other_numbers_of_processes_go_on():
    said = run("fsdp_reshard.py")
    for line in ("4 processes: steps 0 to 10", "2 processes: steps 10 to 20", "1 processes: steps 20 to 30", "reads a whole weight"):
        assert line in said
