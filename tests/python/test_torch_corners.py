"""What else a training run may hold, and what users do around a ``Checkpointer``: everything comes back, or is refused before it is too late."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import chipmink
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from chipmink.torch import Checkpointer, export_file, import_file  # noqa: E402
from torch.nn.utils import parametrizations, parametrize  # noqa: E402
from torch.optim import lr_scheduler  # noqa: E402


@pytest.fixture
def checkpointer(tmp_path) -> Iterator[Callable[..., Checkpointer]]:
    made: list[Checkpointer] = []

    def make(**parts: Any) -> Checkpointer:
        made.append(Checkpointer(tmp_path / "runs", **{"durable": False, **parts}))
        return made[-1]

    yield make
    for each in made:
        each.close()


def step(model: Any, optimizer: Any, width: int = 6) -> float:
    optimizer.zero_grad()
    loss = (model(torch.randn(4, width)) ** 2).mean()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


# --- modules ----------------------------------------------------------------------------------------------------------


class Symmetric(torch.nn.Module):
    def forward(self, weight: Any) -> Any:
        return weight.triu() + weight.triu(1).T


def parametrized() -> Any:
    model = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Linear(6, 6), torch.nn.Linear(6, 6), torch.nn.Linear(6, 6))
    parametrize.register_parametrization(model[0], "weight", Symmetric())
    parametrizations.weight_norm(model[1])
    parametrizations.spectral_norm(model[2])
    parametrizations.orthogonal(model[3])
    return model


def embeddings() -> Any:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(6, 6, sparse=False)
            self.head = torch.nn.Linear(6, 6, bias=False)
            self.head.weight = self.table.weight

        def forward(self, x: Any) -> Any:
            return self.head(self.table((x.abs() * 2).long().clamp(0, 5))).sum(1)

    return Tied()


def scripted() -> Any:
    return torch.jit.script(torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.ReLU()))


def lazy() -> Any:
    model = torch.nn.Sequential(torch.nn.LazyLinear(7), torch.nn.LazyBatchNorm1d(), torch.nn.Linear(7, 2))
    model(torch.randn(4, 6))
    return model


MODULES = {"parametrized": parametrized, "embeddings": embeddings, "scripted": scripted, "lazy": lazy}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODULES)
def test_modules_of_all_kinds_go_on(checkpointer, name):
    torch.manual_seed(1)
    model = MODULES[name]()
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(2):
        step(model, optimizer)
    saved = checkpointer(model=model, optimizer=optimizer).save(0)
    assert saved.report.skipped == saved.report.stubs == ()
    wanted = [step(model, optimizer) for _ in range(3)]
    torch.manual_seed(2)
    other = MODULES[name]()
    other_optimizer = torch.optim.Adam(other.parameters())
    checkpointer(model=other, optimizer=other_optimizer).restore()
    assert [step(other, other_optimizer) for _ in range(3)] == wanted
    # A copy has nothing in common with what was restored.
    before = [each.clone() for each in other.state_dict().values()]
    if name != "scripted":
        twin = copy.deepcopy(other)
        step(twin, torch.optim.Adam(twin.parameters()))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(other.state_dict().values(), before, strict=True))


@pytest.mark.filterwarnings("ignore")
def test_a_module_that_is_not_initialized_is_by_the_checkpoint(checkpointer):
    model = lazy()
    checkpointer(model=model).save(0)
    fresh = torch.nn.Sequential(torch.nn.LazyLinear(7), torch.nn.LazyBatchNorm1d(), torch.nn.Linear(7, 2))
    checkpointer(model=fresh).restore()
    inputs = torch.randn(4, 6)
    model.eval()
    fresh.eval()
    assert torch.equal(fresh(inputs), model(inputs))


@pytest.mark.filterwarnings("ignore")
def test_what_is_not_initialized_in_the_checkpoint_is_no_state(checkpointer):
    checkpointer(model=torch.nn.LazyLinear(3)).save(0)
    with pytest.raises(chipmink.UnsupportedError, match="weight is not initialized in the checkpoint"):
        checkpointer(model=torch.nn.Linear(2, 3)).restore()


@pytest.mark.filterwarnings("ignore")
def test_quantized_modules(checkpointer):
    def make() -> Any:
        model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU())
        return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)

    if "fbgemm" not in torch.backends.quantized.supported_engines or not hasattr(torch.ao.quantization, "quantize_dynamic"):
        pytest.skip("this torch quantizes nothing here")
    torch.manual_seed(1)
    model = make()
    saved = checkpointer(model=model).save(0)
    assert saved.report.skipped == saved.report.stubs == ()
    other = make()
    inputs = torch.randn(3, 6)
    assert not torch.equal(other(inputs), model(inputs))
    checkpointer(model=other).restore()
    assert torch.equal(other(inputs), model(inputs))


def test_sparse_and_quantized_buffers(checkpointer):
    def make(value: float, count: int) -> Any:
        model = torch.nn.Linear(2, 2)
        indices = torch.arange(count).repeat(2, 1)
        model.register_buffer("coo", torch.sparse_coo_tensor(indices, torch.full((count,), value), (5, 5)).coalesce())
        model.register_buffer("csr", (torch.eye(4) * value).to_sparse_csr())
        model.register_buffer("codes", torch.quantize_per_tensor(torch.full((4,), value), value / 10, 0, torch.qint8))
        return model

    model = make(2.0, 3)
    saved = checkpointer(model=model).save(0)
    assert saved.report.skipped == saved.report.stubs == ()
    other = make(1.0, 2)
    checkpointer(model=other).restore()
    for name in ("coo", "csr"):
        assert torch.equal(getattr(other, name).to_dense(), getattr(model, name).to_dense())
    assert torch.equal(other.codes.dequantize(), model.codes.dequantize())
    model.csr = torch.ones(4, 4).to_sparse_csr()
    before = other.weight.detach().clone()
    with torch.no_grad():
        other.weight.add_(1)
    checkpointer(model=model).save(1)
    # Of this layout torch cannot write one into another of another number of elements.
    with pytest.raises(chipmink.UnsupportedError, match="csr"):
        checkpointer(model=other).restore()
    assert torch.equal(other.weight, before + 1)


def test_sparse_tensors_as_parts(checkpointer):
    made = {"coo": torch.eye(3).to_sparse(), "parameter": torch.nn.Parameter(torch.ones(70_000))}
    box = {"inner": torch.eye(2).to_sparse()}
    saver = checkpointer(**made, box=box)
    saver.save(0)
    inner = box["inner"]
    with torch.no_grad():
        for each in (*made.values(), inner):
            each.mul_(5)
    saver.restore()
    assert torch.equal(made["coo"].to_dense(), torch.eye(3)) and bool((made["parameter"] == 1).all())
    assert box["inner"] is inner and torch.equal(inner.to_dense(), torch.eye(2))
    assert made["parameter"].requires_grad


def test_a_file_of_safetensors_holds_no_sparse_tensors(checkpointer, tmp_path):
    pytest.importorskip("safetensors")
    made = checkpointer(model=torch.nn.Linear(2, 2), table={"a": torch.eye(3).to_sparse()})
    made.save(0)
    with pytest.raises(chipmink.UnsupportedError, match="holds a, which are no plain tensors"):
        export_file(made.repository, tmp_path / "x.safetensors", name="table")


def test_tensors_made_of_others(checkpointer):
    """Their subclasses have no memory of their own, so all of one shape look like one."""
    two = pytest.importorskip("torch.testing._internal.two_tensor").TwoTensor

    def make(value: float) -> Any:
        model = torch.nn.Module()
        for at in range(3):
            inner = torch.full((2, 2), value + at)
            model.register_buffer(f"b{at}", two(inner, inner + 10))
        return model

    model = make(1.0)
    saved = checkpointer(model=model).save(0)
    assert saved.report.skipped == saved.report.stubs == ()
    other = make(100.0)
    inner = [getattr(other, f"b{at}").a.data_ptr() for at in range(3)]
    checkpointer(model=other).restore()
    for at in range(3):
        mine, theirs = getattr(model, f"b{at}"), getattr(other, f"b{at}")
        assert torch.equal(mine.a, theirs.a) and torch.equal(mine.b, theirs.b)
        assert theirs.a.data_ptr() == inner[at]


def test_buffers_that_show_elements_again_and_again(checkpointer):
    def make(value: Any) -> Any:
        model = torch.nn.Linear(2, 2)
        model.register_buffer("mask", value)
        return model

    row = torch.arange(3.0)
    checkpointer(model=make(row.view(1, 3).expand(4, 3))).save(0)
    base = torch.zeros(1, 3)
    live = make(base.expand(4, 3))
    checkpointer(model=live).restore()
    assert torch.equal(live.mask, row.expand(4, 3)) and torch.equal(base[0], row)
    checkpointer(model=make(torch.arange(12.0).view(4, 3))).save(1)
    before = {name: value.clone() for name, value in live.state_dict().items()}
    with pytest.raises(chipmink.UnsupportedError, match="shows the same elements again along dimension 0"):
        checkpointer(model=live).restore()
    assert all(torch.equal(value, before[name]) for name, value in live.state_dict().items())


def test_hooks_of_what_is_loaded_run(checkpointer):
    class Cached(torch.nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 3)
            self.total = math.nan
            self.calls: list[str] = []
            self.register_load_state_dict_post_hook(lambda module, keys: module.refresh("post"))

        def refresh(self, who: str) -> None:
            self.calls.append(who)
            self.total = float(self.weight.detach().sum())

        def _load_from_state_dict(self, *arguments: Any) -> None:
            super()._load_from_state_dict(*arguments)
            self.refresh("own")

    model = torch.nn.Sequential(Cached(), torch.nn.Linear(3, 3))
    checkpointer(model=model).save(0)
    other = torch.nn.Sequential(Cached(), torch.nn.Linear(3, 3))
    place = other[0].weight.data_ptr()
    checkpointer(model=other).restore()
    assert other[0].calls == ["own", "post"]
    assert other[0].total == float(model[0].weight.detach().sum())
    assert other[0].weight.data_ptr() == place and torch.equal(other[1].weight, model[1].weight)


@pytest.mark.skipif(not hasattr(torch.Tensor, "refine_names"), reason="dimensions of this torch have no names")
def test_tensors_with_names(repo):
    named = torch.arange(6.0).view(2, 3).refine_names("rows", None)
    parameter = torch.nn.Parameter(torch.zeros(2).refine_names("rows"))
    loaded = repo.load(repo.save({"named": named, "parameter": parameter}))
    assert loaded["named"].names == ("rows", None)
    assert loaded["parameter"].names == ("rows",) and loaded["parameter"].requires_grad
    assert torch.equal(loaded["named"].rename(None), named.rename(None))


def test_a_model_without_memory_is_refused(checkpointer):
    checkpointer(model=torch.nn.Linear(2, 2)).save(0)
    with torch.device("meta"):
        model = torch.nn.Linear(2, 2)
    with pytest.raises(chipmink.UnsupportedError, match=r"without memory \(meta\) here"):
        checkpointer(model=model).restore()


# --- optimizers and schedulers ----------------------------------------------------------------------------------------

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


# --- other parts ------------------------------------------------------------------------------------------------------


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


def test_files_of_all_ages_are_imported(tmp_path):
    state = torch.nn.Linear(3, 2).state_dict()
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save(state, tmp_path / "new.pt")
    with chipmink.open(tmp_path / "runs", durable=False) as repo:
        for at, name in enumerate(("old.pt", "new.pt")):
            loaded = repo.load(import_file(repo, tmp_path / name, step=at))["model"]
            assert loaded.keys() == state.keys() and all(torch.equal(loaded[key], state[key]) for key in state)


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
