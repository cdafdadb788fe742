"""Makes the helper modules of this folder importable, and shares fixtures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import chipmink  # noqa: E402


@pytest.fixture
def repo(tmp_path):
    """A repository that does not wait for the disk."""
    with chipmink.open(tmp_path / "repo", durable=False) as repository:
        yield repository
