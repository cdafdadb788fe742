"""Four ways to keep a version of a namespace after every cell."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import chipmink
import cloudpickle
import dill


def without_machinery(namespace: dict[str, Any]) -> dict[str, Any]:
    """What a user means by the variables: no interpreter's names, and no modules, which plain pickle cannot save."""
    module = type(pickle)
    return {name: value for name, value in namespace.items() if not name.startswith("__") and type(value) is not module}


class Files:
    """A file for each version. What the pickler cannot save is left out, variable by variable, and counted."""

    def __init__(self, place: Path, pickler: Any):
        self.place = place
        self.pickler = pickler
        self.left_out: set[str] = set()
        place.mkdir(parents=True)
        self._count = 0

    def save(self, namespace: dict[str, Any]) -> int:
        self._count += 1
        with open(self._path(self._count), "wb") as file:
            variables = {name: value for name, value in without_machinery(namespace).items() if name not in self.left_out}
            try:
                self.pickler.dump(variables, file, protocol=5)
            except Exception:
                self.left_out |= {name for name, value in variables.items() if not self._can_save(value)}
                file.seek(0)
                file.truncate()
                self.pickler.dump({name: value for name, value in variables.items() if name not in self.left_out}, file, protocol=5)
        return self._count

    def _can_save(self, value: Any) -> bool:
        try:
            self.pickler.dumps(value, protocol=5)
        except Exception:
            return False
        return True

    def load(self, version: int, name: str) -> Any:
        with open(self._path(version), "rb") as file:
            return self.pickler.load(file)[name]

    def _path(self, version: int) -> Path:
        return self.place / f"{version:03d}"


class Repository:
    """A chipmink repository."""

    left_out: frozenset[str] = frozenset()

    def __init__(self, place: Path):
        # As the files beside it, saved without waiting for the disk.
        self.repo = chipmink.open(place, durable=False)

    def save(self, namespace: dict[str, Any]) -> int:
        return self.repo.save(namespace)

    def load(self, version: int, name: str) -> Any:
        return self.repo.load(version, names=[name])[name]


def savers(place: Path) -> dict[str, Any]:
    """All four, each in a folder of its own."""
    return {
        "chipmink": Repository(place / "chipmink"),
        "pickle": Files(place / "pickle", pickle),
        "cloudpickle": Files(place / "cloudpickle", cloudpickle),
        "dill": Files(place / "dill", dill),
    }
