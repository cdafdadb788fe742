"""Sessions that once went wrong, by the seed that made them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import soak


@pytest.mark.parametrize(
    "seed",
    [
        # The root of a pod lay at a new address, and its export slot was taken for vacant.
        211232,
        # A definition changed through one user while another was left alone.
        10060,
        # A root that came to exist while its own arguments were walked was offered before it was complete.
        2041,
        # An instance came to exist while its class, which holds it, was walked.
        237572,
        # A root that came to exist in another pod got another slot than its unchanged caller named.
        900040,
        # A definition began to refer to one that a variable used which was left alone.
        2014592,
        # A definition was changed through a name that was deleted then.
        5024490,
        # A variable began to refer to an object inside a definition that another variable used which was left alone.
        5036422,
        # Definitions of which objects are variables became part of a co-variable through a new user of theirs.
        7025961,
        # Of two functions of one module one was used again, the other made anew.
        11038222,
        # Two names had one array in the version that was checked out, and two alike in the namespace.
        21005212,
    ],
)
def test_a_session_that_went_wrong_once(seed):
    assert soak.one(seed) > 0
