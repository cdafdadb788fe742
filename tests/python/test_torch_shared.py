"""Tensors of PyTorch in shared memory."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import chipmink
import numpy as np
import pytest
import workers

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="shared memory is saved on Linux only")


@pytest.fixture(params=["file_descriptor", "file_system"])
def strategy(request) -> Iterator[str]:
    """How torch hands storages to other processes."""
    before = torch.multiprocessing.get_sharing_strategy()
    torch.multiprocessing.set_sharing_strategy(request.param)
    yield request.param
    torch.multiprocessing.set_sharing_strategy(before)


def address(tensor: Any) -> int:
    return tensor.untyped_storage().data_ptr()  # type: ignore[no-any-return]


@pytest.mark.parametrize("length", [20, 100_000])
def test_tensors_over_one_storage_are_so_again(repo, strategy, length):
    whole = torch.arange(float(length)).share_memory_()
    namespace = {
        "array": whole.numpy()[3:],
        "part": whole[2:9],
        "whole": whole,
        "turned": whole.view(4, -1).t(),
        "parameter": torch.nn.Parameter(whole.detach()[5:]),
        "plain": torch.arange(3.0),
        "empty": torch.zeros(0).share_memory_(),
    }
    loaded = repo.load(repo.save(namespace))
    for name, tensor in namespace.items():
        if name != "array":
            assert type(loaded[name]) is type(tensor)
            assert torch.equal(loaded[name], tensor)
            assert loaded[name].is_shared() == (name != "plain")
            assert loaded[name].stride() == tensor.stride()
    assert loaded["parameter"].requires_grad
    assert len({address(loaded[name]) for name in ("part", "whole", "turned", "parameter")}) == 1
    assert loaded["whole"].untyped_storage().nbytes() == whole.untyped_storage().nbytes()
    with torch.no_grad():
        loaded["parameter"][0] = -5
    assert loaded["whole"][5] == loaded["part"][3] == loaded["array"][2] == -5
    loaded["array"][0] = -3
    assert loaded["whole"][3] == -3
    assert whole[5] == 5
    again = repo.save(loaded)
    assert repo.load(again)["part"][3] == -5


def test_a_second_process_works_on_what_was_loaded(repo, strategy):
    tensor = torch.arange(30_000.0).share_memory_()
    loaded = repo.load(repo.save({"tensor": tensor, "slice": tensor[10:20]}))
    process = torch.multiprocessing.get_context("spawn").Process(target=workers.add_one, args=(loaded["tensor"],))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    assert loaded["tensor"][7] == 8
    assert loaded["slice"][0] == 11
    assert tensor[7] == 7


def test_writes_of_others_are_found_and_the_rest_is_stored_once(repo, strategy):
    tensor = torch.randn(500_000).share_memory_()
    namespace = {"tensor": tensor, "other": [1]}
    assert repo.save(namespace).report.bytes_written > 2_000_000
    assert repo.save(namespace).report.bytes_written < 1000
    for turn in range(1, 4):
        pid = os.fork()
        if pid == 0:
            tensor[turn * 100_000] = turn
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        saved = repo.save(namespace, accessed=["other"])
        assert 100 < saved.report.bytes_written < 90_000
        assert repo.load(saved)["tensor"][turn * 100_000] == turn


def test_a_model_in_shared_memory(repo, strategy):
    model = torch.nn.Sequential(torch.nn.Linear(30, 600), torch.nn.ReLU(), torch.nn.Linear(600, 3)).share_memory()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loaded = repo.load(repo.save({"model": model, "optimizer": optimizer}))
    assert all(parameter.is_shared() for parameter in loaded["model"].parameters())
    assert loaded["optimizer"].param_groups[0]["params"][0] is loaded["model"][0].weight
    inputs = torch.randn(4, 30)
    assert torch.equal(loaded["model"](inputs), model(inputs))
    loaded["model"](inputs).sum().backward()
    loaded["optimizer"].step()
    assert not torch.equal(loaded["model"](inputs), model(inputs))


def test_tensors_and_arrays_over_one_segment(repo):
    shm = SharedMemory(create=True, size=400_000)
    tensor = torch.frombuffer(shm.buf, dtype=torch.float32)
    tensor[:] = torch.arange(100_000.0)
    array = np.frombuffer(shm.buf, dtype="f4", offset=40)
    namespace = {"part": torch.from_numpy(array)[5:90], "tensor": tensor, "shm": shm, "array": array}
    loaded = repo.load(repo.save(namespace))
    assert torch.equal(loaded["tensor"], tensor)
    loaded["part"][0] = -1
    assert loaded["tensor"][15] == loaded["array"][5] == -1
    assert loaded["shm"].buf[60:64].cast("f")[0] == -1
    assert tensor[15] == 15
    written = repo.save(namespace).report.bytes_written
    assert written < 1000
    with open(f"/dev/shm/{shm.name}", "r+b") as file:
        os.ftruncate(file.fileno(), 4096)
    with pytest.warns(Warning, match="shrunk"):
        lost = sorted(each.variable for each in repo.save(namespace).report.skipped)
    # (Not compared where a failure would show the tensors.)
    assert lost == ["array", "shm", "tensor"]  # the part lies in the first page
    del tensor, array, namespace
    gc.collect()
    shm.close()
    shm.unlink()


def test_storages_do_not_keep_descriptors(repo, strategy):
    tensor = torch.arange(30_000.0).share_memory_()
    version = repo.save({"tensor": tensor})
    repo.load(version)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        repo.load(version)
        repo.save({"tensor": tensor})
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_streams_hold_a_copy(strategy):
    tensor = torch.arange(30_000.0).share_memory_()
    copy = chipmink.loads(chipmink.dumps(tensor))
    assert torch.equal(copy, tensor)
    assert not copy.is_shared()
