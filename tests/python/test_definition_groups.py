"""Definitions that belong together stay one, whichever of their users a save looks at."""

from __future__ import annotations

import chipmink

SOURCE = """
def make():
    box = [0]
    def push(value):
        box.append(value)
        return box
    def read():
        return box
    return push, read
push, read = make()
both = [push, read]
only_read = [read]
"""


def test_part_of_a_group_is_walked(tmp_path):
    namespace: dict = {"__name__": "__main__"}
    exec(SOURCE, namespace)  # noqa: S102
    with chipmink.open(tmp_path / "repo", durable=False) as repo:
        repo.save(namespace)
        namespace["only_read"].append(1)
        version = repo.save(namespace, accessed=["only_read"])
        loaded = repo.load(version)
    loaded["both"][0]("new")
    assert loaded["only_read"][0]() == [0, "new"]
    assert loaded["only_read"][0] is loaded["both"][1] is loaded["read"]


def test_what_is_changed_through_one_user_is_changed_for_all(tmp_path):
    namespace: dict = {"__name__": "__main__"}
    exec(SOURCE, namespace)  # noqa: S102
    with chipmink.open(tmp_path / "repo", durable=False) as repo:
        repo.save(namespace)
        namespace["both"][0]("seen")
        version = repo.save(namespace, accessed=["both"])
        loaded = repo.load(version)
    assert loaded["only_read"][0]() == [0, "seen"]
    assert loaded["read"]() is loaded["both"][1]()
