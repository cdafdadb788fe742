"""What lives in a Ray cluster of two nodes on this machine: ten thousand references, and values that are saved where they lie.

Only where Ray is installed. The cluster has a folder of its own, and ends with the row.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chipmink

from benches.measure import Result, Side, bytes_in, compare, folder, resident_bytes
from benches.rows import Options, Row

REFERENCES = 10_000
#: Seconds that a save of unchanged references may take.
UNCHANGED = 0.020
#: Objects that are saved by value, and the bytes of each at full scale.
OBJECTS = 8
OBJECT_BYTES = 256 << 20
#: Bytes by which the memory of the saving program may grow.
GROWTH = 64 << 20


@contextlib.contextmanager
def cluster(store_bytes: int) -> Iterator[Any]:
    """This program becomes a driver of a cluster of two nodes, of which only the second runs tasks that ask for ``second``."""
    place = tempfile.mkdtemp(prefix="cmr-", dir="/tmp")
    (Path(place) / "ray").mkdir()
    os.environ.update(HOME=place, RAY_TMPDIR=place, RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
    import ray
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 2, "object_store_memory": max(store_bytes, 80 << 20), "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={**options, "resources": {"first": 100}})
    made.add_node(**options, resources={"second": 100})
    made.wait_for_nodes()
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield ray
    finally:
        ray.shutdown()
        made.shutdown()
        shutil.rmtree(place, ignore_errors=True)


def references(options: Options) -> list[Result]:
    with cluster(0) as ray:
        import ray.cloudpickle

        refs = [ray.put(number) for number in range(REFERENCES)]
        places = contextlib.ExitStack()

        def opened() -> chipmink.Repository:
            place = places.enter_context(folder())
            return places.enter_context(chipmink.open(place / "repo", durable=False))

        with places:
            first = compare(
                "remote/10,000 references",
                "ray.cloudpickle",
                2.0,
                Side(lambda repo: repo.save({"refs": refs}), opened),
                Side(lambda _: ray.cloudpickle.dumps(refs)),
                repeats=options.repeats,
                note="no fsync",
            )
            repo = opened()
            repo.save({"refs": refs})
            seconds = []
            for _ in range(options.repeats):
                began = time.perf_counter()
                repo.save({"refs": refs})
                seconds.append(time.perf_counter() - began)
    again = Result("remote/10,000 references, unchanged", "20 ms", statistics.median(seconds), UNCHANGED, 1.0, "s", note="no fsync")
    return [first, again]


class _Peak:
    """The most memory that this program has in RAM while something runs, beyond what it had before."""

    def __enter__(self) -> _Peak:
        self.before = self.most = resident_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._done.wait(0.01):
            self.most = max(self.most, resident_bytes())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.growth = self.most - self.before


def materialized(options: Options) -> list[Result]:
    length = max(int(OBJECT_BYTES * options.arrays_scale), 8 << 20)
    total = OBJECTS * length
    with cluster(total * 3 // 4) as ray, folder() as place:

        def make(seed: int, version: int) -> Any:
            import numpy

            data = numpy.random.default_rng(seed).integers(0, 256, length, dtype=numpy.uint8)
            # One hundredth of each object, in one piece.
            data[: length // 100 * version] ^= 255
            return data

        def spread(version: int) -> list[Any]:
            task = ray.remote(num_cpus=0.1)(make)
            refs = [task.options(resources={("first", "second")[i % 2]: 0.01}).remote(i, version) for i in range(OBJECTS)]
            ray.wait(refs, num_returns=OBJECTS, fetch_local=False)
            return refs

        refs = spread(0)
        with chipmink.open(place / "repo", durable=False) as repo:
            began = time.perf_counter()
            with _Peak() as peak:
                repo.save({"refs": refs}, remote="materialize")
            ours = time.perf_counter() - began
            began = time.perf_counter()
            with open(place / "pickle", "wb") as file:
                for ref in refs:
                    pickle.dump(ray.get(ref), file, protocol=5)
            theirs = time.perf_counter() - began
            (place / "pickle").unlink()
            del refs
            time.sleep(2)
            refs = spread(1)
            before = bytes_in(place / "repo")
            repo.save({"refs": refs}, remote="materialize")
            written = bytes_in(place / "repo") - before
    gibibytes = f"{total / (1 << 30):.2g} GiB on two nodes"
    return [
        Result(f"remote/materialize {gibibytes}", "ray.get and pickle", ours, theirs, 1.0, "s", note="no fsync"),
        Result("remote/materialize, memory of the driver", "64 MiB", peak.growth, GROWTH, 1.0, "B"),
        Result("remote/materialize, 1 % changed", "1.2 % of the bytes", written, 0.012 * total, 1.0, "B"),
    ]


ROWS: dict[str, Row] = {}
if importlib.util.find_spec("ray") is not None:
    ROWS.update({"remote/references": references, "remote/materialize": materialized})
