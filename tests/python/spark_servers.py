"""Real Spark for tests: a server of Spark Connect in a process of its own, and programs with sessions."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import chipmink
from drivers import Driver

_PACKAGE = str(Path(chipmink.__file__).parents[1])
_OPTIONS = {
    "spark.ui.enabled": "false",
    "spark.driver.memory": "700m",
    "spark.sql.shuffle.partitions": "1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
}


def is_possible() -> str | None:
    """Why no Spark can be started here, if it cannot."""
    import importlib.util

    if not all(importlib.util.find_spec(name) for name in ("pyspark", "grpc", "pandas", "pyarrow")):
        return "pyspark[connect] is not installed"
    return None if shutil.which("java") else "there is no Java"


class Spark:
    """A folder with a warehouse, a server of Spark Connect when it is asked for, and programs."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cms-"))
        self.environment = {
            "HOME": str(self.folder),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_LOCAL_DIRS": str(self.folder / "local"),
            "PYTHONWARNINGS": "ignore",
            # Compiles quickly rather than well: nothing here runs for long.
            "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
            "PYTHONPATH": os.pathsep.join([_PACKAGE, *filter(None, [os.environ.get("PYTHONPATH")])]),
            "PYSPARK_PYTHON": sys.executable,
        }
        self._drivers: list[Driver] = []
        self._server: subprocess.Popen[bytes] | None = None
        self.port = 0

    def start_server(self) -> None:
        """Starts a server; after another one was stopped it is a new one, which knows nothing of what that had."""
        import pyspark

        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        options = {**self._options(), "spark.connect.grpc.binding.port": str(self.port), "spark.connect.grpc.binding.address": "127.0.0.1"}
        command = [str(Path(pyspark.__file__).parent / "bin" / "spark-submit"), "--master", "local[1]"]
        for name, value in options.items():
            command += ["--conf", f"{name}={value}"]
        command += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"]
        with open(self.folder / "server.log", "wb") as log:
            self._server = subprocess.Popen(
                command, cwd=self.folder, env={**os.environ, **self.environment}, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 180
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("no Spark server:\n" + (self.folder / "server.log").read_text(errors="replace")[-3000:])
            time.sleep(0.5)

    def stop_server(self) -> None:
        """Stops it."""
        if self._server is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
            self._server = None

    def _options(self) -> dict[str, str]:
        return {**_OPTIONS, "spark.sql.warehouse.dir": str(self.folder / "warehouse")}

    def driver(self, kind: str | None = None) -> Driver:
        """A program, with a session of that kind if one is given: ``classic`` or ``connect``."""
        made = Driver(self.environment)
        self._drivers.append(made)
        made.run(f"import chipmink, os, warnings; warnings.simplefilter('ignore'); os.chdir({str(self.folder)!r})")
        if kind == "connect":
            made.run(
                f"""
                from pyspark.sql import SparkSession
                spark = SparkSession.builder.remote("sc://127.0.0.1:{self.port}").create()
                """
            )
        elif kind == "classic":
            made.run(
                f"""
                from pyspark.sql import SparkSession
                builder = SparkSession.builder.master("local[1]")
                for name, value in {self._options()!r}.items():
                    builder = builder.config(name, value)
                spark = builder.getOrCreate()
                spark.sparkContext.setLogLevel("ERROR")
                """
            )
        if kind is not None:
            # The first questions to a session that has just started take long, and those of a load have ten seconds.
            made.run(
                """
                spark.range(1).write.mode("overwrite").parquet(f"{os.getcwd()}/warm-{os.getpid()}")
                spark.read.parquet(f"{os.getcwd()}/warm-{os.getpid()}").inputFiles()
                spark.sql("show tables").collect()
                """,
                timeout=240,
            )
        return made

    def bare_driver(self) -> Driver:
        """A program without the libraries that are installed beside Python's own."""
        made = Driver({**self.environment, "PYTHONPATH": _PACKAGE}, "-S")
        self._drivers.append(made)
        made.run("import chipmink, warnings; warnings.simplefilter('ignore')")
        return made

    def close(self) -> None:
        """Ends everything, and removes what it has left."""
        for each in self._drivers:
            each.end()
        self.stop_server()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def spark_folder():
    """Spark for the length of a test."""
    made = Spark()
    try:
        yield made
    finally:
        made.close()
