"""A model that is sharded over several ranks (FSDP2 on gloo), saved and loaded through ``torch.distributed.checkpoint``."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: By name: digest and bytes of each whole tensor.
Digests = dict[str, tuple[str, int]]


def _state(width: int, world: int, seed: int) -> tuple[Any, Any, dict[str, Any]]:
    import torch
    from torch.distributed.checkpoint.state_dict import get_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(seed)
    # No dimension divides by four.
    model = torch.nn.Sequential(*(torch.nn.Linear(width + 1, width + 1) for _ in range(4)))
    if world > 1:
        mesh = init_device_mesh("cpu", (world,))
        for layer in (*model, model):
            fully_shard(layer, mesh=mesh)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(2, width + 1)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    states = get_state_dict(model, optimizer)
    return model, optimizer, {"model": states[0], "optimizer": states[1]}


def _digests(value: Any, name: str = "") -> Digests:
    import torch

    if isinstance(value, dict):
        return {key: digest for part, item in value.items() for key, digest in _digests(item, f"{name}.{part}").items()}
    if hasattr(value, "full_tensor"):
        value = value.full_tensor()
    if not isinstance(value, torch.Tensor):
        return {}
    data = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return {name: (hashlib.blake2b(data).hexdigest(), data.nbytes)}


def save(place: str, world: int, width: int) -> Digests:
    """Saves a state; what each tensor of it is."""
    import torch.distributed.checkpoint as dcp
    from chipmink.torch.dcp import ChipminkWriter

    state = _state(width, world, 1)[2]
    with ChipminkWriter(f"{place}/runs") as writer:
        dcp.save(state, storage_writer=writer)
    return _digests(state)


def load(place: str, world: int, width: int) -> Digests:
    """Loads it into another state; what each tensor of that is then."""
    import torch.distributed.checkpoint as dcp
    from chipmink.torch.dcp import ChipminkReader

    state = _state(width, world, 2)[2]
    with ChipminkReader(f"{place}/runs") as reader:
        dcp.load(state, storage_reader=reader)
    return _digests(state)


def _rank(function: Callable[..., Digests], rank: int, world: int, place: str, width: int, answers: Any) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{place}/store-{world}", rank=rank, world_size=world)
    answers.put(function(place, world, width))
    dist.destroy_process_group()


def run(place: Path, world: int, function: Callable[..., Digests], width: int) -> list[Digests]:
    """What a function returns on each rank."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch.distributed.checkpoint", "torch.distributed.fsdp"])
    answers = context.Queue()
    ranks = [context.Process(target=_rank, args=(function, rank, world, str(place), width, answers)) for rank in range(world)]
    for each in ranks:
        each.start()
    try:
        return [answers.get(timeout=600) for _ in ranks]
    finally:
        for each in ranks:
            each.join(60)
            if each.is_alive():
                each.kill()
