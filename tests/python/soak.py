#!/usr/bin/env python3
"""Runs many random graphs and sessions: ``soak.py --graphs 100000 --seed 1``.

The work is done in child processes, a batch of seeds each, so that even a crash of the interpreter names its seed.
Prints each failure with the command that repeats it. Exit status 1 if there was one.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

BATCH = 500
#: Of ten cases, so many are sessions (several graphs each); the others are single streams.
SESSIONS = 3


def one(seed: int) -> int:
    """One case; the number of graphs that it compared."""
    from sessions import Session, check_stream

    source = random.Random(seed)
    size = source.choice((3, 8, 16, 40))
    if seed % 10 >= SESSIONS:
        check_stream(source, size)
        return 1
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="chipmink-soak-", dir=base) as folder:
        return Session(source, Path(folder) / "repo", size).run(saves=source.randrange(2, 12))


def batch(first: int) -> None:
    """Runs a batch and reports to the parent line by line: ``at SEED``, ``ok GRAPHS``, ``fail SEED``."""
    graphs = 0
    for seed in range(first, first + BATCH):
        print(f"at {seed}", flush=True)
        try:
            graphs += one(seed)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            print(f"fail {seed}", flush=True)
        print(f"ok {graphs}", flush=True)


def start(first: int) -> subprocess.Popen[str]:
    environment = dict(os.environ, PYTHONHASHSEED=str(first % 1000))
    return subprocess.Popen([sys.executable, __file__, "--batch", str(first)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=100_000, help="how many graphs to compare, at least")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--one", type=int, metavar="SEED", help="run this case only, in this process")
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(f"{one(options.one)} graphs")
        return 0
    if options.batch is not None:
        batch(options.batch)
        return 0

    began = time.monotonic()
    graphs, next_first = 0, options.seed
    failures: list[int] = []
    running: list[subprocess.Popen[str]] = []
    while graphs < options.graphs or running:
        while len(running) < options.jobs and graphs < options.graphs:
            running.append(start(next_first))
            next_first += BATCH
        child = running.pop(0)
        out, err = child.communicate()
        lines = out.split("\n")
        graphs += int(next((line[3:] for line in reversed(lines) if line.startswith("ok ")), "0"))
        failed = [int(line[5:]) for line in lines if line.startswith("fail ")]
        if child.returncode:
            failed.append(int(next(line[3:] for line in reversed(lines) if line.startswith("at "))))
            err += f"\nthe process ended with status {child.returncode}"
        if failed:
            failures += failed
            print(err[-3000:])
            for seed in failed:
                print(f"FAILED: {sys.executable} {__file__} --one {seed}", flush=True)
        print(f"\r{graphs} graphs, {len(failures)} failed, {time.monotonic() - began:.0f} s", end="" if sys.stdout.isatty() else "\n", flush=True)
    print()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
