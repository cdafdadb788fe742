"""Makes the helper modules of this folder importable, and shares fixtures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import chipmink  # noqa: E402
import emulated_driver  # noqa: E402
import reference_pickler  # noqa: E402


@pytest.fixture
def repo(tmp_path):
    """A repository that does not wait for the disk."""
    with chipmink.open(tmp_path / "repo", durable=False) as repository:
        yield repository


@pytest.fixture
def checkpointer(tmp_path):
    """Makes checkpointers in one place, which do not wait for the disk."""
    from chipmink.torch import Checkpointer

    made = []

    def make(**parts):
        made.append(Checkpointer(tmp_path / "runs", **{"durable": False, **parts}))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(params=["reference", "stream"])
def copy(request):
    """Saves and loads an object: by the standard pickler, and by streams, on the same reducers."""
    if request.param == "reference":
        return reference_pickler.copy
    return lambda obj: chipmink.loads(chipmink.dumps(obj))


@pytest.fixture
def driver(monkeypatch, tmp_path):
    """The emulated driver, and a compiler that goes with it."""
    from chipmink import _device

    driver = emulated_driver.emulated_driver()
    driver.heal()
    monkeypatch.setattr(_device, "compiler_libraries", lambda: [str(driver.compiler)])
    monkeypatch.setenv("CHIPMINK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_device, "_reasons", {})
    yield driver
    driver.heal()


@pytest.fixture
def cuda(driver, monkeypatch):
    """Tensors that are taken to be on a device of the emulated driver."""
    from chipmink import _device

    cuda = emulated_driver.EmulatedCuda(driver)
    monkeypatch.setattr(_device, "label_of", cuda.label_of)
    monkeypatch.setattr(_device, "_torch_streams", lambda index: [cuda.stream])
    monkeypatch.setattr(_device, "_to_torch_device", cuda.to)
    yield cuda
    cuda.end()
