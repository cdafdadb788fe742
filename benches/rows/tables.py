"""A frame of twenty columns and a million rows, changed as notebooks do: the bytes of what changed, and the time beside pickle,
dill and parquet, which write all of it each time.
"""

from __future__ import annotations

import pickle
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chipmink

from benches.measure import Result, folder
from benches.rows import Options, Row

COLUMNS = 20
ROWS_COUNT = 1_000_000
#: What a save may cost that changes no column: a chunk's worth of tables.
LEAST = 64 << 10


def build(scale: float) -> Any:
    import numpy
    import pandas

    random = numpy.random.default_rng(9)
    rows = int(ROWS_COUNT * scale)
    frame = pandas.DataFrame({f"c{i}": random.random(rows) for i in range(COLUMNS)})
    frame.loc[random.integers(0, rows, rows // 50), "c3"] = numpy.nan
    words = [f"word {i}" for i in range(5000)]
    frame["text"] = pandas.Series([words[i] for i in random.integers(0, len(words), rows)], dtype=object)
    return frame


def add(frame: Any) -> int:
    frame["sum"] = frame["c1"] + frame["c2"]
    return int(frame["sum"].nbytes)


def fill(frame: Any) -> int:
    frame["c3"] = frame["c3"].fillna(frame["c3"].median())
    return int(frame["c3"].nbytes)


def drop(frame: Any) -> int:
    frame.drop(columns="c5", inplace=True)
    return 0


def text(frame: Any) -> int:
    frame["text"] = frame["text"].str.upper()
    return len(pickle.dumps(frame["text"], protocol=5))


def sort(frame: Any) -> int:
    frame.sort_values("c1", inplace=True)
    # Every column and the index move.
    return int(frame.select_dtypes("number").memory_usage(index=True).sum()) + len(pickle.dumps(frame["text"], protocol=5))


STEPS: dict[str, Callable[[Any], int]] = {"add a column": add, "fill a column": fill, "drop a column": drop, "a column of strings": text, "sort by one": sort}


def dump_pickle(frame: Any, path: Path) -> None:
    with open(path, "wb") as file:
        pickle.dump(frame, file, protocol=5)


def dump_dill(frame: Any, path: Path) -> None:
    import dill

    with open(path, "wb") as file:
        dill.dump(frame, file)


def dump_parquet(frame: Any, path: Path) -> None:
    frame.to_parquet(path, compression=None)


PEERS = {"pickle": dump_pickle, "dill": dump_dill, "parquet": dump_parquet}


def changed_frame(options: Options) -> list[Result]:
    written: dict[str, list[int]] = {step: [] for step in STEPS}
    changed: dict[str, int] = {}
    ours: list[float] = []
    theirs: dict[str, list[float]] = {peer: [] for peer in PEERS}
    for _ in range(options.repeats):
        namespace = {"frame": build(options.arrays_scale)}
        with folder() as place, chipmink.open(place / "repo", durable=False) as repo:
            repo.save(namespace)
            total = 0.0
            totals = dict.fromkeys(PEERS, 0.0)
            for step, act in STEPS.items():
                changed[step] = act(namespace["frame"])
                began = time.perf_counter()
                written[step].append(repo.save(namespace).report.bytes_written)
                total += time.perf_counter() - began
                for peer, dump in PEERS.items():
                    began = time.perf_counter()
                    dump(namespace["frame"], place / peer)
                    totals[peer] += time.perf_counter() - began
            ours.append(total)
            for peer, spent in totals.items():
                theirs[peer].append(spent)
            if not repo.load()["frame"].equals(namespace["frame"]):
                raise AssertionError("the last version is not what was saved")
    rows = [
        Result(f"frame/{step}", "bytes of what changed", statistics.median(sizes), max(changed[step], LEAST), 1.1, "B") for step, sizes in written.items()
    ]
    return rows + [Result("frame/all five", peer, statistics.median(ours), statistics.median(spent), 1.0, "s", note="no fsync") for peer, spent in theirs.items()]


ROWS: dict[str, Row] = {"arrays/frame": changed_frame}
