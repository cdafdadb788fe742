"""The first save of a large array, against writing its bytes and against the libraries that save arrays.

On both sides the time ends when the bytes are on the disk (``fsync``); a row without that stands apart.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chipmink

from benches.measure import Result, Side, compare, folder
from benches.rows import Options, Row
from benches.rows.regions import GIBIBYTE, MEBIBYTE

BAR = 1.15


def write_plainly(values: Any, path: Path) -> None:
    """``write(2)`` of a mebibyte at a time."""
    with open(path, "wb", buffering=0) as file:
        view = memoryview(values).cast("B")
        for start in range(0, len(view), MEBIBYTE):
            file.write(view[start : start + MEBIBYTE])


def numpy_save(values: Any, path: Path) -> None:
    import numpy

    with open(path, "wb") as file:
        numpy.save(file, values)


def torch_save(values: Any, path: Path) -> None:
    import torch

    torch.save(torch.from_numpy(values), path)


def safetensors_save(values: Any, path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"values": values}, path)


def joblib_save(values: Any, path: Path) -> None:
    import joblib

    joblib.dump(values, path)


PEERS: dict[str, Callable[[Any, Path], None]] = {
    "write(2)": write_plainly,
    "numpy.save": numpy_save,
    "torch.save": torch_save,
    "safetensors": safetensors_save,
    "joblib.dump": joblib_save,
}


def synced(write: Callable[[Any, Path], None], values: Any, path: Path, durable: bool) -> None:
    write(values, path)
    if durable:
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def first_save(peer: str, durable: bool, options: Options) -> list[Result]:
    """An array of floats into a new repository that is open already, and into a new file."""
    import numpy

    if peer == "torch.save":
        try:
            import torch  # noqa: F401 - a large download, which not everybody makes
        except ImportError:
            return []
    values = numpy.random.default_rng(4).random(int(GIBIBYTE * options.arrays_scale) // 8)
    with folder() as place:
        count = 0

        def fresh() -> Path:
            nonlocal count
            count += 1
            return place / str(count)

        def remove(path: Path) -> None:
            path.unlink()

        def close(made: Any) -> None:
            path, repo = made
            repo.close()
            shutil.rmtree(path)

        def open_fresh() -> Any:
            path = fresh()
            return path, chipmink.open(path, durable=durable)

        ours = Side(lambda made: made[1].save({"values": values}), open_fresh, close)
        theirs = Side(lambda path: synced(PEERS[peer], values, path, durable), fresh, remove)
        how = "fsync" if durable else "no fsync"
        return [compare(f"first save of an array/{how}", f"{peer}, {how}", BAR, ours, theirs, repeats=options.repeats)]


ROWS: dict[str, Row] = {f"arrays/first save/{peer}": functools.partial(first_save, peer, True) for peer in PEERS}
ROWS["arrays/first save/no fsync"] = functools.partial(first_save, "write(2)", False)
