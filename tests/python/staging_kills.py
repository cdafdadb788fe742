#!/usr/bin/env python3
"""Kills savers and agents with SIGKILL at random moments and counts what is lost: ``staging_kills.py --kills 200``.

In each round a saver saves as fast as it can into a staging tier, with an agent beside it or without one. After a random
while the saver is killed, or its whole process group, or saver and agent, or the agent alone first. Then an agent (the one
that still runs, or a new one) makes durable what is staged, and every version that the saver had called staged must be in
the folder, whole, once. Prints a line for each kind of kill; exit status 1 if anything was lost or torn.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import chipmink
from staging_saver import is_whole

KINDS = ("saver", "group", "saver and agent", "agent, then saver", "saver without agent")
AGENT = [sys.executable, "-m", "chipmink", "agent"]


def segment_name(seed: int) -> str:
    return f"chipmink-kills-{os.getpid()}-{seed}"


def start_agent(folder: Path, name: str, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*AGENT, "--staging", f"shm://{name}", "--to", str(folder), *more],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def drain(folder: Path, name: str) -> None:
    """Starts an agent that ends when everything is durable."""
    with ended(start_agent(folder, name, "--until-durable")) as agent:
        _, errors = agent.communicate(timeout=120)
        if agent.returncode != 0:
            raise AssertionError(f"the agent failed: {errors.decode()}")


def one(seed: int, kind: str) -> tuple[int, list[str]]:
    """One kill; how many versions were staged, and what is wrong."""
    source = random.Random(seed)
    name = segment_name(seed)
    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="chipmink-kills-") as place, contextlib.ExitStack() as stack:
        folder = Path(place) / "repository"
        agent = None
        if kind != "saver without agent":
            agent = stack.enter_context(ended(start_agent(folder, name, "--size", "4MiB")))
            # Whoever is first has the lease: in half of the rounds it is the agent.
            if source.random() < 0.5:
                time.sleep(0.3)
        arguments = [str(folder), f"shm://{name}", "4MiB", str(seed)]
        saver = stack.enter_context(
            ended(
                subprocess.Popen(
                    [sys.executable, str(Path(__file__).with_name("staging_saver.py")), *arguments],
                    stdout=subprocess.PIPE,
                    start_new_session=True,
                )
            )
        )
        stack.callback(lambda: chipmink_shm_rm(name))
        assert saver.stdout is not None
        staged: list[tuple[int, int]] = []
        first = saver.stdout.readline().split()
        if first:
            staged.append((int(first[0]), int(first[1])))
        time.sleep(source.uniform(0, 0.25))
        if kind == "agent, then saver" and agent is not None:
            agent.kill()
            time.sleep(source.uniform(0, 0.1))
        if kind == "saver and agent" and agent is not None:
            agent.kill()
        if kind == "group":
            os.killpg(saver.pid, signal.SIGKILL)
        else:
            saver.kill()
        rest = saver.stdout.read().decode()
        saver.wait()
        for line in rest.splitlines(keepends=True):
            fields = line.split()
            # The last line may be cut off by the kill.
            if line.endswith("\n") and len(fields) == 2:
                staged.append((int(fields[0]), int(fields[1])))
        if not staged:
            problems.append(f"the saver staged nothing: exit status {saver.returncode}")
        if kind == "saver" and agent is not None and agent.poll() is None:
            wait_for_agent(folder, staged)
        else:
            if agent is not None:
                agent.kill()
                agent.wait()
            drain(folder, name)
        problems += check(folder, seed, staged)
    return len(staged), problems


def wait_for_agent(folder: Path, staged: list[tuple[int, int]]) -> None:
    """Waits until the agent that still runs has made everything durable."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with chipmink.open(folder) as repository:
            if not staged or max((version.number for version in repository.log(1)), default=0) >= staged[-1][0]:
                return
        time.sleep(0.05)


def check(folder: Path, seed: int, staged: list[tuple[int, int]]) -> list[str]:
    problems = []
    with chipmink.open(folder, map=False) as repository:
        versions = repository.log()
        steps = {version.number: version.message for version in versions}
        if len(set(steps.values())) != len(versions):
            problems.append("a version was published twice")
        for number, step in staged:
            if steps.get(number) != f"step {step}":
                problems.append(f"lost: version {number}")
        for number, message in steps.items():
            if not is_whole(repository.load(number), int(message.split()[1]), seed):
                problems.append(f"torn: version {number}")
        problems += [f"damaged: {line}" for line in repository.verify()]
    return problems


def chipmink_shm_rm(name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"/dev/shm/{name}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    kills: collections.Counter[str] = collections.Counter()
    versions: collections.Counter[str] = collections.Counter()
    failures = 0
    for seed in range(arguments.seed, arguments.seed + arguments.kills):
        kind = KINDS[seed % len(KINDS)]
        staged, problems = one(seed, kind)
        kills[kind] += 1
        versions[kind] += staged
        for problem in problems:
            failures += 1
            print(f"seed {seed}, {kind}: {problem}", flush=True)
    for kind in KINDS:
        print(f"{kind}: {kills[kind]} kills, {versions[kind]} versions staged")
    print(f"{sum(kills.values())} kills, {failures} versions lost, torn or published twice")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
