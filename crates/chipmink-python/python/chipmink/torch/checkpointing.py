"""Checkpoints of ``torch_checkpointing``: a storage that keeps them in a repository.

::

    from chipmink.torch.checkpointing import ChipminkStorageConfig
    from torch_checkpointing import CheckpointManager

    config = CheckpointManager.Config.with_async_save()
    config.storage_config = ChipminkStorageConfig("runs", ref="run7")
    manager = config.build()
    manager.save("step-100", {"model": model.state_dict()})

A checkpoint is a folder of files there, written under another name, which the last step of a save renames:

1. Each file, by whichever process: a version of a line of its own (``REF.file.NAME``), of which only what changed is written.
2. The rename: one version of ``REF`` with all files, without copying. Only now is there a checkpoint; who dies before leaves the
   previous one.
3. What is deleted or written again is so by a version that says it, and its bytes go with a sweep.
"""

from __future__ import annotations

import io
import os
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy

from chipmink._errors import RefMovedError, UnsupportedError
from chipmink._repository import Repository
from chipmink._results import Version

try:
    from torch_checkpointing.storage.base_storage import Storage, StorageConfig
except ImportError as error:
    raise ImportError("chipmink.torch.checkpointing needs torch_checkpointing: pip install torch_checkpointing") from error

__all__ = ["ChipminkStorage", "ChipminkStorageConfig"]

#: What is written at once and as long is a piece by itself: its chunks are those of the tensor that it is, wherever it stands in a file.
_PIECE_LEN = 64 << 10
# The first words of messages; a name follows.
_FILE, _CHECKPOINT, _REMOVED = "file ", "checkpoint ", "removed "


@dataclass
class ChipminkStorageConfig(StorageConfig):
    """Where checkpoints are kept: the ``storage_config`` of a ``CheckpointManager``. It can be sent to other processes.

    ``keep_last`` checkpoints of the ref stay; all, if not given. ``open_options`` are those of ``chipmink.open``.
    """

    url: str | os.PathLike[str]
    ref: str = "main"
    keep_last: int | None = None
    durable: bool = True
    verify: str = "background"
    open_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.keep_last is not None and self.keep_last < 1:
            raise ValueError(f"keep_last is at least 1, not {self.keep_last}")

    def create_storage(self) -> ChipminkStorage:
        """The storage; each process makes one."""
        return ChipminkStorage(self)


@dataclass(frozen=True)
class _Place:
    """Where a file is: a variable of a version."""

    version: int
    name: str


class ChipminkStorage(Storage):
    """Files of checkpoints as versions of a repository. A checkpoint's id is a name without a slash.

    A file that is written is held in memory until it is closed, when it is saved.
    """

    def __init__(self, config: ChipminkStorageConfig) -> None:
        self._config = config
        self._turn = threading.RLock()
        self._repositories: dict[str, Repository] = {}
        # Folders are what files have in their names; an empty one is known only here.
        self._made: set[str] = set()
        # Names of the variables of versions, by their numbers.
        self._names: dict[int, list[str]] = {}

    # --- files --------------------------------------------------------------------------------------------------------

    def stream_read(self, path: Path, read_args: Any = None) -> io.RawIOBase:
        """A file to read from; its large pieces are mapped where that can be done. How to read it was said when it was opened."""
        return _Reading(self._load(path)["pieces"])

    def stream_write(self, path: Path) -> io.RawIOBase:
        """A file to write to, which is there when it is closed; not if the block of its ``with`` raises."""
        return _Writing(self, _inside(path))

    def write(self, path: Path, data: Any) -> None:
        """Writes a file."""
        with self.stream_write(path) as file:
            file.write(data)

    def getsize(self, path: Path) -> int:
        """Bytes of a file."""
        return int(self._load(path)["byte_len"])

    def delete(self, path: Path) -> None:
        """Deletes a file."""
        where = _inside(path)
        folder, _, name = where.partition("/")
        with self._turn:
            files = self._below(folder)
            if name not in files:
                raise FileNotFoundError(f"there is no file {where!r} in {self._config.url}")
            self._remove([where] if len(files) > 1 else [folder])
            self._sweep()

    # --- folders ------------------------------------------------------------------------------------------------------

    def mkdir(self, path: Path, recursive: bool = True) -> None:
        """Makes a folder."""
        parts = _relative(path).split("/")
        self._made.update("/".join(parts[:end]) for end in range(1, len(parts) + 1))

    def rmdir(self, path: Path) -> None:
        """Removes a folder with what is in it."""
        where = _relative(path)
        with self._turn:
            files = self._below(where)
            if not where or (not files and where not in self._made):
                raise FileNotFoundError(f"there is no folder {where!r} in {self._config.url}")
            self._made = {each for each in self._made if not _is_below(each, where)}
            if files:
                self._remove([where])
                self._sweep()

    def rename(
        self,
        src_path: Path,
        dst_path: Path,
        is_directory: bool = False,
        is_cross_link: bool = False,
        background_cleanup: bool = False,
    ) -> None:
        """Makes a checkpoint of a folder of files, or gives one another name. Nothing is copied, so the other options say nothing."""
        if not is_directory and not self.isdir(src_path):
            with self.stream_read(src_path) as file:
                self.write(dst_path, file.read())
            self.delete(src_path)
            return
        source, target = _folder(src_path), _folder(dst_path)
        with self._turn:
            files = self._below(source)
            if not files:
                raise FileNotFoundError(f"there is no folder {source!r} in {self._config.url}")
            versions = sorted({place.version for place in files.values()})
            stored = [name for version in versions for name in self._names_of(version)]
            if sorted(stored) != sorted(files):
                raise UnsupportedError(
                    f"{source!r} cannot be renamed: files of it were deleted or written again after it had become a checkpoint; copy them instead"
                )
            others = [each for each in self._checkpoints() if each != target]
            surplus = others[self._config.keep_last - 1 :] if self._config.keep_last else []
            surplus += [target] if self._below(target) else []
            # One version says all of it, so that whoever dies here leaves what was there.
            gone = [each for each in self._names_that_go(surplus) if each != target]
            self._publish(versions, _CHECKPOINT + "\n".join([target, source, *gone]))
            self._made = {each for each in self._made if not _is_below(each, source)}
            if surplus:
                self._sweep()

    def ls(self, path: Path) -> list[str]:
        """What is in a folder, by name."""
        where = _relative(path)
        if not self.isdir(path):
            raise FileNotFoundError(f"there is no folder {where!r} in {self._config.url}")
        made = [each[len(where) + 1 :] if where else each for each in self._made if not where or each.startswith(where + "/")]
        return sorted({name.partition("/")[0] for name in (*self._below(where), *made)})

    def exists(self, path: Path) -> bool:
        """Whether there is such a file or folder."""
        where = _relative(path)
        return self.isdir(path) or where in self._files()

    def isdir(self, path: Path) -> bool:
        """Whether there is such a folder."""
        where = _relative(path)
        return not where or where in self._made or bool(self._below(where))

    def remap_path(self, path: Path) -> str:
        """The place and the name in it."""
        return f"{self._repository(self._config.ref).url}#{_relative(path)}"

    def close(self) -> None:
        """Gives back what is held; with a staging tier, when all is durable. A later use opens it again."""
        with self._turn:
            repositories, self._repositories = self._repositories, {}
        for repository in repositories.values():
            repository.close()

    # --- versions -----------------------------------------------------------------------------------------------------

    def _repository(self, ref: str) -> Repository:
        with self._turn:
            found = self._repositories.get(ref)
            if found is None or found.closed:
                config = self._config
                options = {"durable": config.durable, "verify": config.verify, "on_conflict": "retry", **config.open_options}
                found = self._repositories[ref] = Repository(config.url, ref=ref, **options)
            return found

    def _save(self, where: str, pieces: list[Any]) -> None:
        """Saves a file."""
        name = where.partition("/")[2]
        content = {"byte_len": sum(len(each) for each in pieces), "pieces": pieces}
        with self._turn:
            self._repository(_line(self._config.ref, name)).save({name: content}, message=_FILE + where, strict=True)

    def _load(self, path: Path) -> dict[str, Any]:
        where = _inside(path)
        found = self._files().get(where)
        if found is None:
            raise FileNotFoundError(f"there is no file {where!r} in {self._config.url}")
        loaded: dict[str, Any] = self._repository(self._config.ref).load(found.version, names=[found.name])[found.name]
        return loaded

    def _publish(self, versions: list[int], message: str) -> None:
        """Makes a version of the ref out of others; of none it is one that only says something."""
        with self._turn:
            repository = self._repository(self._config.ref)
            while True:
                before = repository.branches.get(self._config.ref)
                try:
                    repository._usable().join(self._config.ref, before, versions, message)
                    return
                except RefMovedError:
                    # Somebody else has published there: this follows.
                    continue

    def _remove(self, names: list[str]) -> None:
        """Says of files and folders that they are gone."""
        self._publish([], _REMOVED + "\n".join(self._names_that_go(names)))

    def _names_that_go(self, names: list[str]) -> list[str]:
        """What is no longer there when files and folders go: these, and what checkpoints among them have said of others, as far as any of
        those is still in the log.
        """
        versions = list(self._versions())
        others = {each for _, word, about in versions if word == _CHECKPOINT and about[0] in names for each in about[1:]}
        there = [about[0] for _, word, about in versions if word != _REMOVED]
        return [*names, *sorted(each for each in others.difference(names) if any(_is_below(name, each) for name in there))]

    def _versions(self) -> Iterator[tuple[Version, str, list[str]]]:
        """The versions that say what files there are, newest first: the first word of each, and the names that follow."""
        lines = _line(self._config.ref, "")
        for version in self._repository(self._config.ref).log():
            for word in (_FILE, _CHECKPOINT, _REMOVED):
                is_own = version.ref.startswith(lines) if word == _FILE else version.ref == self._config.ref
                if is_own and version.message.startswith(word):
                    yield version, word, version.message.removeprefix(word).split("\n")

    def _files(self) -> dict[str, _Place]:
        """All files, by their whole names."""
        found: dict[str, _Place] = {}
        # What later versions have renamed, removed or replaced.
        gone: set[str] = set()
        for version, word, about in self._versions():
            target = about[0]
            if word == _FILE:
                names = [target.partition("/")[2]]
                folder = target.partition("/")[0]
            else:
                names = self._names_of(version.number) if word == _CHECKPOINT else []
                folder = target
            for name in names:
                if not _is_gone(f"{folder}/{name}", gone):
                    found.setdefault(f"{folder}/{name}", _Place(version.number, name))
            if word != _FILE:
                gone.update(about)
        return found

    def _names_of(self, version: int) -> list[str]:
        found = self._names.get(version)
        if found is None:
            found = self._names[version] = self._repository(self._config.ref).names(version)
        return found

    def _below(self, where: str) -> dict[str, _Place]:
        """The files in a folder, by their names in it."""
        prefix = where + "/" if where else ""
        return {name[len(prefix) :]: place for name, place in self._files().items() if name.startswith(prefix)}

    def _checkpoints(self) -> list[str]:
        """The names of checkpoints, newest first."""
        there = {name.partition("/")[0] for name in self._files()}
        named = [about[0] for _, word, about in self._versions() if word == _CHECKPOINT]
        return [name for name in dict.fromkeys(named) if name in there]

    def _sweep(self) -> None:
        """Drops versions of which no file is left. The newest of each line stays by itself; the next builds on it."""
        repository = self._repository(self._config.ref)
        kept = {place.version for place in self._files().values()} | set(repository.branches.values())
        surplus: list[int] = []
        left: list[str] = []
        for version, word, about in reversed(list(self._versions())):
            if word != _REMOVED:
                is_needed = version.number in kept
                left += about[:1] if is_needed else []
            else:
                # It says something as long as there is what it is about.
                related = (each for each in left for name in about if _is_below(each, name) or _is_below(name, each))
                is_needed = version.number in kept or any(True for _ in related)
            if not is_needed:
                surplus.append(version.number)
        repository.sweep(drop=surplus, grace="0s")


def _is_below(name: str, folder: str) -> bool:
    return name == folder or name.startswith(folder + "/")


def _is_gone(name: str, gone: set[str]) -> bool:
    """Whether a name, or a folder that it is in, is among those."""
    parts = name.split("/")
    return any("/".join(parts[:end]) in gone for end in range(1, len(parts) + 1))


class _Writing(io.RawIOBase):
    """A file that is being written."""

    def __init__(self, storage: ChipminkStorage, where: str) -> None:
        super().__init__()
        self._storage = storage
        self._where = where
        self._pieces: list[Any] | None = []
        self._small = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self._pieces is None or self.closed:
            raise ValueError(f"{self._where!r} is closed")
        view = memoryview(data).cast("B")
        if len(view) < _PIECE_LEN:
            self._small += view
        else:
            self._end_small()
            # The caller may use its memory again.
            self._pieces.append(numpy.frombuffer(view, dtype=numpy.uint8).copy())
        return len(view)

    def _end_small(self) -> None:
        if self._small and self._pieces is not None:
            self._pieces.append(bytes(self._small))
            self._small = bytearray()

    def close(self) -> None:
        if self.closed:
            return
        self._end_small()
        pieces, self._pieces = self._pieces, None
        super().close()
        if pieces is not None:
            self._storage._save(self._where, pieces)

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is not None:
            self._pieces = None
        self.close()

    def __del__(self) -> None:
        # What nobody closed is not complete.
        self._pieces = None
        super().__del__()


class _Reading(io.RawIOBase):
    """A file that is read, of pieces."""

    def __init__(self, pieces: list[Any]) -> None:
        super().__init__()
        self._views = [memoryview(each).cast("B") for each in pieces]
        self._byte_len = sum(len(each) for each in self._views)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._byte_len}[whence]
        if begin + offset < 0:
            raise ValueError(f"there is nothing {-begin - offset} bytes before the beginning of a file")
        self._at = begin + offset
        return self._at

    def _parts(self, count: int) -> Iterator[memoryview]:
        """So many bytes from here on, as they lie."""
        start = 0
        for view in self._views:
            first = self._at - start
            if count and 0 <= first < len(view):
                part = view[first : first + count]
                yield part
                self._at += len(part)
                count -= len(part)
            start += len(view)

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        done = 0
        for part in self._parts(len(target)):
            target[done : done + len(part)] = part
            done += len(part)
        return done

    def readall(self) -> bytes:
        return b"".join(self._parts(max(0, self._byte_len - self._at)))


def _relative(path: Path) -> str:
    """A name in the repository; the empty one is that of all of it."""
    pure = PurePath(path)
    if pure.is_absolute() or ".." in pure.parts or "\n" in str(pure):
        raise UnsupportedError(f"{str(pure)!r} is no place in a repository: let a checkpoint's id be a name, such as 'step-100'")
    return "/".join(pure.parts)


def _inside(path: Path) -> str:
    """The name of a file in a checkpoint."""
    where = _relative(path)
    if "/" not in where:
        raise UnsupportedError(f"{where!r} is in no checkpoint: a file has the name of its checkpoint before its own, as 'step-100/model'")
    return where


def _folder(path: Path) -> str:
    """The name of a checkpoint."""
    where = _relative(path)
    if not where or "/" in where:
        raise UnsupportedError(f"{where!r} cannot be a checkpoint's id: let it be a name without a slash, such as 'step-100'; ref= tells runs apart")
    return where


def _line(ref: str, name: str) -> str:
    """The line of versions to which files of a name are saved, whatever checkpoint they are of."""
    return f"{ref}.file.{urllib.parse.quote(name)}"
