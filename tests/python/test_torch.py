"""Tensors of PyTorch in the memory of the process."""

from __future__ import annotations

from typing import Any

import chipmink
import pytest

torch = pytest.importorskip("torch")


def both(repo: chipmink.Repository, value: Any) -> list[Any]:
    """A value loaded from a repository, and from a stream."""
    return [repo.load(repo.save({"value": value}))["value"], chipmink.loads(chipmink.dumps(value))]


def same(left: Any, right: Any) -> bool:
    if type(left) is not type(right) or left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.requires_grad != right.requires_grad or left.is_conj() != right.is_conj():
        return False
    size = left.element_size()
    if left.dtype.is_complex:
        return torch.equal(torch.view_as_real(left.detach().resolve_conj()), torch.view_as_real(right.detach().resolve_conj()))
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[size]
    return torch.equal(left.detach().contiguous().view(whole), right.detach().contiguous().view(whole))


DTYPES = [
    name
    for name in ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64", "complex128")
    if hasattr(torch, name)
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [0, 7, 70_000])
def test_dtypes(repo, dtype, length):
    numbers = torch.arange(length).remainder(2).to(getattr(torch, dtype))
    for copy in both(repo, numbers):
        assert same(numbers, copy)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.randn(()),
        lambda: torch.randn(5, 6).t(),
        lambda: torch.randn(300, 400)[::2, 3:90],
        lambda: torch.randn(3).expand(4, 3),
        lambda: torch.randn(4, 5).permute(1, 0)[1:],
        lambda: torch.randn(3, 4, requires_grad=True),
        lambda: torch.nn.Parameter(torch.randn(4), requires_grad=False),
        lambda: torch.nn.Parameter(torch.randn(4)),
        lambda: torch.randn(6, dtype=torch.complex64).conj(),
        lambda: torch.empty(0, 3),
    ],
)
def test_layouts(repo, make):
    tensor = make()
    for copy in both(repo, tensor):
        assert same(tensor, copy)
        assert tensor.numel() == 0 or copy.stride() == tensor.stride()


@pytest.mark.parametrize("length", [20, 200_000])
def test_tensors_over_one_storage_are_so_again(repo, length):
    whole = torch.arange(float(length))
    value = {"part": whole[2:9], "whole": whole, "turned": whole.view(4, -1).t(), "array": whole.numpy()[3:8]}
    for copy in both(repo, value):
        copy["whole"][4] = -1
        assert copy["part"][2] == copy["array"][1] == copy["turned"][4, 0] == -1
        assert copy["part"].untyped_storage().data_ptr() == copy["whole"].untyped_storage().data_ptr()
        assert copy["whole"][5] == 5


def test_parts_of_a_storage_that_nobody_names(repo):
    whole = torch.arange(500_000.0)
    first, second = repo.save({"slice": whole[10:20]}), None
    assert first.report.bytes_written < 3_000
    second = repo.save({"a": whole[10:40_000], "b": whole[30_000:50_000]})
    assert second.report.region_bytes == (50_000 - 10) * 4
    loaded = repo.load(second)
    loaded["a"][30_000 - 10] = -1
    assert loaded["b"][0] == -1
    again = repo.save({"a": whole[10:40_000], "b": whole[30_000:50_000]})
    assert again.report.bytes_written < 1_500


def test_models_and_optimizers(repo):
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(64, 300), torch.nn.ReLU(), torch.nn.BatchNorm1d(300), torch.nn.Linear(300, 8))
    model[3].weight.data = model[0].weight.data[:8].repeat(1, 5)[:, :300].clone()
    tied = torch.nn.Linear(300, 8)
    tied.weight = model[3].weight
    optimizer = torch.optim.AdamW([*model.parameters(), tied.bias], lr=0.01)

    def step(model: Any, tied: Any, optimizer: Any) -> float:
        optimizer.zero_grad()
        loss = (model(inputs) ** 2).mean() + tied(torch.ones(300)).sum()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    inputs = torch.randn(16, 64)
    for _ in range(3):
        step(model, tied, optimizer)
    version = repo.save({"model": model, "tied": tied, "optimizer": optimizer})
    loaded = repo.load(version)
    assert loaded["tied"].weight is loaded["model"][3].weight
    assert loaded["optimizer"].param_groups[0]["params"][0] is loaded["model"][0].weight
    assert torch.equal(loaded["model"][0].weight.grad, model[0].weight.grad)
    live = [step(model, tied, optimizer) for _ in range(3)]
    assert [step(loaded["model"], loaded["tied"], loaded["optimizer"]) for _ in range(3)] == live
    assert repo.save({"model": model, "tied": tied, "optimizer": optimizer}).report.skipped == ()


def test_one_changed_element_costs_a_chunk(repo):
    weights = torch.zeros(4_000_000, dtype=torch.bfloat16) + torch.arange(4_000_000).remainder(97)
    repo.save({"weights": weights})
    weights[1_234_567] = -3
    report = repo.save({"weights": weights}).report
    assert report.bytes_written < 90_000
    assert report.region_bytes == 8_000_000 if weights.element_size() == 2 else 16_000_000


def test_generators(repo):
    generator = torch.Generator().manual_seed(7)
    torch.rand(3, generator=generator)
    copies = both(repo, generator)
    want = torch.rand(4, generator=generator)
    assert all(torch.equal(torch.rand(4, generator=copy), want) for copy in copies)


def test_what_autograd_knows(repo):
    leaf = torch.randn(3, requires_grad=True)
    (leaf**2).sum().backward()
    for copy in both(repo, [leaf, leaf * 2]):
        assert torch.equal(copy[0].grad, leaf.grad)
        assert copy[1].is_leaf
        assert copy[1].requires_grad
    leaf.register_hook(lambda grad: grad)
    with pytest.warns(UserWarning, match="hooks"):
        repo.save({"leaf": leaf})


def test_a_subclass_says_itself_how_it_is_saved(repo):
    masked = torch.nn.Buffer(torch.arange(3.0)) if hasattr(torch.nn, "Buffer") else torch.arange(3.0)
    for copy in both(repo, masked):
        assert torch.equal(copy, masked)


def test_a_saved_storage_can_be_resized(repo):
    """`Tensor.numpy` would forbid it, and programs that free the storages of sharded parameters count on it."""
    tensor, parameter = torch.ones(3), torch.nn.Parameter(torch.ones(100_000))
    repo.save({"tensor": tensor, "parameter": parameter})
    chipmink.dumps([tensor, parameter])
    tensor.resize_(5)
    parameter.untyped_storage().resize_(0)
    saved = repo.save({"tensor": tensor, "parameter": parameter[:0]})
    assert repo.load(saved)["tensor"][:3].tolist() == [1, 1, 1]


@pytest.mark.parametrize("length", [0, 5, 100_000])
@pytest.mark.parametrize("is_shared", [False, True])
def test_storages_share_their_memory_with_tensors(repo, length, is_shared):
    """As torch reduces them they cannot be loaded, and with them nothing of their version could."""
    tensor = torch.arange(float(length))
    if is_shared:
        tensor.share_memory_()
    storage = tensor.untyped_storage()
    value = {"storage": storage, "tensor": tensor, "part": tensor[1:4], "again": storage}
    for held in (value, dict(reversed(value.items()))):
        for copy in both(repo, held):
            assert type(copy["storage"]) is torch.UntypedStorage
            assert copy["storage"].nbytes() == 4 * length
            assert copy["again"] is copy["storage"]
            assert torch.equal(copy["tensor"], tensor)
            if length:
                copy["tensor"][2] = -1
                assert copy["part"][1] == torch.tensor([], dtype=torch.float32).set_(copy["storage"])[2] == -1
    assert repo.save({"value": value}).report.skipped == ()
