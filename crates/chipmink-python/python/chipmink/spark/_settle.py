"""What Spark keeps, saved by value: Spark itself writes it beside the repository, frames as Parquet and models as they do.

1. Spark's processes write to ``remote/TOKEN.parquet`` or ``remote/TOKEN.model`` in the repository's folder; nothing passes through the
   program that saves.
2. The reference in the program's version names the folder. Push and pull bring it with the version, and a sweep removes folders that no
   version names.
3. An object is written once, as long as the files that it reads, or its parameters, are the same.

The names of the ``make_`` functions are part of format version 1.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import secrets
import shutil
import time
import urllib.parse
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chipmink import _remote
from chipmink._errors import RemoteObjectLost, UnsupportedError
from chipmink._markers import place_of

__all__ = ["FRAME", "MODEL", "Form", "answer", "make_frame", "make_model", "release_unnamed", "settle"]

_FOLDER = "remote"

KEPT = "from the repository's folder, which has its value"


@dataclass(frozen=True)
class Form:
    """How something is written."""

    kind: str
    suffix: str
    write: Callable[[Any, str], None]


def _write_frame(frame: Any, path: str) -> None:
    frame.write.mode("error").parquet(path)


def _write_model(model: Any, path: str) -> None:
    model.write().save(path)


FRAME = Form("spark.frame", ".parquet", _write_frame)
MODEL = Form("spark.model", ".model", _write_model)


def _written(scope: _remote.Saving) -> weakref.WeakKeyDictionary[Any, tuple[Any, tuple[Any, ...]]]:
    """By object: what was known of its source, and the reduce value for it."""
    found: weakref.WeakKeyDictionary[Any, tuple[Any, tuple[Any, ...]]] = scope.kept.setdefault("spark", weakref.WeakKeyDictionary())
    return found


def answer(scope: _remote.Saving, obj: Any, source: Any, form: Form) -> tuple[Any, ...] | str | None:
    """The reduce value for an object, or why there is none; ``None`` if it has to be written first.

    As long as ``source`` is the same, what was written holds; if that is ``None``, for one save.
    """
    known = _written(scope).get(obj)
    is_new = ("spark.written", id(obj)) in scope.facts
    if known is not None and (scope.is_passive or is_new or (source is not None and known[0] == source)):
        return known[1]
    if ("spark", id(obj)) in scope.failed:
        return scope.failed["spark", id(obj)]
    if not scope.is_passive:
        scope.later("spark", id(obj), (obj, source, form))
    return None


def settle(scope: _remote.Saving, objects: dict[Any, Any]) -> None:
    """Has Spark write objects."""
    folder = _local_folder(scope.repository)
    for number, (key, (obj, source, form)) in enumerate(objects.items()):
        scope.tell("writing", number, len(objects))
        name = f"{_FOLDER}/{secrets.token_hex(16)}{form.suffix}"
        path = f"{folder}/{name}"
        try:
            form.write(obj, path)
        except Exception as error:
            shutil.rmtree(path, ignore_errors=True)
            reason = str(error).strip().partition("\n")[0][:200]
            scope.failed["spark", key] = f"Spark did not write it: {type(error).__name__}: {reason}"
            continue
        _written(scope)[obj] = (source, _stored(scope.repository.url, name, obj, form))
        scope.facts["spark.written", key] = True
    scope.tell("writing", len(objects), len(objects))


def _stored(url: str, name: str, obj: Any, form: Form) -> tuple[Any, ...]:
    module, qualname = place_of(type(obj))
    is_frame = form is FRAME
    details = {"type": "pyspark.sql.DataFrame"} if is_frame else {"type": f"{module}.{qualname}", "class": f"{module}:{qualname}"}
    place = json.dumps({"repository": url})
    stored = (form.kind, name, place, "", KEPT, "alive", name.encode(), json.dumps(details, sort_keys=True))
    return (make_frame if is_frame else make_model), stored


def _local_folder(repository: Any) -> str:
    if repository._staged or not repository.url.startswith("file://"):
        raise UnsupportedError(
            'remote="materialize" has Spark write beside the repository, which needs a folder that its processes reach, '
            f"not {repository.url!r}{' with a staging tier' if repository._staged else ''}: save to a folder, and push that"
        )
    return urllib.parse.unquote(urllib.parse.urlparse(repository.url).path)


# --- loading ---------------------------------------------------------------------------------------------------------


def make_frame(*arguments: Any) -> Any:
    """A frame of the active session over what Spark has written, or with ``as_pandas`` its rows."""
    return _made(make_frame, _frame, arguments)


def make_model(*arguments: Any) -> Any:
    """The model that was written."""
    return _made(make_model, _model, arguments)


def _made(make: Any, bring: Callable[[_remote.RemoteReference], Any], arguments: tuple[Any, ...]) -> Any:
    from chipmink._lost import LostReference

    reference = _remote.reference_from(*arguments)
    try:
        return bring(reference)
    except RemoteObjectLost as error:
        reason = str(error)
    except Exception as error:
        reason = f"it cannot be read: {type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
    return LostReference(reference, reason, (make, arguments))


def _repository(reference: _remote.RemoteReference) -> tuple[Any, str]:
    """Where it is loaded from, and what the set of files is called there."""
    repository = _remote.current_load().repository if _remote.is_loading() else None
    if repository is None:
        raise RemoteObjectLost(f"it lies beside the repository {reference.place.get('repository')!r}: load the version from there")
    return repository, os.path.basename((reference.token or b"").decode())


def _path(repository: Any, name: str) -> str | None:
    """The folder, if it is one of this machine."""
    if not repository.url.startswith("file://"):
        return None
    path = os.path.join(urllib.parse.unquote(urllib.parse.urlparse(repository.url).path), _FOLDER, name)
    if not os.path.isdir(path):
        raise RemoteObjectLost(f"it was in {path!r}, which is not there: push or pull it again from a repository that has it")
    return path


def _session(advice: str = "") -> Any:
    from chipmink.spark import _references

    try:
        return _references._session()
    except RemoteObjectLost as error:
        raise RemoteObjectLost(f"{error}{advice}") from None


def _frame(reference: _remote.RemoteReference) -> Any:
    repository, name = _repository(reference)
    path = _path(repository, name)
    as_pandas = _remote.current_load().as_pandas
    session = None if as_pandas else _session("; or load with as_pandas=True")
    if path is not None and session is not None:
        return session.read.parquet(path)
    parquet = importlib.import_module("pyarrow.parquet")
    table = parquet.read_table(path) if path is not None else _far_table(repository, name)
    return table.to_pandas() if session is None else session.createDataFrame(table)


def _far_table(repository: Any, name: str) -> Any:
    """The rows of a set of files that no session reads by itself."""
    parquet, arrow = importlib.import_module("pyarrow.parquet"), importlib.import_module("pyarrow")
    handle = repository._usable()
    if name not in (known for known, *_ in handle.file_sets()):
        raise RemoteObjectLost(f"its rows are not in {repository.url!r}: push it again from a repository that has them")
    parts = [content for part, content in handle.read_file_set(name) if part.endswith(".parquet") and not part.startswith((".", "_"))]
    return arrow.concat_tables([parquet.read_table(io.BytesIO(part)) for part in parts])


def _model(reference: _remote.RemoteReference) -> Any:
    from chipmink.spark import _models

    repository, name = _repository(reference)
    path = _path(repository, name)
    if path is None:
        raise RemoteObjectLost(f"Spark does not read it from {repository.url!r}: pull the version into a folder that the session reaches")
    _session()
    return _models.read_model(reference, path)


# --- sweeping --------------------------------------------------------------------------------------------------------


def release_unnamed(repository: Any, grace: float) -> int:
    """Removes what Spark has written for versions that are no longer there."""
    if repository._staged:
        return 0
    handle = repository._usable()
    limit = (time.time() - grace) * 1e6
    names = [name for name, _, written_at in handle.file_sets() if written_at <= limit]
    if not names:
        return 0
    numbers = [version.number for version in repository._versions(None)]
    named = handle.mentioned(numbers, [f"{_FOLDER}/{name}".encode() for name in names])
    gone = [name for name, is_named in zip(names, named, strict=True) if not is_named]
    for name in gone:
        handle.delete_file_set(name)
        if repository.url.startswith("file://"):
            # What is left are folders.
            shutil.rmtree(os.path.join(_local_folder(repository), _FOLDER, name), ignore_errors=True)
    return len(gone)
