"""What else a training run may hold, and what users do around a ``Checkpointer``."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_steps import step  # noqa: E402


def test_tensors_in_containers_stay_where_they_are(checkpointer):
    model = torch.nn.Linear(3, 2)
    shared = torch.ones(4)
    average = {"weights": {name: value.detach().clone() for name, value in model.named_parameters()}, "tail": [shared, shared, 1.5]}
    made = checkpointer(model=model, average=average)
    made.save(0)
    inner, places = average["weights"], {name: value.data_ptr() for name, value in average["weights"].items()}
    wanted = {name: value.clone() for name, value in inner.items()}
    for value in inner.values():
        value.zero_()
    shared.zero_()
    inner["more"] = torch.ones(1)
    average["tail"].append("x")
    made.restore()
    assert average["weights"] is inner and inner.keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) and value.data_ptr() == places[name] for name, value in inner.items())
    assert average["tail"][0] is average["tail"][1] is shared and average["tail"][2:] == [1.5]
    assert torch.equal(shared, torch.ones(4))


def test_containers_are_tied_as_they_were(checkpointer):
    whole = torch.arange(8.0)
    checkpointer(box=[whole, whole[2:5], torch.zeros(2), [1]]).save(0)
    same = torch.full((2,), 7.0)
    live = [torch.zeros(8), torch.zeros(3), same, same]
    checkpointer(box=live).restore()
    live[0][3] = -1
    assert live[1].tolist() == [2, -1, 4]
    assert live[2].tolist() == [0, 0] and live[3] == [1]
    cyclic: dict[str, Any] = {"tensor": torch.ones(2)}
    cyclic["self"] = cyclic
    made = checkpointer(cyclic=cyclic, ref="cyclic")
    made.save(0)
    tensor = cyclic["tensor"]
    tensor.zero_()
    made.restore()
    assert cyclic["self"] is cyclic and cyclic["tensor"] is tensor and torch.equal(tensor, torch.ones(2))


def test_what_would_come_back_as_another_object_is_no_content(checkpointer):
    model = torch.nn.Linear(2, 2)
    for holder in ([model], {"a": ([torch.optim.SGD(model.parameters(), lr=0.1)],)}, {"g": torch.Generator()}):
        with pytest.raises(TypeError, match=r"holder\[.*give it by a name of its own"):
            checkpointer(holder=holder)


class Sampler(torch.utils.data.Sampler[int]):
    """Goes on in the middle of an epoch."""

    def __init__(self, length: int) -> None:
        self.length, self.epoch, self.seen = length, 0, 0

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(self.length, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        while self.seen < self.length:
            self.seen += 1
            yield order[self.seen - 1]
        self.epoch, self.seen = self.epoch + 1, 0

    def __len__(self) -> int:
        return self.length

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "seen": self.seen}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.seen = state["epoch"], state["seen"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore")
def test_data_goes_on_in_the_middle_of_an_epoch(checkpointer, workers):
    data = [torch.tensor([float(number)]) for number in range(20)]

    def batches(sampler: Sampler, count: int) -> Iterator[list[float]]:
        while count:
            # With nothing loaded ahead, what the sampler has given is what was seen.
            loader = torch.utils.data.DataLoader(data, batch_size=4, sampler=sampler, num_workers=0)
            for batch in loader:
                yield batch[:, 0].tolist()
                count -= 1
                if not count:
                    return

    whole = list(batches(Sampler(20), 12))
    sampler = Sampler(20)
    made = checkpointer(model=torch.nn.Linear(1, 1), sampler=sampler)
    first = list(batches(sampler, 7))
    if workers:
        # Processes that were forked beside it do not disturb it.
        forked = torch.utils.data.DataLoader(data, batch_size=4, num_workers=workers)
        assert sum(len(batch) for batch in forked) == 20
    made.save(7)
    other = Sampler(20)
    checkpointer(model=torch.nn.Linear(1, 1), sampler=other).restore()
    assert first + list(batches(other, 5)) == whole


# --- what is around ---------------------------------------------------------------------------------------------------


def test_a_default_device_changes_nothing(checkpointer, repo):
    torch.manual_seed(1)
    model = torch.nn.Linear(300, 300)
    optimizer = torch.optim.Adam(model.parameters())
    step(model, optimizer, 300)
    other = torch.nn.Linear(300, 300)
    other_optimizer = torch.optim.Adam(other.parameters())
    torch.set_default_device("meta")
    try:
        checkpointer(model=model, optimizer=optimizer).save(0)
        checkpointer(model=other, optimizer=other_optimizer).restore()
        loaded = repo.load(repo.save({"weight": model.weight, "rows": model.weight[3:5]}))
    finally:
        torch.set_default_device(None)
    assert torch.equal(other.weight, model.weight) and torch.equal(loaded["weight"], model.weight)
    assert torch.equal(loaded["rows"], model.weight[3:5])
    assert torch.equal(other_optimizer.state[other.weight]["exp_avg"], optimizer.state[model.weight]["exp_avg"])


def test_inference_mode_and_autocast_change_nothing(checkpointer):
    torch.manual_seed(1)
    model = torch.nn.Linear(6, 2)
    with torch.inference_mode():
        model.register_buffer("seen", torch.arange(3.0))
    optimizer = torch.optim.Adam(model.parameters())
    step(model, optimizer)
    made = checkpointer(model=model, optimizer=optimizer)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        made.save(0)
    wanted = step(model, optimizer)
    optimizer.state.clear()
    with torch.inference_mode():
        model.seen.zero_()
        made.restore()
    assert torch.equal(model.seen, torch.arange(3.0))
    assert step(model, optimizer) == wanted
    with torch.no_grad():
        made.restore()
    assert step(model, optimizer) == wanted


def test_a_gradient_scaler_goes_on(checkpointer):
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1)

    def turn(scaler: Any) -> float:
        optimizer.zero_grad()
        scaler.scale((parameter**2).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        return float(scaler.get_scale())

    turn(scaler)
    checkpointer(scaler=scaler).save(0)
    wanted = [turn(scaler) for _ in range(4)]
    other = torch.amp.GradScaler("cpu")
    checkpointer(scaler=other).restore()
    assert [turn(other) for _ in range(4)] == wanted and len(set(wanted)) > 1


def test_an_average_of_a_model(checkpointer):
    torch.manual_seed(1)
    model = torch.nn.Linear(4, 4)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    for _ in range(2):
        with torch.no_grad():
            model.weight.add_(1)
        average.update_parameters(model)
    checkpointer(model=model, average=average).save(0)
    wanted = average.module.weight.clone()
    place = average.module.weight.data_ptr()
    with torch.no_grad():
        model.weight.add_(1)
    average.update_parameters(model)
    checkpointer(model=model, average=average).restore()
    assert torch.equal(average.module.weight, wanted) and average.module.weight.data_ptr() == place
    assert int(average.n_averaged) == 2


def test_integers_and_arrays_of_numpy_beside_tensors(checkpointer):
    counts = np.arange(6).reshape(2, 3)[:, ::2]
    made = checkpointer(counts=counts, steps={"seen": np.int64(3), "names": ("a", b"b")})
    made.save(0)
    counts[:] = 0
    made.restore()
    assert counts.tolist() == [[0, 2], [3, 5]]


def test_copies_of_a_model_cost_what_differs(checkpointer):
    torch.manual_seed(1)
    model = torch.nn.Linear(700, 700)
    size = sum(each.nbytes for each in model.parameters())
    average = torch.optim.swa_utils.AveragedModel(model)
    written = checkpointer(model=model, average=average, best={"weight": model.weight.detach().clone()}).save(0).report.bytes_written
    assert size < written < 1.05 * size
    # Another run that begins with the same weights.
    assert checkpointer(model=copy.deepcopy(model), ref="other").save(0).report.bytes_written < 0.02 * size
    with torch.no_grad():
        average.module.weight[5] += 1
    again = checkpointer(model=model, average=average, ref="third").save(0).report.bytes_written
    assert again < 0.1 * size
