"""Checkpoints of Ray Train in a repository: each report stores what has changed in the files of the last one.

1. A worker saves the files of its checkpoint to a line of versions of its own, ``NAME-RANK``, and leaves a note of that in the
   run's storage, which is what Ray keeps, counts and hands to workers that start again.
2. A note names a place and a version; it holds no keys. Whoever reads it opens the place as the worker did.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chipmink._errors import DamagedError, NotFoundError
from chipmink._repository import Repository
from chipmink._repository import open as open_repository

__all__ = ["download", "upload_to"]

_NOTE = "chipmink-{rank}.json"


def upload_to(place: str | os.PathLike[str], name: str = "train", **options: Any) -> Callable[[Any, str], Any]:
    """A ``checkpoint_upload_fn`` for ``ray.train.report``, which saves checkpoints to the repository at ``place``.

    The files of a checkpoint are stored by the chunk, and what the last one of this worker held is not stored again. ``name`` begins
    the names of the lines of versions, one for each worker; ``options`` are those of ``chipmink.open``. ``download`` brings the files
    back.
    """
    where = os.fspath(place)

    def upload(checkpoint: Any, directory_name: str) -> Any:
        train: Any = importlib.import_module("ray.train")
        context = train.get_context()
        rank = context.get_world_rank()
        line = f"{name}-{rank}"
        with checkpoint.as_directory() as folder:
            saved = _repository(where, line, options).save(_files(Path(folder)), message=directory_name)
        storage = context.get_storage()
        path = storage.build_checkpoint_path_from_name(directory_name)
        storage.storage_filesystem.create_dir(path)
        note = json.dumps({"place": where, "line": line, "version": int(saved)})
        with storage.storage_filesystem.open_output_stream(f"{path}/{_NOTE.format(rank=rank)}") as stream:
            stream.write(note.encode())
        return train.Checkpoint(path=path, filesystem=storage.storage_filesystem)

    return upload


# Those that this process saves to: what the last save has learned makes the next one cheap.
_open: dict[tuple[str, str], Repository] = {}


def _repository(place: str, line: str, options: dict[str, Any]) -> Repository:
    found = _open.get((place, line))
    if found is None or found.closed:
        found = _open[place, line] = open_repository(place, ref=line, **options)
    return found


def _files(folder: Path) -> dict[str, Any]:
    """The files of a folder by their relative names, as arrays over them, or bytes if they are empty."""
    numpy: Any = importlib.import_module("numpy")
    names = sorted(path for path in folder.rglob("*") if path.is_file())
    # Copy-on-write, so that the values are saved, and not the name of a file that is about to be deleted.
    return {
        path.relative_to(folder).as_posix(): numpy.memmap(path, dtype="u1", mode="c") if path.stat().st_size else b""
        for path in names
    }


def download(checkpoint: Any, folder: str | os.PathLike[str], rank: int = 0, **options: Any) -> Path:
    """Writes the files of a checkpoint that was uploaded with ``upload_to`` into a folder, and returns that.

    ``rank`` is that of the worker whose files are wanted; ``options`` are those of ``chipmink.open``.
    """
    path = f"{checkpoint.path}/{_NOTE.format(rank=rank)}"
    try:
        with checkpoint.filesystem.open_input_stream(path) as stream:
            note = json.loads(stream.read())
    except FileNotFoundError:
        raise NotFoundError(f"{checkpoint.path} holds no note of a checkpoint of rank {rank}; was it uploaded with chipmink.ray.upload_to?") from None
    into = Path(folder).resolve()
    into.mkdir(parents=True, exist_ok=True)
    with open_repository(note["place"], **options) as repository:
        for name, content in repository.at(note["version"]).items():
            file = (into / name).resolve()
            if not file.is_relative_to(into):
                raise DamagedError(f"a checkpoint names {name!r}, which lies outside of the folder that it is written to")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(memoryview(content))
    return into
