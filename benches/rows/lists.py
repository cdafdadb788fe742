"""The paper's mutation study: ten saves of a hundred lists, a share of which is rewritten between saves.

Bytes: against an ideal system, which writes the first save and then what changed. Time: the ten saves together, with
every name given as accessed (no hint), without fsync, against a pickle and a dill file for each version. dill is run once, as it
takes ten times longer.
"""

from __future__ import annotations

import functools
import gc
import pickle
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chipmink

from benches.measure import Result, bytes_in, folder, second_thread
from benches.rows import Options, Row
from benches.workloads import Tracked
from benches.workloads.lists import changed_share, lists

SHARES = (0.01, 0.1, 0.5, 1.0)


def _run(save: Callable[[dict[str, Any], int], object], scale: float, share: float) -> list[float]:
    """Seconds of each save of the session."""
    namespace = Tracked()
    seconds = []
    for step, _label in enumerate(lists(namespace, scale, share)):
        gc.collect()
        began = time.perf_counter()
        save(namespace.plain, step)
        seconds.append(time.perf_counter() - began)
    return seconds


def _files(place: Path, dump: Callable[[Any, Any], object]) -> Callable[[dict[str, Any], int], None]:
    def save(namespace: dict[str, Any], step: int) -> None:
        # One file, replaced: only the time of the peers is wanted here, not ten gigabytes of their files.
        with open(place / "version", "wb") as file:
            dump(namespace, file)

    return save


def study(share: float, options: Options, threads: bool) -> list[Result]:
    import dill

    scale = options.lists_scale
    repeats = options.repeats if scale < 1 else 1
    ours: list[float] = []
    first: list[float] = []
    theirs: list[float] = []
    stored = first_stored = 0
    with second_thread(threads):
        for _ in range(repeats):
            with folder() as place, chipmink.open(place / "repo", durable=False) as repo:
                sizes: list[int] = []

                def save(namespace: dict[str, Any], step: int, repo: Any = repo, sizes: list[int] = sizes) -> None:
                    sizes.append(repo.save(namespace).report.bytes_written)

                seconds = _run(save, scale, share)
                ours.append(sum(seconds))
                first.append(seconds[0])
                stored, first_stored = bytes_in(place), sizes[0]
            with folder() as place:
                theirs.append(sum(_run(_files(place, functools.partial(pickle.dump, protocol=5)), scale, share)))
        with folder() as place:
            slow = sum(_run(_files(place, dill.dump), scale, share))
    name = f"lists/{share:.0%}" + ("/second thread" if threads else "")
    median = statistics.median(ours)
    samples = {"ours": ours, "theirs": theirs}
    return [
        Result(f"{name}/bytes", "first save + rewritten", stored, first_stored * changed_share(share), 1.05, "B", note=f"scale {scale:g}"),
        Result(f"{name}/time", "pickle.dump to files", median, statistics.median(theirs), 1.0, "s", samples=samples, note=f"first save {statistics.median(first):.2f} s"),
        Result(f"{name}/time", "dill.dump to files", median, slow, 1.0, "s", note="dill run once"),
    ]


ROWS: dict[str, Row] = {f"lists/{share:.0%}": functools.partial(study, share, threads=False) for share in SHARES}
ROWS["lists/10%/second thread"] = functools.partial(study, 0.1, threads=True)
