"""Checkpoints of PyTorch training runs, against ``torch.save``, ``torch.distributed.checkpoint`` and safetensors.

``--training-scale`` makes the runs smaller for small machines; at 1 the dense run has 200 million parameters, 2.4 GB with the state of
Adam, and needs some 12 GB of memory. Peers sync what they write inside the timed section, as we do, but where the row says otherwise.
"""

from __future__ import annotations

import abc
import ctypes
import functools
import gc
import importlib.metadata
import math
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benches.measure import Result, bytes_in, folder
from benches.rows import Options, Row
from benches.workloads.training import Training

PARAMETERS = 200_000_000
#: Steps of one repetition, each with a save.
STEPS = 3
CHUNK = 64 << 10


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


class Peer(abc.ABC):
    """Saves the state of a run; `save` returns when training may go on, `finish` when all is on the disk."""

    def __init__(self, training: Training, place: Path, durable: bool) -> None:
        self.training, self.place, self.durable = training, place, durable
        self.saves = 0
        place.mkdir()

    def path(self) -> Path:
        self.saves += 1
        return self.place / f"{self.saves}"

    @abc.abstractmethod
    def save(self) -> None:
        """Saves; training may go on when it returns."""

    def finish(self) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """Gives back what it holds."""

    def clear(self) -> int:
        """Deletes what was saved; returns its bytes."""
        size = bytes_in(self.place)
        shutil.rmtree(self.place)
        self.place.mkdir()
        return size


class TorchSave(Peer):
    def save(self) -> None:
        import torch

        path = self.path()
        torch.save(self.training.state(), path)
        if self.durable:
            _sync(path)
            _sync(self.place)


class Safetensors(Peer):
    def save(self) -> None:
        from safetensors.torch import save_file

        path = self.path()
        save_file(self.training.flat(), path)
        if self.durable:
            _sync(path)
            _sync(self.place)


class DcpSave(Peer):
    def writer(self) -> Any:
        from torch.distributed.checkpoint import FileSystemWriter

        return FileSystemWriter(self.path(), sync_files=self.durable)

    def save(self) -> None:
        import torch.distributed.checkpoint as dcp

        dcp.save(self.training.state(), storage_writer=self.writer(), no_dist=True)


class DcpAsync(DcpSave):
    future: Any = None

    def save(self) -> None:
        import torch.distributed.checkpoint as dcp

        # One checkpoint is written at a time; else they would pile up in memory.
        self.finish()
        self.future = dcp.async_save(self.training.state(), storage_writer=self.writer(), no_dist=True)

    def finish(self) -> None:
        if self.future is not None:
            self.future.result()
            self.future = None


class DcpPinned(DcpAsync):
    """With the stager that keeps a copy in pinned memory, as it is recommended for devices."""

    def __init__(self, training: Training, place: Path, durable: bool) -> None:
        super().__init__(training, place, durable)
        from torch.distributed.checkpoint.staging import DefaultStager

        self.stager = DefaultStager()

    def save(self) -> None:
        import torch.distributed.checkpoint as dcp

        self.finish()
        answer = dcp.async_save(self.training.state(), storage_writer=self.writer(), no_dist=True, async_stager=self.stager)
        answer.staging_completion.result()
        self.future = answer.upload_completion


class Tree(Peer):
    """One that makes a folder for each checkpoint, and does not sync it."""

    def sync(self, path: Path) -> None:
        if self.durable:
            for each in (path, *path.rglob("*"), self.place):
                _sync(each)


class TorchSnapshot(Tree):
    def save(self) -> None:
        from torchsnapshot import Snapshot

        path = self.path()
        Snapshot.take(str(path), {"model": self.training.model, "optimizer": self.training.optimizer})
        self.sync(path)


class TorchCheckpointing(Tree):
    """Its manager that writes in a process of its own; one checkpoint is written at a time."""

    def __init__(self, training: Training, place: Path, durable: bool) -> None:
        super().__init__(training, place, durable)
        from torch_checkpointing import CheckpointManager
        from torch_checkpointing.storage.filesystem import LocalFileSystemStorageConfig

        config = CheckpointManager.Config.with_async_save()
        # Not every file system takes unaligned writes past its cache.
        config.storage_config = LocalFileSystemStorageConfig(use_direct_io=False)
        # Both need a device.
        staging = config.save.staging_config
        staging.use_pinned_memory = staging.use_non_blocking_copy = False
        self.manager = config.build()
        self.running: tuple[Any, Path] | None = None

    def save(self) -> None:
        self.finish()
        path = self.path()
        self.running = (self.manager.save(str(path), self.training.state()), path)
        # Training may go on when the copy is made.
        with self.manager.lock():
            pass

    def finish(self) -> None:
        if self.running is not None:
            written, path = self.running
            self.running = None
            written.result()
            self.sync(path)

    def close(self) -> None:
        self.manager.close()


class Lightning(Peer):
    def save(self) -> None:
        from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

        path = self.path()
        TorchCheckpointIO().save_checkpoint(self.training.state(), path)
        if self.durable:
            _sync(path)
            _sync(self.place)


class DlRover(Peer):
    """Its checkpointer for a single machine: a process of its own writes what was copied to shared memory."""

    #: Seconds that it may take to write a checkpoint.
    PATIENCE = 60.0

    def __init__(self, training: Training, place: Path, durable: bool) -> None:
        super().__init__(training, place, durable)
        from dlrover.trainer.torch.flash_checkpoint.ddp import DdpCheckpointer

        self.checkpointer = DdpCheckpointer(str(place))
        self.running: Path | None = None

    def save(self) -> None:
        from dlrover.trainer.torch.flash_checkpoint.checkpointer import StorageType

        self.finish()
        self.running = self.path()
        self.checkpointer.save_checkpoint(self.saves, self.training.state(), str(self.running), storage_type=StorageType.DISK)

    def finish(self) -> None:
        if self.running is None:
            return
        path, self.running = self.running, None
        # Its own function for that looks every three seconds.
        tracker = self.place / "dlrover_latest.txt"
        began = time.monotonic()
        while not (tracker.exists() and tracker.read_text() == str(self.saves)):
            if time.monotonic() - began > self.PATIENCE:
                raise TimeoutError(f"nothing was written in {self.PATIENCE} seconds")
            time.sleep(0.01)
        if self.durable:
            _sync(path)
            _sync(self.place)

    def close(self) -> None:
        engine = self.checkpointer._engine
        engine._shm_handler.unlink()
        engine.close()


class Ours(Peer):
    """A ``Checkpointer``; with ``staged`` it returns when the checkpoint is in shared memory."""

    def __init__(self, training: Training, place: Path, durable: bool, staged: bool = False) -> None:
        super().__init__(training, place, durable)
        from chipmink.torch import Checkpointer

        self.segment = f"chipmink-bench-{os.getpid()}" if staged else None
        self.checkpointer = Checkpointer(
            place / "runs",
            model=training.model,
            optimizer=training.optimizer,
            durable=durable,
            staging=None if self.segment is None else f"shm://{self.segment}",
        )
        self.first = bytes_in(place)

    def save(self) -> None:
        self.saves += 1
        self.checkpointer.save(self.saves)

    def finish(self) -> None:
        self.checkpointer.wait()

    def clear(self) -> int:
        size = bytes_in(self.place) - self.first
        versions = [each.version for each in self.checkpointer.checkpoints()]
        self.checkpointer.repository.sweep(drop=versions[1:], grace="0s")
        self.first = bytes_in(self.place)
        return size

    def close(self) -> None:
        self.checkpointer.close()
        if self.segment is not None:
            subprocess.run([sys.executable, "-m", "chipmink", "shm", "rm", self.segment, "--force"], check=True)


#: Needs a device, and is judged like the other peers where there is one.
PINNED = "DCP async_save, pinned"
#: Peers by which no bar is set: what is installed of them is measured, too. The distribution of each.
OTHERS: dict[str, tuple[str, type[Peer]]] = {
    PINNED: ("torch", DcpPinned),
    "torchsnapshot": ("torchsnapshot", TorchSnapshot),
    "torch_checkpointing": ("torch_checkpointing", TorchCheckpointing),
    "Lightning": ("lightning", Lightning),
    "DLRover": ("dlrover", DlRover),
}


def tried(name: str, place: Path, durable: bool) -> str:
    """Why a peer cannot be measured here: what it says of a small state. Empty if it can."""
    package, kind = OTHERS[name]
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return f"not installed (pip install {package})"
    try:
        peer = kind(Training(20_000), place, durable)
        peer.save()
        peer.finish()
        peer.close()
    except Exception as error:
        return why(error)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return ""


def why(error: Exception) -> str:
    """The first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:120]


def version_of(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return package


def why_not(package: str, reason: str) -> str:
    """What the table says of a peer by which no bar is set."""
    return f"{version_of(package)}; " + (f"not measured: {reason}" if reason else "not judged")


def run(training: Training, peer: Peer) -> tuple[float, float, int]:
    """Trains for some steps, each with a save: seconds until all is on the disk, seconds for which training stood still, bytes."""
    stall = 0.0
    began = time.perf_counter()
    for _ in range(STEPS):
        training.step()
        before = time.perf_counter()
        peer.save()
        stall += time.perf_counter() - before
    peer.finish()
    return time.perf_counter() - began, stall / STEPS, peer.clear()


def alternated(training: Training, sides: dict[str, Peer], options: Options) -> dict[str, list[tuple[float, float, int]]]:
    """What `run` finds in each repetition, in which each side gets its turn; then they are closed."""
    found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in sides}
    for side in sides.values():
        # What is made once (files, segments, buffers) is not part of any repetition.
        side.save()
        side.finish()
        side.clear()
    for repetition in range(min(3, options.repeats)):
        names = list(sides) if repetition % 2 == 0 else list(reversed(sides))
        for name in names:
            found[name].append(run(training, sides[name]))
    for side in sides.values():
        side.close()
    return found


def dense(durable: bool, options: Options) -> list[Result]:
    """Every element changes in every step."""
    training = Training(int(PARAMETERS * options.training_scale))
    with folder() as place:
        peers: dict[str, Peer] = {
            "torch.save": TorchSave(training, place / "torch", durable),
            "DCP save": DcpSave(training, place / "dcp", durable),
            "DCP async_save": DcpAsync(training, place / "async", durable),
            "safetensors": Safetensors(training, place / "safetensors", durable),
        }
        absent = {name: tried(name, place / "tried", durable) for name in OTHERS}
        if not absent[PINNED]:
            peers[PINNED] = DcpPinned(training, place / "pinned", durable)
        judged = list(peers)
        ours = Ours(training, place / "ours", durable)
        staged = Ours(training, place / "staged", durable, staged=True) if durable else None
        sides = {**peers, "ours": ours, **({"staged": staged} if staged else {})}
        found = alternated(training, sides, options)
        for name, (_, kind) in OTHERS.items():
            if not absent[name] and name not in judged:
                # One after another: each holds a copy of the state, and its threads and processes must not be in the others' way.
                try:
                    found |= alternated(training, {name: kind(training, place / "other", durable)}, options)
                except Exception as error:
                    absent[name] = why(error)
                shutil.rmtree(place / "other", ignore_errors=True)

    def median(name: str, of: int) -> float:
        return statistics.median(each[of] for each in found[name])

    best = min(median(name, 0) for name in judged)
    label = f"training, dense{'' if durable else ', no fsync'}"
    note = f"{STEPS} steps with a save each, {training.state_bytes / 1e9:.2f} GB"
    rows = []
    for side in ("ours", "staged") if durable else ("ours",):
        kind = "" if side == "ours" else ", staged"
        for name in judged:
            is_best = median(name, 0) == best
            bar = 1.0 if is_best else math.inf
            what = "the best" if is_best else "not the best"
            rows.append(Result(f"{label}{kind}/time", name, median(side, 0), median(name, 0), bar, "s", note=f"{note}; {what}"))
        for name, (package, _) in ((name, of) for name, of in OTHERS.items() if name not in judged):
            theirs = math.nan if absent[name] else median(name, 0)
            rows.append(Result(f"{label}{kind}/time", name, median(side, 0), theirs, math.inf, "s", note=why_not(package, absent[name])))
        least = min(median(name, 2) for name in judged)
        rows.append(Result(f"{label}{kind}/bytes", "the fewest of all", median(side, 2), least, 1.02, "B"))
        if durable:
            stalls = (median(side, 1), median("DCP async_save", 1))
            rows.append(Result(f"{label}{kind}/stall", "DCP async_save", *stalls, 1.0, "s", note="a save"))
    return rows


def hash_seconds(training: Training, repeats: int) -> float:
    """Time to hash what is frozen, by the chunk."""
    import xxhash

    frozen = [each for each in training.model if not each.requires_grad]
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        for parameter in frozen:
            view = memoryview(parameter.detach().numpy()).cast("B")
            for start in range(0, len(view), CHUNK):
                xxhash.xxh3_128_digest(view[start : start + CHUNK])
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def write_seconds(place: Path, size: int, repeats: int) -> float:
    """Time to write so many bytes to a file and to sync it."""
    data = os.urandom(1 << 20)
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        with open(place / "plain", "wb", buffering=0) as file:
            for _ in range(0, size, len(data)):
                file.write(data)
            os.fsync(file.fileno())
        seconds.append(time.perf_counter() - began)
        (place / "plain").unlink()
    return statistics.median(seconds)


def frozen(share: float, options: Options) -> list[Result]:
    """Only some parameters learn."""
    training = Training(int(PARAMETERS * options.training_scale), share)
    seconds, written, plain = [], [], []
    with folder() as place:
        ours, torch_save = Ours(training, place / "ours", True), TorchSave(training, place / "torch", True)
        for _ in range(3):
            training.step()
            ours.save()
        for _ in range(options.repeats):
            training.step()
            before = bytes_in(ours.place)
            began = time.perf_counter()
            ours.save()
            seconds.append(time.perf_counter() - began)
            written.append(bytes_in(ours.place) - before)
            began = time.perf_counter()
            torch_save.save()
            plain.append(time.perf_counter() - began)
            torch_save.clear()
        ours.close()
        hashing = hash_seconds(training, options.repeats)
        writing = write_seconds(place, training.trained_bytes, options.repeats)
    label = f"training, {100 * training.trained_count / len(training.model):.1f} % of the parameters learn"
    least = 1.2 * hashing + 1.15 * writing
    return [
        Result(f"{label}/bytes", "what learns, with its state", max(written), training.trained_bytes, 1.1, "B", note="a save"),
        Result(f"{label}/time", "hash frozen, write the rest", statistics.median(seconds), least, 1.0, "s", note="1.2 times the one and 1.15 times the other"),
        Result(f"{label}/time", "torch.save", statistics.median(seconds), statistics.median(plain), 1.0, "s"),
    ]


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
    what it had. So what counts, of time and of memory, is that the training has gone on by a step. How long the call takes is judged against
    the mapped form where both leave the same to be done, else printed.
    """
    import torch
    from chipmink.torch import Checkpointer

    Training(20_000).state()
    empty = occupied()
    training = Training(int(PARAMETERS * options.training_scale))
    with folder() as place:
        torch.save(training.state(), place / "state.pt")
        _sync(place / "state.pt")
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
            # There is no bar if one side has done what the other has still to do.
            bar, unread = (1.1, "neither has") if start == "restart" else (math.inf, "the peer has not")
            unread += " read the optimizer's state yet"
            following = "until the training has gone on by a step"
            times = f"torch.load: {highest['torch.load'] / state:.2f} times it"
            rows += [
                Result(f"{label}/time", "torch.load", median["ours"], median["torch.load"], 0.5, "s", note=note),
                Result(f"{label}/time", "torch.load, mapped", median["ours"], median["torch.load, mapped"], bar, "s", note=unread),
                Result(f"{label}, and a step/time", "torch.load", on["ours"], on["torch.load"], 1.0, "s", note=following),
                Result(f"{label}, and a step/time", "torch.load, mapped", on["ours"], on["torch.load, mapped"], 1.1, "s", note=following),
                Result(f"{label}, all verified/time", "torch.load", median["ours, verified"], median["torch.load"], 0.5, "s", note="all is digested first"),
                Result(f"{label}/memory", "the state", highest["ours"], state, 1.1, "B", note=times),
                Result(f"{label}, all verified/memory", "the state", highest["ours, verified"], state, 1.1, "B"),
            ]
    return rows


def kills(options: Options) -> list[Result]:
    """A run is killed at random moments, and compared bit by bit with one in peace."""
    count = max(2, round(50 * min(1.0, options.training_scale)))
    script = Path(__file__).parents[2] / "tests" / "python" / "training_kills.py"
    done = subprocess.run([sys.executable, str(script), "--kills", str(count)], stdout=subprocess.PIPE, text=True)
    differing = [int(line.split(", ")[-1].split()[0]) for line in done.stdout.splitlines() if "losses differ" in line]
    if not differing or (done.returncode and not any(differing)):
        raise AssertionError(done.stdout)
    result = Result(f"training, {count} times kill -9", "losses that differ", sum(differing), count, 0.0, "")
    result.value = float(sum(differing))
    return [result]


def sharded(options: Options) -> list[Result]:
    """Four ranks save a model that is sharded over them; two and one load it."""
    from benches.workloads import sharded as work

    width = max(64, int(4000 * options.training_scale**0.5))
    with folder() as place:
        saved = work.run(place, 4, work.save, width)
        size = bytes_in(place / "runs")
        for world in (2, 1):
            for found in work.run(place, world, work.load, width):
                if found != saved[0]:
                    raise AssertionError(f"what {world} ranks load is not what four have saved")
    whole = sum(length for _, length in saved[0].values())
    return [Result("training, 4 ranks save, 2 and 1 load/bytes", "one copy of the state", size, whole, 1.02, "B", note="equal on both")]


ROWS: dict[str, Row] = {
    "training/dense": functools.partial(dense, True),
    "training/dense, no fsync": functools.partial(dense, False),
    "training/frozen": functools.partial(frozen, 0.05),
    "training/adapters": functools.partial(frozen, 0.005),
    "training/restore": restore,
    "training/kills": kills,
    "training/sharded": sharded,
}
