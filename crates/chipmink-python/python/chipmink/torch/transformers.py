"""Checkpoints of the ``Trainer`` of Hugging Face: a callback that keeps them in a repository instead of folders.

::

    callback = ChipminkCallback("runs", keep_last=3)
    trainer = Trainer(model, args, train_dataset=data, callbacks=[callback])
    trainer.train(resume_from_checkpoint=callback.folder(args.output_dir))
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from chipmink._errors import NotFoundError
from chipmink.torch._checkpointer import Checkpointer
from chipmink.torch._files import _write

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError("chipmink.torch.transformers needs transformers: pip install transformers") from error

__all__ = ["ChipminkCallback"]

#: What the Trainer calls its files.
_FILES = {"model": "pytorch_model.bin", "optimizer": "optimizer.pt", "scheduler": "scheduler.pt"}
_STATE, _RANDOM = "trainer_state.json", "rng_state.pth"


class ChipminkCallback(TrainerCallback):
    """Saves a checkpoint whenever the ``Trainer`` would, in its place: model, optimizer, scheduler, random numbers, and where it is.

    The metrics of a checkpoint are the numbers that were logged last; the Trainer logs a step after it has ended, so those of the
    step itself come with the next checkpoint. ``options`` are those of ``Checkpointer``.
    """

    def __init__(self, url: str | os.PathLike[str], **options: Any) -> None:
        self._url, self._options = url, options
        self._checkpointer: Checkpointer | None = None
        # For what is asked before there is anything to save.
        self._nothing: dict[str, Any] = {}

    @property
    def checkpointer(self) -> Checkpointer:
        """What keeps the checkpoints: ``checkpoints()``, ``best``, ``repository``."""
        if self._checkpointer is None:
            self._checkpointer = Checkpointer(self._url, **self._options, nothing=self._nothing)
        return self._checkpointer

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Learns what there is to save."""
        if self._checkpointer is not None:
            self._checkpointer.close()
        named = {"model": parts.get("model"), "optimizer": parts.get("optimizer"), "scheduler": parts.get("lr_scheduler")}
        found = {name: part for name, part in named.items() if part is not None}
        self._checkpointer = Checkpointer(self._url, **self._options, **found)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Saves, if the Trainer was going to."""
        self._save(state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Saves, if the Trainer was going to."""
        self._save(state, control)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Waits until everything is durable."""
        self.checkpointer.wait()

    def _save(self, state: Any, control: Any) -> None:
        if not control.should_save:
            return
        control.should_save = False
        if not state.is_world_process_zero:
            return
        logged = state.log_history[-1] if state.log_history else {}
        metrics = {name: value for name, value in logged.items() if isinstance(value, (int, float)) and name != "step"}
        self.checkpointer.save(state.global_step, metrics=metrics, metadata=json.dumps(dataclasses.asdict(state)))

    def folder(self, output_dir: str | os.PathLike[str], step: int | None = None) -> str | None:
        """Writes a checkpoint (the newest if not given) as a folder that ``resume_from_checkpoint`` takes; ``None`` if there is none yet."""
        checkpointer = self.checkpointer
        chosen = checkpointer.latest() if step is None else checkpointer._at(step)
        if chosen is None:
            return None
        stored = checkpointer.repository.load(chosen.version)
        about = stored["checkpoint"]
        if not isinstance(about["metadata"], str):
            raise NotFoundError(f"the checkpoint of step {chosen.step} is not one of a Trainer")
        folder = Path(output_dir, f"checkpoint-{chosen.step}")
        folder.mkdir(parents=True, exist_ok=True)
        for name, file in _FILES.items():
            if name in stored:
                _save_plain(stored[name], folder / file)
        if "random_state" in stored:
            _save_plain(_random_of(stored["random_state"]), folder / _RANDOM)
        # Last: a folder without it is no checkpoint to the Trainer.
        state = json.dumps(json.loads(about["metadata"]), indent=2)
        _write(folder / _STATE, lambda path: path.write_text(state + "\n"))
        return os.fspath(folder)


def _save_plain(value: Any, path: Path) -> None:
    _write(path, lambda made: torch.save(value, made))


def _random_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """The states of generators as the Trainer calls them."""
    made = {"python": state["python"], "cpu": state["torch"]}
    numpy = state.get("numpy")
    if numpy is not None:
        inner = numpy["state"]
        made["numpy"] = (numpy["bit_generator"], inner["key"], inner["pos"], numpy["has_gauss"], numpy["gauss"])
    if "cuda" in state:
        made["cuda"] = state["cuda"]
    return made
