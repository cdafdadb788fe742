"""Modules of every kind in a ``Checkpointer``, and what their parameters and buffers may be."""

from __future__ import annotations

import copy
import math
from typing import Any

import chipmink
import pytest

torch = pytest.importorskip("torch")

from chipmink.torch import export_file  # noqa: E402
from torch.nn.utils import parametrizations, parametrize  # noqa: E402
from torch_steps import step  # noqa: E402


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
