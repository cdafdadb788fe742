"""Who saves the state of a training run: peers, by which bars are set or not, and ourselves."""

from __future__ import annotations

import abc
import importlib.metadata
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benches.measure import bytes_in
from benches.workloads.training import Training


def sync(path: Path) -> None:
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
            sync(path)
            sync(self.place)


class Safetensors(Peer):
    def save(self) -> None:
        from safetensors.torch import save_file

        path = self.path()
        save_file(self.training.flat(), path)
        if self.durable:
            sync(path)
            sync(self.place)


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
                sync(each)


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
            sync(path)
            sync(self.place)


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
            sync(path)
            sync(self.place)

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
