"""Trains adapters beside frozen weights and saves a checkpoint after every few steps: each costs what the adapters are, not the model.

    python examples/lora_checkpoints.py

A checkpoint holds all that is needed to go on, frozen weights included, and comes back alone. It runs on the CPU in a minute, and
on a GPU unchanged.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import torch
from chipmink.torch import Checkpointer

WIDTH = 768
LAYERS = 6


class Adapted(torch.nn.Module):
    """A frozen linear layer, and beside it a narrow one that learns (LoRA)."""

    def __init__(self, rank: int = 8) -> None:
        super().__init__()
        self.frozen = torch.nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.down = torch.nn.Linear(WIDTH, rank, bias=False)
        self.up = torch.nn.Linear(rank, WIDTH, bias=False)
        torch.nn.init.zeros_(self.up.weight)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(self.frozen(values) + self.up(self.down(values)))


def main() -> None:
    torch.manual_seed(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = torch.nn.Sequential(*(Adapted() for _ in range(LAYERS))).to(device)
    optimizer = torch.optim.AdamW((each for each in model.parameters() if each.requires_grad), lr=1e-3)
    with tempfile.TemporaryDirectory() as place, Checkpointer(Path(place) / "runs", model=model, optimizer=optimizer) as checkpointer:
        total = 0
        print(f"{'step':>6}{'loss':>10}{'chipmink':>14}{'torch.save':>14}")
        for step in range(20):
            inputs = torch.randn(32, WIDTH, device=device)
            loss = ((model(inputs) - inputs.roll(1, 1)) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 4 == 0:
                saved = checkpointer.save(step, metrics={"loss": float(loss.detach())})
                plain = io.BytesIO()
                torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, plain)
                total += len(plain.getvalue())
                written = saved.report.bytes_written / 2**20
                print(f"{step:>6}{float(loss.detach()):>10.4f}{written:>10.2f} MiB{len(plain.getvalue()) / 2**20:>10.2f} MiB")
        on_disk = sum(each.stat().st_size for each in Path(place).rglob("*") if each.is_file())
        print(f"together: {on_disk / 2**20:.1f} MiB on disk, {total / 2**20:.1f} MiB with torch.save")
        best = checkpointer.best("loss")
        assert best is not None
        wanted = {key: value.clone() for key, value in model.state_dict().items()}
        checkpointer.restore(0)
        checkpointer.restore(16)
        assert all(torch.equal(value, wanted[key]) for key, value in model.state_dict().items() if "frozen" in key)
        print(f"the best of them is that of step {best.step}; each comes back whole")


if __name__ == "__main__":
    main()
