"""``Checkpointer``: the checkpoints of a training run, one version of a repository each.

1. What a save reads of live tensors it has read when it returns, or fences keep later steps from it until it has: they never
   reach a checkpoint.
2. A restore plans everything before it changes anything; tensors keep their storage. Damage of what is stored is found before that
   with ``verify="eager"``, else before any damaged byte is written: then others may have been.
3. A failure in the background is raised by the next call, once.
4. Retention drops versions of the run's own ref, and no others.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from chipmink._device import saving_from, storage_spans
from chipmink._errors import ClosedError, NotFoundError, UnsupportedError
from chipmink._repository import Repository
from chipmink._staging import Progress
from chipmink.torch._background import FENCES, OptimizerFence, PendingCheckpoint, on_device
from chipmink.torch._checkpoints import (
    Best,
    Checkpoint,
    Retention,
    SavedCheckpoint,
    best_of,
    line_of,
    message_of,
    with_metadata,
)
from chipmink.torch._fill import Fill
from chipmink.torch._parts import COPIED, Part, part_of, tensors_in
from chipmink.torch._preemption import Preemption
from chipmink.torch._random import RandomState
from chipmink.torch._writes import Writes

__all__ = ["Checkpointer"]

#: Variables of a checkpoint that are not parts of the program's.
_ABOUT = "checkpoint"
_RANDOM = "random_state"
#: Room in a staging tier for what is not tensors.
_STAGING_SLACK = 64 << 20


class Checkpointer:
    """Keeps the checkpoints of a training run, and brings them back in place.

    ::

        checkpointer = Checkpointer("runs", model=model, optimizer=optimizer, scheduler=scheduler)
        found = checkpointer.restore()
        for step in range(found.step + 1 if found else 0, steps):
            loss = train(step)
            checkpointer.save(step, metrics={"loss": loss})
        checkpointer.close()

    ``url`` is any place that ``chipmink.open`` knows, or a ``Repository`` that is open already, which then stays open.
    What is saved is given by name: modules, optimizers, whatever has ``state_dict`` and ``load_state_dict`` (schedulers,
    scalers, loaders, samplers), tensors, arrays, generators, dicts and lists. ``random=True`` adds the states of the generators of
    Python, numpy, torch and CUDA.

    Without ``staging``, a save returns when the checkpoint is durable. With ``staging="shm://NAME"`` it returns as soon as the
    checkpoint is in shared memory, where it survives the death of the process, and goes on to the folder in the background;
    ``size`` is that of the memory, and enough for two checkpoints if not given. Many runs can use one repository, each with a
    ``ref`` of its own; what they have in common is stored once.

    ``fence`` says when a save returns. With ``"host"`` it is when the checkpoint is where it was to go. With ``"stream"`` it is as soon
    as no memory of the host is read any more, and the result is a ``PendingCheckpoint``: memory of CUDA devices is copied while the training
    goes on, and what it enqueues in its present streams waits, on the device, until what has changed was copied within the device: up to
    ``device_scratch`` bytes, which ``open_options`` can set. If more changes than that, the save returns when all has been written to the
    nearest place: with ``staging`` that is memory, without it the disk. So where each step changes everything, give ``staging``, or let
    ``device_scratch`` be as large as the state, or 0 and ``device_pinned`` as large.
    ``"optimizer"`` lets only the steps of the optimizers wait for what they write to, so that the next forward and backward pass overlap
    with the save: nothing else may write to parameters then, and steps may not be replayed from CUDA graphs (if one is seen to be
    captured, it is ``"stream"`` from then on). Without ``fence`` it is ``"stream"`` if a module or tensor lies on a CUDA device, else
    ``"host"``. The next save waits for the one before.

    ``keep_last`` checkpoints stay, those whose step is a multiple of ``keep_every``, and the ``keep_best`` (a metric of which less
    is better, or ``Best``); without a rule, all. ``preemption`` names signals after which ``preempted`` is true, and a save
    waits until it is durable. The other options are those of ``chipmink.open``.

    It belongs to one process. For models that are spread over several, see ``chipmink.torch.dcp``.
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | Repository,
        *,
        ref: str = "main",
        random: bool = True,
        keep_last: int | None = None,
        keep_every: int | None = None,
        keep_best: str | Best | None = None,
        staging: str | None = None,
        size: int | str | None = None,
        durable: bool = True,
        verify: str = "background",
        preemption: Iterable[int] = (),
        fence: str | None = None,
        open_options: Mapping[str, Any] | None = None,
        **parts: Any,
    ) -> None:
        if fence is not None and fence not in FENCES:
            raise ValueError(f"fence is one of {', '.join(FENCES)}, not {fence!r}")
        for name in (_ABOUT, _RANDOM):
            if name in parts:
                raise TypeError(f"no part can be called {name!r}, which every checkpoint has of its own")
        if not parts:
            raise TypeError("there is nothing to save: give parts by name, as in Checkpointer(url, model=model)")
        self._retention = Retention(keep_last, keep_every, Best(keep_best) if isinstance(keep_best, str) else keep_best)
        self._parts: dict[str, Part] = {name: part_of(name, value) for name, value in parts.items()}
        if random:
            self._parts[_RANDOM] = RandomState()
        self._failure: BaseException | None = None
        # Guards the two below it.
        self._turn = threading.Lock()
        self._unswept: SavedCheckpoint | None = None
        self._is_sweeping = False
        self._sweeper: threading.Thread | None = None
        self._last: SavedCheckpoint | PendingCheckpoint | None = None
        self._pending: PendingCheckpoint | None = None
        self._stall = 0.0
        optimizers = [each for each in parts.values() if isinstance(each, torch.optim.Optimizer)]
        if fence == "optimizer" and not optimizers:
            raise ValueError('fence="optimizer" needs an optimizer among the parts, whose steps wait')
        self._fence = fence
        self._on_device = [each for each in parts.values() if isinstance(each, (torch.nn.Module, torch.Tensor))]
        self._owns = not isinstance(url, Repository)
        if isinstance(url, Repository):
            if staging is not None or size is not None or open_options:
                raise TypeError("how the repository is opened was said when it was; give its place instead")
            if url.ref != ref and ref != "main":
                raise TypeError(f"the repository was opened for ref {url.ref!r}, not {ref!r}")
            self._repository = url
        else:
            if staging is not None and size is None and not _segment_exists(staging):
                size = _staging_bytes(parts.values())
            options = {"durable": durable, "verify": verify, "staging": staging, "size": size, **(open_options or {})}
            self._repository = Repository(url, ref=ref, **options)
        self._preemption = Preemption()
        try:
            self._preemption.watch(preemption)
        except BaseException:
            # Only the main thread may take signals over.
            if self._owns:
                self._repository.close()
            raise
        self._steps = OptimizerFence(optimizers) if fence == "optimizer" else None

    @property
    def repository(self) -> Repository:
        """Where the checkpoints are: to load some of one elsewhere, to compare or copy them."""
        return self._repository

    @property
    def ref(self) -> str:
        """The line of versions that the run is."""
        return self._repository.ref

    @property
    def preempted(self) -> bool:
        """Whether one of the signals of ``preemption`` came: save, and end."""
        return self._preemption.came

    @property
    def stall_seconds(self) -> float:
        """How long saves have kept the training waiting, together."""
        return self._stall

    def save(
        self, step: int, *, metrics: Mapping[str, Any] | None = None, metadata: Any = None
    ) -> SavedCheckpoint | PendingCheckpoint:
        """Saves a checkpoint and returns when the training may go on.

        ``metrics`` are numbers by which ``best`` chooses, ``metadata`` is any object that should come back with it. The result is
        the number of the version, with ``stall`` seconds, ``report``, and ``wait()``.
        """
        began = time.perf_counter()
        self._settle()
        if step < 0:
            raise ValueError(f"a step is not negative: {step}")
        numbers = {name: float(value) for name, value in (metrics or {}).items()}
        namespace: dict[str, Any] = {
            _ABOUT: {
                "step": int(step),
                "metrics": numbers,
                "metadata": metadata,
                "parts": {name: part.kind for name, part in self._parts.items()},
                "torch": torch.__version__,
            }
        }
        namespace.update((name, part.capture()) for name, part in self._parts.items())
        message = message_of(int(step), numbers)
        fence = self._fence or ("stream" if any(map(on_device, self._on_device)) else "host")
        if fence != "host":
            return self._save_behind(namespace, message, int(step), began)
        saved = self._repository.save(namespace, message=message)
        if self.preempted:
            saved.wait()
        done = SavedCheckpoint.of(saved, int(step), time.perf_counter() - began)
        self._stall += done.stall
        self._last = done
        if self._retention.has_rules:
            self._sweep_soon(done)
        return done

    def _save_behind(self, namespace: dict[str, Any], message: str, step: int, began: float) -> PendingCheckpoint:
        repository, steps = self._repository, self._steps
        with self._seen_from_here():
            pending = self._last = self._pending = PendingCheckpoint(step)
            pending._start(
                lambda cancel, captured: repository._save(
                    namespace, message, None, False, "", "", "reference", False, cancel, captured
                ),
                began,
                self._sweep_soon if self._retention.has_rules else lambda saved: None,
            )
        if steps is not None:
            steps.watch(pending)
        self._stall += pending.stall
        if self.preempted:
            pending.wait()
        return pending

    def wait(self, *, timeout: float | None = None, progress: Progress = False) -> None:
        """Waits until the last checkpoint is durable, and those that are too many are dropped."""
        began = time.monotonic()
        last = self._last
        if last is not None and not (isinstance(last, PendingCheckpoint) and last._is_raised):
            last.wait(timeout=timeout, progress=progress)
        sweeper = self._sweeper
        if sweeper is not None:
            left = None if timeout is None else max(0.0, timeout - (time.monotonic() - began))
            sweeper.join(left)
            if sweeper.is_alive():
                raise TimeoutError(f"old checkpoints are still being dropped after {timeout} seconds; it goes on")
        self._raise_failure()

    def checkpoints(self) -> list[Checkpoint]:
        """The checkpoints of the run, newest first. The one that is being saved is waited for."""
        self._settle()
        return self._lines()[0]

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint of the run, if there is one."""
        found = self.checkpoints()
        return found[0] if found else None

    def best(self, metric: str | Best, mode: str = "min") -> Checkpoint | None:
        """The checkpoint with the least value of a metric, or with ``mode="max"`` the greatest; of equal ones the newest."""
        wanted = metric if isinstance(metric, Best) else Best(metric, mode)
        found = best_of(self.checkpoints(), wanted)
        return found[0] if found else None

    def restore(
        self,
        step: int | None = None,
        *,
        version: int | str | None = None,
        names: Iterable[str] | None = None,
        strict: bool = True,
    ) -> Checkpoint | None:
        """Makes the parts what they were in a checkpoint, in place; returns it with its ``metadata``.

        Without arguments it is the newest, and ``None`` if there is none yet. ``version`` is any version or tag of the repository, also
        of another run. ``names`` restores only some parts. Tensors keep their storage; state that an optimizer has
        not made yet is made, and what it has too much is removed. If the checkpoint lacks a part, or the program does,
        that is an error, unless ``strict=False``. Later saves continue from here. Damage of what is stored raises ``DamagedError``: with
        ``verify="eager"`` before anything is changed, else some tensors may be those of the checkpoint by then.
        """
        self._settle()
        repository = self._repository
        if version is not None:
            if step is not None:
                raise TypeError("give a step or a version, not both")
            number = repository._number(version)
        else:
            chosen = self._at(step)
            if chosen is None:
                return None
            number = chosen.version
        stored = self._names_of(number, names, strict)
        # What is made in it could not be trained.
        with torch.inference_mode(False):
            fill, writes = Fill(repository), Writes()
            loaded = self._load(number, stored, fill)
            about = loaded[_ABOUT]
            for name in stored:
                part, kind = self._parts[name], about["parts"].get(name)
                if kind != part.kind:
                    raise UnsupportedError(f"{name} is a {part.kind} here and a {kind} in the checkpoint of step {about['step']}")
                part.plan(loaded[name], writes, strict)
            writes.apply(fill.copy)
            # What was only copied goes first: memory cannot be given back while the rest is being made ready.
            del loaded
            fill.end(writes.stepped)
        if names is None:
            repository._continue_from(number)
            self._recognise()
        found = next((each for each in repository.log() if each.number == number), None)
        if found is None:
            raise NotFoundError(f"version {number} was dropped while it was restored; restore another one")
        made = Checkpoint(about["step"], number, about["metrics"], found.saved_at, found.ref)
        return with_metadata(made, about["metadata"])

    def fork(self, ref: str, step: int | None = None) -> Checkpoint:
        """Begins another run at a checkpoint (the newest if not given): ``Checkpointer(url, ref=ref, ...)`` goes on with it."""
        chosen = self._at(step)
        if chosen is None:
            raise NotFoundError(f"the run {self.ref!r} has no checkpoint to begin another at")
        self._repository.branch(ref, chosen.version)
        return chosen

    def close(self) -> None:
        """Waits until everything is durable, and gives back what is held. Closing again does nothing."""
        self._preemption.stop()
        pending, self._pending = self._pending, None
        if pending is not None:
            pending._over.wait()
            if pending._failure is not None and not pending._is_raised:
                self._failure = pending._failure
        if self._steps is not None:
            self._steps.close()
        if self._sweeper is not None:
            self._sweeper.join()
        # Who keeps a closed one does not keep a model alive by it.
        self._parts = {}
        self._on_device = []
        if self._owns:
            self._repository.close()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        parts = ", ".join(self._parts) or "nothing any more"
        return f"<chipmink.torch.Checkpointer of {parts} at {self._repository.url!r}, ref {self.ref!r}>"

    def _lines(self) -> tuple[list[Checkpoint], list[Checkpoint]]:
        # In this order: a version that is saved meanwhile is in the log, and not yet the head.
        head = self._repository.branches.get(self.ref)
        return line_of(self._repository.log(), self.ref, head)

    def _at(self, step: int | None) -> Checkpoint | None:
        found = self.checkpoints()
        if step is None:
            return found[0] if found else None
        chosen = next((each for each in found if each.step == step), None)
        if chosen is None:
            raise NotFoundError(f"the run {self.ref!r} has no checkpoint of step {step}")
        return chosen

    def _names_of(self, number: int, names: Iterable[str] | None, strict: bool) -> list[str]:
        stored = set(self._repository.names(number))
        if _ABOUT not in stored:
            raise UnsupportedError(f"version {number} is no checkpoint: a Checkpointer has not made it")
        wanted = list(self._parts) if names is None else list(names)
        for name in wanted:
            if name not in self._parts:
                raise NotFoundError(f"there is no part {name!r} here; there are {', '.join(self._parts)}")
        lacking = [name for name in wanted if name not in stored]
        surplus = sorted(stored - {_ABOUT, _RANDOM, *self._parts}) if names is None else []
        if strict and (lacking or surplus):
            texts = [f"lacks {', '.join(lacking)}"] if lacking else []
            texts += [f"has {', '.join(surplus)}, which is not here"] if surplus else []
            raise UnsupportedError(f"the checkpoint {' and '.join(texts)}; strict=False restores what both have")
        return [name for name in wanted if name in stored]

    def _load(self, number: int, stored: list[str], fill: Fill) -> dict[str, Any]:
        """Loads parts. What is only copied into live tensors stays on the host, if nothing else shares it."""
        if not any(map(on_device, self._on_device)):
            return fill.load(number, [_ABOUT, *stored])
        repository = self._repository
        handle = repository._usable()
        copied = [name for name in stored if isinstance(self._parts[name], COPIED)]
        others = {_ABOUT, *stored}.difference(copied)
        copied = [name for name in copied if others.isdisjoint(handle.together(number, name))]
        loaded = repository.load(number, names=[_ABOUT, *(name for name in stored if name not in copied)])
        if copied:
            loaded.update(repository.load(number, names=copied, map_location="cpu"))
        return loaded

    def _recognise(self) -> None:
        """What is on devices now is stored, and need not be copied by the next save."""
        tensors = [tensor for part in self._parts.values() if isinstance(part, COPIED) for tensor in tensors_in(part.capture())]
        with self._seen_from_here():
            self._repository._recognise(storage_spans(tensors))

    def _seen_from_here(self) -> AbstractContextManager[None]:
        steps = self._steps
        deferred = steps.storages() if steps is not None and not steps.is_captured else frozenset()
        return saving_from(range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0), deferred)

    def _settle(self) -> None:
        """Waits for the save before, and raises what went wrong in the background."""
        if self._repository.closed:
            self._raise_failure()
        pending, self._pending = self._pending, None
        if pending is not None:
            pending._end()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._repository.closed:
            raise ClosedError("the checkpointer is closed; make another one")
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _sweep_soon(self, saved: SavedCheckpoint) -> None:
        with self._turn:
            self._unswept = saved
            if self._is_sweeping:
                # It looks again before it ends.
                return
            self._is_sweeping = True
            self._sweeper = threading.Thread(target=self._sweep_all, name="chipmink retention", daemon=True)
            self._sweeper.start()

    def _sweep_all(self) -> None:
        while True:
            with self._turn:
                saved, self._unswept = self._unswept, None
                if saved is None:
                    self._is_sweeping = False
                    return
            try:
                saved.wait()
                surplus = self._retention.surplus(*self._lines())
                if surplus:
                    # Who reads a dropped checkpoint of a run that drops them gets an error that says so.
                    self._repository.sweep(drop=surplus, grace="0s")
            except BaseException as error:
                self._failure = error


def _segment_exists(staging: str) -> bool:
    return Path("/dev/shm", staging.removeprefix("shm://")).exists()


def _staging_bytes(parts: Iterable[Any]) -> int:
    """Room for two checkpoints. An optimizer that has no state yet is taken to make twice what it optimizes."""
    total = 0
    for part in parts:
        if isinstance(part, torch.nn.Module):
            total += sum(each.numel() * each.element_size() for each in (*part.parameters(), *part.buffers()))
        elif isinstance(part, torch.optim.Optimizer):
            optimized = [each for group in part.param_groups for each in group["params"]]
            total += 2 * sum(each.numel() * max(4, each.element_size()) for each in optimized)
        elif isinstance(part, torch.Tensor):
            total += part.numel() * part.element_size()
    return 2 * total + _STAGING_SLACK


#: Signals by which clusters announce the end: of Slurm with ``--signal=USR1@60``, of Kubernetes, of spot instances.
PREEMPTION_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
