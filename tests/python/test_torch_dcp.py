"""``chipmink.torch.dcp``: saves and loads of ``torch.distributed.checkpoint`` on several ranks."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import chipmink
import numpy as np
import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available():
    pytest.skip("this torch has no distributed package", allow_module_level=True)

import dcp_ranks  # noqa: E402
import ranks  # noqa: E402
import torch.distributed.checkpoint as dcp  # noqa: E402
import torch.distributed.fsdp  # noqa: E402
from chipmink.torch.dcp import ChipminkReader, ChipminkWriter  # noqa: E402
from torch.distributed.checkpoint.api import CheckpointException  # noqa: E402

FAST = {"durable": False}


def equal(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return np.array_equal(left, right) if isinstance(left, np.ndarray) else bool(left == right)


def array_bytes(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(array_bytes, value.values()))
    return value.nbytes if isinstance(value, np.ndarray) else 0


def pack_bytes(place: Path) -> int:
    return sum(each.stat().st_size for each in (place / "packs").rglob("*") if each.is_file())


needs_shards = pytest.mark.skipif(
    not hasattr(torch.distributed.fsdp, "fully_shard"), reason="this torch shards on devices only"
)


@needs_shards
def test_four_ranks_save_and_fewer_load(tmp_path):
    place = tmp_path / "repo"
    saved = ranks.run(tmp_path, 4, dcp_ranks.save, str(place), FAST, ["one", "two"], 2)
    state = saved[0][0]
    assert all(equal(each[0], state) for each in saved[1:])
    for world in (2, 1):
        for found in ranks.run(tmp_path, world, dcp_ranks.load, str(place), "two"):
            assert equal(found, state), world
    older = ranks.run(tmp_path, 1, dcp_ranks.load, str(place), "one")[0]
    assert not equal(older, state)
    with chipmink.open(place) as repo:
        assert repo.verify().ok
        line = [version for version in repo.log() if version.ref == "main"]
        assert [version.message for version in line] == ["checkpoint two", "checkpoint one"]


@needs_shards
def test_what_is_replicated_is_stored_once(tmp_path):
    place = tmp_path / "repo"
    state = ranks.run(tmp_path, 4, dcp_ranks.save, str(place), FAST, ["one"], 1)[0][0]
    # What DCP and the tables say of each shard is some hundred bytes, whatever the shard's length.
    assert pack_bytes(place) < 1.02 * array_bytes(state) + 60_000


@pytest.mark.parametrize("world", [1, pytest.param(2, marks=needs_shards)])
def test_an_asynchronous_save_never_sees_later_steps(tmp_path, world):
    place = tmp_path / "repo"
    saved = ranks.run(tmp_path, world, dcp_ranks.save, str(place), FAST, ["one", "two"], 1, "async_save")
    # Our stager ran, on every rank.
    assert all(staged > 0 for _, staged in saved)
    found = ranks.run(tmp_path, 1, dcp_ranks.load, str(place), "two")[0]
    assert equal(found, saved[0][0])


@needs_shards
def test_a_rank_that_dies_leaves_the_previous_checkpoint(tmp_path):
    place = tmp_path / "repo"
    ranks.run(tmp_path, 3, dcp_ranks.save_and_die, str(place), 1, dies=1)
    with chipmink.open(place) as repo:
        assert [version.message for version in repo.log() if version.ref == "main"] == ["checkpoint first"]
        # The dead rank had saved its part.
        assert repo.log()[0].message == "checkpoint second"
    found = ranks.run(tmp_path, 1, dcp_ranks.load, str(place), None)[0]
    assert found["note"]["epoch"] == 3


needs_no_collectives = pytest.mark.skipif(
    "use_collectives" not in inspect.signature(dcp.save).parameters, reason="this torch saves with collectives only"
)


@needs_no_collectives
def test_without_collectives_the_last_rank_publishes(tmp_path):
    place = tmp_path / "repo"
    saved = ranks.run(tmp_path, 3, dcp_ranks.save, str(place), FAST, ["one", "two"], 1, "save alone")
    with chipmink.open(place) as repo:
        line = [version for version in repo.log() if version.ref == "main"]
        assert [version.message for version in line] == ["checkpoint two", "checkpoint one"]
    for rank, found in enumerate(ranks.run(tmp_path, 3, dcp_ranks.load, str(place), "two")):
        assert equal(found, saved[rank][0])


@needs_no_collectives
def test_without_collectives_a_rank_that_dies_leaves_the_previous_checkpoint(tmp_path):
    place = tmp_path / "repo"
    ranks.run(tmp_path, 3, dcp_ranks.save_alone_and_die, str(place), 2, dies=2)
    with chipmink.open(place) as repo:
        assert [version.message for version in repo.log() if version.ref == "main"] == ["checkpoint first"]


@needs_shards
def test_no_collective_is_called_beside_those_of_dcp(tmp_path):
    for found in ranks.run(tmp_path, 2, dcp_ranks.count_collectives, str(tmp_path)):
        assert found["ours"] == found["torch's"] and len(found["ours"]) > 3


def test_a_process_of_its_own_is_refused_with_a_reason(tmp_path):
    saver = pytest.importorskip("torch.distributed.checkpoint.state_dict_saver")
    if not hasattr(saver, "AsyncCheckpointerType"):
        pytest.skip("this torch saves in threads only")
    said, last = ranks.run(tmp_path, 1, dcp_ranks.save_in_a_process, str(tmp_path / "repo"))[0]
    assert "AsyncCheckpointerType.THREAD" in said and said.startswith("UnsupportedError")
    assert int(last) > 0
    with chipmink.open(tmp_path / "repo") as repo:
        assert [version.message for version in repo.log() if version.ref == "main"] == ["checkpoint two"]


@needs_shards
def test_old_checkpoints_go(tmp_path):
    place = tmp_path / "repo"
    names = [f"c{number}" for number in range(5)]
    state = ranks.run(tmp_path, 2, dcp_ranks.save, str(place), {**FAST, "keep_last": 2}, names, 1)[0][0]
    with chipmink.open(place) as repo:
        line = [version.message for version in repo.log() if version.ref == "main"]
        assert line == ["checkpoint c4", "checkpoint c3"]
        assert len(repo.log()) <= 2 + 2 * 2 + 2
        assert repo.verify().ok
    assert equal(ranks.run(tmp_path, 1, dcp_ranks.load, str(place), "c4")[0], state)


@needs_shards
def test_staged_checkpoints_of_several_ranks(tmp_path):
    place, name = tmp_path / "repo", f"dcp-test-{os.getpid()}"
    try:
        options = {"staging": f"shm://{name}", "size": "64MiB"}
        state = ranks.run(tmp_path, 2, dcp_ranks.save, str(place), options, ["one", "two"], 1)[0][0]
    finally:
        subprocess.run([sys.executable, "-m", "chipmink", "shm", "rm", name, "--force"], check=True)
    assert equal(ranks.run(tmp_path, 1, dcp_ranks.load, str(place), "two")[0], state)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_one_process_without_a_group(tmp_path):
    shared = torch.arange(40_000.0)
    state = {"a": {"whole": shared, "part": shared[10:20]}, "list": [torch.ones(2, 3).t(), {"b": torch.zeros(())}], "text": "x"}
    with ChipminkWriter(tmp_path / "repo", **FAST) as writer:
        dcp.save(state, checkpoint_id="one", storage_writer=writer)
        state["text"] = "y"
        dcp.save(state, storage_writer=writer)
        first = writer.last
    with ChipminkReader(tmp_path / "repo") as reader:
        made = {"a": {"whole": torch.zeros(40_000), "part": torch.zeros(10)}, "list": [torch.zeros(3, 2), {"b": torch.ones(())}], "text": ""}
        dcp.load(made, storage_reader=reader)
        assert torch.equal(made["a"]["whole"], shared) and torch.equal(made["a"]["part"], shared[10:20])
        assert torch.equal(made["list"][0], torch.ones(3, 2)) and made["list"][1]["b"] == 0
        assert made["text"] == "y"
        dcp.load(made, checkpoint_id="one", storage_reader=reader)
        assert made["text"] == "x"
        with pytest.raises(CheckpointException, match="has no 'checkpoint nothing'"):
            dcp.load(made, checkpoint_id="nothing", storage_reader=reader)
    with ChipminkReader(tmp_path / "repo", version=first) as reader:
        dcp.load(made, storage_reader=reader)
        assert made["text"] == "y"


@pytest.mark.skipif("no_dist" not in inspect.signature(dcp.async_save).parameters, reason="this torch wants a group")
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_saves_may_overlap(tmp_path):
    """A save begins while others are written: none takes the state or the name of another."""
    live = {"weights": torch.zeros(200_000), "step": 0}
    with ChipminkWriter(tmp_path / "repo", **FAST) as writer:
        futures = []
        for step in range(6):
            live["weights"].fill_(step)
            live["step"] = step
            futures.append(dcp.async_save(live, checkpoint_id=f"s{step}", storage_writer=writer, no_dist=True))
        live["weights"].fill_(-1)
        for future in futures:
            future.result()
    with ChipminkReader(tmp_path / "repo") as reader:
        for step in range(6):
            found = {"weights": torch.zeros(200_000), "step": -1}
            dcp.load(found, checkpoint_id=f"s{step}", storage_reader=reader)
            assert found["step"] == step and bool((found["weights"] == step).all())


def test_copies_of_a_staged_state_are_used_again(tmp_path):
    live = {"a": torch.arange(1000.0), "b": [torch.ones(3), {"c": torch.zeros(2, 2)}], "text": ["x"]}
    writer = ChipminkWriter(tmp_path / "repo", **FAST)
    first = writer.stage(live)
    live["a"].zero_()
    live["text"].append("y")
    assert torch.equal(first["a"], torch.arange(1000.0)) and first["text"] == ["x"]
    second = writer.stage(live)
    assert first["a"].data_ptr() != second["a"].data_ptr()
    place = first["a"].data_ptr()
    del first
    third = writer.stage(live)
    assert third["a"].data_ptr() == place and not third["a"].any()
    assert writer.staged_bytes == 3 * 4 * (1000 + 3 + 4)
    writer.close()


def test_the_state_of_another_process_is_refused():
    import pickle

    with pytest.raises(chipmink.UnsupportedError, match="AsyncCheckpointerType.THREAD"):
        pickle.dumps(ChipminkWriter("nowhere"))


def test_versions_with_variables_of_one_name_are_not_joined(repo):
    first, second = repo.save({"a": 1, "b": [1]}), repo.save({"b": [2]})
    with pytest.raises(chipmink.UnsupportedError, match='both have a variable "b"'):
        repo._usable().join("main", second, [first, second], "")
    third = repo.save({"c": [3]})
    joined = repo._usable().join("joined", None, [first, third], "both")
    assert repo.load(joined) == {"a": 1, "b": [1], "c": [3]}
    assert list(repo.load(joined)) == ["a", "b", "c"]
    with pytest.raises(chipmink.RefMovedError):
        repo._usable().join("joined", None, [first], "")
    assert repo.sweep(drop=[first, second], grace="0s").versions_dropped == (first, second)
    with pytest.raises(chipmink.NotFoundError, match="dropped by a sweep"):
        repo._usable().join("joined", joined, [first, third], "")
    assert repo.load("joined")["b"] == [1]
    assert repo.verify().ok


@pytest.mark.filterwarnings("ignore")
def test_planners_with_options(tmp_path):
    """Plans that are kept from save to save, and loads of a part, of more than there is, and of all without a model."""
    from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner, _EmptyStateDictLoadPlanner
    from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

    has_caching = "enable_plan_caching" in inspect.signature(DefaultSavePlanner).parameters
    options = {"enable_plan_caching": True} if has_caching else {}
    state = {"a": torch.zeros(1000), "b": {"c": torch.ones(3), "text": "x"}}
    with ChipminkWriter(tmp_path / "repo", **FAST) as writer:
        for number in range(3):
            state["a"].fill_(number)
            state["b"]["text"] = str(number)
            planner = DefaultSavePlanner(**options)
            dcp.save(state, checkpoint_id=f"c{number}", storage_writer=writer, planner=planner)
    with ChipminkReader(tmp_path / "repo") as reader:
        for number in range(3):
            part = {"b": {"text": ""}}
            dcp.load(part, checkpoint_id=f"c{number}", storage_reader=reader)
            assert part == {"b": {"text": str(number)}}
            more = {"a": torch.full((1000,), -1.0), "new": torch.full((2,), 7.0)}
            with pytest.raises(CheckpointException):
                dcp.load(more, checkpoint_id=f"c{number}", storage_reader=reader)
            dcp.load(more, checkpoint_id=f"c{number}", storage_reader=reader, planner=DefaultLoadPlanner(allow_partial_load=True))
            assert bool((more["a"] == number).all()) and bool((more["new"] == 7).all())
        whole: dict[str, Any] = {}
        reader.reset("c1")
        _load_state_dict(whole, storage_reader=reader, planner=_EmptyStateDictLoadPlanner(), no_dist=True)
        assert bool((whole["a"] == 1).all()) and whole["b"]["text"] == "1" and torch.equal(whole["b"]["c"], torch.ones(3))
