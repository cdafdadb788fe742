"""The memory that identity shadows take stays within its budget, and what does not fit is compared by its bytes."""

from __future__ import annotations

import random

import chipmink
import pytest


class Point:
    def __init__(self, x: int):
        self.x = x
        self.link: object = None


def graph() -> dict:
    points = [Point(i) for i in range(1000)]
    for i, point in enumerate(points):
        point.link = points[i * 7919 % len(points)]
    return {
        "points": points,
        "one": [[str(i)] for i in range(5_000)],
        "nested": {i: {j: [i, j] for j in range(10)} for i in range(500)},
    }


@pytest.mark.parametrize("policy", ["lga-siblings", "bundle-all", "split-all", "random:3"])
@pytest.mark.parametrize("budget", [0, 1 << 12, 1 << 17])
def test_budget_is_kept_and_nothing_is_missed(tmp_path, policy, budget):
    source = random.Random(budget)
    namespace = graph()
    with chipmink.open(tmp_path / "repo", durable=False, policy=policy, shadow_bytes=budget) as repo:
        for turn in range(5):
            saved = repo.save(namespace)
            assert saved.report.shadow_bytes <= budget
            assert turn < 2 or budget == 0 or saved.report.shadow_bytes > 0 or policy == "bundle-all"
            loaded = repo.load(saved)
            assert loaded["one"] == namespace["one"] and loaded["nested"] == namespace["nested"]
            for mine, theirs in zip(namespace["points"], loaded["points"], strict=True):
                assert theirs.x == mine.x and theirs.link.x == mine.link.x
            chosen = source.randrange(1000)
            namespace["points"][chosen].x = -turn
            namespace["points"][chosen].link = namespace["points"][turn]
            namespace["one"][source.randrange(5_000)].append("more")
            namespace["nested"][source.randrange(500)][turn] = [namespace["nested"][turn]]


def test_a_pod_that_grows_makes_room_in_the_same_budget(tmp_path):
    budget = 1 << 16
    namespace: dict = {"grows": [[i] for i in range(10)], "stays": [[i] for i in range(1000)]}
    with chipmink.open(tmp_path / "repo", durable=False, policy="bundle-all", shadow_bytes=budget) as repo:
        for _ in range(12):
            assert repo.save(namespace).report.shadow_bytes <= budget
            namespace["grows"].extend([i] for i in range(500))
        for _ in range(3):
            last = repo.save(namespace)
            assert last.report.shadow_bytes <= budget
        assert repo.load(last) == namespace
