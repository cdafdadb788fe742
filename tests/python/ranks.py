"""Runs a function on several ranks, each a process, joined by gloo."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
# A server that has imported torch already, from which ranks are forked: importing takes longer than most tests.
_CONTEXT.set_forkserver_preload(["torch", "torch.distributed.checkpoint", "torch.distributed.fsdp", "chipmink.torch.dcp"])


def _rank(function: Callable[..., Any], rank: int, world: int, store: str, answers: Any, arguments: tuple[Any, ...]) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    try:
        answers.put((rank, True, function(rank, *arguments)))
    except BaseException:
        answers.put((rank, False, traceback.format_exc()))
        answers.close()
        answers.join_thread()
        os._exit(1)
    dist.destroy_process_group()


def run(folder: Path, world: int, function: Callable[..., Any], *arguments: Any, dies: int | None = None) -> list[Any]:
    """What the function returns on each rank; it is called with the rank first. ``dies``: a rank that kills itself."""
    store = folder / f"store-{len(list(folder.glob('store-*')))}"
    answers = _CONTEXT.Queue()
    processes = [_CONTEXT.Process(target=_rank, args=(function, rank, world, str(store), answers, arguments)) for rank in range(world)]
    for process in processes:
        process.start()
    found: dict[int, Any] = {}
    try:
        for _ in range(world - (dies is not None)):
            rank, is_good, value = answers.get(timeout=240)
            if not is_good and dies is None:
                raise AssertionError(f"rank {rank} failed:\n{value}")
            found[rank] = value
        for process in processes:
            process.join(60)
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
    return [found.get(rank) for rank in range(world)]
