"""Snapshots of what a frame reads, where its format keeps any: the version of a Delta table, the snapshot of an Iceberg table.

Neither library has to be there: what is looked at is what the catalog says of a table, and the log that lies beside the files.
What is not found is left out, since the files themselves are noted, too.
"""

from __future__ import annotations

import json
import os
import re
import urllib.parse
from collections.abc import Callable
from typing import Any

__all__ = ["snapshot_of_path", "snapshots"]

#: Lists the names in a folder, and reads a file as text; errors mean that it is not there.
Folder = tuple[Callable[[str], list[str]], Callable[[str], str]]

_DELTA_ENTRY = re.compile(r"(\d{20})(?:\.[^/]*)?\.(?:json|parquet)")
_ICEBERG_PROPERTY = re.compile(r"\bcurrent-snapshot-id=(\w+)")


def snapshots(session: Any, tables: list[str], paths: list[str], is_classic: bool) -> dict[str, str]:
    """For tables and paths that keep snapshots, which one is read now."""
    folder = _hadoop(session) if is_classic else _LOCAL
    found = {path: snapshot_of_path(path, folder) for path in paths}
    for table in tables:
        found[table] = _snapshot_of_table(session, table, folder)
    return {name: snapshot for name, snapshot in found.items() if snapshot is not None}


def _snapshot_of_table(session: Any, table: str, folder: Folder) -> str | None:
    try:
        rows = {row[0].strip(): row[1] for row in session.sql(f"DESCRIBE TABLE EXTENDED {table}").collect() if row[0]}
    except Exception:
        # It may be a view, or gone.
        return None
    current = _ICEBERG_PROPERTY.search(rows.get("Table Properties") or "")
    if current is not None:
        return f"snapshot {current[1]}"
    location = rows.get("Location")
    return None if not location else snapshot_of_path(location, folder)


def snapshot_of_path(path: str, folder: Folder | None = None) -> str | None:
    """The snapshot of the table that a folder is, if it keeps any."""
    names, text = folder or _LOCAL
    root = path.rstrip("/")
    try:
        entries = filter(None, map(_DELTA_ENTRY.fullmatch, names(f"{root}/_delta_log")))
        return f"version {max(int(entry[1]) for entry in entries)}"
    except Exception:
        pass
    try:
        hint = text(f"{root}/metadata/version-hint.text").strip()
        metadata = json.loads(text(f"{root}/metadata/v{int(hint)}.metadata.json"))
        return f"snapshot {int(metadata['current-snapshot-id'])}"
    except Exception:
        return None


def _local(path: str) -> str:
    parsed = urllib.parse.urlparse(path)
    if parsed.scheme not in ("", "file"):
        raise FileNotFoundError(path)
    return urllib.parse.unquote(parsed.path)


def _local_text(path: str) -> str:
    with open(_local(path), encoding="utf-8") as file:
        return file.read()


_LOCAL: Folder = (lambda path: os.listdir(_local(path)), _local_text)


def _hadoop(session: Any) -> Folder:
    """Whatever the session of this process reads, through its own file systems."""
    jvm = session.sparkContext._jvm
    settings = session._jsparkSession.sessionState().newHadoopConf()

    def names(path: str) -> list[str]:
        place = jvm.org.apache.hadoop.fs.Path(path)
        return [found.getPath().getName() for found in place.getFileSystem(settings).listStatus(place)]

    def text(path: str) -> str:
        place = jvm.org.apache.hadoop.fs.Path(path)
        stream = place.getFileSystem(settings).open(place)
        try:
            return str(jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
        finally:
            stream.close()

    return names, text
