"""The printed table, the results files, and the facts of the machine that stand with them."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import math
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

COLUMNS = ("row", "peer", "ours", "peer's", "ratio", "bar", "")


def shown(value: float, unit: str) -> str:
    """A figure with three digits and a unit that fits."""
    if math.isnan(value):
        return "-"
    if unit == "B":
        for name, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
        return f"{value:.0f} B"
    if unit in ("s", "CPU s"):
        suffix = " CPU" if unit == "CPU s" else ""
        for name, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}{suffix}"
    return f"{value:.3g}"


def cells(result: dict[str, Any]) -> list[str]:
    verdict = "-" if math.isinf(result["bar"]) else "pass" if result["passed"] else "FAIL"
    ratio = "-" if math.isnan(result["ratio"]) else f"{result['ratio']:.3f}" if result["ratio"] < 10 else f"{result['ratio']:.1f}"
    line = [result["row"], result["peer"], shown(result["ours"], result["unit"]), shown(result["theirs"], result["unit"]), ratio]
    bar = "-" if math.isinf(result["bar"]) else f"{result['bar']:g}"
    return [*line, bar, verdict + (f" ({result['note']})" if result["note"] else "")]


def markdown(results: list[dict[str, Any]], machine: dict[str, Any]) -> str:
    """The whole results file."""
    lines = ["# Measurements of chipmink", "", f"`{machine['command']}`, {machine['when']}", ""]
    lines += [f"* {name}: {value}" for name, value in machine.items() if name not in ("command", "when")]
    lines += ["", "Ratios are ours to the peer's: below the bar passes. Times are medians; see `benches/` for what each row does.", ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(cells(result)) + " |" for result in results]
    judged = [result for result in results if not math.isinf(result["bar"])]
    lines += ["", f"{sum(result['passed'] for result in judged)} of {len(judged)} rows pass."]
    return "\n".join(lines) + "\n"


def machine_facts(command: str) -> dict[str, Any]:
    """What a reader needs to judge the figures."""
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "?")
    memory = int(next(line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))) >> 20
    versions = {}
    for package in ("chipmink", "numpy", "pandas", "networkx", "scikit-learn", "dill", "cloudpickle", "torch", "safetensors"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "-"
    try:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip()
    except OSError:
        commit = ""
    return {
        "command": command,
        "when": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit or "?",
        "processor": f"{model}, {os.cpu_count()} logical cores",
        "memory": f"{memory} GiB",
        "load before": " ".join(f"{value:.1f}" for value in os.getloadavg()),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "packages": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def write(folder: Path, results: list[dict[str, Any]], machine: dict[str, Any]) -> Path:
    """Writes ``<date>.md`` and ``<date>.json``; a second run of a day replaces the first."""
    folder.mkdir(parents=True, exist_ok=True)
    name = machine["when"][:10]
    (folder / f"{name}.json").write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")
    path = folder / f"{name}.md"
    path.write_text(markdown(results, machine))
    return path
