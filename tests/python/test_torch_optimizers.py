"""Optimizers, their state and their schedulers in a ``Checkpointer``."""

from __future__ import annotations

from typing import Any

import chipmink
import pytest

torch = pytest.importorskip("torch")

from torch.optim import lr_scheduler  # noqa: E402
from torch_steps import step  # noqa: E402


SCHEDULERS = {
    "lambda": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch),
    "steps": lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [2, 4]),
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 3),
    "cyclic": lambda optimizer: lr_scheduler.CyclicLR(optimizer, 1e-4, 1e-2, cycle_momentum=False),
    "plateau": lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, patience=0),
    "sequence": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer, [lr_scheduler.LinearLR(optimizer, total_iters=2), lr_scheduler.ExponentialLR(optimizer, 0.9)], [2]
    ),
    "chain": lambda optimizer: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(optimizer), lr_scheduler.PolynomialLR(optimizer, 5)]
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_go_on(checkpointer, name):
    def make() -> tuple[Any, Any, Any]:
        model = torch.nn.Linear(6, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        return model, optimizer, SCHEDULERS[name](optimizer)

    def run(parts: tuple[Any, Any, Any], steps: int) -> list[tuple[float, float]]:
        found = []
        for _ in range(steps):
            loss = step(*parts[:2])
            arguments = (loss,) if name == "plateau" else ()
            parts[2].step(*arguments)
            found.append((loss, parts[1].param_groups[0]["lr"]))
        return found

    torch.manual_seed(1)
    first = make()
    run(first, 3)
    saved = checkpointer(model=first[0], optimizer=first[1], scheduler=first[2]).save(0)
    assert saved.report.skipped == saved.report.stubs == ()
    wanted = run(first, 4)
    second = make()
    checkpointer(model=second[0], optimizer=second[1], scheduler=second[2]).restore()
    assert run(second, 4) == wanted


def test_groups_that_are_added_between_saves(checkpointer):
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Linear(6, 2))
    optimizer = torch.optim.AdamW(model[0].parameters(), lr=0.01)
    made = checkpointer(model=model, optimizer=optimizer)
    step(model, optimizer)
    made.save(0)
    optimizer.add_param_group({"params": list(model[1].parameters()), "lr": 0.5, "weight_decay": 0.0})
    step(model, optimizer)
    made.save(1)
    wanted = [step(model, optimizer) for _ in range(2)]
    other = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Linear(6, 2))
    groups = [{"params": list(other[0].parameters())}, {"params": list(other[1].parameters()), "lr": 0.1}]
    other_optimizer = torch.optim.AdamW(groups, lr=0.2)
    again = checkpointer(model=other, optimizer=other_optimizer)
    again.restore()
    assert [group["lr"] for group in other_optimizer.param_groups] == [0.01, 0.5]
    assert [step(other, other_optimizer) for _ in range(2)] == wanted
    with pytest.raises(chipmink.UnsupportedError, match=r"groups of \[2, 2\] parameters, and \[2\]"):
        again.restore(0)


def test_names_of_parameters_stay(checkpointer):
    model = torch.nn.Linear(6, 2)
    checkpointer(optimizer=torch.optim.SGD(model.parameters(), lr=0.1)).save(0)
    try:
        named = torch.optim.SGD(model.named_parameters(), lr=0.2)
    except TypeError:
        pytest.skip("optimizers of this torch know no names")
    if "param_names" not in named.param_groups[0]:
        pytest.skip("optimizers of this torch know no names")
    checkpointer(optimizer=named).restore()
    assert named.param_groups[0]["param_names"] == ["weight", "bias"] and named.param_groups[0]["lr"] == 0.1


class Lookahead(torch.optim.SGD):
    """Has state of its own beside that of torch's optimizers, as many wrappers do."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, lr=0.1)
        self.slow = torch.zeros(3)

    def state_dict(self) -> Any:
        return {**super().state_dict(), "slow": self.slow}

    def load_state_dict(self, state: Any) -> None:
        self.slow = state["slow"]
        super().load_state_dict({key: value for key, value in state.items() if key != "slow"})


def test_optimizers_with_more_state_than_those_of_torch(checkpointer):
    optimizer = Lookahead([torch.nn.Parameter(torch.ones(2))])
    optimizer.slow += 5
    checkpointer(optimizer=optimizer).save(0)
    other = Lookahead([torch.nn.Parameter(torch.ones(2))])
    checkpointer(optimizer=other).restore()
    assert torch.equal(other.slow, torch.full((3,), 5.0))


def test_hooks_behind_the_state_of_an_optimizer_run(checkpointer):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    seen: list[float] = []
    optimizer.register_load_state_dict_post_hook(lambda made: seen.append(made.param_groups[0]["lr"]))
    made = checkpointer(optimizer=optimizer)
    made.save(0)
    optimizer.param_groups[0]["lr"] = 0.7
    made.restore()
    assert seen == [0.1]


def test_an_optimizer_with_lists_in_its_state(checkpointer):
    def make() -> tuple[Any, Any]:
        model = torch.nn.Linear(6, 2)
        return model, torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3, history_size=4)

    inputs = torch.randn(4, 6)

    def run(model: Any, optimizer: Any) -> list[float]:
        def closure() -> Any:
            optimizer.zero_grad()
            loss = (model(inputs) ** 2).mean()
            loss.backward()
            return loss

        return [float(optimizer.step(closure).detach()) for _ in range(3)]

    torch.manual_seed(1)
    model, optimizer = make()
    run(model, optimizer)
    checkpointer(model=model, optimizer=optimizer).save(0)
    wanted = run(model, optimizer)
    other, other_optimizer = make()
    checkpointer(model=other, optimizer=other_optimizer).restore()
    assert run(other, other_optimizer) == wanted


def test_state_of_another_type_than_the_parameter_stays_so(checkpointer):
    """fp32 state of bf16 parameters, of an optimizer that has run already and of one that has not."""
    made = []
    for _ in range(3):
        parameter = torch.nn.Parameter(torch.randn(40).bfloat16())
        optimizer = torch.optim.AdamW([parameter], lr=0.1)
        optimizer.state[parameter].update(step=torch.tensor(1.0), exp_avg=torch.randn(40), exp_avg_sq=torch.rand(40))
        made.append((parameter, optimizer))
    (first, saved), (second, run), (third, fresh) = made
    fresh.state.clear()
    checkpointer(optimizer=saved).save(0)
    place = run.state[second]["exp_avg"].data_ptr()
    for parameter, optimizer in ((second, run), (third, fresh)):
        checkpointer(optimizer=optimizer).restore()
        for field in ("exp_avg", "exp_avg_sq"):
            found = optimizer.state[parameter][field]
            assert found.dtype == torch.float32 and torch.equal(found, saved.state[first][field])
    assert run.state[second]["exp_avg"].data_ptr() == place
