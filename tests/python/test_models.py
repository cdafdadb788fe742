"""Models and labelled arrays of libraries that are not installed everywhere."""

from __future__ import annotations

from typing import Any

import chipmink
import pytest

np = pytest.importorskip("numpy")


def copies(repo: chipmink.Repository, value: Any) -> list[Any]:
    """A value loaded from a repository after two saves, and from a stream."""
    repo.save({"value": value})
    return [repo.load(repo.save({"value": value}))["value"], chipmink.loads(chipmink.dumps(value))]


def settles(repo: chipmink.Repository, value: Any) -> None:
    """Saved again, also after a load, it stores nothing."""
    for _ in range(3):
        repo.save({"value": value})
    for _ in range(3):
        report = repo.save({"value": value}).report
        assert report.pods_dirty == 0
        assert report.bytes_written < 600
        repo.load()


NUMBERS = np.random.default_rng(2).random((300, 5))
LABELS = (NUMBERS[:, 0] > 0.5).astype(int)


def test_lightgbm(repo):
    lightgbm = pytest.importorskip("lightgbm")
    model = lightgbm.LGBMClassifier(n_estimators=80, verbose=-1, n_jobs=1).fit(NUMBERS, LABELS)
    first = repo.save({"model": model})
    assert first.report.region_bytes > 0
    for copy in copies(repo, {"model": model, "booster": model.booster_}):
        assert copy["model"].booster_ is copy["booster"]
        assert np.array_equal(copy["model"].predict_proba(NUMBERS), model.predict_proba(NUMBERS))
    settles(repo, model)


def test_xgboost(repo):
    xgboost = pytest.importorskip("xgboost")
    noise = np.random.default_rng(3).integers(0, 2, len(NUMBERS))
    model = xgboost.XGBClassifier(n_estimators=80, n_jobs=1).fit(NUMBERS, noise)
    first = repo.save({"model": model})
    assert first.report.region_bytes > 0
    for copy in copies(repo, {"model": model, "booster": model.get_booster()}):
        assert copy["model"].get_booster() is copy["booster"]
        assert np.array_equal(copy["model"].predict_proba(NUMBERS), model.predict_proba(NUMBERS))
    settles(repo, model)


def test_xarray(repo):
    xarray = pytest.importorskip("xarray")
    data = xarray.Dataset(
        {"t": (("x", "y"), np.arange(60_000.0).reshape(300, 200)), "name": ("x", [f"n{i}" for i in range(300)])},
        coords={"x": np.arange(300), "when": ("y", np.arange(200).astype("M8[D]").astype("M8[ns]"))},
        attrs={"source": ["a"]},
    )
    value = {"data": data, "t": data["t"], "rows": data["t"][5:9], "values": data["t"].values}
    assert repo.save({"value": value}).report.region_bytes == 480_000
    for copy in copies(repo, value):
        assert copy["data"].identical(data)
        assert copy["rows"].identical(value["rows"])
        copy["values"][6, 0] = -1
        assert copy["data"]["t"].values[6, 0] == copy["t"].values[6, 0] == copy["rows"].values[1, 0] == -1
    settles(repo, value)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia", "lil", "dok"])
@pytest.mark.parametrize("family", ["matrix", "array"])
def test_sparse(repo, kind, family):
    sparse = pytest.importorskip("scipy.sparse")
    whole = sparse.random(400, 300, 0.05, format="csr", random_state=1)
    value = getattr(sparse, f"{kind}_{family}")(whole)
    for copy in copies(repo, value):
        assert type(copy) is type(value)
        assert copy.dtype == value.dtype
        assert (copy != value).nnz == 0
    settles(repo, value)


def test_sparse_matrices_over_one_memory(repo):
    sparse = pytest.importorskip("scipy.sparse")
    whole = sparse.random(400, 300, 0.05, format="csr", random_state=1)
    value = {"whole": whole, "turned": whole.T, "data": whole.data}
    for copy in copies(repo, value):
        copy["data"][0] = -5
        assert copy["whole"].data[0] == copy["turned"].data[0] == -5


def test_figures(repo):
    """Their callbacks are numbered anew by whatever looks at them."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, num="four")
    axes[0, 0].plot(NUMBERS, label="line")
    axes[0, 1].imshow(NUMBERS)
    axes[1, 0].hist(NUMBERS[:, 0])
    axes[1, 1].scatter(NUMBERS[:, 1], NUMBERS[:, 2])
    figure.legend()
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba()).copy()
    try:
        settles(repo, [figure, axes])
        copy = repo.load()["value"]
        assert copy[1][0, 0] is copy[0].axes[0]
        copy[0].canvas.draw()
        assert np.array_equal(np.asarray(copy[0].canvas.buffer_rgba()), pixels)
        figure.canvas.draw()
        settles(repo, [figure, axes])
    finally:
        pyplot.close("all")
