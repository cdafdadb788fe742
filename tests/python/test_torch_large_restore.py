"""Restoring large tensors: read straight into live memory, and nothing damaged ever gets there."""

from __future__ import annotations

import sys
import time
from typing import Any

import chipmink
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from chipmink.torch import Checkpointer  # noqa: E402

LEN = 1 << 20


def noise(count: int = LEN, seed: int = 1, dtype: Any = None) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, generator=generator).to(dtype or torch.float32)


def damage(folder: Any) -> None:
    pack = max((folder / "packs").iterdir(), key=lambda path: path.stat().st_size)
    with open(pack, "r+b") as file:
        # In the middle of the first of two tensors.
        file.seek(pack.stat().st_size // 4)
        file.write(b"damage")


@pytest.mark.parametrize("verify", ["background", "eager", "never"])
def test_large_tensors_come_back_where_they_lie(tmp_path, verify):
    values = {
        "fp32": noise(),
        "bf16": noise(dtype=torch.bfloat16),
        "int8": torch.arange(LEN, dtype=torch.int64).to(torch.int8),
        "flags": noise() > 0,
        "complex": torch.complex(noise(), noise(seed=2)),
        "columns": noise().view(1024, 1024).t(),
        "odd": noise()[1:-3],
        "compressible": torch.zeros(LEN),
        "small": noise(1000),
        "none": noise(0),
        "scalar": torch.tensor(3.5),
    }
    kept = {name: value.clone() for name, value in values.items()}
    with Checkpointer(tmp_path / "runs", **values, verify=verify) as made:
        made.save(0)
        for value in values.values():
            value.zero_()
        places = {name: value.data_ptr() for name, value in values.items()}
        versions = {name: value._version for name, value in values.items()}
        made.restore()
        for name, value in values.items():
            assert torch.equal(value, kept[name]), name
            assert value.data_ptr() == places[name]
            # Autograd must see that it is not what it was.
            assert value._version > versions[name] or not value.numel(), name


def test_a_large_array_comes_back_where_it_lies(tmp_path):
    array = noise().numpy().copy()
    kept = array.copy()
    with Checkpointer(tmp_path / "runs", array=array) as made:
        made.save(0)
        array[:] = 0
        made.restore()
    assert np.array_equal(array, kept)


def test_what_changed_a_little_is_restored_from_differences(tmp_path):
    weights = noise()
    kept = []
    with Checkpointer(tmp_path / "runs", weights=weights) as made:
        for step in range(6):
            made.save(step)
            kept.append(weights.clone())
            weights[step * 1000 : step * 1000 + 5] += 1
        for step in (5, 2, 0, 3):
            made.restore(step)
            assert torch.equal(weights, kept[step])


def test_tensors_over_one_memory_are_restored_in_order(tmp_path):
    whole = noise()
    kept = whole.clone()
    with Checkpointer(tmp_path / "runs", whole=whole, part=whole[1000:-1000], again=whole.view(1024, 1024)) as made:
        made.save(0)
        whole.zero_()
        made.restore()
    assert torch.equal(whole, kept)


def test_with_eager_checks_damage_changes_nothing(tmp_path):
    first, second = noise(), noise(seed=2)
    with Checkpointer(tmp_path / "runs", first=first, second=second, verify="eager") as made:
        made.save(0)
        first.zero_()
        second.zero_()
        damage(tmp_path / "runs")
        with pytest.raises(chipmink.DamagedError):
            made.restore()
    assert not first.any() and not second.any()


def test_damaged_bytes_never_get_into_live_tensors(tmp_path):
    first, second = noise(), noise(seed=2)
    kept = torch.stack([first, second])
    with Checkpointer(tmp_path / "runs", first=first, second=second) as made:
        made.save(0)
        first.zero_()
        second.zero_()
        damage(tmp_path / "runs")
        with pytest.raises(chipmink.DamagedError, match="restore another one"):
            made.restore()
    live = torch.stack([first, second])
    # Each chunk is what it was or what was stored.
    assert ((live == kept) | (live == 0)).all()


def test_damage_with_a_whole_copy_elsewhere_is_no_damage(tmp_path):
    weights = noise()
    kept = weights.clone()
    with Checkpointer(tmp_path / "runs", weights=weights) as made:
        made.save(0)
    copy = tmp_path / "copy"
    for each in (tmp_path / "runs").rglob("*"):
        if each.is_file():
            (copy / each.relative_to(tmp_path / "runs")).parent.mkdir(parents=True, exist_ok=True)
            (copy / each.relative_to(tmp_path / "runs")).write_bytes(each.read_bytes())
    damage(tmp_path / "runs")
    with chipmink.open(tmp_path / "runs") as repository:
        repository.repair(mirror=copy)
    for verify in ("background", "eager"):
        with Checkpointer(tmp_path / "runs", weights=weights, verify=verify) as made:
            weights.zero_()
            made.restore()
            assert torch.equal(weights, kept)


def test_a_model_trains_on_after_a_restore_of_what_its_graph_refers_to(tmp_path):
    model = torch.nn.Linear(1024, 1024)
    with Checkpointer(tmp_path / "runs", model=model) as made:
        made.save(0)
        # What backward needs of the old weights is gone: it must say so.
        loss = model(model(torch.ones(2, 1024))).sum()
        made.restore()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
        model(torch.ones(2, 1024)).sum().backward()


def anonymous(tensors: list[Any]) -> int:
    """Bytes that the process has for itself of the memory of tensors."""
    starts = sorted((each.data_ptr(), each.numel() * each.element_size()) for each in tensors)
    found, within = 0, False
    with open("/proc/self/smaps") as lines:
        for line in lines:
            head = line.split(maxsplit=1)[0]
            if "-" in head and not head.endswith(":"):
                first, end = (int(part, 16) for part in head.split("-"))
                within = any(first < start + size and start < end for start, size in starts)
            elif within and head == "Anonymous:":
                found += int(line.split()[1]) * 1024
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")
@pytest.mark.parametrize("learns", [True, False])
def test_the_state_that_the_next_step_writes_is_made_ready_for_it(tmp_path, learns):
    def run() -> tuple[Any, Any]:
        parameter = torch.nn.Parameter(noise())
        return parameter, torch.optim.Adam([parameter])

    parameter, optimizer = run()
    parameter.grad = noise(seed=2)
    optimizer.step()
    kept = {name: value.clone() for name, value in optimizer.state[parameter].items()}
    with Checkpointer(tmp_path / "runs", optimizer=optimizer) as made:
        made.save(0)
    parameter, optimizer = run()
    parameter.requires_grad_(learns)
    with Checkpointer(tmp_path / "runs", optimizer=optimizer) as again:
        again.restore()
        state = optimizer.state[parameter]
        large = [state["exp_avg"], state["exp_avg_sq"]]
        size = sum(each.numel() * each.element_size() for each in large)
        ends = time.monotonic() + (20 if learns else 0.3)
        while anonymous(large) < size and time.monotonic() < ends:
            time.sleep(0.01)
        # What was never written by the program is its own only if it was about to be.
        assert (anonymous(large) >= size) == learns
        for name, value in kept.items():
            assert torch.equal(state[name], value), name
    with Checkpointer(tmp_path / "runs", optimizer=optimizer) as last:
        parameter.requires_grad_(True)
        parameter.grad = noise(seed=3)
        optimizer.step()
        # What is stored has not changed with it.
        last.restore()
        assert all(torch.equal(optimizer.state[parameter][name], value) for name, value in kept.items())
