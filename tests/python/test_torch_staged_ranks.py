"""Ranks that are killed after a checkpoint was staged: an agent makes it durable, and it is whole."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys

import chipmink
import numpy as np
import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available():
    pytest.skip("this torch has no distributed package", allow_module_level=True)

import dcp_ranks  # noqa: E402
import ranks  # noqa: E402
import torch.distributed.fsdp  # noqa: E402


def agent(place: str, name: str) -> None:
    command = [sys.executable, "-m", "chipmink", "agent", "--staging", f"shm://{name}", "--to", place, "--until-durable"]
    subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL)


@pytest.mark.skipif(not hasattr(torch.distributed.fsdp, "fully_shard"), reason="this torch shards on devices only")
@pytest.mark.parametrize("world", [2, 4])
def test_what_is_staged_survives_the_death_of_all_ranks(tmp_path, world):
    place, name = str(tmp_path / "repo"), f"ranks-test-{os.getpid()}-{world}"
    context = multiprocessing.get_context("forkserver")
    answers = context.Queue()
    store = str(tmp_path / "store")
    processes = [
        context.Process(target=dcp_ranks.save_until_killed, args=(rank, world, store, place, name, answers)) for rank in range(world)
    ]
    try:
        for process in processes:
            process.start()
        # Each rank tells how many checkpoints it has staged.
        staged, states = 0, {}
        while staged < 3:
            staged, digest = answers.get(timeout=240)
            states[staged] = digest
        for process in processes:
            os.kill(process.pid, signal.SIGKILL)
        for process in processes:
            process.join(30)
        while not answers.empty():
            number, digest = answers.get(timeout=5)
            states[number] = digest
        agent(place, name)
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
        subprocess.run([sys.executable, "-m", "chipmink", "shm", "rm", name, "--force"], stderr=subprocess.DEVNULL)
    with chipmink.open(place) as repo:
        line = [int(version.message.removeprefix("checkpoint c")) for version in repo.log() if version.ref == "main"]
        # None that was called staged is missing; the one under way may have got there, too.
        assert line == list(range(line[0], 0, -1)) and line[0] >= max(states)
        assert repo.verify().ok
    for number in states:
        found = ranks.run(tmp_path, 1, dcp_ranks.load, place, f"c{number}")[0]
        assert np.array_equal(found["model"]["0.weight"], states[number]), number
