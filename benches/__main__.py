"""Runs the measurements: ``python -m benches [--only PART ...] [--repeats 5] [--lists-scale 0.1] [--arrays-scale 1] [--training-scale 1]``.

Each row runs in a process of its own. Prints the table as it grows, and writes ``benches/results/<date>.md`` and
``.json`` unless only a part was asked for. Exit status 1 if a row fails to run; a missed bar is a figure, not an error.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benches import rows as rows_package
from benches import table

RESULTS = Path(__file__).parent / "results"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="PART", help="rows whose names contain one of these")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--lists-scale", type=float, default=0.1, help="1 is the paper's scale: some 1.4 GB of memory, once instead of five times")
    parser.add_argument("--arrays-scale", type=float, default=1.0, help="1 takes some 2 GB of memory and 6 GB of disk")
    parser.add_argument("--training-scale", type=float, default=1.0, help="1 takes some 12 GB of memory and 30 GB of disk; needs torch")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    parser.add_argument("--out", type=Path, help="write the results there, also for a part")
    parser.add_argument("--child", nargs=2, metavar=("ROW", "FILE"), help=argparse.SUPPRESS)
    return parser.parse_args()


def run_row(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row in a process of its own."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, "-m", "benches", "--child", name, file.name]
        command += ["--repeats", str(options.repeats), "--lists-scale", str(options.lists_scale), "--arrays-scale", str(options.arrays_scale)]
        command += ["--training-scale", str(options.training_scale)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise RuntimeError(f"{name}: status {done.returncode}\n{done.stderr[-3000:]}")
        return json.loads(Path(file.name).read_text())


def main() -> int:
    options = parse()
    rows = rows_package.rows()
    if options.child:
        name, file = options.child
        results = rows[name](rows_package.Options(options.repeats, options.lists_scale, options.arrays_scale, options.training_scale))
        Path(file).write_text(json.dumps([result.as_json() for result in results]))
        return 0
    chosen = [name for name in rows if not options.only or any(part in name for part in options.only)]
    if options.list:
        print("\n".join(chosen))
        return 0
    machine = table.machine_facts(" ".join(["python -m benches", *sys.argv[1:]]))
    widths = (52, 26, 14, 14, 8, 6, 4)
    print("  ".join(title.ljust(width) for title, width in zip(table.COLUMNS, widths, strict=True)))
    found: list[dict[str, Any]] = []
    broken = []
    for name in chosen:
        try:
            results = run_row(name, options)
        except RuntimeError as error:
            broken.append(name)
            print(error, file=sys.stderr)
            continue
        found += results
        for result in results:
            print("  ".join(cell.ljust(width) for cell, width in zip(table.cells(result), widths, strict=True)), flush=True)
    judged = [result for result in found if not math.isinf(result["bar"])]
    passed = sum(result["passed"] for result in judged)
    print(f"\n{passed} of {len(judged)} rows pass" + (f"; could not run: {', '.join(broken)}" if broken else ""))
    if options.out or not options.only:
        print(f"written to {table.write(options.out or RESULTS, found, machine)}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
