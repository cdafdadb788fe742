"""Exploring a table of orders with pandas, as notebooks do: new columns, changes in place, summaries, a figure."""

from __future__ import annotations

from collections.abc import Iterator

from benches.workloads import Tracked

CITIES = ["Oslo", "Lima", "Pune", "Kyiv", "Bonn"]


def eda(namespace: Tracked, scale: float) -> Iterator[str]:
    """A hundred thousand orders at scale 1; two tables are shared with a dict and changed through either name."""
    import numpy
    import pandas
    from matplotlib.figure import Figure

    source = numpy.random.default_rng(5)
    rows = int(100_000 * scale)
    namespace["df"] = pandas.DataFrame(
        {
            "id": numpy.arange(rows),
            "price": numpy.where(source.random(rows) < 0.05, numpy.nan, source.gamma(2.0, 30.0, rows)),
            "qty": source.integers(1, 20, rows),
            "city": source.choice(CITIES, rows),
            "when": pandas.Timestamp("2024-01-01") + pandas.to_timedelta(source.integers(0, 365 * 24, rows), unit="h"),
            "note": [f"order {i} of {i % 97}" for i in range(rows)],
        }
    )
    yield "load orders"
    namespace["cities"] = pandas.DataFrame({"city": CITIES, "tax": [0.25, 0.18, 0.12, 0.2, 0.19]})
    yield "load cities"
    namespace["config"] = {"target": "total", "seen": [], "palette": ["r", "g", "b"]}
    namespace["tables"] = {"orders": namespace["df"], "cities": namespace["cities"], "cfg": namespace["config"]}
    yield "registry of shared tables"
    namespace["df"].head()
    namespace["summary"] = namespace["df"].describe()
    yield "describe"
    namespace["df"]["price"] = namespace["df"]["price"].fillna(namespace["df"]["price"].median())
    namespace["config"]["seen"].append("fillna")
    yield "fill a column"
    namespace["df"]["total"] = namespace["df"]["price"] * namespace["df"]["qty"]
    yield "add a column"
    namespace["by_city"] = namespace["df"].groupby("city")["total"].agg(["mean", "sum", "count"])
    yield "group"
    namespace["merged"] = namespace["df"].merge(namespace["cities"], on="city")
    yield "merge"
    namespace["merged"]["net"] = namespace["merged"]["total"] * (1 - namespace["merged"]["tax"])
    yield "add a column to the merged table"
    namespace["df"].drop(columns=["note"], inplace=True)
    namespace["config"]["seen"].append("drop")
    yield "drop a column in place"
    namespace["df"].loc[namespace["df"]["qty"] > 15, "qty"] = 15
    yield "clip in place"
    months = namespace["merged"]["when"].dt.month
    namespace["pivot"] = namespace["merged"].pivot_table(index="city", columns=months, values="net", aggfunc="sum")
    yield "pivot"
    figure = Figure()
    axes = figure.subplots()
    axes.plot(namespace["by_city"]["mean"].to_numpy())
    axes.set_title("mean by city")
    namespace["fig"] = figure
    del figure, axes
    yield "figure"
    namespace["fig"].axes[0].plot(namespace["by_city"]["sum"].to_numpy() / 1e4)
    yield "second line"
    namespace["top"] = namespace["df"].nlargest(100, "total")
    yield "top rows"
    namespace["cat"] = namespace["merged"]["city"].astype("category")
    yield "categories"
    namespace["daily"] = namespace["df"].set_index("when")["total"].resample("D").sum()
    yield "resample"
    namespace["rolling"] = namespace["daily"].rolling(7).mean()
    yield "rolling mean"
    namespace["cities"].loc[0, "tax"] = 0.3
    yield "change a shared table"
    namespace["tables"]["orders"]["flag"] = False
    yield "change the other through the registry"
    del namespace["merged"]
    yield "delete the merged table"
    assert namespace["summary"].shape and namespace["by_city"].shape
    yield "look only"
