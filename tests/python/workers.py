"""What worker processes run: importable by name in a process that was spawned."""

from __future__ import annotations

from typing import Any

import chipmink


def load_first(arguments: tuple[str, int]) -> Any:
    """Opens a repository and loads the first item of ``x`` of a version."""
    path, number = arguments
    with chipmink.open(path, durable=False) as repo:
        return repo.load(number)["x"][0]
