"""Trains a small transformer on text, kills it with SIGKILL again and again, and shows that nothing changes by that.

    python examples/pytorch_training.py                  # one run in peace, one that is killed three times, compared bit by bit
    python examples/pytorch_training.py train FOLDER     # train, or go on training, with checkpoints in FOLDER

The text is the documentation of Python that comes with it. It runs on the CPU in a minute, and on a GPU unchanged.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Before torch is imported: the same sums on every processor, in the same order.
os.environ.setdefault("MKL_CBWR", "COMPATIBLE")

import torch  # noqa: E402
from chipmink.torch import PREEMPTION_SIGNALS, Checkpointer  # noqa: E402

CONTEXT = 32
WIDTH = 64


def text_of_python() -> torch.Tensor:
    """What ``help()`` knows of the language, as numbers of bytes."""
    from pydoc_data import topics

    text = "\n".join(topics.topics[name] for name in sorted(topics.topics))
    return torch.frombuffer(bytearray(text.encode("ascii", "replace")), dtype=torch.uint8).long()


class Block(torch.nn.Module):
    """Attention to what came before, and a small network."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(WIDTH, 4, dropout=0.1, batch_first=True)
        self.first, self.second = torch.nn.LayerNorm(WIDTH), torch.nn.LayerNorm(WIDTH)
        self.network = torch.nn.Sequential(
            torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.GELU(), torch.nn.Linear(4 * WIDTH, WIDTH), torch.nn.Dropout(0.1)
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        future = torch.ones(CONTEXT, CONTEXT, dtype=torch.bool, device=values.device).triu(1)
        normal = self.first(values)
        values = values + self.attention(normal, normal, normal, attn_mask=future, need_weights=False)[0]
        return values + self.network(self.second(values))


class Transformer(torch.nn.Module):
    """Two blocks; the weights of the output are those of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = torch.nn.Embedding(128, WIDTH)
        self.places = torch.nn.Parameter(torch.zeros(CONTEXT, WIDTH))
        self.blocks = torch.nn.Sequential(Block(), Block())
        self.output = torch.nn.Linear(WIDTH, 128, bias=False)
        self.output.weight = self.letters.weight

    def forward(self, letters: torch.Tensor) -> torch.Tensor:
        return self.output(self.blocks(self.letters(letters) + self.places))


class Batches:
    """Random pieces of a text; knows where it stands."""

    def __init__(self, text: torch.Tensor, seed: int) -> None:
        self.text, self.generator, self.given = text, torch.Generator().manual_seed(seed), 0

    def take(self) -> torch.Tensor:
        starts = torch.randint(len(self.text) - CONTEXT, (8,), generator=self.generator)
        self.given += 1
        return torch.stack([self.text[start : start + CONTEXT + 1] for start in starts.tolist()])

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state(), "given": self.given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
        self.given = state["given"]


def train(folder: Path, losses: Path, steps: int, save_every: int = 4, staging: str | None = None) -> None:
    """Trains until so many steps are done, from wherever the last checkpoint is. Each loss is a line of a file."""
    # What makes two runs of one program give the same bits.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    torch.manual_seed(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Transformer().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    batches = Batches(text_of_python(), 2)
    checkpointer = Checkpointer(
        folder,
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        batches=batches,
        keep_last=3,
        staging=staging,
        size=None if staging is None else "64MiB",
        preemption=PREEMPTION_SIGNALS,
    )
    with checkpointer, open(losses, "a", encoding="ascii") as lines:
        found = checkpointer.restore()
        for step in range(found.step + 1 if found else 0, steps):
            letters = batches.take().to(device)
            logits = model(letters[:, :-1])
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), letters[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            lines.write(json.dumps([step, float(loss.detach()).hex()]) + "\n")
            lines.flush()
            if step % save_every == save_every - 1 or step == steps - 1 or checkpointer.preempted:
                checkpointer.save(step, metrics={"loss": float(loss.detach())})
            if checkpointer.preempted:
                break


def read(losses: Path) -> dict[int, set[str]]:
    """The losses of each step, of all the times that it was done."""
    found: dict[int, set[str]] = {}
    for line in losses.read_text().splitlines(keepends=True):
        # The last line of a killed run may be cut off.
        if line.endswith("]\n"):
            step, loss = json.loads(line)
            found.setdefault(step, set()).add(loss)
    return found


def in_a_child(*arguments: Any) -> int:
    """Trains in a child of this process, which has imported everything already; returns its id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            train(*arguments)
            status = 0
        finally:
            os._exit(status)
    return child


def kill_and_go_on(folder: Path, losses: Path, steps: int, kills: int, seed: int, staging: str | None = None) -> int:
    """Trains to the end, and is killed at random moments on the way. Returns how often it was."""
    moments, killed = random.Random(seed), 0
    while True:
        began = time.monotonic()
        child = in_a_child(folder, losses, steps, 4, staging)
        wait = moments.uniform(0.3, 2.0) if killed < kills else float("inf")
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            if time.monotonic() - began > wait:
                os.kill(child, signal.SIGKILL)
                wait = float("inf")
            time.sleep(0.002)
        if status == 0:
            return killed
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            raise RuntimeError(f"the training failed with status {os.waitstatus_to_exitcode(status)}")
        killed += 1


def demonstrate(steps: int) -> None:
    """Compares runs that were killed with one that was not."""
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        runs = {}
        for name, kills in (("in peace", 0), ("in peace again", 0), ("killed", 3)):
            folder, losses = base / name, base / f"{name}.losses"
            began = time.monotonic()
            killed = kill_and_go_on(folder, losses, steps, kills, seed=5)
            runs[name] = read(losses)
            last = float.fromhex(min(runs[name][steps - 1]))
            print(f"{name + ',':16} killed {killed} times: loss {last:.6f} after {steps} steps, {time.monotonic() - began:.1f} s")
        if len(runs["in peace"]) != steps or not runs["in peace"] == runs["in peace again"] == runs["killed"]:
            sys.exit("the losses differ")
        print("every loss of every run is the same, to the last bit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["demonstrate", "train"], default="demonstrate")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("checkpoints"))
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--staging", help="shared memory to stage checkpoints in, such as shm://run7")
    options = parser.parse_args()
    if options.what == "train":
        options.folder.mkdir(parents=True, exist_ok=True)
        train(options.folder / "checkpoints", options.folder / "losses", options.steps, staging=options.staging)
    else:
        demonstrate(options.steps)


if __name__ == "__main__":
    main()
