"""Frames of Spark saved by value: Spark itself writes them as Parquet beside the repository.

1. Spark's processes write to ``remote/TOKEN.parquet`` in the repository's folder; nothing passes through the program that saves.
2. The reference in the program's version names the folder. A sweep removes folders that no version names.
3. A frame object is written once, as long as the files that it reads are the same.

The name of ``make_frame`` is part of format version 1.
"""

from __future__ import annotations

import importlib
import json
import os
import secrets
import shutil
import time
import urllib.parse
import weakref
from typing import Any

from chipmink import _remote
from chipmink._errors import RemoteObjectLost, UnsupportedError

__all__ = ["answer", "make_frame", "release_unnamed", "settle"]

_FOLDER = "remote"
_SUFFIX = ".parquet"

KEPT = "from the repository's folder, which has its value"


def _written(scope: _remote.Saving) -> weakref.WeakKeyDictionary[Any, tuple[Any, tuple[Any, ...]]]:
    """By frame: what was known of its source, and the reduce value for it."""
    found: weakref.WeakKeyDictionary[Any, tuple[Any, tuple[Any, ...]]] = scope.kept.setdefault("spark", weakref.WeakKeyDictionary())
    return found


def _source(described: Any) -> Any:
    return described.details.get("version") if isinstance(described, _remote.RemoteReference) else None


def answer(scope: _remote.Saving, frame: Any, described: Any) -> tuple[Any, ...] | str | None:
    """The reduce value for a frame, or why there is none; ``None`` if it has to be written first."""
    known = _written(scope).get(frame)
    if known is not None and (scope.is_passive or known[0] == _source(described)):
        return known[1]
    if ("spark", id(frame)) in scope.failed:
        return scope.failed["spark", id(frame)]
    if not scope.is_passive:
        scope.later("spark", id(frame), (frame, _source(described)))
    return None


def settle(scope: _remote.Saving, objects: dict[Any, Any]) -> None:
    """Has Spark write frames."""
    folder = _local_folder(scope.repository)
    for key, (frame, source) in objects.items():
        name = f"{_FOLDER}/{secrets.token_hex(16)}{_SUFFIX}"
        path = f"{folder}/{name}"
        try:
            frame.write.mode("error").parquet(path)
        except Exception as error:
            shutil.rmtree(path, ignore_errors=True)
            reason = str(error).strip().partition("\n")[0][:200]
            scope.failed["spark", key] = f"Spark did not write it: {type(error).__name__}: {reason}"
            continue
        details = json.dumps({"type": "pyspark.sql.DataFrame"})
        stored = ("spark.frame", name, json.dumps({"repository": scope.repository.url}), "", KEPT, "alive", name.encode(), details)
        _written(scope)[frame] = (source, (make_frame, stored))


def _local_folder(repository: Any) -> str:
    if repository._staged or not repository.url.startswith("file://"):
        raise UnsupportedError(
            'remote="materialize" has Spark write frames beside the repository, which needs a folder that its processes reach, '
            f"not {repository.url!r}{' with a staging tier' if repository._staged else ''}"
        )
    return urllib.parse.unquote(urllib.parse.urlparse(repository.url).path)


def make_frame(*arguments: Any) -> Any:
    """A frame of the active session over what Spark has written, or with ``as_pandas`` its rows."""
    from chipmink._lost import LostReference

    reference = _remote.reference_from(*arguments)
    try:
        return _frame(reference)
    except RemoteObjectLost as error:
        return LostReference(reference, str(error), (make_frame, arguments))
    except Exception as error:
        return LostReference(reference, f"it cannot be read: {type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}", (make_frame, arguments))


def _frame(reference: _remote.RemoteReference) -> Any:
    from chipmink.spark import _references

    scope = _remote.current_load()
    if scope.repository is None or not scope.repository.url.startswith("file://"):
        raise RemoteObjectLost(f"its rows lie beside the repository {reference.place.get('repository')!r}: load the version from there")
    folder = urllib.parse.unquote(urllib.parse.urlparse(scope.repository.url).path)
    name = (reference.token or b"").decode()
    path = os.path.join(folder, _FOLDER, os.path.basename(name))
    if not os.path.isdir(path):
        raise RemoteObjectLost(f"its rows were in {path!r}, which is not there: a push or pull does not bring them, copy the folder too")
    if scope.as_pandas:
        return importlib.import_module("pyarrow.parquet").read_table(path).to_pandas()
    try:
        session = _references._session()
    except RemoteObjectLost as error:
        raise RemoteObjectLost(f"{error}; or load with as_pandas=True") from None
    return session.read.parquet(path)


def release_unnamed(repository: Any, grace: float) -> int:
    """Removes what Spark has written for versions that are no longer there."""
    if not repository.url.startswith("file://"):
        return 0
    folder = os.path.join(_local_folder(repository), _FOLDER) if not repository._staged else ""
    if not folder or not os.path.isdir(folder):
        return 0
    limit = time.time() - grace
    names = [name for name in os.listdir(folder) if name.endswith(_SUFFIX) and os.stat(os.path.join(folder, name)).st_mtime <= limit]
    if not names:
        return 0
    numbers = [version.number for version in repository._versions(None)]
    named = repository._usable().mentioned(numbers, [f"{_FOLDER}/{name}".encode() for name in names])
    gone = [name for name, is_named in zip(names, named, strict=True) if not is_named]
    for name in gone:
        shutil.rmtree(os.path.join(folder, name))
    return len(gone)
