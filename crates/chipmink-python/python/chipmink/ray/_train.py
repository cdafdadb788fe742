"""Checkpoints of Ray Train and Ray Tune in a repository: each report stores what has changed since the last one.

1. A worker saves to a line of versions of its own, and what Ray gets for it is a *note*, a small file in the run's storage that
   Ray keeps, counts and hands to workers that start again.
2. A note names a place and a version; it holds no keys. Whoever reads it opens the place as the worker did.
3. What a note names is durable when Ray gets the note.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chipmink._errors import DamagedError, NotFoundError, UnsupportedError
from chipmink._repository import Repository
from chipmink._repository import open as open_repository

if TYPE_CHECKING:
    from chipmink.torch import Checkpoint, Checkpointer

__all__ = ["checkpoint_of", "download", "restore", "upload_to"]

_NOTE = "chipmink-{rank}.json"


def upload_to(place: str | os.PathLike[str], name: str = "train", **options: Any) -> Callable[[Any, str], Any]:
    """A ``checkpoint_upload_fn`` for ``ray.train.report``, which saves checkpoints to the repository at ``place``.

    The files of a checkpoint are stored by the chunk, and what the last one of this worker held is not stored again. ``name`` begins
    the names of the lines of versions, one for each worker; ``options`` are those of ``chipmink.open``. ``download`` brings the files
    back.
    """
    # Workers have folders of their own, so what is relative is so to where this is called.
    where = os.fspath(place) if "://" in os.fspath(place) else os.path.abspath(place)

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
        with storage.storage_filesystem.open_output_stream(f"{path}/{_NOTE.format(rank=rank)}") as stream:
            stream.write(_note(where, line, saved))
        return train.Checkpoint(path=path, filesystem=storage.storage_filesystem)

    return upload


def _note(place: str, line: str, version: int) -> bytes:
    return json.dumps({"place": place, "line": line, "version": int(version)}).encode()


def _read_note(checkpoint: Any, rank: int) -> dict[str, Any]:
    path = f"{checkpoint.path}/{_NOTE.format(rank=rank)}"
    try:
        with checkpoint.filesystem.open_input_stream(path) as stream:
            found: dict[str, Any] = json.loads(stream.read())
    except FileNotFoundError:
        raise NotFoundError(
            f"{checkpoint.path} holds no note of a checkpoint of rank {rank}; was it made with chipmink.ray.upload_to or checkpoint_of?"
        ) from None
    return found


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
    note = _read_note(checkpoint, rank)
    into = Path(folder).resolve()
    into.mkdir(parents=True, exist_ok=True)
    with open_repository(note["place"], **options) as repository:
        for name in repository.names(note["version"]):
            # One after another: all of them need not fit in memory.
            content = repository.load(note["version"], [name])[name]
            file = (into / name).resolve()
            if not file.is_relative_to(into):
                raise DamagedError(f"a checkpoint names {name!r}, which lies outside of the folder that it is written to")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(memoryview(content))
    return into


# --- with a Checkpointer ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def checkpoint_of(checkpointer: Checkpointer, rank: int | None = None) -> Iterator[Any]:
    """What to report to Ray Train or Ray Tune for the checkpoint that a ``chipmink.torch.Checkpointer`` has saved last.

    ::

        checkpointer.save(step)
        with chipmink.ray.checkpoint_of(checkpointer) as checkpoint:
            ray.train.report(metrics, checkpoint=checkpoint)

    Workers of one run that share a repository each need a ``ref`` of their own. ``rank`` is that of this worker, if Ray does not
    know it.
    """
    saved = checkpointer._last
    if saved is None:
        raise UnsupportedError("the checkpointer has saved nothing yet: call save before it is reported")
    # Who reads the note may be on another machine.
    saved.wait()
    number = _rank() if rank is None else rank
    with tempfile.TemporaryDirectory(prefix="chipmink-") as folder:
        note = _note(checkpointer.repository.url, checkpointer.ref, int(saved))
        Path(folder, _NOTE.format(rank=number)).write_bytes(note)
        yield _checkpoint_class().from_directory(folder)


def restore(checkpoint: Any, checkpointer: Checkpointer, rank: int | None = None) -> Checkpoint | None:
    """Restores what a checkpoint of Ray names, as ``Checkpointer.restore`` does; ``None`` if there is none.

    ``checkpoint`` is what ``ray.train.get_checkpoint()`` or ``ray.tune.get_checkpoint()`` returns, or that of a result.
    """
    if checkpoint is None:
        return None
    note = _read_note(checkpoint, _rank() if rank is None else rank)
    if note["place"] != checkpointer.repository.url:
        raise UnsupportedError(
            f"the checkpoint is in {note['place']!r}, and the checkpointer saves to {checkpointer.repository.url!r}: open it there"
        )
    return checkpointer.restore(version=int(note["version"]))


def _in_tune() -> bool:
    functions = sys.modules.get("ray.tune.trainable.trainable_fn_utils")
    return functions is not None and bool(functions._in_tune_session())


def _rank() -> int:
    if _in_tune() or "ray.train" not in sys.modules:
        return 0
    try:
        return int(sys.modules["ray.train"].get_context().get_world_rank())
    except Exception:
        # Outside of a run, where results are looked at.
        return 0


def _checkpoint_class() -> Any:
    # Tune warns of one that is not its own.
    return importlib.import_module("ray.tune" if _in_tune() else "ray.train").Checkpoint
