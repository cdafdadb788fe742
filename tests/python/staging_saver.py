"""A program that saves with a staging tier until it is killed: ``staging_saver.py FOLDER SEGMENT SIZE SEED``.

It prints ``N`` when version N is staged. Version N holds what ``expected(N, seed)`` says, so that whoever reads it later can
tell whether it is whole.
"""

from __future__ import annotations

import random
import sys
from typing import Any

import numpy as np


def expected(step: int, seed: int) -> dict[str, Any]:
    """The namespace of the version that the saver made in its step ``step``."""
    source = np.random.default_rng(seed * 1000 + step)
    shared = [step, f"step {step}"]
    return {
        "step": step,
        "weights": source.random(30_000),
        "notes": {"all": [shared, shared], "text": [f"{seed}-{step}-{row}" for row in range(200)]},
    }


def is_whole(found: dict[str, Any], step: int, seed: int) -> bool:
    """Whether a loaded namespace is that of the step, to the last bit, with what it shares."""
    wanted = expected(step, seed)
    shared = found["notes"]["all"]
    return (
        set(found) == set(wanted)
        and found["step"] == step
        and np.array_equal(found["weights"], wanted["weights"])
        and found["notes"] == wanted["notes"]
        and shared[0] is shared[1]
    )


def main() -> None:
    import chipmink

    folder, segment, size, seed = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    waits = random.Random(seed)
    repository = chipmink.open(folder, staging=segment, size=size)
    step = 0
    while True:
        step += 1
        saved = repository.save(expected(step, seed), message=f"step {step}")
        saved.wait("staged")
        print(int(saved), step, flush=True)
        if waits.random() < 0.1:
            saved.wait()


if __name__ == "__main__":
    main()
