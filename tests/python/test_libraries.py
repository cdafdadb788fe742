"""Objects of the libraries that data science sessions are made of."""

from __future__ import annotations

import random
from typing import Any

import chipmink
import graph_types as kinds
import pytest
from oracle import assert_same, canonical
from test_types import round_trips

numpy = pytest.importorskip("numpy")


def _structured() -> Any:
    return numpy.array([(1, 2.5, b"ab"), (3, -0.0, b"")], dtype=[("i", "<i4"), ("f", ">f8"), ("s", "S3")])


def _read_only() -> Any:
    array = numpy.arange(20.0)
    array.flags.writeable = False
    return array


class ArrayChild(numpy.ndarray):
    """A subclass that carries attributes."""

    def __reduce__(self) -> Any:
        make, arguments, state = super().__reduce__()
        return make, arguments, (state, self.__dict__)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[0])
        self.__dict__.update(state[1])


def _array_child() -> Any:
    array = numpy.arange(6).reshape(2, 3).view(ArrayChild)
    array.unit = ["m"]
    return array


ARRAYS = {
    "numbers": lambda: [numpy.arange(10).astype(kind) for kind in ("i1", "u2", "<i8", ">i4", "f2", "f4", ">f8", "c8", "c16", "?")],
    "large": lambda: numpy.random.default_rng(1).random(100_000),
    "large rows": lambda: numpy.arange(60_000.0).reshape(3, 20_000),
    "order": lambda: [numpy.asfortranarray(numpy.arange(12.0).reshape(3, 4)), numpy.arange(12.0).reshape(3, 4).T],
    "strided": lambda: [numpy.arange(100)[::3], numpy.arange(100)[::-1], numpy.arange(100.0).reshape(10, 10)[2:5, 3:9], numpy.broadcast_to(1, (3, 4))],
    "shapes": lambda: [numpy.array(5.0), numpy.empty((0, 3)), numpy.zeros((1, 1, 1, 2))],
    "texts": lambda: [numpy.array(["a", "long text"]), numpy.array([b"x", b"yy"])],
    "times": lambda: [numpy.array(["2024-01-01", "NaT"], "M8[D]"), numpy.array([1, 2], "m8[ns]")],
    "structured": _structured,
    "read-only": _read_only,
    "objects": lambda: numpy.array([1, "a", None, [1], {"k": 2.5}], dtype=object),
    "scalars": lambda: [numpy.float64(1.5), numpy.int8(-3), numpy.bool_(True), numpy.str_("s"), numpy.datetime64("2024-01-01"), numpy.float64("nan")],
    "dtypes": lambda: [numpy.dtype("f8"), numpy.dtype([("a", "i4")]), numpy.dtype("M8[ns]"), numpy.float32],
    "masked": lambda: numpy.ma.masked_array([1, 2, 3], mask=[0, 1, 0]),
    "subclass": _array_child,
    "generators": lambda: [numpy.random.default_rng(3), numpy.random.RandomState(4)],
    "functions": lambda: [numpy.sin, numpy.add, numpy.mean, numpy.linalg.norm],
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(repo, name):
    round_trips(repo, ARRAYS[name]())


def test_array_of_objects_in_a_cycle(repo):
    array = numpy.empty(3, dtype=object)
    array[0] = [array]
    array[1] = kinds.Plain()
    array[1].up = array
    round_trips(repo, array)


def test_a_loaded_array_can_be_written(repo):
    loaded = repo.load(repo.save({"x": numpy.arange(100_000), "small": numpy.arange(3)}))
    for array in loaded.values():
        array += 1
        assert array[1] == 2


def test_one_changed_element_of_a_large_array(repo):
    array = numpy.arange(1_000_000.0)
    first = repo.save({"x": array})
    array[500_000] = -1.0
    want = canonical({"x": array})
    second = repo.save({"x": array})
    assert_same(want, repo.load(second))
    assert repo.load(first)["x"][500_000] == 500_000.0
    assert second.report.bytes_written < 200_000


def _frame(pandas: Any) -> Any:
    numbers = numpy.random.default_rng(2)
    rows = 2_000
    return pandas.DataFrame(
        {
            "id": numpy.arange(rows),
            "price": numpy.where(numbers.random(rows) < 0.05, numpy.nan, numbers.random(rows)),
            "city": numbers.choice(["Oslo", "Lima", "Pune"], rows),
            "when": pandas.Timestamp("2024-01-01") + pandas.to_timedelta(numbers.integers(0, 9999, rows), unit="h"),
            "note": pandas.Series([f"order {i}" for i in range(rows)], dtype=object),
            "kind": pandas.Categorical(numbers.choice(["a", "b"], rows)),
            "whole": pandas.array([1, None] * (rows // 2), dtype="Int64"),
            "flag": pandas.array([True, None] * (rows // 2), dtype="boolean"),
        }
    )


FRAMES = {
    "frame": lambda pandas: _frame(pandas),
    "parts": lambda pandas: [_frame(pandas)["price"], _frame(pandas)[["id", "city"]], _frame(pandas).iloc[5:9], _frame(pandas).set_index("when")],
    "groups": lambda pandas: _frame(pandas).groupby("city")["price"].agg(["mean", "sum"]),
    "many levels": lambda pandas: _frame(pandas).pivot_table(index=["city", "kind"], values="price", aggfunc=["mean", "max"], observed=True),
    "indexes": lambda pandas: [pandas.RangeIndex(3), pandas.date_range("2024", periods=3, freq="D"), pandas.Index(["a", "b"], name="n"), pandas.interval_range(0, 3)],
    "values": lambda pandas: [pandas.Timestamp("2024-01-01", tz="UTC"), pandas.Timedelta("1D"), pandas.NA, pandas.NaT, pandas.Period("2024-01", "M")],
    "empty": lambda pandas: [pandas.DataFrame(), pandas.Series(dtype=float)],
    "attributes": lambda pandas: _with_attributes(pandas),
}  # fmt: skip


def _with_attributes(pandas: Any) -> Any:
    frame = pandas.DataFrame({"a": [1]})
    frame.attrs["source"] = ["file"]
    return frame


@pytest.mark.parametrize("name", FRAMES)
def test_frames(repo, name):
    round_trips(repo, FRAMES[name](pytest.importorskip("pandas")))


def test_frame_shared_by_two_names_and_changed_through_one(repo):
    pandas = pytest.importorskip("pandas")
    namespace: dict[str, Any] = {"df": pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]})}
    namespace["tables"] = {"orders": namespace["df"]}
    first = repo.save(namespace)
    want = canonical(namespace)
    namespace["tables"]["orders"]["flag"] = False
    changed = canonical(namespace)
    second = repo.save(namespace, accessed=["tables"])
    assert_same(changed, repo.load(second))
    assert_same(want, repo.load(first))
    loaded = repo.load(second, names=["df", "tables"])
    assert loaded["df"] is loaded["tables"]["orders"]


def test_models(repo):
    pytest.importorskip("sklearn")
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    numbers = numpy.random.default_rng(0)
    rows, labels = numbers.random((80, 5)), numbers.integers(0, 2, 80)
    for model in (
        make_pipeline(StandardScaler(), LogisticRegression()),
        DecisionTreeClassifier(random_state=0),
        RandomForestClassifier(n_estimators=3, random_state=0, n_jobs=1),
        GradientBoostingClassifier(n_estimators=2, random_state=0),
    ):
        model.fit(rows, labels)
        want = model.predict_proba(rows)
        for copy in (chipmink.loads(chipmink.dumps(model)), repo.load(repo.save({"model": model}))["model"]):
            assert numpy.array_equal(copy.predict_proba(rows), want)
        if not isinstance(model, GradientBoostingClassifier):  # holds a loss object in C that has no state to compare
            round_trips(repo, model)


def test_graph(repo):
    networkx = pytest.importorskip("networkx")
    graph = networkx.gnm_random_graph(200, 600, seed=1)
    numbers = random.Random(2)
    for node in graph.nodes:
        graph.nodes[node]["weight"] = numbers.random()
    copy = round_trips(repo, graph)
    assert networkx.utils.graphs_equal(copy, graph)
    hub = graph.nodes[7]
    loaded = repo.load(repo.save({"graph": graph, "hub": hub}))
    assert loaded["graph"].nodes[7] is loaded["hub"]


def test_figure(repo):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 2, 4], label="line")
    axes.imshow(numpy.arange(6).reshape(2, 3))
    axes.set_title("title")
    copy = round_trips(repo, figure)
    copy.canvas.draw()
    assert copy.axes[0].figure is copy


def test_sparse(repo):
    sparse = pytest.importorskip("scipy.sparse")
    matrix = sparse.random(100, 80, 0.1, format="csr", random_state=1)
    round_trips(repo, matrix)
    assert (repo.load(repo.save({"m": matrix}))["m"] != matrix).nnz == 0


def test_arrow_tables_are_stored_by_their_buffers(repo):
    arrow = pytest.importorskip("pyarrow")
    numbers = numpy.random.default_rng(0).random(100_000)
    table = arrow.table({"x": numbers, "s": [f"t{i}" for i in range(100_000)]})
    names = {"table": table, "column": table.column("x"), "slice": table.slice(5, 10)}
    first = repo.save(names)
    assert first.report.bytes_written < 1.1 * table.nbytes
    loaded = repo.load(first)
    assert all(loaded[name].equals(names[name]) for name in names)
    wider = table.append_column("y", arrow.array(numpy.zeros(100_000)))
    second = repo.save({**names, "table": wider})
    assert second.report.bytes_written < 20_000
    assert repo.load(second)["table"].equals(wider)


def test_frames_over_arrow(repo):
    pytest.importorskip("pyarrow")
    pandas = pytest.importorskip("pandas")
    texts = pandas.Series([f"t{i}" for i in range(20_000)], dtype="string[pyarrow]")
    frame = pandas.DataFrame({"s": texts, "x": pandas.array(numpy.arange(20_000.0), dtype="float64[pyarrow]")})
    version = repo.save({"frame": frame, "copy": frame.copy(deep=False)})
    loaded = repo.load(version)
    loaded["copy"].iloc[3, 1] = -1.0
    pandas.testing.assert_frame_equal(loaded["frame"], frame)
    assert repo.save({"frame": frame, "copy": frame.copy(deep=False)}).report.bytes_written < 5_000


def test_polars_frames(repo):
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"x": numpy.arange(50_000.0), "s": [f"t{i}" for i in range(50_000)]})
    names = {"frame": frame, "series": frame["x"], "lazy": frame.lazy().filter(polars.col("x") > 4)}
    loaded = repo.load(repo.save(names))
    assert loaded["frame"].equals(frame)
    assert loaded["series"].equals(frame["x"])
    assert loaded["lazy"].collect().equals(names["lazy"].collect())
    assert repo.save({"frame": frame, "series": frame["x"]}).report.bytes_written < 5_000


def _figure() -> Any:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure()
    left, right = figure.subplots(1, 2)
    left.plot([1, 2, 4], label="line")
    left.legend()
    right.imshow(numpy.arange(6).reshape(2, 3))
    right.hist([1, 1, 2])
    figure.canvas.draw()
    return figure


def _models() -> Any:
    pytest.importorskip("sklearn")
    from sklearn.cluster import KMeans
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    numbers = numpy.random.default_rng(0)
    x, y = numbers.normal(size=(200, 4)), numbers.integers(0, 2, 200)
    return [make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y), KMeans(3, n_init=1, random_state=0).fit(x)]


def _graph() -> Any:
    networkx = pytest.importorskip("networkx")
    return networkx.barabasi_albert_graph(500, 3, seed=1)


def _frames() -> Any:
    pandas = pytest.importorskip("pandas")
    plain = pandas.DataFrame({"n": range(1000), "text": [f"row {i}" for i in range(1000)], "f": numpy.linspace(0, 1, 1000)})
    dated = plain.set_index(pandas.date_range("2024-01-01", periods=1000, freq="h"))
    parts = dated.assign(kind=pandas.Categorical(["a", "b"] * 500), gaps=pandas.array([1, None] * 500, "Int64"))
    return [plain, dated, parts, parts["n"], plain.groupby("text")["n"].sum(), parts.index]


@pytest.mark.parametrize("make", [_figure, _models, _graph, _frames])
def test_what_is_left_alone_stays_clean(repo, make):
    """Each save reads it, none finds a change: not its reducers' temporaries, counters or caches."""
    made = make()
    namespace = {"made": made, "other": [0]}
    repo.save(namespace)
    for i in range(5):
        namespace["other"][0] = i
        assert repo.save(namespace).report.pods_dirty <= 1
        # Neither does a load.
        repo.load(names=["made"])
        assert repo.save(namespace).report.pods_dirty == 0
    assert repo.diff(1, repo.log()[0].number).changed == ("other",)


def test_what_reducers_make_anew_settles(repo):
    """How a forest's fresh arrays are put into pods follows what the session learns of them, and then stays."""
    pytest.importorskip("sklearn")
    from sklearn.ensemble import RandomForestClassifier

    numbers = numpy.random.default_rng(0)
    forest = RandomForestClassifier(5, random_state=0).fit(numbers.normal(size=(200, 4)), numbers.integers(0, 2, 200))
    dirty = [repo.save({"forest": forest}).report.pods_dirty for _ in range(12)]
    assert dirty[-3:] == [0, 0, 0]
