"""Makes the helper modules of this folder importable, and shares fixtures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import chipmink  # noqa: E402
import reference_pickler  # noqa: E402


@pytest.fixture
def repo(tmp_path):
    """A repository that does not wait for the disk."""
    with chipmink.open(tmp_path / "repo", durable=False) as repository:
        yield repository


@pytest.fixture(params=["reference", "stream"])
def copy(request):
    """Saves and loads an object: by the standard pickler, and by streams, on the same reducers."""
    if request.param == "reference":
        return reference_pickler.copy
    return lambda obj: chipmink.loads(chipmink.dumps(obj))
