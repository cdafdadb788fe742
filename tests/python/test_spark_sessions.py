"""Sessions of Spark as people have them: frames of many formats, what belongs to one session alone, sessions that end and begin."""

from __future__ import annotations

import pytest
import spark_servers

WHY = spark_servers.is_possible()
pytestmark = pytest.mark.skipif(WHY is not None, reason=str(WHY))

CLASSIC = """
from pyspark.sql import Row, Window, functions as F
from pyspark.sql.types import IntegerType, StructField, StructType
here = os.getcwd()
rows = spark.range(6).selectExpr("cast(id as int) as id", "cast(id % 2 as int) as part", "concat('n', id) as name")
rows.write.parquet(f"{here}/parquet", partitionBy="part")
for kind in ("csv", "json", "orc"):
    rows.write.option("header", True).format(kind).save(f"{here}/{kind}")
rows.select("name").write.text(f"{here}/text")
rows.write.saveAsTable("kept")
read = spark.read.parquet(f"{here}/parquet")
frames = {
    "parquet": read,
    "csv": spark.read.csv(f"{here}/csv", header=True, inferSchema=True, sep=","),
    "json": spark.read.json(f"{here}/json"),
    "orc": spark.read.orc(f"{here}/orc"),
    "text": spark.read.text(f"{here}/text"),
    "one part": spark.read.option("basePath", f"{here}/parquet").parquet(f"{here}/parquet/part=1"),
    "table": spark.table("kept"),
    "table with options": spark.read.option("split-size", "1000").table("kept"),
    "cached": spark.read.parquet(f"{here}/parquet").cache(),
}
frames["cached"].count()
context = spark.sparkContext
alone = {
    "rdd": context.parallelize([1, 2]), "broadcast": context.broadcast([1]), "accumulator": context.accumulator(0),
    "window": Window.partitionBy("part").orderBy("id"), "grouped": read.groupBy("part"), "reader": spark.read, "java": spark._jsparkSession,
    "stream": spark.readStream.format("rate").load(), "stream of a table": spark.readStream.table("kept"),
}
plain = {
    "rows": read.orderBy("id").collect(), "schema": read.schema, "row": Row(x=1, y=[Row(z=2)]), "type": StructType([StructField("a", IntegerType())]),
    "columns": [F.col("id") + 1, {"deeper": F.lower(F.col("name")).alias("low")}, F.lit(3)],
}
namespace = {**frames, **plain, "context": context, "alone": alone, "again": [read, {"frame": read}]}
"""


def test_frames_of_all_formats_and_what_belongs_to_one_session(tmp_path):
    with spark_servers.spark_folder() as spark:
        place = tmp_path / "repo"
        first = spark.driver("classic")
        first.run(CLASSIC, timeout=240)
        stubs, dirty = first.run(
            f"""
            repo = chipmink.open({str(place)!r}, durable=False)
            saved = repo.save(namespace)
            answer = [{{f"{{each.variable}}{{each.path}}": each.reason for each in saved.report.stubs + saved.report.skipped}}, repo.save(namespace).report.pods_dirty]
            version = int(saved)
            """,
            timeout=240,
        )
        assert dirty == 0
        assert len(stubs) == 9 and all("alone" in name for name in stubs), stubs
        assert sum("it is a stream" in reason for reason in stubs.values()) == 2
        assert sum("broadcast.value" in reason or "accumulator.value" in reason or "rdd.collect()" in reason for reason in stubs.values()) == 3

        found = first.run(
            """
            # The session ends, and another one begins, in the same program.
            expected = {name: sorted(map(str, frame.collect())) for name, frame in frames.items()}
            spark.stop()
            none = repo.load(version, names=["parquet", "context", "rows"])
            gone = [repr(none["parquet"]), repr(none["context"]), len(none["rows"])]
            said = [each.variable for each in repo.save({"frame": read, "column": namespace["columns"][0]}).report.stubs]
            spark = builder.getOrCreate()
            # The catalog was that of the session; the files are still there.
            spark.sql(f"create table kept using parquet location '{here}/warehouse/kept'")
            loaded = repo.load(version)
            same = {name: sorted(map(str, loaded[name].collect())) == expected[name] for name in frames}
            options = loaded["table with options"]._jdf.queryExecution().logical().options().get("split-size")
            low = loaded["parquet"].select(loaded["columns"][0].alias("a"), loaded["columns"][1]["deeper"], loaded["columns"][2].alias("c"))
            answer = [
                gone, said, same, options, loaded["context"] is spark.sparkContext, loaded["rows"] == plain["rows"], loaded["schema"] == plain["schema"],
                loaded["row"] == plain["row"], loaded["type"] == plain["type"], loaded["again"][0] is loaded["again"][1]["frame"] is loaded["parquet"],
                sorted([list(row) for row in low.collect()])[0], all(isinstance(each, chipmink.Placeholder) for each in loaded["alone"].values()),
            ]
            """,
            timeout=240,
        )
        gone, said, same, options, *rest = found
        assert "no active Spark session" in gone[0] and "no active Spark session" in gone[1] and gone[2] == 6
        # What a frame reads is known without the session, what a column says is not.
        assert said == ["column"]
        assert same == dict.fromkeys(same, True), same
        assert options == "1000"
        assert rest == [True, True, True, True, True, True, [1, "n0", 3], True]


def test_what_is_computed_is_written_again_when_its_files_have_changed(tmp_path):
    with spark_servers.spark_folder() as spark:
        place = tmp_path / "repo"
        first = spark.driver("classic")
        found = first.run(
            f"""
            from pyspark.sql import functions as F
            here = os.getcwd()
            spark.range(10).write.parquet(f"{{here}}/left")
            spark.range(5).write.parquet(f"{{here}}/right")
            left, right = spark.read.parquet(f"{{here}}/left"), spark.read.parquet(f"{{here}}/right")
            left.createOrReplaceTempView("passing")
            plus = F.udf(lambda x: x + 1, "long")
            namespace = {{
                "joined": left.join(F.broadcast(right), "id"), "counted": left.select(plus("id").alias("id")),
                "view": spark.table("passing"), "still": right.filter("id > 2").cache(), "stream": spark.readStream.format("rate").load(),
            }}
            repo = chipmink.open({str(place)!r}, durable=False)
            count = lambda: len(os.listdir({str(place / "remote")!r}))
            one = repo.save(namespace, remote="materialize")
            counts = [count()]
            again = repo.save(namespace, remote="materialize")
            counts += [count(), again.report.pods_dirty]
            # A frame of a classic session has listed its files when it was made, so what can change are these.
            for name in os.listdir(f"{{here}}/left"):
                os.utime(f"{{here}}/left/{{name}}", (1, 1))
            two = repo.save(namespace, remote="materialize")
            counts.append(count())
            answer = [
                counts, [repo.load(version, names=["counted"])["counted"].count() for version in (one, again, two)],
                repo.load(two)["joined"].count(), repo.load(two)["view"].count(), [each.reason for each in two.report.stubs],
            ]
            """,
            timeout=240,
        )
        counts, lengths, joined, viewed, stubs = found
        # All but the one that reads the other files.
        assert counts == [4, 4, 0, 7]
        assert (lengths, joined, viewed) == ([10, 10, 10], 5, 10)
        assert len(stubs) == 1 and "it is a stream" in stubs[0]


CONNECT = """
from pyspark.sql import functions as F
here = os.getcwd()
spark.range(6).write.parquet(f"{here}/numbers")
read = spark.read.parquet(f"{here}/numbers")
plus = F.udf(lambda x: x + 1, "long")
frames = {
    "plus": read.select(plus("id").alias("id")),
    "joined": read.join(F.broadcast(spark.range(3)), "id"),
    "cached": spark.read.parquet(f"{here}/numbers").cache(),
    "stream": spark.readStream.format("rate").option("rowsPerSecond", 3).load(),
    "grouped": read.groupBy(F.col("id") % 2),
    "json": spark.createDataFrame([('{"a": 1}',)], ["text"]).select(F.from_json("text", "a int").alias("made")),
}
namespace = {**frames, "columns": [F.col("id"), {"deeper": F.lit(2)}], "client": [spark.client], "fine": [1]}
"""


def test_sessions_of_connect_that_end_and_begin(tmp_path):
    with spark_servers.spark_folder() as spark:
        spark.start_server()
        place = tmp_path / "repo"
        first = spark.driver("connect")
        first.run(CONNECT, timeout=240)
        version, dirty, stubs = first.run(
            f"""
            import threading, time
            repo = chipmink.open({str(place)!r}, durable=False)
            saved = repo.save(namespace)
            version = int(saved)
            answer = [version, repo.save(namespace).report.pods_dirty, [f"{{each.variable}}" for each in saved.report.stubs + saved.report.skipped]]
            """,
            timeout=240,
        )
        assert (dirty, stubs) == (0, ["client"])
        look = """
            counts = lambda loaded: [
                sorted(row.id for row in loaded["plus"].collect()), loaded["joined"].count(), loaded["cached"].count(), loaded["stream"].isStreaming,
                loaded["grouped"].count().count(), loaded["json"].collect()[0].made.a, loaded["cached"].select(loaded["columns"][0], loaded["columns"][1]["deeper"]).count(),
            ]
            """
        expected = [[1, 2, 3, 4, 5, 6], 3, 6, True, 2, 1, 6]
        first.run(look)
        # In other threads there is no active session, but there is the one that the program has.
        found = first.run(
            """
            import asyncio
            loaded = []
            thread = threading.Thread(target=lambda: loaded.append(repo.load(version)))
            thread.start()
            thread.join()
            loaded.append(asyncio.run(repo.aload(version)))
            again = []
            thread = threading.Thread(target=lambda: again.append([str(each) for each in repo.save({"columns": namespace["columns"]}).report.stubs]))
            thread.start()
            thread.join()
            answer = [*map(counts, loaded), again]
            """,
            timeout=240,
        )
        assert found == [expected, expected, [[]]]

        # The server goes, and the session of the program stays where it was.
        spark.stop_server()
        found = first.run(
            """
            many = {f"frame {number}": spark.range(number) for number in range(12)}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with chipmink.time_limit(2):
                    began = time.monotonic()
                    saved = repo.save({**namespace, **many})
                    seconds = [time.monotonic() - began]
                    began = time.monotonic()
                    by_value = repo.save({**frames, **many}, remote="materialize")
                    seconds.append(time.monotonic() - began)
                    began = time.monotonic()
                    loaded = repo.load(version)
                    seconds.append(time.monotonic() - began)
            lost = [name for name in frames if isinstance(loaded[name], chipmink.Placeholder)]
            answer = [seconds, [each.found for each in saved.report.remote], lost, loaded["fine"], int(saved)]
            """,
            timeout=240,
        )
        seconds, said, lost, fine, unsure = found
        # Two seconds for each of eighteen frames would be 36.
        assert max(seconds) < 15, seconds
        assert len(said) == 1 and said[0].startswith("not known: its session did not say"), said
        assert "plus" in lost and fine == [1]

        # Another server, and a session of the same program with it; also what was saved while there was none is whole.
        spark.start_server()
        found = first.run(
            f"""
            # It would tell the server that it ends, and go on trying for minutes.
            spark.release_session_on_close = False
            spark.stop()
            spark = SparkSession.builder.remote("sc://127.0.0.1:{spark.port}").create()
            old = [each.reason for each in repo.save({{"old": read, "fine": 1}}).report.stubs]
            # A server that has just started takes its time.
            with chipmink.time_limit(100):
                answer = [counts(repo.load(version)), counts(repo.load({unsure})), old]
            """,
            timeout=240,
        )
        assert found == [expected, expected, []]
