"""Saves that go on in a thread of their own while the training does.

1. The training is let go when nothing live is read any more, but memory of devices that fences guard: by their streams, or
   by a hook before an optimizer's step.
2. What a save could not do is raised once: by whoever waits for it, else by the next call of the ``Checkpointer``.
3. The thread is no daemon: a program that ends waits for its last checkpoint.
"""

from __future__ import annotations

import contextvars
import itertools
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from chipmink import _chipmink, _device
from chipmink._errors import ClosedError
from chipmink._results import Report, Saved
from chipmink._staging import Progress
from chipmink.torch._checkpoints import SavedCheckpoint

__all__ = ["FENCES", "OptimizerFence", "PendingCheckpoint", "on_device"]

#: What keeps the training from writing to what a save still reads.
FENCES = ("host", "stream", "optimizer")

Save = Callable[[_chipmink.Cancel, Callable[[list[_chipmink.DeviceFence]], object]], Saved]


class PendingCheckpoint:
    """A checkpoint that is saved while the training goes on. As a number it is its version, for which that waits."""

    def __init__(self, step: int) -> None:
        self.step = step
        """What ``save`` was called with."""
        self.stall = 0.0
        """Seconds for which the training stood still."""
        self._captured = threading.Event()
        self._over = threading.Event()
        self._process = os.getpid()
        self._saved: SavedCheckpoint | None = None
        self._failure: BaseException | None = None
        self._is_raised = False
        self._fences: list[_chipmink.DeviceFence] = []
        self._streams: list[torch.cuda.Stream] = []

    def _start(self, save: Save, began: float, then: Callable[[SavedCheckpoint], object]) -> None:
        """Runs ``save``, and returns when the training may go on."""
        cancel = _chipmink.Cancel()
        context = contextvars.copy_context()
        self._streams = present_streams()
        work = threading.Thread(target=context.run, args=(self._run, save, cancel, then), name="chipmink save")
        try:
            work.start()
        except BaseException:
            # There is no thread to be had, and nobody needs to wait for one.
            self._is_raised = True
            self._over.set()
            raise
        try:
            self._captured.wait()
        except BaseException:
            # The training must not go on while its state is read.
            cancel.cancel()
            self._over.wait()
            self._is_raised = True
            raise
        self.stall = time.perf_counter() - began

    def _run(self, save: Save, cancel: _chipmink.Cancel, then: Callable[[SavedCheckpoint], object]) -> None:
        try:
            for stream in self._streams:
                # What the walk itself enqueues comes behind what the training has.
                torch.cuda.set_stream(stream)
            saved = save(cancel, self._let_go)
            self._saved = SavedCheckpoint.of(saved, self.step, self.stall)
            then(self._saved)
        except BaseException as error:
            self._failure = error
        finally:
            self._over.set()
            self._captured.set()

    def _let_go(self, fences: list[_chipmink.DeviceFence]) -> None:
        self._fences = fences
        self._captured.set()

    def _end(self, timeout: float | None = None) -> None:
        """Waits until nothing is done for it any more, and raises its failure if nobody has."""
        if not self._over.is_set() and self._process != os.getpid():
            raise ClosedError(
                f"the checkpoint of step {self.step} is saved by the process that this one was forked from; wait for it there"
            )
        if not self._over.wait(timeout):
            raise TimeoutError(f"the checkpoint of step {self.step} is not saved after {timeout} seconds; it goes on")
        if self._failure is not None and not self._is_raised:
            self._is_raised = True
            raise self._failure

    def _result(self, timeout: float | None = None) -> SavedCheckpoint:
        self._end(timeout)
        if self._saved is None:
            assert self._failure is not None, "what is over was saved or has failed"
            raise self._failure
        self._saved.stall = self.stall
        return self._saved

    @property
    def done(self) -> bool:
        """Whether it is durable."""
        return self._over.is_set() and self._saved is not None and self._saved.done

    @property
    def version(self) -> int:
        """The version of the repository that it is."""
        return int(self._result())

    @property
    def report(self) -> Report:
        """What the save did."""
        return self._result().report

    def wait(
        self, stage: str = "durable", *, timeout: float | None = None, progress: Progress = False
    ) -> SavedCheckpoint:
        """Waits as ``Saved.wait`` does, and raises what the save could not do."""
        began = time.monotonic()
        saved = self._result(timeout)
        left = None if timeout is None else max(0.0, timeout - (time.monotonic() - began))
        saved.wait(stage, timeout=left, progress=progress)
        return saved

    def __int__(self) -> int:
        return self.version

    __index__ = __int__

    def __repr__(self) -> str:
        if not self._over.is_set():
            state = "being saved"
        else:
            state = "not saved" if self._saved is None else f"version {int(self._saved)}"
        return f"<checkpoint of step {self.step}, {state}>"


class OptimizerFence:
    """Lets each step of some optimizers wait until the save before it has read what the step writes."""

    def __init__(self, optimizers: list[torch.optim.Optimizer]) -> None:
        self._optimizers = optimizers
        self._pending: PendingCheckpoint | None = None
        self._hooks = [optimizer.register_step_pre_hook(self._before_step) for optimizer in optimizers]
        self.is_captured = False
        """A step was recorded into a CUDA graph: replays run no hook, so the fence must be another one."""

    def watch(self, pending: PendingCheckpoint) -> None:
        """The save for which steps wait from now on."""
        self._pending = pending

    def storages(self) -> frozenset[tuple[int, int]]:
        """Device and address of what the optimizers' steps write to."""
        found: set[tuple[int, int]] = set()
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                found.update(map(_place, group["params"]))
            for values in optimizer.state.values():
                tensors = values.values() if isinstance(values, dict) else ()
                found.update(_place(value) for value in tensors if isinstance(value, torch.Tensor))
        return frozenset(found)

    def close(self) -> None:
        """Takes the hooks away."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _before_step(self, *_: Any) -> None:
        pending = self._pending
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            self.is_captured = True
            if pending is not None:
                pending._over.wait()
            return
        if pending is None:
            return
        if pending._over.is_set():
            self._pending = None
            return
        for fence in pending._fences:
            fence.wait([_current_stream(fence.device)])


def _place(tensor: torch.Tensor) -> tuple[int, int]:
    return (tensor.device.index or 0, tensor.untyped_storage().data_ptr())


def _current_stream(index: int) -> int:
    return int(torch.cuda.current_stream(index).cuda_stream)


def present_streams() -> list[torch.cuda.Stream]:
    """The stream in which this thread enqueues, of each device that is in use; the last is that of its present device."""
    if not torch.cuda.is_initialized():
        return []
    # To ask more of a device that is not in use would make a context there, of some hundred MB.
    in_use = getattr(torch._C, "_cuda_hasPrimaryContext", lambda index: False)
    indices = [index for index in range(torch.cuda.device_count()) if in_use(index)]
    return [torch.cuda.current_stream(index) for index in (*indices, torch.cuda.current_device())]


def on_device(value: Any) -> bool:
    """Whether a part of a training run lies on a CUDA device."""
    if isinstance(value, torch.nn.Module):
        return any(map(on_device, itertools.chain(value.parameters(), value.buffers())))
    return isinstance(value, torch.Tensor) and (_device.label_of(value) or "").startswith("cuda")
