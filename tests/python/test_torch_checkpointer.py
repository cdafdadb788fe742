"""``chipmink.torch.Checkpointer``: what a training run saves comes back in place, to the last bit."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any

import chipmink
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from buckets import KEYS, Moto, without_credentials  # noqa: E402
from chipmink.torch import Best, Checkpointer, PendingCheckpoint  # noqa: E402
from workers import in_child  # noqa: E402


class Run:
    """A small training run whose every step depends on all that is to be saved."""

    def __init__(self, seed: int = 1, optimizer: Callable[[Any], Any] | None = None, **parts: Any) -> None:
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(16, 200), torch.nn.BatchNorm1d(200), torch.nn.Dropout(0.2), torch.nn.Linear(200, 16)
        )
        self.model.append(torch.nn.Linear(16, 200, bias=False))
        self.model[4].weight = self.model[0].weight
        self.optimizer = (optimizer or (lambda parameters: torch.optim.AdamW(parameters, lr=0.01)))(self.model.parameters())
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, max_lr=0.02, total_steps=100, cycle_momentum=False)
        self.scaler = torch.amp.GradScaler("cpu")
        self.average = torch.optim.swa_utils.AveragedModel(self.model)

    def parts(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "scaler": self.scaler,
            "average": self.average,
        }

    def step(self) -> float:
        noise = random.random() + np.random.random()
        inputs = torch.randn(8, 16) * noise
        self.optimizer.zero_grad()
        loss = (self.model(inputs) ** 2).mean()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.average.update_parameters(self.model)
        return float(loss.detach())

    def run(self, steps: int) -> list[float]:
        return [self.step() for _ in range(steps)]

    def tensors(self) -> dict[str, Any]:
        found = dict(self.model.state_dict())
        found.update((f"average.{name}", value) for name, value in self.average.state_dict().items())
        for at, state in self.optimizer.state_dict()["state"].items():
            found.update((f"{at}.{name}", value) for name, value in state.items())
        return found


def addresses(run: Run) -> dict[str, int]:
    return {name: tensor.data_ptr() for name, tensor in run.tensors().items()}


OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
    "adam, foreach": lambda parameters: torch.optim.Adam(parameters, lr=0.01, foreach=True),
    "adam, fused": lambda parameters: torch.optim.Adam(parameters, lr=0.01, fused=True, amsgrad=True),
    "adam, lr is a tensor": lambda parameters: torch.optim.Adam(parameters, lr=torch.tensor(0.01), foreach=False),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.01),
    "rprop": lambda parameters: torch.optim.Rprop(parameters, lr=0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_goes_on_as_if_it_had_not_stopped(checkpointer, name):
    first = Run(optimizer=OPTIMIZERS[name])
    first.run(3)
    checkpointer(**first.parts()).save(3)
    wanted = first.run(4)
    # Another seed: nothing is right by chance. Its optimizer has no state yet.
    second = Run(seed=2, optimizer=OPTIMIZERS[name])
    found = checkpointer(**second.parts()).restore()
    assert found.step == 3
    assert second.run(4) == wanted
    # One that has run already, and has moved on.
    third = Run(seed=3, optimizer=OPTIMIZERS[name])
    third.run(2)
    before = addresses(third)
    checkpointer(**third.parts()).restore()
    assert addresses(third) == before
    assert third.run(4) == wanted
    # The very run that saved.
    checkpointer(**first.parts()).restore(3)
    assert first.run(4) == wanted


def test_tensors_keep_their_storage_and_what_shares_them(checkpointer):
    run = Run()
    run.run(2)
    saved = checkpointer(**run.parts()).save(1)
    assert saved.report.skipped == saved.report.stubs == ()
    weight = run.model[0].weight
    places = addresses(run)
    step = run.optimizer.state[weight]["step"]
    run.run(2)
    checkpointer(**run.parts()).restore()
    assert run.model[0].weight is run.model[4].weight is weight
    assert addresses(run) == places
    assert run.optimizer.state[weight]["step"] is step
    assert run.optimizer.param_groups[0]["params"][0] is weight
    assert float(step) == 2


def test_a_save_never_sees_later_steps(checkpointer):
    """What training changes after `save` has returned is in no checkpoint, whatever the background does meanwhile."""
    run = Run()
    run.run(1)
    name = f"torch-test-{os.getpid()}"
    states = []
    try:
        with checkpointer(staging=f"shm://{name}", durable=True, **run.parts()) as made:
            for step in range(12):
                made.save(step)
                states.append({key: value.clone() for key, value in run.tensors().items()})
                run.step()
            made.wait()
            for step, state in enumerate(states):
                made.restore(step)
                now = run.tensors()
                assert now.keys() == state.keys()
                assert all(torch.equal(now[key], state[key]) for key in state), step
    finally:
        subprocess.run([sys.executable, "-m", "chipmink", "shm", "rm", name, "--force"], check=True)


def test_the_first_save_after_a_restart_stores_what_changed(checkpointer):
    torch.manual_seed(1)
    table = torch.nn.Embedding(50_000, 16)
    written = checkpointer(table=table).save(0).report.bytes_written
    assert written > 3_000_000
    other = torch.nn.Embedding(50_000, 16)
    again = checkpointer(table=other)
    again.restore()
    with torch.no_grad():
        other.weight[17] += 1
    assert again.save(1).report.bytes_written < 90_000
    assert again.save(2).report.bytes_written < 6_000


def test_frozen_parts_cost_nothing(checkpointer):
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(500, 500), torch.nn.Linear(500, 40))
    model[0].requires_grad_(False)
    optimizer = torch.optim.Adam(model[1].parameters())
    made = checkpointer(model=model, optimizer=optimizer)
    model(torch.randn(4, 500)).sum().backward()
    optimizer.step()
    made.save(0)
    optimizer.step()
    trained = 3 * (500 * 40 + 40) * 4
    assert made.save(1).report.bytes_written < 1.1 * trained + 8_000


def test_what_is_read_is_what_training_left(checkpointer):
    """bf16 parameters with fp32 and uint8 state: `load_state_dict` of torch would convert it."""

    class Quantized(torch.optim.Optimizer):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, {"lr": 0.1})

        def step(self, closure: Any = None) -> None:
            for parameter in self.param_groups[0]["params"]:
                state = self.state[parameter]
                state.setdefault("codes", torch.arange(parameter.numel(), dtype=torch.uint8).view_as(parameter))
                state.setdefault("scale", torch.full(parameter.shape, 1.00001, dtype=torch.float32))
                state.setdefault("map", self.shared)
                state["scale"] *= 1.00001

        shared = torch.arange(256.0)

    parameters = [torch.nn.Parameter(torch.randn(10, 10).bfloat16()) for _ in range(2)]
    optimizer = Quantized(parameters)
    optimizer.step()
    checkpointer(optimizer=optimizer).save(0)
    other = Quantized([torch.nn.Parameter(torch.zeros(10, 10).bfloat16()) for _ in range(2)])
    checkpointer(optimizer=other).restore()
    for mine, theirs in zip(parameters, other.param_groups[0]["params"], strict=True):
        for field, value in optimizer.state[mine].items():
            found = other.state[theirs][field]
            assert found.dtype == value.dtype and torch.equal(found, value)
    first, second = (other.state[each]["map"] for each in other.param_groups[0]["params"])
    assert first is second


def test_state_that_the_checkpoint_lacks_is_removed(checkpointer):
    run = Run()
    made = checkpointer(**run.parts())
    made.save(0)
    run.step()
    assert run.optimizer.state
    made.restore(0)
    assert not run.optimizer.state
    assert run.run(2) == Run().run(2)


def test_views_of_one_buffer_stay_views(checkpointer):
    flat = torch.arange(40_000.0)
    model = torch.nn.Module()
    model.first = torch.nn.Parameter(flat[:30_000].view(100, 300))
    model.second = torch.nn.Parameter(flat[20_000:])
    made = checkpointer(model=model, flat=flat)
    made.save(0)
    with torch.no_grad():
        flat.zero_()
    made.restore()
    assert torch.equal(flat, torch.arange(40_000.0))
    with torch.no_grad():
        model.second[0] = -1
    assert model.first.view(-1)[20_000] == flat[20_000] == -1


def test_parameters_that_are_tied_only_here(checkpointer):
    pair = torch.nn.ModuleList([torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3, bias=False)])
    checkpointer(model=pair).save(0)
    tied = torch.nn.ModuleList([torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3, bias=False)])
    tied[1].weight = tied[0].weight
    before = tied[0].weight.detach().clone()
    with pytest.raises(chipmink.UnsupportedError, match=r"model.0.weight and model.1.weight are one tensor here"):
        checkpointer(model=tied).restore()
    assert torch.equal(tied[0].weight, before)


def test_compiled_and_wrapped_models(checkpointer):
    def make() -> Any:
        return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))

    plain = make()
    checkpointer(model=plain).save(0)
    inner = make()
    inner[1] = torch.compile(inner[1])
    whole = torch.compile(make())
    parallel = torch.nn.DataParallel(make())
    for other in (inner, whole, parallel):
        checkpointer(model=other).restore()
        inputs = torch.randn(3, 4)
        core = getattr(other, "_orig_mod", other)
        weights = [each for each in core.state_dict().values()]
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(weights, plain.state_dict().values(), strict=True)), inputs


def test_hooks_and_extra_state(checkpointer):
    class Counting(torch.nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 3)
            self.seen = {"calls": 0}

        def get_extra_state(self) -> Any:
            return dict(self.seen)

        def set_extra_state(self, state: Any) -> None:
            self.seen = state

    def make() -> Any:
        model = Counting()
        # Their names before torch 2.5 begin with a line.
        of_state = getattr(model, "register_state_dict_post_hook", None) or model._register_state_dict_hook
        of_state(lambda module, state, prefix, _: state.update(doubled=module.weight.detach() * 2))
        seen: list[Any] = []

        def take(module: Any, state: Any, prefix: str, *_: Any) -> None:
            seen.append(state.pop("doubled", None))

        if hasattr(model, "register_load_state_dict_pre_hook"):
            model.register_load_state_dict_pre_hook(take)
        else:
            model._register_load_state_dict_pre_hook(take, with_module=True)
        return model, seen

    model, _ = make()
    model.seen["calls"] = 7
    made = checkpointer(model=model)
    assert made.save(0).report.skipped == ()
    other, seen = make()
    calls = []
    other.register_forward_hook(lambda *_: calls.append(1))
    checkpointer(model=other).restore()
    assert other.seen == {"calls": 7}
    assert torch.equal(other.weight, model.weight)
    assert torch.equal(seen[0], model.weight * 2)
    other(torch.randn(1, 3))
    assert calls == [1]


def test_other_parts(checkpointer):
    def make(value: float) -> dict[str, Any]:
        return {
            "tensor": torch.full((3, 4), value).t(),
            "array": np.full((2, 2), value),
            "generator": torch.Generator().manual_seed(int(value)),
            "numbers": np.random.default_rng(int(value)),
            "python": random.Random(int(value)),
            "history": [value],
            "table": {"value": value},
        }

    first, second = make(1), make(2)
    checkpointer(**first).save(0)
    checkpointer(**second).restore()
    assert torch.equal(second["tensor"], first["tensor"])
    assert np.array_equal(second["array"], first["array"])
    assert torch.equal(torch.rand(3, generator=second["generator"]), torch.rand(3, generator=first["generator"]))
    assert np.array_equal(second["numbers"].random(3), first["numbers"].random(3))
    assert second["python"].random() == first["python"].random()
    assert second["history"] == [1] and second["table"] == {"value": 1}
    with pytest.raises(TypeError, match="metadata"):
        checkpointer(step=3)


def test_metadata_comes_back_with_the_checkpoint(checkpointer):
    made = checkpointer(model=torch.nn.Linear(2, 2))
    assert made.restore() is None
    assert made.latest() is None
    saved = made.save(5, metrics={"loss": torch.tensor(0.25)}, metadata={"epoch": 2, "seen": {"a"}})
    assert saved.step == 5 and saved.stall > 0 and made.stall_seconds >= saved.stall
    found = made.restore()
    assert (found.step, found.version, dict(found.metrics)) == (5, saved, {"loss": 0.25})
    assert found.metadata == {"epoch": 2, "seen": {"a"}}
    assert made.latest() == found


def test_which_checkpoints_there_are(checkpointer):
    model = torch.nn.Linear(2, 2)
    made = checkpointer(model=model)
    for step, loss in enumerate([3.0, 1.0, 2.0, 1.0, float("nan")]):
        with torch.no_grad():
            model.weight.fill_(step)
        made.save(step, metrics={"loss": loss} if step else None)
    assert [each.step for each in made.checkpoints()] == [4, 3, 2, 1, 0]
    assert made.best("loss").step == 3
    assert made.best("loss", "max").step == 2
    assert made.best(Best("accuracy")) is None
    # Going back and on: what came after is no longer part of the run.
    made.restore(2)
    assert model.weight[0, 0] == 2
    made.save(3)
    assert [each.step for each in made.checkpoints()] == [3, 2, 1, 0]
    with pytest.raises(chipmink.NotFoundError, match="no checkpoint of step 4"):
        made.restore(4)


def test_retention_drops_only_checkpoints_of_the_run(checkpointer):
    other = checkpointer(model=torch.nn.Linear(2, 2), ref="other")
    for step in range(3):
        other.save(step)
    model = torch.nn.Linear(2, 2)
    made = checkpointer(model=model, keep_last=2, keep_every=5, keep_best=Best("accuracy", "max"))
    for step in range(13):
        made.save(step, metrics={"accuracy": 1 if step == 3 else 0})
        made.wait()
    assert [each.step for each in made.checkpoints()] == [12, 11, 10, 5, 3, 0]
    assert [each.step for each in other.checkpoints()] == [2, 1, 0]
    made.restore(3)
    assert made.restore().step == 12


def test_runs_fork(checkpointer):
    model = torch.nn.Linear(300, 300)
    made = checkpointer(model=model)
    for step in range(3):
        made.save(step)
    assert made.fork("other", 1).step == 1
    other_model = torch.nn.Linear(300, 300)
    other = checkpointer(model=other_model, ref="other")
    assert other.restore().step == 1
    assert torch.equal(other_model.weight, model.weight)
    with torch.no_grad():
        other_model.bias += 1
    assert other.save(2).report.bytes_written < 8_000
    assert [each.step for each in other.checkpoints()] == [2, 1, 0]
    assert [each.step for each in made.checkpoints()] == [2, 1, 0]
    assert other.checkpoints()[0].version != made.checkpoints()[0].version
    made.restore(version=other.checkpoints()[0].version)
    assert torch.equal(other_model.bias, model.bias)


def test_what_does_not_fit_changes_nothing(checkpointer):
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2))
    optimizer = torch.optim.Adam(model.parameters())
    made = checkpointer(model=model, optimizer=optimizer)
    made.save(0)
    smaller = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 1))
    before = [each.clone() for each in smaller.state_dict().values()]
    wrong = checkpointer(model=smaller, optimizer=torch.optim.Adam(smaller.parameters()))
    with pytest.raises(chipmink.UnsupportedError, match=r"1.weight is float32 of \(2, 3\) in the checkpoint"):
        wrong.restore()
    with pytest.raises(chipmink.UnsupportedError, match="the checkpoint has optimizer, which is not here"):
        checkpointer(model=model).restore()
    with pytest.raises(chipmink.UnsupportedError, match="the checkpoint lacks extra"):
        checkpointer(model=model, optimizer=optimizer, extra=[]).restore()
    with pytest.raises(chipmink.UnsupportedError, match=r"groups of \[1\] parameters, and \[4\]"):
        checkpointer(model=model, optimizer=torch.optim.Adam([model[0].weight])).restore()
    with pytest.raises(chipmink.UnsupportedError, match="the model lacks 1.bias, 1.weight"):
        checkpointer(model=model[:1], optimizer=optimizer).restore()
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(smaller.state_dict().values(), before, strict=True))
    assert checkpointer(model=model[:1]).restore(strict=False).step == 0
    assert checkpointer(model=model, optimizer=optimizer).restore(names=["model"]).step == 0


def test_a_failure_in_the_background_is_raised_by_the_next_call(checkpointer, monkeypatch):
    made = checkpointer(model=torch.nn.Linear(2, 2), keep_last=1)
    made.save(0)
    made.wait()

    def fail(**_: Any) -> None:
        raise chipmink.StorageError("the disk is gone")

    monkeypatch.setattr(made.repository, "sweep", fail)
    made.save(1)
    with pytest.raises(chipmink.StorageError, match="the disk is gone"):
        made.wait()
    made.wait()


def test_a_child_does_not_wait_for_a_thread_that_it_has_not():
    pending = PendingCheckpoint(7)
    assert in_child(pending.wait).startswith("ClosedError: the checkpoint of step 7 is saved by the process that this one was forked from")


def test_preemption(checkpointer):
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    try:
        made = checkpointer(model=torch.nn.Linear(2, 2), preemption=[signal.SIGUSR1])
        assert not made.preempted
        os.kill(os.getpid(), signal.SIGUSR1)
        assert made.preempted and not seen
        assert made.save(0).done
        os.kill(os.getpid(), signal.SIGUSR1)
        assert seen == [1]
        made.close()
        assert callable(signal.getsignal(signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_bucket(monkeypatch, tmp_path):
    without_credentials(monkeypatch, tmp_path)
    server = Moto()
    try:
        server.make_bucket("bucket")
        reached = {"endpoint": server.endpoint, "region": "us-east-1", **KEYS}
        first = Run()
        with Checkpointer("s3://bucket/runs", open_options=reached, keep_last=2, **first.parts()) as made:
            for step in range(4):
                first.step()
                made.save(step)
        wanted = first.run(2)
        second = Run(seed=2)
        with Checkpointer("s3://bucket/runs", open_options=reached, **second.parts()) as made:
            assert [each.step for each in made.checkpoints()] == [3, 2]
            assert made.restore().step == 3
        assert second.run(2) == wanted
    finally:
        server.stop()


def test_a_closed_checkpointer_holds_nothing(checkpointer):
    model = torch.nn.Linear(2, 2)
    made = checkpointer(model=model)
    assert "of model, random_state at" in repr(made)
    made.save(0)
    seen = weakref.ref(model)
    del model
    made.close()
    made.close()
    gc.collect()
    assert seen() is None and "nothing any more" in repr(made)
    for act in (lambda: made.save(1), made.restore, made.wait):
        with pytest.raises(chipmink.ClosedError):
            act()


def test_a_repository_that_is_open_already(repo):
    model = torch.nn.Linear(2, 2)
    with Checkpointer(repo, model=model, random=False) as made:
        made.save(0)
    assert repo.names() == ["checkpoint", "model"]
    assert repo.log()[0].message == "step 0"
    assert torch.equal(repo.load()["model"]["weight"], model.weight)


def test_what_is_dropped_is_no_checkpoint_of_a_log_that_is_out_of_date(tmp_path, monkeypatch):
    weights = torch.arange(4.0)
    with Checkpointer(tmp_path / "runs", durable=False, keep_last=2, weights=weights) as made:
        for step in range(3):
            made.save(step)
            made.wait()
        before = made.repository.log()
        # As if the log had been read just before the next checkpoint was saved.
        monkeypatch.setattr(chipmink.Repository, "log", lambda self, *_, **__: before)
        made.save(3)
        made.wait()
        monkeypatch.undo()
        assert [each.step for each in made.checkpoints()][:2] == [3, 2]
        made.save(4)
        made.wait()
        assert [each.step for each in made.checkpoints()] == [4, 3]


def test_importing_chipmink_imports_no_torch():
    code = "import sys, chipmink; assert 'torch' not in sys.modules; chipmink.torch.Checkpointer; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
