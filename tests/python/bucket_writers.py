#!/usr/bin/env python3
"""Processes that save to one bucket while others sweep it: ``bucket_writers.py --writers 8 --commits 100``.

Each writer saves to the common line now and then, and else to one of its own; a sweeper drops old versions all the time. At
the end every version that nobody dropped must load as it was saved, and nothing may be damaged. Exit status 1 if not.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import chipmink
from buckets import KEYS, Moto

OPTIONS = {**KEYS, "region": "us-east-1"}


def state(writer: int, step: int) -> dict[str, object]:
    """What a writer saves in a step: known from these numbers alone."""
    source = random.Random(writer * 100_000 + step // 3)
    return {"who": [writer], "step": [step], "text": str(source.random()) * 50, "blob": source.randbytes(3000)}


def write(place: str, endpoint: str, writer: int, commits: int) -> None:
    """Saves, and prints what became of it: version, step."""
    own = chipmink.open(place, ref=f"own-{writer}", endpoint=endpoint, **OPTIONS)
    common = chipmink.open(place, on_conflict="retry", endpoint=endpoint, **OPTIONS)
    saved = []
    for step in range(commits):
        repo = common if step % 5 == 0 else own
        saved.append((int(repo.save(state(writer, step))), step))
    print(json.dumps(saved), flush=True)


def sweep(place: str, endpoint: str) -> None:
    """Sweeps until it is told to end; prints how often, and how many versions it dropped."""
    import select

    repo = chipmink.open(place, endpoint=endpoint, **OPTIONS)
    sweeps = dropped = outrun = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        try:
            dropped += len(repo.sweep(keep_last=10, grace="5m").versions_dropped)
        except chipmink.StorageError as error:
            # Writers that publish all the time are not held up by a sweep.
            if "others published" not in str(error):
                raise
            outrun += 1
        sweeps += 1
    print(json.dumps([sweeps, dropped, outrun]), flush=True)


def run(writers: int, commits: int) -> None:
    """Lets them all work on one bucket, and looks at what they leave."""
    server = Moto()
    try:
        server.make_bucket("bucket")
        place = "s3://bucket/common"
        chipmink.open(place, endpoint=server.endpoint, **OPTIONS).save({"first": [1]})

        def begin(*arguments: object) -> subprocess.Popen[str]:
            command = [sys.executable, __file__, "--place", place, "--endpoint", server.endpoint, *map(str, arguments)]
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        began = time.monotonic()
        sweeper = begin("--sweep")
        working = [begin("--writer", writer, "--commits", commits) for writer in range(writers)]
        told = [process.communicate()[0] for process in working]
        seconds = time.monotonic() - began
        sweeps, dropped, outrun = json.loads(sweeper.communicate("end")[0])
        assert all(process.returncode == 0 for process in (sweeper, *working)), "a process failed"
        saved = [(number, writer, step) for writer, text in enumerate(told) for number, step in json.loads(text)]
        assert len({number for number, *_ in saved}) == len(saved) == writers * commits, "two have one number"
        repo = chipmink.open(place, endpoint=server.endpoint, **OPTIONS)
        there = {version.number for version in repo.log()}
        assert dropped == len(saved) + 1 - len(there), "versions went that nobody dropped"
        for number, writer, step in saved:
            if number in there:
                assert repo.load(number) == state(writer, step), f"version {number}"
        report = repo.verify()
        assert report.ok, list(report)
        print(f"{len(saved)} versions by {writers} processes in {seconds:.0f} s, {sweeps} sweeps ({outrun} outrun), {dropped} dropped")
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--commits", type=int, default=100)
    parser.add_argument("--place")
    parser.add_argument("--endpoint")
    parser.add_argument("--writer", type=int)
    parser.add_argument("--sweep", action="store_true")
    given = parser.parse_args()
    if given.sweep:
        sweep(given.place, given.endpoint)
    elif given.writer is not None:
        write(given.place, given.endpoint, given.writer, given.commits)
    else:
        run(given.writers, given.commits)


if __name__ == "__main__":
    main()
