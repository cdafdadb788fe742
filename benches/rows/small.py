"""What little things cost: a save of nothing, and one small variable of a large version."""

from __future__ import annotations

import functools
import os
import pickle
import statistics
from pathlib import Path
from typing import Any

import chipmink

from benches.measure import Result, Side, bytes_in, bytes_read, compare, folder, second_thread
from benches.rows import Options, Row
from benches.workloads.micro import f_arrays

SAVES = 60
NAMESPACES = {
    "10,000 ints": lambda: {f"n{i}": i for i in range(10_000)},
    "10,000 lists of ten": lambda: {f"n{i}": list(range(i, i + 10)) for i in range(10_000)},
}


def empty_save(which: str, options: Options, threads: bool) -> list[Result]:
    """Nothing accessed, nothing changed: against two small files made and renamed, and a pass over the dict."""
    namespace = NAMESPACES[which]()
    with folder() as place, second_thread(threads), chipmink.open(place / "repo", durable=False) as repo:
        repo.save(namespace)
        repo.save(namespace)
        count = 0

        def two_files(_: Any) -> None:
            nonlocal count
            count += 1
            for _name, _value in namespace.items():
                pass
            for part in "ab":
                with open(place / "new", "wb", buffering=0) as file:
                    file.write(bytes(1024))
                os.rename(place / "new", place / f"{part}{count}")

        sizes = [bytes_in(place / "repo")]

        def save(_: Any) -> None:
            repo.save(namespace, accessed=[])

        def note_size(_: Any) -> None:
            sizes.append(bytes_in(place / "repo"))

        name = f"empty save/{which}" + ("/second thread" if threads else "")
        # Single saves take microseconds: many of them make one sample of the median.
        result = compare(name, "two files and a pass", 5.0, Side(run=save, finish=note_size), Side(run=two_files), repeats=SAVES)
        grown = sorted(later - earlier for earlier, later in zip(sizes, sizes[1:], strict=False))
        result.samples = {}
        result.note = f"median of {SAVES}"
        # A sixteenth of the saves merges indexes, and some write the state of the log; these stand apart.
        usual = grown[: len(grown) * 7 // 8]
        apart = f"the largest of {len(usual)}; others up to {grown[-1]} B"
        return [result, Result(f"{name}/bytes", "1 KiB", usual[-1], 1024, 1.0, "B", note=apart)]


def small_variable(options: Options, threads: bool) -> list[Result]:
    """One list of a hundred numbers of a version of 1 GB, against loading the pickle of the whole."""
    with folder() as place, second_thread(threads):
        namespace: dict[str, Any] = {**f_arrays(), "small": list(range(100))}
        own_bytes = len(pickle.dumps(namespace["small"], protocol=5))
        with chipmink.open(place / "repo", durable=False) as repo:
            number = int(repo.save(namespace))
        with open(place / "pickle", "wb") as file:
            pickle.dump(namespace, file, protocol=5)
        del namespace

        def read_pickle(_: Any) -> Any:
            with open(place / "pickle", "rb") as file:
                return pickle.load(file)

        read: list[int] = []

        def load(opened: Any) -> Any:
            before = bytes_read()
            value = opened.load(number, names=["small"])
            read.append(bytes_read() - before)
            return value

        ours = Side(
            run=load,
            prepare=lambda: chipmink.open(place / "repo", durable=False),
            finish=lambda opened: opened.close(),
        )
        name = "small variable of 1 GB" + ("/second thread" if threads else "")
        result = compare(name, "pickle.load of all", 0.01, ours, Side(run=read_pickle), repeats=options.repeats)
        return [result, Result(f"{name}/bytes read", "its bytes + 64 KiB", statistics.median(read), own_bytes + 65_536, 1.0, "B")]


ROWS: dict[str, Row] = {}
for _which in NAMESPACES:
    ROWS[f"empty save/{_which}"] = functools.partial(empty_save, _which, threads=False)
ROWS["empty save/10,000 ints/second thread"] = functools.partial(empty_save, "10,000 ints", threads=True)
ROWS["small variable"] = functools.partial(small_variable, threads=False)
ROWS["small variable/second thread"] = functools.partial(small_variable, threads=True)
