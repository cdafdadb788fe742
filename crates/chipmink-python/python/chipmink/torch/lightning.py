"""Checkpoints of Lightning: a plugin that keeps them in a repository.

::

    trainer = Trainer(plugins=[ChipminkIO("runs")])

Lightning goes on naming checkpoints by paths. At such a path there is a small file that says which version it is; a path that
somebody copies or renames still names it, and ``remove_checkpoint`` drops the version with it. FSDP and model-parallel strategies do
not save through such plugins; use ``chipmink.torch.dcp`` with them.
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
from chipmink.torch._files import _Mover, _write

try:
    from lightning.pytorch.plugins.io import CheckpointIO
except ImportError:
    try:
        from pytorch_lightning.plugins.io import CheckpointIO
    except ImportError as error:
        raise ImportError("chipmink.torch.lightning needs Lightning: pip install lightning") from error

__all__ = ["ChipminkIO"]

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
