"""Checkpoints of Lightning in a repository: by a plugin, or by a callback.

::

    trainer = Trainer(plugins=[ChipminkIO("runs")])
    trainer = Trainer(callbacks=[ChipminkCallback("runs", every_n_steps=100, keep_last=3)])

With the plugin Lightning goes on naming checkpoints by paths. At such a path there is a small file that says which version it is; a path that
somebody copies or renames still names it, and ``remove_checkpoint`` drops the version with it. The callback is a ``Checkpointer`` of
the run: no paths, restored in place. FSDP and model-parallel strategies do not save through either; use ``chipmink.torch.dcp`` with them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from chipmink._errors import NotFoundError, UnsupportedError
from chipmink._repository import Repository
from chipmink.torch._checkpointer import Checkpointer
from chipmink.torch._files import _Mover, _write

try:
    from lightning.pytorch.callbacks import Checkpoint
    from lightning.pytorch.plugins.io import CheckpointIO
except ImportError:
    try:
        from pytorch_lightning.callbacks import Checkpoint
        from pytorch_lightning.plugins.io import CheckpointIO
    except ImportError as error:
        raise ImportError("chipmink.torch.lightning needs Lightning: pip install lightning") from error

__all__ = ["ChipminkCallback", "ChipminkIO"]

_KIND = "chipmink checkpoint"


class ChipminkIO(CheckpointIO):
    """Saves and loads what a ``Trainer`` calls a checkpoint, each part a variable; ``options`` are those of ``chipmink.open``."""

    def __init__(self, url: str | os.PathLike[str], **options: Any) -> None:
        super().__init__()
        self._repository = Repository(url, **options)

    @property
    def repository(self) -> Repository:
        """Where the checkpoints are."""
        return self._repository

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None) -> None:
        """Saves a checkpoint, and a file at the path that names it."""
        if storage_options is not None:
            raise TypeError("how the repository is reached was said when the plugin was made; storage_options has nothing to add")
        place = Path(path)
        saved = self._repository.save({str(key): value for key, value in checkpoint.items()}, message=f"lightning {place.name}")
        place.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"kind": _KIND, "url": self._repository.url, "version": int(saved)})
        _write(place, lambda made: made.write_text(text + "\n"))

    def load_checkpoint(self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Loads the checkpoint that a path names. A file of ``torch.save`` is loaded as such."""
        number = self._version(Path(path))
        if number is None:
            return dict(torch.load(path, map_location=map_location, weights_only=weights_only))
        loaded = self._repository.load(number)
        if map_location is None:
            return loaded
        # A storage is moved once, whatever part it stands in.
        moved: dict[str, Any] = _Mover(_location(map_location)).moved(loaded)
        return moved

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Deletes the file, and drops the version that it names."""
        place = Path(path)
        number = self._version(place) if place.exists() else None
        place.unlink(missing_ok=True)
        if number is not None:
            self._repository.sweep(drop=[number], grace="0s")

    def teardown(self) -> None:
        """Waits until everything is durable."""
        self._repository._wait_for(self._repository._usable().wait_all_durable, None, False)

    def _version(self, place: Path) -> int | None:
        if not place.exists():
            raise NotFoundError(f"there is no checkpoint {os.fspath(place)!r}")
        with open(place, "rb") as file:
            head = file.read(4096)
        try:
            found = json.loads(head)
        except ValueError:
            return None
        if not isinstance(found, Mapping) or found.get("kind") != _KIND:
            return None
        if found["url"] != self._repository.url:
            raise UnsupportedError(f"{os.fspath(place)!r} is a checkpoint of {found['url']!r}, not of {self._repository.url!r}")
        return int(found["version"])


def _location(map_location: Any) -> Any:
    if isinstance(map_location, (str, torch.device, Mapping)):
        return map_location
    # Lightning's own are functions that leave every storage where it was loaded to: the host.
    location = map_location(torch.UntypedStorage(0), "cpu")
    return torch.device("cpu") if location is None else location.device


class ChipminkCallback(Checkpoint):
    """Saves a checkpoint every so many steps, or epochs, and brings the newest back when training begins.

    A checkpoint has the module, optimizers and schedulers, the state of the loops, of the precision plugin, of the datamodule and of the other
    callbacks, and what was logged. All of it is restored in place, and training goes on as with ``ckpt_path``; if that is given, nothing
    is restored, nor with ``resume=False``. ``options`` are those of ``Checkpointer``. Of several processes the first saves.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        every_n_steps: int | None = None,
        every_n_epochs: int | None = None,
        resume: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        if every_n_steps is None and every_n_epochs is None:
            every_n_epochs = 1
        for name, value in (("every_n_steps", every_n_steps), ("every_n_epochs", every_n_epochs)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is a number of at least 1, not {value}")
        self._url, self._options, self._resume = url, options, resume
        self._every_n_steps, self._every_n_epochs = every_n_steps, every_n_epochs
        self._checkpointer: Checkpointer | None = None
        self._saved_step = -1

    @property
    def checkpointer(self) -> Checkpointer:
        """What keeps the checkpoints: ``checkpoints()``, ``best``, ``repository``. Before any training it can only be looked at."""
        if self._checkpointer is None:
            self._checkpointer = Checkpointer(self._url, **self._options, nothing={})
        return self._checkpointer

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Learns what there is to save, and restores it."""
        self.close()
        parts: dict[str, Any] = {"model": pl_module, "loop": trainer.fit_loop, "precision": trainer.precision_plugin}
        parts.update((f"optimizer{at}", each) for at, each in enumerate(trainer.optimizers))
        parts.update((f"scheduler{at}", config.scheduler) for at, config in enumerate(trainer.lr_scheduler_configs))
        parts["callbacks"] = _Callbacks(trainer, self)
        if trainer.datamodule is not None:
            parts["datamodule"] = trainer.datamodule
        options = dict(self._options)
        if not trainer.is_global_zero:
            # Random numbers are those of the first process, and the others have their own.
            options["random"] = False
        self._checkpointer = Checkpointer(self._url, **options, **parts)
        self._saved_step = -1
        if self._resume and trainer.ckpt_path is None:
            found = self._checkpointer.restore()
            self._saved_step = -1 if found is None else found.step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Saves, if it is time."""
        if self._every_n_steps is not None and trainer.global_step % self._every_n_steps == 0:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Saves, if it is time."""
        if self._every_n_epochs is not None and (trainer.current_epoch + 1) % self._every_n_epochs == 0:
            self._save(trainer)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Waits until everything is durable."""
        self.checkpointer.wait()

    def close(self) -> None:
        """Waits until everything is durable, and gives back what is held."""
        made, self._checkpointer = self._checkpointer, None
        if made is not None:
            made.close()

    def _save(self, trainer: Any) -> None:
        # Where gradients are accumulated, several batches are of one step.
        if not trainer.is_global_zero or trainer.sanity_checking or trainer.global_step == self._saved_step:
            return
        logged = {name: float(value) for name, value in trainer.callback_metrics.items() if torch.as_tensor(value).numel() == 1}
        self.checkpointer.save(trainer.global_step, metrics=logged, metadata={"epoch": trainer.current_epoch})
        self._saved_step = trainer.global_step


class _Callbacks:
    """The state of a trainer's other callbacks."""

    def __init__(self, trainer: Any, own: ChipminkCallback) -> None:
        self._trainer, self._own = trainer, own

    def _others(self) -> dict[str, Any]:
        return {each.state_key: each for each in self._trainer.callbacks if each is not self._own}

    def state_dict(self) -> dict[str, Any]:
        return {key: state for key, each in self._others().items() if (state := each.state_dict())}

    def load_state_dict(self, states: Mapping[str, Any]) -> None:
        others = self._others()
        for key, state in states.items():
            if key in others:
                others[key].load_state_dict(state)
