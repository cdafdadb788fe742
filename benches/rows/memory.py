"""Memory that a repository object keeps between saves, and the budget of the shadow.

Thesaurus and cache have budgets of their own, which are set to a mebibyte here, so that they are counted apart.
"""

from __future__ import annotations

import functools
import gc
from typing import Any

import chipmink

from benches.measure import Result, folder, resident_bytes
from benches.rows import Options, Row
from benches.workloads.micro import MICRO

MEBIBYTE = 1 << 20
SMALL = {"thesaurus_bytes": MEBIBYTE, "cache_bytes": MEBIBYTE}
SHADOW_BUDGET = 4 * MEBIBYTE


def growth(which: str, options: Options) -> list[Result]:
    """Resident memory after three saves, against the namespace's own."""
    gc.collect()
    empty = resident_bytes()
    namespace: dict[str, Any] = {"x": MICRO[which]()}
    gc.collect()
    built = resident_bytes()
    with folder() as place, chipmink.open(place / "repo", durable=False, **SMALL) as repo:
        for _ in range(3):
            saved = repo.save(namespace)
        gc.collect()
        kept = resident_bytes() - built
        own = built - empty
        objects = saved.report.objects
        per_object = Result(f"memory/{which}/shadow", "48 B an object + 32 MiB", saved.report.shadow_bytes, 48 * objects + 32 * MEBIBYTE, 1.0, "B")
    per_object.note = f"{saved.report.shadow_bytes / max(1, objects):.1f} B an object"
    results = [per_object]
    if which in "ad":
        results.append(Result(f"memory/{which}/kept", "the namespace", kept, own, 0.15, "B"))
    return results


def budget(which: str, options: Options) -> list[Result]:
    """A budget for the shadow is kept."""
    namespace = {"x": MICRO[which]()}
    most = 0
    with folder() as place, chipmink.open(place / "repo", durable=False, shadow_bytes=SHADOW_BUDGET, **SMALL) as repo:
        for _ in range(4):
            most = max(most, repo.save(namespace).report.shadow_bytes)
    return [Result(f"memory/{which}/shadow under a budget", "4 MiB", most, SHADOW_BUDGET, 1.0, "B")]


ROWS: dict[str, Row] = {f"memory/{which}": functools.partial(growth, which) for which in MICRO}
ROWS["memory/c/budget"] = functools.partial(budget, "c")
