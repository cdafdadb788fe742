"""Checkpoints of training runs that are put back, against ``torch.load``: as long as it takes, and the memory that it needs."""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benches.measure import Result, folder
from benches.rows import Options, Row
from benches.rows.training_peers import sync
from benches.workloads.training import PARAMETERS, Training


def occupied() -> int:
    """Bytes of memory that this process has for itself, or shares with others, but for files."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem"))


def highest_during(act: Callable[[], Any]) -> int:
    """The most memory at any moment; what was freed before is given back first."""
    ctypes.CDLL(None).malloc_trim(0)
    done, highest = threading.Event(), [occupied()]

    def watch() -> None:
        while not done.wait(0.002):
            highest.append(max(highest.pop(), occupied()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    act()
    done.set()
    watcher.join()
    return max(highest[0], occupied())


def in_a_child(act: Callable[[], int]) -> int:
    """What a function returns in a forked process, which has nothing in memory of what was done before but what is alive."""
    import torch

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            # It has not the threads of this one.
            torch.set_num_threads(1)
            os.write(writer, str(act()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="ascii") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return int(answer)


def restore(options: Options) -> list[Result]:
    """A checkpoint is put into a run that has just been started, and into one that has run already.

    ``torch.load`` of a mapped file leaves the optimizer's state unread, also where the run has such a state: it is thrown away, and
    the next step of the training reads and copies each page of the file. We leave unread only what the run had not, and write
    what it had. So the time until the training has gone on by a step is given beside that of the call, and memory is what both need. The call
    alone is held to the mapped form, too.
    """
    import torch
    from chipmink.torch import Checkpointer

    Training(20_000).state()
    empty = occupied()
    training = Training(int(PARAMETERS * options.training_scale))
    with folder() as place:
        torch.save(training.state(), place / "state.pt")
        sync(place / "state.pt")
        with Checkpointer(place / "runs", model=training.model, optimizer=training.optimizer) as made:
            made.save(0)
        opened: list[Checkpointer] = []

        def load(mmap: bool) -> Callable[[], None]:
            def act() -> None:
                state = torch.load(place / "state.pt", mmap=mmap)
                training.model.load_state_dict(state["model"])
                training.optimizer.load_state_dict(state["optimizer"])

            return act

        def ours(verify: str) -> Callable[[], Any]:
            opened.append(Checkpointer(place / "runs", model=training.model, optimizer=training.optimizer, verify=verify))
            return functools.partial(opened[-1].restore, 0)

        sides: dict[str, Callable[[], Callable[[], Any]]] = {
            "ours": functools.partial(ours, "background"),
            "ours, verified": functools.partial(ours, "eager"),
            "torch.load": functools.partial(load, False),
            "torch.load, mapped": functools.partial(load, True),
        }

        def begin(start: str) -> None:
            # A new optimizer each time: what one side leaves in it is not the other's to write into.
            training.optimizer = training.new_optimizer()
            gc.collect()
            if start == "going back":
                training.step()

        def most_of(side: Callable[[], Callable[[], Any]]) -> int:
            act = side()

            def both() -> None:
                act()
                training.step()

            return highest_during(both) - empty

        rows = []
        for start in ("restart", "going back"):
            begin(start)
            highest = {name: in_a_child(functools.partial(most_of, side)) for name, side in sides.items()}
            seconds: dict[str, list[float]] = {name: [] for name in sides}
            stepped: dict[str, list[float]] = {name: [] for name in sides}
            for repetition in range(options.repeats + 1):
                for name in sides if repetition % 2 == 0 else reversed(sides):
                    begin(start)
                    act = sides[name]()
                    began = time.perf_counter()
                    act()
                    returned = time.perf_counter()
                    training.step()
                    # The first time reads files that nobody has read yet.
                    if repetition:
                        seconds[name].append(returned - began)
                        stepped[name].append(time.perf_counter() - began)
                    while opened:
                        opened.pop().close()
            median = {name: statistics.median(values) for name, values in seconds.items()}
            on = {name: statistics.median(values) for name, values in stepped.items()}
            state = training.state_bytes + training.noise.numel() * 4
            label, note = f"training, restore, {start}", f"load_state_dict included; {training.state_bytes / 1e9:.2f} GB"
            unread = "neither has" if start == "restart" else "the peer has not"
            unread += " read the optimizer's state yet"
            following = "until the training has gone on by a step"
            times = f"torch.load: {highest['torch.load'] / state:.2f} times it"
            rows += [
                Result(f"{label}/time", "torch.load", median["ours"], median["torch.load"], 0.5, "s", note=note),
                Result(f"{label}/time", "torch.load, mapped", median["ours"], median["torch.load, mapped"], 1.1, "s", note=unread),
                Result(f"{label}, and a step/time", "torch.load", on["ours"], on["torch.load"], 1.0, "s", note=following),
                Result(f"{label}, and a step/time", "torch.load, mapped", on["ours"], on["torch.load, mapped"], 1.1, "s", note=following),
                Result(f"{label}, all verified/time", "torch.load", median["ours, verified"], median["torch.load"], 0.5, "s", note="all is digested first"),
                Result(f"{label}/memory", "the state", highest["ours"], state, 1.1, "B", note=times),
                Result(f"{label}, all verified/memory", "the state", highest["ours, verified"], state, 1.1, "B"),
            ]
    return rows


ROWS: dict[str, Row] = {"training/restore": restore}
