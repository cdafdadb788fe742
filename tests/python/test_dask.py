"""Results in a Dask cluster are placeholders that say what to do."""

from __future__ import annotations

import chipmink
import pytest

distributed = pytest.importorskip("distributed")


def test_a_future_says_what_to_save_instead(repo):
    with distributed.Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        future = client.submit(lambda x: x + 1, 41)
        with pytest.warns(chipmink.SkippedVariableWarning, match="save future.result"):
            saved = repo.save({"future": future, "list": [future], "client": client, "value": future.result()})
        assert {each.variable for each in saved.report.stubs + saved.report.skipped} >= {"future", "client"}
    loaded = repo.load(saved)
    assert loaded["value"] == 42
    with pytest.raises(chipmink.PlaceholderError, match="no other program can reach"):
        loaded["future"].result()
    with pytest.raises(chipmink.PlaceholderError, match="connections are not made again"):
        loaded["client"].submit(abs, -1)


def test_a_persisted_collection_has_placeholders_for_its_parts(repo):
    delayed = pytest.importorskip("dask.delayed")
    with distributed.Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        (kept,) = client.persist([delayed.delayed(sum)([1, 2])])
        with pytest.warns(chipmink.SkippedVariableWarning, match="save future.result"):
            saved = repo.save({"kept": kept, "value": kept.compute()})
    assert any(each.variable == "kept" and "Dask" in each.reason for each in saved.report.stubs + saved.report.skipped)
    assert repo.load(saved)["value"] == 3


def test_collections_of_arrays_and_rows_that_were_persisted_spoil_nothing(repo):
    array, bag = pytest.importorskip("dask.array"), pytest.importorskip("dask.bag")
    with distributed.Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        lazy = array.arange(10, chunks=5) * 2
        kept = {"array": lazy.persist(), "bag": bag.from_sequence([1, 2], npartitions=1).persist(), "future": [client.submit(abs, -1)]}
        with pytest.warns(chipmink.SkippedVariableWarning, match="save future.result"):
            saved = repo.save({**kept, "lazy": lazy, "done": kept["array"].compute()})
    loaded = repo.load(saved)
    # What is not computed yet needs no cluster, and is made again.
    assert int(loaded["lazy"].sum().compute(scheduler="synchronous")) == int(loaded["done"].sum()) == 90
    for name in ("array", "bag"):
        with pytest.raises(chipmink.PlaceholderError, match="no other program can reach"):
            loaded[name].compute(scheduler="synchronous")
