"""Runs the session, saves after every cell in four ways, prints what that cost, and loads an old version back.

Usage: ``python -m examples.demo [--out demo-output]``, or ``make demo``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import numpy as np

from examples.demo.cells import CELLS
from examples.demo.savers import savers

#: The version and the variable that are loaded at the end: far back, and small beside the rest.
OLD_CELL, OLD_NAME = 10, "notes"


def bytes_in(place: Path) -> int:
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


def size(count: float) -> str:
    return f"{count / 1e6:.1f} MB"


def run(place: Path) -> tuple[dict[str, Any], dict[str, list[float]], dict[str, list[int]], dict[str, list[int]], Any]:
    """Runs all cells; seconds and bytes of every save, version numbers, and a copy of what is loaded later."""
    session = types.ModuleType("__main__")
    sys.modules["__main__"] = session  # so that functions of the session count as the session's own
    ways = savers(place)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    stored: dict[str, list[int]] = {name: [] for name in ways}
    versions: dict[str, list[int]] = {name: [] for name in ways}
    kept = None
    for number, (title, code) in enumerate(CELLS, 1):
        exec(compile(code, f"<cell {number}>", "exec"), vars(session))
        line = []
        for name, way in ways.items():
            began = time.perf_counter()
            versions[name].append(way.save(vars(session)))
            seconds[name].append(time.perf_counter() - began)
            stored[name].append(bytes_in(place / name))
            line.append(f"{name} {seconds[name][-1] * 1e3:7.1f} ms")
        print(f"  cell {number:2}  {title:42} {'   '.join(line)}", flush=True)
        if number == OLD_CELL:
            kept = repr(vars(session)[OLD_NAME])
    return ways, seconds, stored, versions, kept


def time_to_load(way: Any, version: int) -> float:
    samples = []
    for _ in range(5):
        began = time.perf_counter()
        way.load(version, OLD_NAME)
        samples.append(time.perf_counter() - began)
    return statistics.median(samples)


def draw(stored: dict[str, list[int]], path: Path) -> None:
    """Bytes on disk over the cells."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, sizes in stored.items():
        axes.plot(range(1, len(sizes) + 1), [each / 1e6 for each in sizes], label=name, linewidth=3 if name == "chipmink" else 1.5)
    axes.set_xlabel("cell")
    axes.set_ylabel("MB on disk, all versions")
    axes.set_title("One version after every cell")
    axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def compare_versions(way: Any, versions: list[int], kept: str, session: dict[str, Any]) -> None:
    """Loads an old version and shows that it is what the session had then, and that the present is untouched."""
    repo = way.repo
    old = repo.load(versions[OLD_CELL - 1])
    equal = repr(old[OLD_NAME]) == kept
    shared = all(any(note is each for each in old["notes"]) for note in old["faint"])
    print(f"\nVersion of cell {OLD_CELL}, loaded now: {len(old)} variables; `{OLD_NAME}` equals what it was then: {equal}")
    print(f"`faint` still holds the very dicts of `notes`: {shared}")
    print(f"note 5 then: {old['notes'][5]['label']}, now: {session['notes'][5]['label']}")
    last = repo.load(versions[-1])
    same = np.array_equal(last["best"].predict(last["X_test"][:200]), session["best"].predict(session["X_test"][:200]))
    print(f"The best model of the last version predicts as the live one: {bool(same)}")
    diff = repo.diff(versions[OLD_CELL - 1], versions[-1])
    print(f"Between the two: {len(diff.added)} variables added, {len(diff.removed)} removed, {len(diff.changed)} changed ({', '.join(sorted(diff.changed)[:6])})")
    if not (equal and shared and same):
        raise SystemExit("the loaded version is not what was saved")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="where the picture goes")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="chipmink-demo-") as folder:
        print(f"A session of {len(CELLS)} cells on scikit-learn's digits; a version after every cell, in four ways:\n")
        ways, seconds, stored, versions, kept = run(Path(folder))
        print(f"\n{'':14}{'on disk':>10}{'all saves':>12}{'median save':>14}{'load `' + OLD_NAME + '` of cell ' + str(OLD_CELL):>28}   not saved")
        for name, way in ways.items():
            loading = time_to_load(way, versions[name][OLD_CELL - 1])
            left_out = ", ".join(sorted(way.left_out)) or "-"
            figures = f"{size(stored[name][-1]):>10}{sum(seconds[name]):10.2f} s{statistics.median(seconds[name]) * 1e3:11.1f} ms{loading * 1e3:25.1f} ms"
            print(f"{name:14}{figures}   {left_out}")
        compare_versions(ways["chipmink"], versions["chipmink"], kept, vars(sys.modules["__main__"]))
        ways["chipmink"].repo.close()
    draw(stored, options.out / "bytes.png")
    print(f"\nBytes over cells: {options.out / 'bytes.png'}")


if __name__ == "__main__":
    main()
