"""Objects of Spark, by reference and by value, with a server of Spark Connect and with classic sessions."""

from __future__ import annotations

import pytest
import spark_servers

WHY = spark_servers.is_possible()
pytestmark = pytest.mark.skipif(WHY is not None, reason=str(WHY))

SUM = """
def total(thing):
    if isinstance(thing, chipmink.Placeholder):
        try:
            thing.count()
        except chipmink.RemoteObjectLost as error:
            return "lost: " + str(error)
        except chipmink.PlaceholderError as error:
            return "placeholder: " + str(error)
    try:
        rows = thing.collect() if hasattr(thing, "collect") else thing.to_dict("records")
    except Exception as error:
        return f"failed: {type(error).__name__}: {error}"
    return sum(value for row in rows for value in (row.asDict() if hasattr(row, "asDict") else row).values() if isinstance(value, int))
"""

MAKE = """
from pyspark.sql import functions as F
path = os.getcwd() + "/data"
spark.range(10).write.mode("overwrite").parquet(path)
spark.range(5).write.mode("overwrite").saveAsTable("numbers")
read = spark.read.parquet(path)
read.createOrReplaceTempView("passing")
frames = {
    "path": read,
    "table": spark.table("numbers"),
    "range": spark.range(3),
    "computed": read.filter(read.id > 7).groupBy("id").count(),
    "view": spark.table("passing"),
    "sql": spark.sql("select * from passing where id > 8"),
    "local": spark.createDataFrame([(1, 2)], ["x", "y"]),
}
"""
VALUES = {"path": 45, "table": 10, "range": 3, "computed": 19, "view": 45, "sql": 9, "local": 3}


def look(driver, place, version, options="", names=None):
    return driver.run(
        SUM
        + f"""
import time
began = time.monotonic()
with chipmink.open({str(place)!r}, durable=False) as other, warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    loaded = other.load({version}, names={names!r}{options})
seconds = time.monotonic() - began
answer = [{{name: total(thing) for name, thing in loaded.items() if name not in ("session", "udf", "column")}}, seconds, [str(each.message) for each in said if each.category is chipmink.RemoteReferenceWarning]]
""",
        timeout=240,
    )


def test_frames_of_connect(tmp_path):
    with spark_servers.spark_folder() as spark:
        spark.start_server()
        place = tmp_path / "repo"
        first = spark.driver("connect")
        first.run(MAKE)
        version, stubs, remote, dirty = first.run(
            f"""
            frames["checkpoint"] = read.localCheckpoint()
            add = F.udf(lambda x: x + 1, "int")
            names = dict(frames, session=spark, udf=add, column=F.col("id") + 1)
            repo = chipmink.open({str(place)!r}, durable=False)
            saved = repo.save(names)
            again = repo.save(names)
            answer = [int(saved), [str(each) for each in saved.report.stubs + saved.report.skipped], [str(each) for each in saved.report.remote], again.report.pods_dirty]
            """
        )
        assert stubs == [] and dirty == 0
        said = "\n".join(remote)
        assert "in the session that made it, while the temporary view 'passing' is there" in said
        assert "a checkpoint is there" in said

        here, _, _ = look(first, place, version)
        assert here == {**VALUES, "checkpoint": 45}
        assert first.run(
            """
            loaded = repo.load()
            rows = loaded["path"].select(loaded["column"].alias("y"), loaded["udf"](F.col("id")).alias("z")).filter("id == 4").collect()
            answer = [loaded["session"] is spark, rows[0].y, rows[0].z]
            """
        ) == [True, 5, 5]

        second = spark.driver("connect")
        there, seconds, _ = look(second, place, version)
        bound = {"view", "sql", "checkpoint"}
        assert {name: there[name] for name in VALUES if name not in bound} == {name: VALUES[name] for name in VALUES if name not in bound}
        for name in bound:
            assert "in the session that made it" in there[name] and "that session is another" in there[name]
        assert seconds < 60

        # A source that has changed is noticed.
        _, _, warned = look(second, place, version, names=["path"])
        assert warned == []
        second.run("spark.range(2).write.mode('append').parquet(os.getcwd() + '/data')")
        changed, _, warned = look(second, place, version, names=["path", "range"])
        assert changed == {"path": 46, "range": 3}
        assert any("has changed since it was saved: 1 files then, 2 now" in text for text in warned)

        # No session, and no library.
        idle = spark.driver()
        lost, _, _ = look(idle, place, version)
        assert all("start one with SparkSession.builder" in said or "start a session" in said for said in lost.values()), lost
        bare = spark.bare_driver()
        lost, _, _ = look(bare, place, version)
        assert all("PySpark is not installed here" in said for said in lost.values()), lost

        # By value: Spark writes, and what it has written is read in any session, or without one.
        version, stubs, files = first.run(
            f"""
            warnings.simplefilter("ignore")
            saved = repo.save(frames, remote="materialize")
            again = repo.save(frames, remote="materialize")
            answer = [int(saved), [str(each) for each in saved.report.stubs + saved.report.skipped], len(os.listdir({str(place / "remote")!r}))]
            """,
            timeout=240,
        )
        assert stubs == [] and files == 8
        assert first.run("answer = list(repo.checkout(again, dict(frames)).changed)") == []
        first.end()
        spark.stop_server()
        # The session knows the files of a view from when it was made.
        values = {**VALUES, "checkpoint": 45, "path": 46}
        found, _, _ = look(idle, place, version, ", as_pandas=True")
        assert found == values
        lost, _, _ = look(idle, place, version)
        assert all("or load with as_pandas=True" in said for said in lost.values())
        spark.start_server()
        third = spark.driver("connect")
        found, _, _ = look(third, place, version)
        assert found == values

        # It goes with the versions that name it.
        answer = third.run(
            f"""
            repo = chipmink.open({str(place)!r}, durable=False)
            spared = repo.sweep(keep_last=3).released
            repo.save({{"range": 1}})
            released = repo.sweep(keep_last=1, grace="0s").released
            answer = [spared, released, os.listdir({str(place / "remote")!r})]
            """
        )
        assert answer == [0, 8, []]


def test_frames_of_a_classic_session(tmp_path):
    with spark_servers.spark_folder() as spark:
        place = tmp_path / "repo"
        first = spark.driver("classic")
        first.run(MAKE)
        version, stubs, dirty = first.run(
            f"""
            add = F.udf(lambda x: x + 1, "int")
            names = dict(frames, session=spark, udf=add)
            repo = chipmink.open({str(place)!r}, durable=False)
            saved = repo.save(names)
            again = repo.save(names)
            column = repo.save(dict(names, column=F.col("id")))
            answer = [int(saved), [str(each) for each in column.report.stubs + saved.report.skipped], again.report.pods_dirty]
            """
        )
        assert dirty == 0
        unsaved = {"computed", "sql", "local"}
        assert {text.partition(":")[0] for text in stubs} == unsaved | {"column"}
        assert all('save with remote="materialize"' in text for text in stubs if not text.startswith("column"))

        here, _, _ = look(first, place, version)
        kept = {"path", "table", "range", "view"}
        assert {name: here[name] for name in kept} == {name: VALUES[name] for name in kept}
        assert all(here[name].startswith("placeholder: ") for name in unsaved)
        assert first.run(
            """
            loaded = repo.load(1)
            row = loaded["path"].select(loaded["udf"](F.col("id")).alias("z")).filter("z == 5").collect()
            answer = [loaded["session"] is spark, row[0].z]
            """,
            timeout=240,
        ) == [True, 5]
        version = first.run("answer = int(repo.save(frames, remote='materialize'))", timeout=240)
        first.end()

        second = spark.driver("classic")
        there, _, _ = look(second, place, 1)
        assert {name: there[name] for name in ("path", "range")} == {"path": 45, "range": 3}
        assert "that session is another" in there["view"]
        # A table is known to those who share the catalog; that of this session is in its memory.
        assert "TABLE_OR_VIEW_NOT_FOUND" in there["table"]
        found, _, _ = look(second, place, version)
        assert found == VALUES
