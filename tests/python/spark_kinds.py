"""One object of each kind that Spark has, and how to see that what a load brings is the same."""

from __future__ import annotations

from typing import Any

from drivers import Driver

MODES = ("reference", "materialize")

#: Run in the program that saves.
MAKE = """
from pyspark.sql import functions as F
path = os.getcwd() + "/data"
spark.range(10).write.mode("overwrite").parquet(path)
spark.range(5).write.mode("overwrite").saveAsTable("numbers")
read = spark.read.parquet(path)
read.createOrReplaceTempView("passing")
kinds = {
    "path": read,
    "table": spark.table("numbers"),
    "range": spark.range(3),
    "computed": read.filter(read.id > 7).groupBy("id").count(),
    "temporary view": spark.table("passing"),
    "SQL over a view": spark.sql("select * from passing where id > 8"),
    "local data": spark.createDataFrame([(1, 2)], ["x", "y"]),
    "checkpoint": read.localCheckpoint(),
    "session": spark,
    "function": F.udf(lambda x: x + 1, "int"),
    "column": F.when(F.col("id") > 3, F.lower(F.concat(F.lit("O'"), F.col("id").cast("string")))).otherwise(F.lit(None)).alias("it's"),
    "column of a frame": read.id + 1,
}
"""

#: Models, too: their classes need a while.
MAKE_MODELS = """
from pyspark.ml import Pipeline
from pyspark.ml.feature import StandardScaler, VectorAssembler
stages = [VectorAssembler(inputCols=["id"], outputCol="vector"), StandardScaler(inputCol="vector", outputCol="scaled", withMean=True)]
kinds["pipeline"] = Pipeline(stages=stages)
kinds["model"] = kinds["pipeline"].fit(read)
"""

VALUES = {
    "path": 45,
    "table": 10,
    "range": 3,
    "computed": 19,
    "temporary view": 45,
    "SQL over a view": 9,
    "local data": 3,
    "checkpoint": 45,
}

LOOK = """
def total(thing):
    rows = thing.collect() if hasattr(thing, "collect") else thing.to_dict("records")
    rows = [row.asDict() if hasattr(row, "asDict") else row for row in rows]
    return sum(value for row in rows for value in row.values() if isinstance(value, int))

def word(kind, thing, spark):
    if isinstance(thing, chipmink.Placeholder):
        try:
            thing.count()
        except chipmink.PlaceholderError as error:
            is_lost = isinstance(error, chipmink.RemoteObjectLost)
            return ["×", f"{'lost' if is_lost else 'placeholder'}: {error}"]
    if kind == "session":
        return ["same" if thing is spark else "another", ""]
    if kind in ("function", "column"):
        if spark is None:
            return ["equal", ""]
        frame = spark.range(5)
        if kind == "function":
            return ["equal", str([row[0] for row in frame.select(thing("id")).collect()] == [1, 2, 3, 4, 5])]
        rows = frame.select(thing)
        return ["equal", str(rows.columns == ["it's"] and [row[0] for row in rows.collect()] == [None] * 4 + ["o'4"])]
    if kind in ("model", "pipeline"):
        model = thing if kind == "model" else thing.fit(spark.range(10))
        scaled = [round(float(row.scaled[0]), 3) for row in model.transform(spark.range(10)).collect()]
        return ["value", str(scaled[0] == -scaled[9] == -1.486)]
    return ["frame", str(total(thing))]

def look(loaded, spark):
    found = {}
    for kind, thing in loaded.items():
        try:
            found[kind] = word(kind, thing, spark)
        except Exception as error:
            found[kind] = ["failed", f"{type(error).__name__}: {error}"]
    return found
"""


def look(driver: Driver, place: Any, version: int, mode: str, options: str = "", values: dict[str, int] | None = None) -> dict[str, tuple[str, str]]:
    """A word for each variable of a version, and what was said."""
    seconds, found = driver.run(
        LOOK
        + f"""
import time
began = time.monotonic()
with chipmink.open({str(place)!r}, durable=False) as other, warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    loaded = other.load({version}{options})
seconds = time.monotonic() - began
warned = [str(each.message) for each in said if each.category is chipmink.RemoteReferenceWarning]
answer = [seconds, look(loaded, globals().get("spark"))]
""",
        timeout=300,
    )
    # Each of the frames has ten seconds.
    assert seconds < 10 * len(found), found
    wanted = {**VALUES, **(values or {})}
    named: dict[str, tuple[str, str]] = {}
    for kind, (word, said) in found.items():
        if word == "frame":
            assert said == str(wanted[kind]), (kind, said)
            word = "equal" if mode == "reference" else "value"
        elif word in ("equal", "value"):
            assert said in ("", "True"), kind
        named[kind] = (word, said)
    return named
