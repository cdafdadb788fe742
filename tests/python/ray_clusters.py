"""Real Ray clusters of several nodes on this machine, each in a process of its own, and programs connected to them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import chipmink
from buckets import free_port
from drivers import Driver

_PACKAGE = str(Path(chipmink.__file__).parents[1])
#: Objects of tests are small, and many programs share the machine.
STORE_BYTES = 80 << 20


class RayCluster:
    """A head node and another, which a process of their own has started."""

    def __init__(self, nodes: int = 2, has_clients: bool = False) -> None:
        # Short: Ray puts sockets there, whose paths may have 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="cmr-", dir="/tmp"))
        self.environment = {
            "HOME": str(self.folder),
            "RAY_TMPDIR": str(self.folder),
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DISABLE_IMPORT_WARNING": "1",
            "RAY_DEDUP_LOGS": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "PYTHONPATH": os.pathsep.join([_PACKAGE, *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        (self.folder / "ray").mkdir()
        #: Where programs of Ray Client connect, if any may.
        self.client_port = free_port() if has_clients else None
        self._keeper: Driver | None = None
        self._drivers: list[Driver] = []
        self.start(nodes)

    def start(self, nodes: int = 2) -> None:
        """Starts the cluster; after ``stop`` it is another one."""
        self._keeper = Driver(self.environment)
        clients = {} if self.client_port is None else {"ray_client_server_port": self.client_port}
        self.address = self._keeper.run(
            f"""
            from ray.cluster_utils import Cluster
            common = dict(object_store_memory={STORE_BYTES}, num_cpus=2, include_dashboard=False)
            cluster = Cluster(initialize_head=True, head_node_args=dict(common, resources={{"first": 10}}, **{clients}))
            others = [cluster.add_node(resources={{"second": 10}}, **common) for _ in range({nodes - 1})]
            cluster.wait_for_nodes()
            answer = cluster.address
            """
        )

    def lose_node(self) -> None:
        """The last node that was added is killed."""
        assert self._keeper is not None
        self._keeper.run("cluster.remove_node(others.pop(), allow_graceful=False)")

    def add_node(self) -> None:
        """A node in the place of one that was lost."""
        assert self._keeper is not None
        self._keeper.run('others.append(cluster.add_node(resources={"second": 10}, **common)); cluster.wait_for_nodes()')

    def stop(self) -> None:
        """Ends the nodes, and all programs that are connected to them."""
        for each in self._drivers:
            each.end()
        self._drivers.clear()
        if self._keeper is not None:
            self._keeper.run("cluster.shutdown()")
            self._keeper.end()
            self._keeper = None

    def driver(self, connect: bool = True, namespace: str = "") -> Driver:
        """A program of the cluster."""
        made = Driver(self.environment)
        self._drivers.append(made)
        made.run("import chipmink, warnings; warnings.simplefilter('ignore')")
        if connect:
            made.run(
                f"""
                import ray
                ray.init(address={self.address!r}, namespace={namespace!r} or None, log_to_driver=False, logging_level="ERROR")
                """
            )
        return made

    def bare_driver(self) -> Driver:
        """A program without the libraries that are installed beside Python's own."""
        made = Driver({**self.environment, "PYTHONPATH": _PACKAGE}, "-S")
        self._drivers.append(made)
        made.run("import chipmink, warnings; warnings.simplefilter('ignore')")
        return made

    def pause(self) -> None:
        """Stops the process that knows the state of the cluster; it answers nobody."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._keeper is not None
        pid = self._keeper.run('answer = cluster.head_node.all_processes["gcs_server"][0].process.pid')
        os.kill(pid, number)

    def close(self) -> None:
        """Stops it and removes what it has left."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def ray_cluster(nodes: int = 2, has_clients: bool = False) -> Iterator[RayCluster]:
    """A cluster for the length of a test; ``has_clients`` lets programs of Ray Client in."""
    made = RayCluster(nodes, has_clients)
    try:
        yield made
    finally:
        made.close()


def is_possible() -> str | None:
    """Why no cluster can be started here, if it cannot."""
    import importlib.util

    if sys.platform != "linux":
        return "clusters of several nodes on one machine are started on Linux only"
    return None if importlib.util.find_spec("ray") else "Ray is not installed"
