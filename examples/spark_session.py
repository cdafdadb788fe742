"""A Spark session that ends and is taken up again: ``python examples/spark_session.py``

The first program saves frames by reference and by value, and exits. The second one, with a session of its own, gets back what can be read
again; what only the first session knew explains itself. Needs ``pyspark`` and Java; takes about a minute, offline.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

START = """
import warnings; warnings.simplefilter("ignore")
import chipmink
from pyspark.sql import SparkSession
builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").config("spark.driver.memory", "700m")
spark = builder.config("spark.driver.bindAddress", "127.0.0.1").getOrCreate()
spark.sparkContext.setLogLevel("OFF")
repo = chipmink.open("repo")
"""

FIRST = """
spark.range(1000).write.parquet("numbers")
numbers = spark.read.parquet("numbers")
numbers.createOrReplaceTempView("passing")
namespace = {"numbers": numbers, "view": spark.table("passing"), "even": numbers.filter("id % 2 = 0")}
for mode in ("reference", "materialize"):
    saved = repo.save(namespace, remote=mode, message=mode)
    print(f"  version {saved}, by {mode}:")
    for line in (*saved.report.remote, *saved.report.stubs):
        print("     ", line)
"""

LATER = """
for version in repo.log()[::-1]:
    print(f"  version {version.number}, by {version.message}:")
    for name, thing in repo.load(version.number).items():
        if isinstance(thing, chipmink.Placeholder):
            print(f"      {name}: {thing}")
        else:
            print(f"      {name}: {thing.count()} rows")
frame = repo.load(names=["even"], as_pandas=True)["even"]
print("  as pandas, without Spark:", len(frame), "rows")
"""


def program(code: str, folder: str) -> None:
    """Runs a program with a Spark session of its own."""
    done = subprocess.run([sys.executable, "-c", START + code], cwd=folder, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        # Java says much there even if all goes well.
        sys.exit(done.stderr)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="cms-") as folder:
        # Java compiles quickly rather than well: nothing here runs for long.
        java = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
        os.environ.update(HOME=folder, SPARK_LOCAL_IP="127.0.0.1", JAVA_TOOL_OPTIONS=java)
        print("The first program saves, and exits:", flush=True)
        program(FIRST, folder)
        print("A second program resumes:", flush=True)
        program(LATER, folder)


if __name__ == "__main__":
    main()
