"""Checkpoints of PyTorch training runs, against ``torch.save``, ``torch.distributed.checkpoint`` and safetensors.

``--training-scale`` makes the runs smaller for small machines; at 1 the dense run has 200 million parameters, 2.4 GB with the state of
Adam, and needs some 12 GB of memory. Peers sync what they write inside the timed section, as we do, but where the row says otherwise.
"""

from __future__ import annotations

import functools
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benches.measure import Result, bytes_in, folder
from benches.rows import Options, Row, restores
from benches.rows.training_peers import (
    OTHERS,
    PINNED,
    DcpAsync,
    DcpPinned,
    DcpSave,
    Ours,
    Peer,
    Safetensors,
    TorchSave,
    tried,
    why,
    why_not,
)
from benches.workloads.training import PARAMETERS, Training

#: Steps of one repetition, each with a save.
STEPS = 3
CHUNK = 64 << 10


def run(training: Training, peer: Peer) -> tuple[float, float, int]:
    """Trains for some steps, each with a save: seconds until all is on the disk, seconds for which training stood still, bytes."""
    stall = 0.0
    began = time.perf_counter()
    for _ in range(STEPS):
        training.step()
        before = time.perf_counter()
        peer.save()
        stall += time.perf_counter() - before
    peer.finish()
    return time.perf_counter() - began, stall / STEPS, peer.clear()


def alternated(training: Training, sides: dict[str, Peer], options: Options) -> dict[str, list[tuple[float, float, int]]]:
    """What `run` finds in each repetition, in which each side gets its turn; then they are closed."""
    found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in sides}
    for side in sides.values():
        # What is made once (files, segments, buffers) is not part of any repetition.
        side.save()
        side.finish()
        side.clear()
    for repetition in range(min(3, options.repeats)):
        names = list(sides) if repetition % 2 == 0 else list(reversed(sides))
        for name in names:
            found[name].append(run(training, sides[name]))
    for side in sides.values():
        side.close()
    return found


def dense(durable: bool, options: Options) -> list[Result]:
    """Every element changes in every step."""
    training = Training(int(PARAMETERS * options.training_scale))
    with folder() as place:
        peers: dict[str, Peer] = {
            "torch.save": TorchSave(training, place / "torch", durable),
            "DCP save": DcpSave(training, place / "dcp", durable),
            "DCP async_save": DcpAsync(training, place / "async", durable),
            "safetensors": Safetensors(training, place / "safetensors", durable),
        }
        absent = {name: tried(name, place / "tried", durable) for name in OTHERS}
        if not absent[PINNED]:
            peers[PINNED] = DcpPinned(training, place / "pinned", durable)
        judged = list(peers)
        ours = Ours(training, place / "ours", durable)
        staged = Ours(training, place / "staged", durable, staged=True) if durable else None
        sides = {**peers, "ours": ours, **({"staged": staged} if staged else {})}
        found = alternated(training, sides, options)
        for name, (_, kind) in OTHERS.items():
            if not absent[name] and name not in judged:
                # One after another: each holds a copy of the state, and its threads and processes must not be in the others' way.
                try:
                    found |= alternated(training, {name: kind(training, place / "other", durable)}, options)
                except Exception as error:
                    absent[name] = why(error)
                shutil.rmtree(place / "other", ignore_errors=True)

    def median(name: str, of: int) -> float:
        return statistics.median(each[of] for each in found[name])

    best = min(median(name, 0) for name in judged)
    label = f"training, dense{'' if durable else ', no fsync'}"
    note = f"{STEPS} steps with a save each, {training.state_bytes / 1e9:.2f} GB"
    rows = []
    for side in ("ours", "staged") if durable else ("ours",):
        kind = "" if side == "ours" else ", staged"
        for name in judged:
            is_best = median(name, 0) == best
            bar = 1.0 if is_best else math.inf
            what = "the best" if is_best else "not the best"
            rows.append(Result(f"{label}{kind}/time", name, median(side, 0), median(name, 0), bar, "s", note=f"{note}; {what}"))
        for name, (package, _) in ((name, of) for name, of in OTHERS.items() if name not in judged):
            theirs = math.nan if absent[name] else median(name, 0)
            rows.append(Result(f"{label}{kind}/time", name, median(side, 0), theirs, math.inf, "s", note=why_not(package, absent[name])))
        least = min(median(name, 2) for name in judged)
        rows.append(Result(f"{label}{kind}/bytes", "the fewest of all", median(side, 2), least, 1.02, "B"))
        if durable:
            stalls = (median(side, 1), median("DCP async_save", 1))
            rows.append(Result(f"{label}{kind}/stall", "DCP async_save", *stalls, 1.0, "s", note="a save"))
    return rows


def hash_seconds(training: Training) -> float:
    """Time to hash what is frozen, by the chunk."""
    import xxhash

    frozen = [each for each in training.model if not each.requires_grad]
    began = time.perf_counter()
    for parameter in frozen:
        view = memoryview(parameter.detach().numpy()).cast("B")
        for start in range(0, len(view), CHUNK):
            xxhash.xxh3_128_digest(view[start : start + CHUNK])
    return time.perf_counter() - began


def write_seconds(file_path: Path, size: int) -> float:
    """Time to write so many bytes to a new file and to sync it. It stays, as a checkpoint does: the memory of a file that is removed
    is soon that of the next one, which a machine whose host takes memory back writes several times as fast as fresh memory."""
    data = os.urandom(1 << 20)
    began = time.perf_counter()
    with open(file_path, "xb", buffering=0) as file:
        for _ in range(0, size, len(data)):
            file.write(data)
        os.fsync(file.fileno())
    return time.perf_counter() - began


def frozen(share: float, options: Options) -> list[Result]:
    """Only some parameters learn."""
    training = Training(int(PARAMETERS * options.training_scale), share)
    seconds, written, plain, least = [], [], [], []
    with folder() as place:
        ours, torch_save = Ours(training, place / "ours", True), TorchSave(training, place / "torch", True)
        for _ in range(3):
            training.step()
            ours.save()
        for repeat in range(options.repeats):
            training.step()
            before = bytes_in(ours.place)
            began = time.perf_counter()
            ours.save()
            seconds.append(time.perf_counter() - began)
            written.append(bytes_in(ours.place) - before)
            # By turns: what the disk takes to sync changes within a minute.
            least.append(1.2 * hash_seconds(training) + 1.15 * write_seconds(place / f"plain-{repeat}", training.trained_bytes))
        # Not between those: who syncs next waits for the removal of the large files.
        for _ in range(options.repeats):
            training.step()
            began = time.perf_counter()
            torch_save.save()
            plain.append(time.perf_counter() - began)
            torch_save.clear()
        ours.close()
    label = f"training, {100 * training.trained_count / len(training.model):.1f} % of the parameters learn"
    return [
        Result(f"{label}/bytes", "what learns, with its state", max(written), training.trained_bytes, 1.1, "B", note="a save"),
        Result(f"{label}/time", "hash frozen, write the rest", statistics.median(seconds), statistics.median(least), 1.0, "s", note="1.2 times the one and 1.15 times the other"),
        Result(f"{label}/time", "torch.save", statistics.median(seconds), statistics.median(plain), 1.0, "s"),
    ]


def kills(options: Options) -> list[Result]:
    """A run is killed at random moments, and compared bit by bit with one in peace."""
    count = max(2, round(50 * min(1.0, options.training_scale)))
    script = Path(__file__).parents[2] / "tests" / "python" / "training_kills.py"
    done = subprocess.run([sys.executable, str(script), "--kills", str(count)], stdout=subprocess.PIPE, text=True)
    differing = [int(line.split(", ")[-1].split()[0]) for line in done.stdout.splitlines() if "losses differ" in line]
    if not differing or (done.returncode and not any(differing)):
        raise AssertionError(done.stdout)
    result = Result(f"training, {count} times kill -9", "losses that differ", sum(differing), count, 0.0, "")
    result.value = float(sum(differing))
    return [result]


def sharded(options: Options) -> list[Result]:
    """Four ranks save a model that is sharded over them; two and one load it."""
    from benches.workloads import sharded as work

    width = max(64, int(4000 * options.training_scale**0.5))
    with folder() as place:
        saved = work.run(place, 4, work.save, width)
        size = bytes_in(place / "runs")
        for world in (2, 1):
            for found in work.run(place, world, work.load, width):
                if found != saved[0]:
                    raise AssertionError(f"what {world} ranks load is not what four have saved")
    whole = sum(length for _, length in saved[0].values())
    return [Result("training, 4 ranks save, 2 and 1 load/bytes", "one copy of the state", size, whole, 1.02, "B", note="equal on both")]


ROWS: dict[str, Row] = {
    "training/dense": functools.partial(dense, True),
    "training/dense, no fsync": functools.partial(dense, False),
    "training/frozen": functools.partial(frozen, 0.05),
    "training/adapters": functools.partial(frozen, 0.005),
    **restores.ROWS,
    "training/kills": kills,
    "training/sharded": sharded,
}
