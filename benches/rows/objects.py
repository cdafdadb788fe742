"""Buckets: a version that goes there and comes back, beside object_store alone; what a second push moves.

The server is moto, on this machine; ``far`` is the memory of the measuring process behind a wire of 1 GB/s with 20 ms to the
first byte. What talks to them is ``crates/chipmink-store/examples/far_speed.rs``, which says how; it is built when it is needed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import chipmink

from benches.measure import Result, bytes_in, folder
from benches.rows import Options, Row
from benches.rows.regions import MEBIBYTE

ROOT = Path(__file__).parents[2]
KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": "us-east-1"}
#: Memory beside what is saved or loaded.
MEMORY_MAX = 256 * MEBIBYTE
#: Nine tenths of the speed.
SLOWER_MAX = 1 / 0.9
#: Bytes beside those of the session that the first version has.
GONE = 200_000_000


def far_speed(place: str, options: Options, repeats: int) -> list[dict[str, Any]]:
    """What the Rust program prints."""
    build = ["cargo", "build", "--quiet", "--release", "-p", "chipmink-store", "--example", "far_speed"]
    subprocess.run(build, cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    mebibytes = max(64, int(1024 * options.arrays_scale))
    command = [str(target / "release" / "examples" / "far_speed"), place, str(mebibytes), str(repeats)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **KEYS})
    return [json.loads(line) for line in done.stdout.splitlines()]


def results(name: str, found: list[dict[str, Any]]) -> list[Result]:
    peers = {"push": "object_store, upload and download", "pull": "object_store, to a file"}
    rows = []
    for row in found:
        what = row["what"]
        peer = peers.get(what, "object_store")
        note = {"push": "reads again what it wrote", "pull": "to a folder; both read again what they wrote"}.get(what, "")
        rows.append(Result(f"objects/{name}/{what}", peer, row["ours"], row["theirs"], SLOWER_MAX, "s", note=note))
        if row["memory"] is not None:
            rows.append(Result(f"objects/{name}/{what}, memory", "256 MiB", row["memory"], MEMORY_MAX, 1.0, "B"))
    return rows


def to_a_server(options: Options) -> list[Result]:
    """A gibibyte to a server of this machine and back; once, since moto takes three minutes for it."""
    sys.path.insert(0, str(ROOT / "tests" / "python"))
    from buckets import Moto

    server = Moto()
    try:
        server.make_bucket("bucket")
        return results("server", far_speed(f"s3://bucket?endpoint={server.endpoint}", options, repeats=1))
    finally:
        server.stop()


def to_far_memory(options: Options) -> list[Result]:
    """A gibibyte over a wire and back."""
    return results("far", far_speed("far", options, options.repeats))


def second_push(_options: Options) -> list[Result]:
    """A session of which a hundredth has changed, pushed again; and again when a sweep has written the source anew."""
    import numpy

    random = numpy.random.default_rng(12)
    state: dict[str, Any] = {f"table{i}": [[j, f"row {i} {j}", j / 7] for j in range(200)] for i in range(200)}
    state["weights"] = random.standard_normal(16_000_000)
    rows = []
    restic = os.environ.get("RESTIC") or shutil.which("restic")
    with folder() as path, chipmink.open(path / "session", durable=False) as repo:
        # What goes with the first version shares its packs with what stays.
        repo.save({**state, "gone": random.bytes(GONE)})
        repo.save(state)

        def change() -> None:
            for i in random.choice(200, 2, replace=False):
                state[f"table{i}"][0][1] = str(random.random())
            at = int(random.integers(0, 15_800_000))
            state["weights"][at : at + 160_000] = random.standard_normal(160_000)
            repo.save(state)

        first = repo.push(path / "backup").bytes - GONE
        backed_up = backup(restic, path) if restic else 0
        for what in ("second push", "second push, source swept"):
            if "swept" in what:
                moved = repo.sweep(keep_last=1, grace="0s").moved_bytes
                assert moved > 100_000_000, moved
            change()
            pushed = repo.push(path / "backup").bytes
            rows.append(Result(f"objects/{what}", "1 % of the first", pushed, 0.01 * first, 1.2, "B"))
            if restic:
                before, backed_up = backed_up, backup(restic, path)
                rows.append(Result(f"objects/{what}", "restic", pushed, backed_up - before, 1.0, "B", note="restic copies the folder"))
        with chipmink.open(path / "backup") as copy:
            assert copy.verify().ok
    return rows


def backup(restic: str, path: Path) -> int:
    """What restic's repository takes when it has backed up the session's folder."""
    environment = {**os.environ, "RESTIC_PASSWORD": "bench", "RESTIC_REPOSITORY": str(path / "restic")}
    if not (path / "restic").exists():
        subprocess.run([restic, "init", "--quiet"], check=True, env=environment)
    subprocess.run([restic, "backup", "--quiet", str(path / "session")], check=True, env=environment)
    return bytes_in(path / "restic")


ROWS: dict[str, Row] = {"objects/server": to_a_server, "objects/far": to_far_memory, "objects/second push": second_push}
