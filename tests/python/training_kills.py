#!/usr/bin/env python3
"""Kills a training run with SIGKILL at random moments, lets it go on, and compares losses bit by bit: ``training_kills.py --kills 50``.

The run is that of ``examples/pytorch_training.py``. First it runs twice in peace, and both must agree; then as often as is needed
with kills, in every other run with a staging tier in shared memory. Each loss of each attempt must be that of the run in peace.
Prints a line for each run; exit status 1 if a loss differs.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parents[2] / "examples" / "pytorch_training.py"


def example() -> Any:
    """The module of the example."""
    spec = importlib.util.spec_from_file_location("pytorch_training", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    training = example()
    with tempfile.TemporaryDirectory(prefix="chipmink-training-") as place:
        base = Path(place)
        quiet = []
        for run in range(2):
            training.kill_and_go_on(base / f"quiet{run}", base / f"quiet{run}.losses", options.steps, 0, 0)
            quiet.append(training.read(base / f"quiet{run}.losses"))
        if quiet[0] != quiet[1] or len(quiet[0]) != options.steps:
            print("two runs in peace differ: nothing can be said of runs that are killed")
            return 1
        killed = run = 0
        while killed < options.kills:
            run += 1
            segment = f"chipmink-training-{os.getpid()}-{run}" if run % 2 == 0 else None
            losses = base / f"{run}.losses"
            staging = None if segment is None else f"shm://{segment}"
            try:
                wanted = min(8, options.kills - killed)
                killed += training.kill_and_go_on(base / str(run), losses, options.steps, wanted, options.seed + run, staging)
            finally:
                if segment is not None:
                    subprocess.run([sys.executable, "-m", "chipmink", "shm", "rm", segment, "--force"], stderr=subprocess.DEVNULL)
            found = training.read(losses)
            wrong = [step for step in range(options.steps) if found.get(step) != quiet[0][step]]
            print(f"run {run}{', staged' if segment else ''}: {killed} of {options.kills} kills, {len(wrong)} losses differ", flush=True)
            if wrong:
                print(f"first at step {wrong[0]}: {found.get(wrong[0])}, in peace {quiet[0][wrong[0]]}")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
