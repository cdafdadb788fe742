"""The rows of the table, by name: each a function that measures and gives results; run in a process of its own.

A row takes `Options` and returns the lines that it measured.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from benches.measure import Result


@dataclass(frozen=True)
class Options:
    """What the command line chose."""

    repeats: int = 5
    #: Scale of the lists study; 1 is that of the paper.
    lists_scale: float = 0.1
    #: Scale of the large arrays; 1 is half a gibibyte to one.
    arrays_scale: float = 1.0
    #: Scale of the training runs; 1 is 200 million parameters.
    training_scale: float = 1.0


Row = Callable[[Options], list[Result]]


def rows() -> dict[str, Row]:
    """All rows in the order of the table; those of training runs only if PyTorch is installed."""
    from benches.rows import clusters, first_saves, lists, mapped, memory, memory_tier, micro, pages, regions, sessions, small, tables, training

    from benches.rows import objects as buckets

    objects = {**micro.ROWS, **lists.ROWS, **sessions.ROWS, **small.ROWS, **memory.ROWS}
    arrays = {**regions.ROWS, **first_saves.ROWS, **mapped.ROWS, **pages.ROWS, **memory_tier.ROWS, **tables.ROWS}
    has_torch = importlib.util.find_spec("torch") is not None
    return {**objects, **arrays, **(training.ROWS if has_torch else {}), **clusters.ROWS, **buckets.ROWS}
