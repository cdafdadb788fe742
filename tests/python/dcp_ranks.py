"""What the ranks of the tests of ``chipmink.torch.dcp`` do."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from chipmink.torch.dcp import ChipminkReader, ChipminkWriter
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh

try:
    from torch.distributed.fsdp import fully_shard
except ImportError:
    # Before torch 2.6.
    from torch.distributed._composable.fsdp import fully_shard


def build(world: int, seed: int) -> tuple[Any, Any]:
    """A model of which no dimension divides by four, with buffers, sharded over all ranks, and its optimizer."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(30, 301), torch.nn.BatchNorm1d(301), torch.nn.ReLU(), torch.nn.Linear(301, 5))
    if world > 1:
        mesh = init_device_mesh("cpu", (world,))
        for module in (model[0], model[3], model):
            fully_shard(module, mesh=mesh)
    return model, torch.optim.Adam(model.parameters(), lr=0.01)


def train(model: Any, optimizer: Any, steps: int) -> None:
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        (model(torch.randn(6, 30)) ** 2).mean().backward()
        optimizer.step()


def state_of(model: Any, optimizer: Any) -> dict[str, Any]:
    states = get_state_dict(model, optimizer)
    return {"model": states[0], "optimizer": states[1], "note": {"epoch": 3, "names": ["a", "b"]}}


def whole(value: Any) -> Any:
    """The state with all shards gathered, as arrays."""
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    if hasattr(value, "full_tensor"):
        value = value.full_tensor()
    return value.detach().clone().numpy() if isinstance(value, torch.Tensor) else value


def save(rank: int, place: str, options: dict[str, Any], ids: list[str], steps: int, how: str = "save") -> Any:
    """Trains and saves checkpoints; returns what the last holds, and bytes that the staging has copied."""
    model, optimizer = build(dist.get_world_size(), 1)
    futures = []
    with ChipminkWriter(place, **options) as writer:
        for name in ids:
            train(model, optimizer, steps)
            state = state_of(model, optimizer)
            if how == "async_save":
                before = whole(state)
                futures.append(dcp.async_save(state, checkpoint_id=name, storage_writer=writer))
                # The race of asynchronous saves: what is written now is of the next step.
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter.mul_(-3)
                futures[-1].result()
            else:
                alone = {"use_collectives": False} if how == "save alone" else {}
                dcp.save(state, checkpoint_id=name, storage_writer=writer, **alone)
                before = whole(state)
        return before, writer.staged_bytes


def load(rank: int, place: str, name: str | None) -> Any:
    """Loads a checkpoint into a model with other values; returns its state."""
    model, optimizer = build(dist.get_world_size(), 2)
    train(model, optimizer, 1)
    state = state_of(model, optimizer)
    state["note"] = {"epoch": 0, "names": []}
    with ChipminkReader(place) as reader:
        dcp.load(state, checkpoint_id=name, storage_reader=reader)
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    return whole({**state_of(model, optimizer), "note": state["note"]})


def save_and_die(rank: int, place: str, dies: int) -> None:
    """One rank is killed when it has saved its part of the second checkpoint."""
    model, optimizer = build(dist.get_world_size(), 1)
    train(model, optimizer, 1)

    class Dying(ChipminkWriter):
        def write_data(self, plan: Any, planner: Any) -> Any:
            done = super().write_data(plan, planner)
            if rank == dies and self._save.checkpoint_id == "second":
                os.kill(os.getpid(), 9)
            return done

    writer = Dying(place, durable=False)
    dcp.save(state_of(model, optimizer), checkpoint_id="first", storage_writer=writer)
    train(model, optimizer, 1)
    dcp.save(state_of(model, optimizer), checkpoint_id="second", storage_writer=writer)


def save_until_killed(rank: int, world: int, store: str, place: str, name: str, answers: Any) -> None:
    """Trains and stages checkpoints for ever; rank 0 tells of each what one weight is in it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    model, optimizer = build(world, 1)
    writer = ChipminkWriter(place, staging=f"shm://{name}", size="64MiB")
    number = 0
    while True:
        number += 1
        train(model, optimizer, 1)
        state = state_of(model, optimizer)
        weight = whole(state["model"]["0.weight"])
        dcp.save(state, checkpoint_id=f"c{number}", storage_writer=writer)
        if rank == 0:
            answers.put((number, weight))


#: What processes do together, of which each waits for the others.
COLLECTIVES = (
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_object",
    "all_reduce",
    "all_to_all",
    "all_to_all_single",
    "barrier",
    "broadcast",
    "broadcast_object_list",
    "gather",
    "gather_object",
    "irecv",
    "isend",
    "monitored_barrier",
    "recv",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor",
    "scatter",
    "scatter_object_list",
    "send",
)


def count_collectives(rank: int, folder: str) -> Any:
    """Which collectives a save and a load call with our writer and reader, and with those of torch."""
    model, optimizer = build(dist.get_world_size(), 1)
    train(model, optimizer, 1)
    state = state_of(model, optimizer)
    calls: list[str] = []
    plain = {name: getattr(dist, name) for name in COLLECTIVES if hasattr(dist, name)}

    def counted(name: str, function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            calls.append(name)
            return function(*arguments, **named)

        return call

    ours = ChipminkWriter(f"{folder}/repo", durable=False)
    sides = {
        "ours": (ours, lambda: ChipminkReader(f"{folder}/repo")),
        "torch's": (dcp.FileSystemWriter(f"{folder}/files"), lambda: dcp.FileSystemReader(f"{folder}/files")),
    }
    found = {}
    for name, (writer, reader) in sides.items():
        for collective, function in plain.items():
            setattr(dist, collective, counted(collective, function))
        try:
            dcp.save(state, storage_writer=writer)
            dcp.load(state, storage_reader=reader())
        finally:
            for collective, function in plain.items():
                setattr(dist, collective, function)
        found[name] = list(calls)
        calls.clear()
    ours.close()
    return found


def save_in_a_process(rank: int, place: str) -> tuple[str, str]:
    """What becomes of an asynchronous save in a process of torch's own: the error, and how a save goes after it."""
    from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType

    state = {"weights": torch.arange(1000.0), "step": 1}
    with ChipminkWriter(place, durable=False) as writer:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        future = dcp.async_save(state, checkpoint_id="one", storage_writer=writer, async_checkpointer_type=AsyncCheckpointerType.PROCESS)
        try:
            future.result(timeout=200)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        else:
            said = "saved"
        dcp.async_save(state, checkpoint_id="two", storage_writer=writer).result()
        return said, str(writer.last)


def save_alone_and_die(rank: int, place: str, dies: int) -> None:
    """Without collectives, one rank is killed before it has saved its part of the second checkpoint."""
    model, optimizer = build(dist.get_world_size(), 1)
    train(model, optimizer, 1)

    class Dying(ChipminkWriter):
        def write_data(self, plan: Any, planner: Any) -> Any:
            if rank == dies and self._save.checkpoint_id == "second":
                os.kill(os.getpid(), 9)
            return super().write_data(plan, planner)

    writer = Dying(place, durable=False)
    dcp.save(state_of(model, optimizer), checkpoint_id="first", storage_writer=writer, use_collectives=False)
    dist.barrier()
    train(model, optimizer, 1)
    dcp.save(state_of(model, optimizer), checkpoint_id="second", storage_writer=writer, use_collectives=False)
