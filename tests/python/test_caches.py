"""What libraries remember in their objects when they are looked at is no change of them."""

from __future__ import annotations

import io
from typing import Any

import chipmink
import numpy as np
import pytest

pandas = pytest.importorskip("pandas")

ROWS = 3_000


def _frames() -> dict[str, Any]:
    letters = np.random.default_rng(2).choice(list("abc"), ROWS)
    pairs = pandas.MultiIndex.from_product([range(30), [f"k{i}" for i in range(100)]], names=["i", "j"])
    return {
        "categories": pandas.DataFrame({"k": pandas.Categorical(letters), "v": np.arange(float(ROWS))}),
        "levels": pandas.DataFrame({"v": np.arange(float(ROWS))}, index=pairs),
        "columns": pandas.DataFrame(np.zeros((40, 4)), columns=pandas.MultiIndex.from_product([["a", "b"], [1, 2]])),
        "times": pandas.DataFrame(
            {
                "t": pandas.date_range("2024", periods=ROWS, freq="min"),
                "zoned": pandas.date_range("2024", periods=ROWS, freq="min", tz="UTC"),
                "span": pandas.to_timedelta(np.arange(ROWS), unit="s"),
                "period": pandas.period_range("2000", periods=ROWS, freq="D"),
            },
            index=pandas.date_range("2024", periods=ROWS, freq="s"),
        ),
        "strings": pandas.Series([f"s{i}" for i in range(ROWS)], index=[f"i{i}" for i in range(ROWS)]),
    }


def look(frame: Any) -> None:
    repr(frame)
    frame.info(buf=io.StringIO())
    frame.describe()
    frame.memory_usage(deep=True)
    frame.groupby(level=0).size()
    assert frame.loc[frame.index[7]] is not None
    assert frame.index.is_unique
    assert frame.isna().sum().sum() == 0
    frame.sort_index()
    for name in frame if frame.ndim == 2 else ():
        column = frame[name]
        assert len(column.to_numpy()) == len(frame) and column.nunique() and column.is_unique is not None
        if isinstance(column.dtype, pandas.CategoricalDtype):
            column.cat.codes


@pytest.mark.parametrize("name", _frames())
def test_looking_at_a_frame_after_a_checkout_is_no_change(repo, name):
    frame = _frames()[name]
    version = repo.save({"frame": frame, "other": [1]})
    namespace: dict[str, Any] = {}
    repo.checkout(version, namespace)
    for _ in range(2):
        look(namespace["frame"])
        # Nothing would be lost, and nothing is made anew.
        live = namespace["frame"]
        assert repo.checkout(version, namespace) == chipmink.Diff((), (), ())
        assert namespace["frame"] is live
    saved = repo.save(namespace)
    assert repo.diff(version, saved) == chipmink.Diff((), (), ())
    look(namespace["frame"])
    assert repo.save(namespace).report.pods_dirty == 0
    check = pandas.testing.assert_frame_equal if frame.ndim == 2 else pandas.testing.assert_series_equal
    check(repo.load(saved)["frame"], frame)


@pytest.mark.parametrize("name", _frames())
def test_looking_at_a_frame_that_is_saved_is_no_change(repo, name):
    frame = _frames()[name]
    repo.save({"frame": frame})
    for _ in range(3):
        look(frame)
        assert repo.save({"frame": frame}).report.pods_dirty == 0
