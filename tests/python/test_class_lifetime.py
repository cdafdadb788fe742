"""Classes that a program defines again and again do not stay alive because a repository once saw them."""

from __future__ import annotations

import gc
import weakref

import chipmink

SOURCE = "class Point:\n    def __init__(self):\n        self.x = {number}\n"


def test_redefined_classes_are_let_go(tmp_path):
    seen: list[weakref.ref[type]] = []
    with chipmink.open(tmp_path / "repo", durable=False) as repo:
        for number in range(6000):
            scope: dict[str, type] = {"__name__": "__main__"}
            exec(SOURCE.format(number=number), scope)  # noqa: S102
            seen.append(weakref.ref(scope["Point"]))
            repo.save({"point": scope["Point"]()})
        del scope
        gc.collect()
        alive = sum(ref() is not None for ref in seen)
    assert alive < 5000
    assert repo is not None
