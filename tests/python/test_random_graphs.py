"""Random graphs and random sessions are what they were, after any save and load."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from sessions import POLICIES, Session, check_stream
from strategies import sizes, sources

_settings = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


@settings(_settings, max_examples=200)
@given(sources, sizes)
def test_stream_round_trip(source, size):
    check_stream(source, size)


@settings(_settings, max_examples=80)
@given(sources, sizes)
def test_session(source, size):
    with tempfile.TemporaryDirectory() as folder:
        Session(source, Path(folder) / "repo", size).run(saves=4)


@pytest.mark.parametrize("policy", POLICIES)
def test_session_of_each_policy(policy, tmp_path):
    for seed in range(6):
        session = Session(random.Random(f"{policy} {seed}"), tmp_path / str(seed))
        session.repo.close()
        session.policy = policy
        session.repo = session.open()
        assert session.run(saves=6) == 6


@pytest.mark.parametrize("seed", range(100))
def test_seeded_streams(seed):
    """Seeds apart from hypothesis' choices: the same generator as the soak target, bigger graphs."""
    check_stream(random.Random(seed), 60)
