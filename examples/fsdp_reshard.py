"""Four processes train a sharded model and save it through ``torch.distributed.checkpoint``; two load it and go on, then one does.

    python examples/fsdp_reshard.py

It runs on the CPU in a minute (gloo), and on as many GPUs unchanged (nccl for the training, gloo for the plans).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as multiprocessing
from chipmink.torch.dcp import ChipminkReader, ChipminkWriter
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def build(device: str, world: int) -> tuple[Any, Any]:
    """A model, sharded over all processes, and its optimizer."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(*(torch.nn.Sequential(torch.nn.Linear(301, 301), torch.nn.GELU()) for _ in range(4))).to(device)
    mesh = init_device_mesh(device, (world,))
    for layer in model:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3)


def rank(number: int, world: int, base: str, steps: tuple[int, int]) -> None:
    """What each process does: goes on from the newest checkpoint, and saves one."""
    has_gpus = torch.cuda.device_count() >= world
    device = "cuda" if has_gpus else "cpu"
    if has_gpus:
        torch.cuda.set_device(number)
    torch.set_num_threads(1)
    store = f"file://{base}/store-{world}"
    dist.init_process_group("cpu:gloo,cuda:nccl" if has_gpus else "gloo", init_method=store, rank=number, world_size=world)
    model, optimizer = build(device, world)
    model_state, optimizer_state = get_state_dict(model, optimizer)
    if steps[0]:
        with ChipminkReader(f"{base}/runs") as reader:
            state = {"model": model_state, "optimizer": optimizer_state}
            dcp.load(state, storage_reader=reader)
        set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    loss = torch.zeros(())
    for step in range(*steps):
        # The same batch for each number of processes, so that losses can be compared.
        torch.manual_seed(100 + step)
        inputs = torch.randn(16, 301, device=device)
        loss = ((model(inputs) - inputs) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model_state, optimizer_state = get_state_dict(model, optimizer)
    with ChipminkWriter(f"{base}/runs") as writer:
        state = {"model": model_state, "optimizer": optimizer_state}
        future = dcp.async_save(state, checkpoint_id=f"step-{steps[1]}", storage_writer=writer)
        future.result()
    if number == 0:
        print(f"{world} processes: steps {steps[0]} to {steps[1]}, loss {float(loss.detach()):.5f}", flush=True)
    dist.destroy_process_group()


def main() -> None:
    with tempfile.TemporaryDirectory() as base:
        for world, steps in ((4, (0, 10)), (2, (10, 20)), (1, (20, 30))):
            multiprocessing.start_processes(rank, (world, base, steps), nprocs=world, start_method="fork")
        files = sum(each.stat().st_size for each in Path(base, "runs").rglob("*") if each.is_file())
        print(f"three checkpoints, {files / 2**20:.1f} MiB")
        with ChipminkReader(f"{base}/runs") as reader:
            whole: dict[str, Any] = {"model": {"0.0.weight": torch.zeros(301, 301)}}
            dcp.load(whole, checkpoint_id="step-10", storage_reader=reader)
        if not whole["model"]["0.0.weight"].any():
            sys.exit("nothing was loaded")
        print("a process without a group reads a whole weight of what four have saved")


if __name__ == "__main__":
    main()
