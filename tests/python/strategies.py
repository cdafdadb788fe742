"""Hypothesis strategies: the random graphs of `graphs`, from a source that hypothesis shrinks."""

from __future__ import annotations

from hypothesis import strategies as st

#: A source for `graphs.Program`; every draw is shrunk towards the first choice.
sources = st.randoms(use_true_random=False)
sizes = st.sampled_from((3, 8, 24))
