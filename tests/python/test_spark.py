"""Objects of Spark, by reference and by value, with a server of Spark Connect and with classic sessions.

What is expected are the tables of the documentation.
"""

from __future__ import annotations

import pytest
import spark_kinds
import spark_servers
from matrices import Asserted, matrix

WHY = spark_servers.is_possible()
pytestmark = pytest.mark.skipif(WHY is not None, reason=str(WHY))


def tables(kind):
    by_reference = matrix(f"{kind}, by reference")
    return {"reference": by_reference, "materialize": matrix(f"{kind}, with `remote=\"materialize\"`", by_reference)}


def save(driver, place):
    """Saves the kinds both ways: versions, stubs and summaries by mode, and whether nothing new was to be saved again."""
    driver.run(spark_kinds.MAKE, timeout=240)
    driver.run(spark_kinds.MAKE_MODELS, timeout=240)
    return driver.run(
        f"""
        repo = chipmink.open({str(place)!r}, durable=False)
        answer = {{}}
        for mode in {spark_kinds.MODES!r}:
            saved = repo.save(kinds, remote=mode)
            stubs = {{each.variable: each.reason for each in saved.report.stubs + saved.report.skipped}}
            answer[mode] = [int(saved), stubs, "; ".join(map(str, saved.report.remote)), repo.save(kinds, remote=mode).report.pods_dirty]
        """,
        timeout=300,
    )


def assert_all(seen, driver, place, saved, situation, **values):
    found = {mode: spark_kinds.look(driver, place, saved[mode][0], mode, values=values) for mode in spark_kinds.MODES}
    for mode in spark_kinds.MODES:
        seen.check(mode, situation, found[mode])
    return found


def test_every_kind_of_connect_in_every_situation(tmp_path):
    with spark_servers.spark_folder() as spark:
        spark.start_server()
        place = tmp_path / "repo"
        first = spark.driver("connect")
        saved = save(first, place)
        seen = Asserted(tables("Connect"))
        stubs, said = saved["reference"][1:3]
        assert set(stubs) == {"column of a frame", "model", "pipeline"}
        assert 'save with remote="materialize"' in stubs["model"] and "keep its name" in stubs["column of a frame"]
        assert "in the session that made it, while the temporary view 'passing' is there" in said
        assert "a checkpoint is there" in said
        assert set(saved["materialize"][1]) == {"column of a frame"}
        assert saved["reference"][3] == saved["materialize"][3] == 0
        assert first.run(f"answer = len(os.listdir({str(place / 'remote')!r}))") == 10
        assert first.run("answer = list(repo.checkout(repo.log()[0].number, dict(kinds)).changed)") == []

        assert_all(seen, first, place, saved, "same session")
        second = spark.driver("connect")
        found = assert_all(seen, second, place, saved, "another session")["reference"]
        for kind in ("temporary view", "SQL over a view", "checkpoint"):
            assert "in the session that made it" in found[kind][1] and "that session is another" in found[kind][1]

        # A parameter that is another one is written again, and nothing else is.
        count = first.run(
            f"""
            kinds["pipeline"].getStages()[1].setWithMean(False)
            repo.save(kinds, remote="materialize")
            kinds["pipeline"].getStages()[1].setWithMean(True)
            answer = len(os.listdir({str(place / "remote")!r}))
            """
        )
        assert count == 11

        # No session, and no library.
        idle = spark.driver()
        for mode, kinds in assert_all(seen, idle, place, saved, "no session").items():
            for kind, (word, reason) in kinds.items():
                assert word != "×" or "start one with SparkSession.builder" in reason or reason.startswith("placeholder"), (mode, kind)
        bare = spark.bare_driver()
        for mode, kinds in assert_all(seen, bare, place, saved, "no PySpark").items():
            for kind, (word, reason) in kinds.items():
                assert word != "×" or "PySpark" in reason or reason.startswith("placeholder"), (mode, kind, reason)

        # A source that has changed is noticed.
        assert_changes_are_noticed(first, second, tmp_path / "changes")

        first.end()
        assert_all(seen, second, place, saved, "saving session ended")
        spark.stop_server()
        frames = [kind for kind in spark_kinds.VALUES]
        found = spark_kinds.look(idle, place, saved["materialize"][0], "materialize", f", names={frames!r}, as_pandas=True")
        assert {kind: word for kind, (word, _) in found.items()} == dict.fromkeys(frames, "value")
        lost = spark_kinds.look(idle, place, saved["materialize"][0], "materialize", f", names={frames!r}")
        assert all("or load with as_pandas=True" in reason for _, reason in lost.values())
        spark.start_server()
        third = spark.driver("connect")
        assert_all(seen, third, place, saved, "server restarted")
        seen.all()

        # From a place that no session reads by itself it comes through the program.
        assert third.run(
            f"""
            from chipmink import Placeholder
            repo = chipmink.open({str(place)!r}, durable=False)
            with chipmink.open("memory://") as memory:
                memory.pull(repo)
                kinds = memory.load({saved["materialize"][0]}, names=["computed", "model"])
                answer = [sum(row["id"] for row in kinds["computed"].collect()), isinstance(kinds["model"], Placeholder)]
            """
        ) == [17, True]

        # It goes with the versions that name it.
        answer = third.run(
            f"""
            spared = repo.sweep(keep_last=3).released
            repo.save({{"range": 1}})
            released = repo.sweep(keep_last=1, grace="0s").released
            answer = [spared, released, os.listdir({str(place / "remote")!r})]
            """
        )
        assert answer == [0, 11, []]


CHANGES = """
folder = os.getcwd() + "/delta"
spark.range(4).write.mode("overwrite").parquet(folder)
os.makedirs(folder + "/_delta_log")
open(folder + "/_delta_log/00000000000000000007.json", "w").close()
spark.sql("create table iceberg using parquet tblproperties ('current-snapshot-id'='17') as select 1 as x")
spark.range(3).write.mode("overwrite").parquet(os.getcwd() + "/files")
repo = chipmink.open({place!r}, durable=False)
sources = {{"delta": spark.read.parquet(folder), "iceberg": spark.table("iceberg"), "files": spark.read.parquet(os.getcwd() + "/files")}}
answer = int(repo.save(sources))
"""

NOTICED = """
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    chipmink.open({place!r}, durable=False).load({version})
answer = sorted(str(each.message) for each in said if each.category is chipmink.RemoteReferenceWarning)
"""


def assert_changes_are_noticed(first, second, place):
    version = first.run(CHANGES.format(place=str(place)))
    look = NOTICED.format(place=str(place), version=version)
    assert second.run(look) == []
    # Entries of the tables' logs without a change of any file that is read.
    first.run(
        """
        open(folder + "/_delta_log/00000000000000000008.json", "w").close()
        spark.sql("alter table iceberg set tblproperties ('current-snapshot-id'='18')")
        spark.range(2).write.mode("append").parquet(os.getcwd() + "/files")
        """
    )
    said = second.run(look)
    assert len(said) == 3, said
    assert any("was at version 7 and is at version 8" in text for text in said)
    assert any("was at snapshot 17 and is at snapshot 18" in text for text in said)
    assert any("1 files then, 2 now" in text for text in said)


def test_every_kind_of_a_classic_session_in_every_situation(tmp_path):
    with spark_servers.spark_folder() as spark:
        place = tmp_path / "repo"
        first = spark.driver("classic")
        saved = save(first, place)
        seen = Asserted(tables("classic"))
        stubs = saved["reference"][1]
        assert set(stubs) == {"computed", "SQL over a view", "local data", "checkpoint", "column of a frame", "model", "pipeline"}
        assert all('save with remote="materialize"' in reason for kind, reason in stubs.items() if kind != "column of a frame")
        assert set(saved["materialize"][1]) == {"column of a frame"}
        assert saved["reference"][3] == saved["materialize"][3] == 0
        assert_all(seen, first, place, saved, "same session")
        told = first.run(
            """
            told = []
            repo.save({"one": spark.range(1), "two": spark.range(2)}, remote="materialize", progress=lambda each: told.append([each.phase, each.done, each.total]))
            answer = told
            """
        )
        assert told == [["writing", 0, 2], ["writing", 1, 2], ["writing", 2, 2]]
        said = first.run(
            """
            try:
                chipmink.open("memory://").save({"one": spark.range(1)}, remote="materialize")
            except chipmink.UnsupportedError as error:
                answer = str(error)
            """
        )
        assert "needs a folder that its processes reach" in said and "save to a folder, and push that" in said
        # Each program has a catalog of its own here.
        second = spark.driver("classic")
        assert_changes_are_noticed(first, first, tmp_path / "changes")
        found = assert_all(seen, second, place, saved, "another session")["reference"]
        assert "that session is another" in found["temporary view"][1]
        assert "TABLE_OR_VIEW_NOT_FOUND" in found["table"][1]
        first.end()
        assert_all(seen, spark.driver(), place, saved, "no session")
        assert_all(seen, spark.bare_driver(), place, saved, "no PySpark")
        seen.all()


def test_models_that_nobody_else_could_read(tmp_path):
    with spark_servers.spark_folder() as spark:
        driver = spark.driver("classic")
        said = driver.run(
            f"""
            from pyspark.ml import Transformer
            from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable
            class Own(Transformer, DefaultParamsReadable, DefaultParamsWritable):
                def _transform(self, dataset):
                    return dataset
            saved = chipmink.open({str(tmp_path / "repo")!r}).save({{"own": Own()}}, remote="materialize")
            answer = saved.report.stubs[0].reason
            """
        )
        assert "put it into a module" in said
