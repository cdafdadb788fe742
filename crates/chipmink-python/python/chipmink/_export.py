"""Writes a version as a plain pickle: ``python -m chipmink._export PLACE VERSION FILE [NAME ...]``.

It is what ``chipmink export`` runs; why it cannot it says there in the last line, as JSON with ``kind`` and ``message``.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from typing import Any

from chipmink._errors import ChipminkError, UnsupportedError
from chipmink._repository import open as open_repository

__all__ = ["export"]


def export(place: str, version: int | str, file: str, names: list[str] | None = None) -> None:
    """Writes the variables of a version to a file, as a pickle of a dict; it replaces the file once it is whole."""
    with open_repository(place, map=False, verify="eager") as repository:
        namespace = repository.load(version, names)
        part = f"{file}.{os.getpid()}.part"
        try:
            with open(part, "wb") as stream:
                _dump(namespace, stream)
            os.replace(part, file)
        finally:
            if os.path.exists(part):
                os.remove(part)


def _dump(namespace: dict[str, Any], stream: Any) -> None:
    try:
        pickle.dump(namespace, stream, protocol=5)
    except Exception as error:
        wrong = []
        for name, value in namespace.items():
            try:
                pickle.dumps(value, protocol=5)
            except Exception:
                wrong.append(name)
        listed = ", ".join(map(repr, wrong)) or "together they"
        raise UnsupportedError(f"{listed} cannot be pickled ({error}); name the others with --names") from error


def main(arguments: list[str]) -> int:
    """Exports, or says why it cannot."""
    place, version, file, *names = arguments
    try:
        export(place, int(version) if version.isdecimal() else version, file, names or None)
    except Exception as error:
        kind = error.kind if isinstance(error, ChipminkError) else "output" if isinstance(error, OSError) else ChipminkError.kind
        message = str(error) if isinstance(error, (ChipminkError, OSError)) else f"{type(error).__name__}: {error}"
        print(json.dumps({"kind": kind, "message": message}), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
