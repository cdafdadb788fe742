"""Accelerate: the weights of models go to a repository instead of the folders of ``save_state``.

::

    accelerator = Accelerator()
    repository = chipmink.torch.accelerate.attach(accelerator, "runs")
    accelerator.save_state("folder")          # the folder says which version has the weights
    accelerator.load_state("folder")
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from chipmink._errors import NotFoundError, UnsupportedError
from chipmink._repository import Repository
from chipmink.torch._files import _write
from chipmink.torch._parts import part_of
from chipmink.torch._writes import Writes

__all__ = ["attach"]

_FILE = "chipmink.json"


def attach(accelerator: Any, url: str | os.PathLike[str] | Repository, **options: Any) -> Repository:
    """Registers hooks with an ``Accelerator``; ``options`` are those of ``chipmink.open``. The repository is the caller's to close.

    Models are restored in place. A folder that was saved without the hooks loads as before. What else Accelerate saves (optimizers,
    schedulers, random numbers) stays in its files.
    """
    if not callable(getattr(accelerator, "register_save_state_pre_hook", None)):
        raise TypeError(f"attach takes an accelerate.Accelerator, not a {type(accelerator).__qualname__}")
    repository = url if isinstance(url, Repository) else Repository(url, **options)

    def save(models: list[Any], weights: list[Any], output_dir: str) -> None:
        # What is taken out of the list Accelerate does not save.
        weights.clear()
        if not accelerator.is_main_process:
            return
        namespace = {f"model{at}": part_of(f"model{at}", model).capture() for at, model in enumerate(models)}
        saved = repository.save(namespace, message=f"accelerate {os.path.basename(output_dir)}")
        text = json.dumps({"url": repository.url, "version": int(saved)})
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        _write(Path(output_dir, _FILE), lambda path: path.write_text(text + "\n"))

    def load(models: list[Any], input_dir: str) -> None:
        path = Path(input_dir, _FILE)
        if not path.exists():
            return
        found = json.loads(path.read_text())
        if found["url"] != repository.url:
            raise UnsupportedError(f"{input_dir!r} names a version of {found['url']!r}, not of {repository.url!r}")
        names = [f"model{at}" for at in range(len(models))]
        lacking = set(names) - set(repository.names(found["version"]))
        if lacking:
            raise NotFoundError(f"{input_dir!r} was saved with fewer models: there is no {sorted(lacking)[0]}")
        loaded = repository.load(found["version"], names=names)
        writes = Writes()
        for name, model in zip(names, models, strict=True):
            part_of(name, model).plan(loaded[name], writes, True)
        writes.apply()
        models.clear()

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)
    return repository
