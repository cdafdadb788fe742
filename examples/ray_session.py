"""A Ray session that ends and is taken up again, on a cluster of two nodes on this machine: ``python examples/ray_session.py``

The first driver saves and exits. The second one resumes with what is still alive in the cluster. Then the cluster is restarted, and what was
saved by reference explains itself, while what was saved by value is there. Needs ``ray``; takes about a minute, offline.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

FIRST = """
@ray.remote(num_cpus=0)
class Counter:
    def __init__(self):
        self.count = 0
    def up(self):
        self.count += 1
        return self.count

@ray.remote(num_cpus=0)
def squares(n):
    return [i * i for i in range(n)]

counter = Counter.options(name="counter", lifetime="detached", namespace="example").remote()
print("  the counter says", ray.get(counter.up.remote()))
namespace = {"counter": counter, "table": squares.remote(5)}
ray.wait([namespace["table"]])
for mode in ("reference", "pin", "materialize"):
    saved = repo.save(namespace, remote=mode, message=mode)
    print(f"  version {saved}, by {mode}:")
    for line in saved.report.remote:
        print("     ", line)
"""

LATER = """
for version in repo.log()[::-1]:
    loaded = repo.load(version.number)
    print(f"  version {version.number}, by {version.message}:")
    for name, thing in loaded.items():
        if isinstance(thing, chipmink.Placeholder):
            try:
                thing.anything
            except chipmink.RemoteObjectLost as error:
                print(f"      {name}: {error}")
        elif isinstance(thing, ray.ObjectRef):
            print(f"      {name}: live, {ray.get(thing, timeout=10)}")
        elif isinstance(thing, ray.actor.ActorHandle):
            print(f"      {name}: live, and says {ray.get(thing.up.remote(), timeout=10)}")
        else:
            print(f"      {name}: {thing if isinstance(thing, list) else vars(thing)}")
"""


def driver(address: str, place: Path, code: str) -> None:
    """Runs a program of its own that is connected to the cluster."""
    head = f"import warnings; warnings.simplefilter('ignore'); import chipmink, ray; repo = chipmink.open({str(place)!r})\n"
    connect = f"ray.init(address={address!r}, log_to_driver=False, logging_level='ERROR')\n"
    subprocess.run([sys.executable, "-c", head + connect + code], check=True)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="cmr-", dir="/tmp") as folder:
        (Path(folder) / "ray").mkdir()
        # Nothing is left in the home directory, and nothing listens to other machines' programs.
        os.environ.update(HOME=folder, RAY_TMPDIR=folder, RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
        from ray.cluster_utils import Cluster

        place = Path(folder) / "repo"
        nodes = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
        for attempt in ("a cluster", "another cluster, after a restart"):
            cluster = Cluster(initialize_head=True, head_node_args=nodes)
            cluster.add_node(**nodes)
            if attempt == "a cluster":
                print("The first driver saves, and exits:", flush=True)
                driver(cluster.address, place, FIRST)
            print(f"A driver of {attempt} resumes:", flush=True)
            driver(cluster.address, place, LATER)
            cluster.shutdown()


if __name__ == "__main__":
    main()
