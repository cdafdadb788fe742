"""Snapshots of tables are read from what lies beside their files; neither Spark nor the table's library is needed."""

from __future__ import annotations

import json

from chipmink.spark._snapshots import snapshot_of_path


def test_the_newest_version_of_a_delta_log(tmp_path):
    log = tmp_path / "table" / "_delta_log"
    log.mkdir(parents=True)
    assert snapshot_of_path(str(tmp_path / "table")) is None
    for name in (f"{9:020}.json", f"{10:020}.checkpoint.parquet", f"{11:020}.json", "_last_checkpoint", f"{99:020}.crc", "12.json"):
        (log / name).touch()
    assert snapshot_of_path(f"file:{tmp_path}/table/") == "version 11"
    assert snapshot_of_path("s3a://elsewhere/table") is None


def test_the_current_snapshot_of_an_iceberg_table(tmp_path):
    metadata = tmp_path / "table" / "metadata"
    metadata.mkdir(parents=True)
    (metadata / "v1.metadata.json").write_text(json.dumps({"current-snapshot-id": 41}))
    (metadata / "v2.metadata.json").write_text(json.dumps({"current-snapshot-id": 42}))
    assert snapshot_of_path(str(tmp_path / "table")) is None
    (metadata / "version-hint.text").write_text("2\n")
    assert snapshot_of_path((tmp_path / "table").as_uri()) == "snapshot 42"
    (metadata / "v2.metadata.json").write_text("{")
    assert snapshot_of_path(str(tmp_path / "table")) is None
