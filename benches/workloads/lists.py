"""The mutation study of the paper *Chipmink* (PVLDB 19(4), 2025, section 8.5): lists of byte strings, some rewritten."""

from __future__ import annotations

import random
from collections.abc import Iterator

from benches.workloads import Tracked

LISTS = 100
STRING_BYTES = 100


def lists(namespace: Tracked, scale: float, share: float, saves: int = 10) -> Iterator[str]:
    """A hundred lists of 100,000 strings (at scale 1); each step rewrites all strings of a share of the lists."""
    source = random.Random(73)
    count = max(1, int(100_000 * scale))
    for i in range(LISTS):
        namespace[f"l_{i}"] = [source.randbytes(STRING_BYTES) for _ in range(count)]
    yield "create"
    for _ in range(1, saves):
        for i in source.sample(range(LISTS), round(LISTS * share)):
            strings = namespace[f"l_{i}"]
            for j in range(count):
                strings[j] = source.randbytes(STRING_BYTES)
        yield "rewrite"


def changed_share(share: float, saves: int = 10) -> float:
    """Content written by an ideal system, in units of the first save."""
    return 1 + (saves - 1) * round(LISTS * share) / LISTS
