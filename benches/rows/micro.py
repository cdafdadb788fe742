"""Whole graphs at once: first save, save of nothing new, full load, against C pickle of protocol 5.

The first save goes into a new repository that is open already, without fsync, against ``pickle.dump`` to a new file,
without fsync. The load is into a repository object opened for it, so that nothing is cached, and verifies every digest.
"""

from __future__ import annotations

import functools
import pickle
from pathlib import Path
from typing import Any

import chipmink

from benches.measure import Result, Side, bytes_in, compare, folder, second_thread
from benches.rows import Options, Row
from benches.workloads.micro import MICRO

FIRST_BAR = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0, "e": 1.5}
UNCHANGED_BAR = {"a": 0.2, "b": 0.2, "c": 0.2, "d": 0.2, "e": 0.5}
LOAD_BAR = {"a": 1.0, "b": 1.15, "c": 1.0, "d": 1.0, "e": 1.5}


def _dump_to(path: Path, value: Any) -> None:
    with open(path, "wb") as file:
        pickle.dump(value, file, protocol=5)


def first_save(which: str, options: Options, threads: bool) -> list[Result]:
    namespace = {"x": MICRO[which]()}
    with folder() as place, second_thread(threads):
        count = 0

        def fresh() -> Path:
            nonlocal count
            count += 1
            return place / str(count)

        def open_fresh() -> Any:
            return chipmink.open(fresh(), durable=False)

        ours = Side(run=lambda repo: repo.save(namespace), prepare=open_fresh, finish=lambda repo: repo.close())
        theirs = Side(run=lambda path: _dump_to(path, namespace), prepare=fresh)
        result = compare(_name("first save", which, threads), "pickle.dump to a file", FIRST_BAR[which], ours, theirs, repeats=options.repeats)
        sizes = sorted(bytes_in(path) if path.is_dir() else path.stat().st_size for path in (place / "1", place / "2"))
        result.note = f"{sizes[0] / 1e6:.1f} and {sizes[1] / 1e6:.1f} MB"
    return [result]


def unchanged(which: str, options: Options, threads: bool) -> list[Result]:
    namespace = {"x": MICRO[which]()}
    with folder() as place, second_thread(threads), chipmink.open(place / "repo", durable=False) as repo:
        repo.save(namespace)
        repo.save(namespace)
        before = bytes_in(place)
        ours = Side(run=lambda _: repo.save(namespace))
        theirs = Side(run=lambda _: pickle.dumps(namespace, protocol=5))
        result = compare(_name("unchanged save", which, threads), "pickle.dumps", UNCHANGED_BAR[which], ours, theirs, repeats=options.repeats)
        result.note = f"{(bytes_in(place) - before) // options.repeats} bytes stored each"
    return [result]


def full_load(which: str, options: Options, threads: bool) -> list[Result]:
    value = MICRO[which]()
    with folder() as place, second_thread(threads):
        with chipmink.open(place / "repo", durable=False) as repo:
            number = int(repo.save({"x": value}))
        _dump_to(place / "pickle", {"x": value})
        del value

        def read_pickle(_: Any) -> Any:
            with open(place / "pickle", "rb") as file:
                return pickle.load(file)

        ours = Side(
            run=lambda opened: opened.load(number),
            prepare=lambda: chipmink.open(place / "repo", durable=False),
            finish=lambda opened: opened.close(),
        )
        result = compare(_name("full load", which, threads), "pickle.load of a file", LOAD_BAR[which], ours, Side(run=read_pickle), repeats=options.repeats)
    return [result]


def _name(kind: str, which: str, threads: bool) -> str:
    return f"{kind}/{which}" + ("/second thread" if threads else "")


ROWS: dict[str, Row] = {}
for _kind, _measure in (("first save", first_save), ("unchanged save", unchanged), ("full load", full_load)):
    for _which in MICRO:
        ROWS[_name(_kind, _which, False)] = functools.partial(_measure, _which, threads=False)
    ROWS[_name(_kind, "b", True)] = functools.partial(_measure, "b", threads=True)
