"""``chipmink.torch.save`` and ``load``, and versions to and from files of others."""

from __future__ import annotations

import collections
import io
from typing import Any

import chipmink
import pytest

torch = pytest.importorskip("torch")

import chipmink.torch as chipmink_torch  # noqa: E402
from chipmink.torch import Checkpointer, export_file, import_file  # noqa: E402


def make_model() -> Any:
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.BatchNorm1d(30), torch.nn.Linear(30, 20))
    model.append(torch.nn.Linear(30, 20))
    model[3].weight = model[2].weight
    return model


def same_state(left: Any, right: Any) -> bool:
    return list(left) == list(right) and all(torch.equal(left[key], right[key]) for key in left)


def test_save_and_load_stand_in_for_those_of_torch(tmp_path):
    model = make_model()
    optimizer = torch.optim.Adam(model.parameters())
    whole = torch.arange(100_000.0)
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "part": whole[5:10],
        "types": [torch.bfloat16, torch.Size([2, 3]), torch.device("cpu")],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "nested": collections.OrderedDict(a=(1, 2.5, "x", None, True)),
    }
    chipmink_torch.save(state, tmp_path / "state.chm")
    assert (tmp_path / "state.chm").stat().st_size < 20_000
    assert [each.name for each in tmp_path.iterdir()] == ["state.chm"]
    loaded = chipmink_torch.load(tmp_path / "state.chm")
    assert same_state(loaded["model"], state["model"])
    assert loaded["model"]["2.weight"].data_ptr() == loaded["model"]["3.weight"].data_ptr()
    assert torch.equal(loaded["part"], state["part"])
    assert loaded["types"] == state["types"] and loaded["nested"] == state["nested"]
    assert isinstance(loaded["parameter"], torch.nn.Parameter)
    buffer = io.BytesIO()
    chipmink_torch.save([1], buffer)
    chipmink_torch.save(model, buffer)
    buffer.seek(0)
    assert chipmink_torch.load(buffer) == [1]
    at = buffer.tell()
    with pytest.raises(chipmink.NotAllowedError):
        chipmink_torch.load(buffer)
    buffer.seek(at)
    assert same_state(chipmink_torch.load(buffer, weights_only=False).state_dict(), model.state_dict())


def test_files_of_torch_load_too(tmp_path):
    model = make_model()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    assert same_state(chipmink_torch.load(tmp_path / "model.pt"), model.state_dict())


def test_tensors_load_to_other_devices(tmp_path):
    model = make_model()
    chipmink_torch.save({"state": model.state_dict(), "list": [(torch.ones(2).t(), 3)], "model": model}, tmp_path / "f")
    for location in ("meta", torch.device("meta"), {"cpu": "meta"}):
        loaded = chipmink_torch.load(tmp_path / "f", location, weights_only=False)
        assert {each.device.type for each in loaded["state"].values()} == {"meta"}
        assert loaded["list"][0][0].device.type == "meta" and loaded["list"][0][1] == 3
        assert loaded["state"]["0.weight"].shape == (30, 20)
        assert all(each.device.type == "meta" for each in loaded["model"].parameters())
    loaded = chipmink_torch.load(tmp_path / "f", {"cuda:0": "meta"}, weights_only=False)
    assert same_state(loaded["state"], model.state_dict())
    with pytest.raises(TypeError, match="map_location"):
        chipmink_torch.load(tmp_path / "f", lambda storage, _: storage, weights_only=False)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_models_go_to_files_and_come_from_them(tmp_path, suffix):
    pytest.importorskip("safetensors")
    model = make_model()
    path = tmp_path / f"model{suffix}"
    with Checkpointer(tmp_path / "runs", model=model, durable=False) as checkpointer:
        checkpointer.save(1)
        export_file(checkpointer.repository, path)
    if suffix == ".pt":
        read = torch.load(path)
        assert read["2.weight"].data_ptr() == read["3.weight"].data_ptr()
    else:
        import safetensors.torch

        read = safetensors.torch.load_file(path)
    assert all(torch.equal(read[key], value) for key, value in model.state_dict().items())
    assert sorted(each.name for each in tmp_path.iterdir()) == [path.name, "runs"]
    other = make_model()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    with chipmink.open(tmp_path / "runs", ref="imported", durable=False) as repo:
        saved = import_file(repo, path, step=7)
        # It is stored already, but for the tables.
        assert saved.report.bytes_written < 12_000
    with Checkpointer(tmp_path / "runs", ref="imported", model=other, random=False, durable=False) as checkpointer:
        assert checkpointer.restore().step == 7
    assert same_state(other.state_dict(), model.state_dict())


def test_what_a_file_cannot_hold(repo, tmp_path):
    repo.save({"state": {"a": torch.ones(2), "b": [1]}, "list": [1]})
    with pytest.raises(chipmink.UnsupportedError, match="holds b, which are no plain tensors"):
        export_file(repo, tmp_path / "x.safetensors", name="state")
    with pytest.raises(chipmink.UnsupportedError, match="list is a list"):
        export_file(repo, tmp_path / "x.safetensors", name="list")
    with pytest.raises(ValueError, match="does not say what kind of file"):
        export_file(repo, tmp_path / "x", name="state")
    assert list(tmp_path.glob(".*")) == list(tmp_path.glob("x*")) == []


def test_files_of_all_ages_are_imported(tmp_path):
    state = torch.nn.Linear(3, 2).state_dict()
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save(state, tmp_path / "new.pt")
    with chipmink.open(tmp_path / "runs", durable=False) as repo:
        for at, name in enumerate(("old.pt", "new.pt")):
            loaded = repo.load(import_file(repo, tmp_path / name, step=at))["model"]
            assert loaded.keys() == state.keys() and all(torch.equal(loaded[key], state[key]) for key in state)
