"""Versions: log, load of any part, lazy access, diff, checkout in place, reopening."""

from __future__ import annotations

import datetime
from typing import Any

import chipmink
import graph_types as kinds
import pytest
from oracle import assert_same, canonical


@pytest.fixture
def history(repo):
    """Four versions of a small session, with their canons."""
    namespace: dict[str, Any] = {"a": [1], "b": {"a": None}, "n": 1}
    namespace["b"]["a"] = namespace["a"]
    versions = []

    def save(message: str) -> None:
        canon = canonical(namespace)
        versions.append((repo.save(namespace, message=message), canon, list(namespace)))

    save("first")
    namespace["a"].append(2)
    save("a grows")
    namespace["c"] = kinds.Plain()
    namespace["n"] = 2
    del namespace["b"]
    save("b goes, c comes")
    namespace["c"].up = namespace["a"]
    save("c refers to a")
    return repo, namespace, versions


def test_numbers_and_log(history):
    repo, _namespace, versions = history
    numbers = [int(saved) for saved, _canon, _names in versions]
    assert numbers == sorted(set(numbers))
    assert all(isinstance(saved, int) and saved.done for saved, _canon, _names in versions)
    log = list(repo.log())
    assert [entry.number for entry in log] == numbers[::-1]
    assert [entry.message for entry in log] == ["c refers to a", "b goes, c comes", "a grows", "first"]


def test_every_version_loads(history):
    repo, _namespace, versions = history
    for saved, canon, names in versions:
        loaded = repo.load(saved)
        assert list(loaded) == names
        assert_same(canon, loaded)
        assert_same(canon, repo.load(int(saved)))


def test_loads_are_independent(history):
    repo, namespace, versions = history
    before = canonical(namespace)
    saved, canon, _names = versions[-1]
    first, second = repo.load(saved), repo.load(saved)
    first["a"].append("changed")
    assert_same(canon, second)
    assert canonical(namespace) == before


def test_some_names(history):
    repo, _namespace, versions = history
    saved = versions[1][0]
    loaded = repo.load(saved, names=["b"])
    assert list(loaded) == ["b"] and loaded["b"]["a"] == [1, 2]
    both = repo.load(saved, names=["b", "a"])
    assert both["b"]["a"] is both["a"]
    assert repo.load(saved, names=[]) == {}


def test_unknown_names_and_versions(history):
    repo, _namespace, versions = history
    saved = versions[0][0]
    with pytest.raises(KeyError, match="nope"):
        repo.load(saved, names=["a", "nope"])
    with pytest.raises(KeyError):
        repo.at(saved)["nope"]
    with pytest.raises(KeyError):
        repo.load(10_000)


def test_at_is_a_lazy_mapping_with_one_memo(history):
    repo, _namespace, versions = history
    saved, canon, names = versions[1]
    view = repo.at(saved)
    assert list(view) == names and len(view) == len(names) and "b" in view and "zz" not in view
    b = view["b"]
    assert view["a"] is b["a"] and view["b"] is b
    assert_same(canon, dict(view.items()))


def test_diff(history):
    repo, _namespace, versions = history
    first, second, third, fourth = (saved for saved, _canon, _names in versions)
    diff = repo.diff(first, second)
    assert (sorted(diff.added), sorted(diff.removed), sorted(diff.changed)) == ([], [], ["a", "b"])
    diff = repo.diff(second, third)
    assert (sorted(diff.added), sorted(diff.removed), "n" in diff.changed) == (["c"], ["b"], True)
    diff = repo.diff(fourth, second)
    assert (sorted(diff.added), sorted(diff.removed)) == (["b"], ["c"])
    diff = repo.diff(first, first)
    assert not diff.added and not diff.removed and not diff.changed


def test_checkout_in_place(history):
    repo, namespace, versions = history
    for position in (0, 3, 1, 2, 0):
        saved, canon, names = versions[position]
        repo.checkout(saved, namespace)
        assert_same(canon, namespace)
        assert set(namespace) == set(names)


def test_checkout_keeps_equal_objects(repo):
    big, small = [kinds.Plain()], [1]
    namespace = {"big": big, "small": small}
    first = repo.save(namespace)
    small.append(2)
    repo.save(namespace)
    repo.checkout(first, namespace)
    assert namespace["big"] is big
    assert namespace["small"] == [1]


def test_checkout_refuses_to_lose_changes(history):
    repo, namespace, versions = history
    saved = versions[0][0]
    namespace["a"].append("unsaved")
    before = canonical(namespace)
    with pytest.raises(chipmink.UnsavedChangesError, match="a"):
        repo.checkout(saved, namespace)
    assert canonical(namespace) == before
    repo.checkout(saved, namespace, force=True)
    assert_same(versions[0][1], namespace)


def test_a_save_after_a_checkout_builds_on_what_was_checked_out(history):
    repo, namespace, versions = history
    repo.checkout(versions[0][0], namespace)
    namespace["d"] = [namespace["a"]]
    canon = canonical(namespace)
    saved = repo.save(namespace, accessed=["a", "d"])
    assert_same(canon, repo.load(saved))
    for old, want, _names in versions:
        assert_same(want, repo.load(old))


def test_reopening(tmp_path):
    folder = tmp_path / "repo"
    canons = {}
    namespace: dict[str, Any] = {"x": []}
    for step in range(5):
        with chipmink.open(folder) as repo:
            namespace["x"].append(step)
            canon = canonical(namespace)
            canons[int(repo.save(namespace))] = canon
            for number, want in canons.items():
                assert_same(want, repo.load(number))
    assert len(canons) == 5


def test_names_of_all_sorts(repo):
    namespace = {name: [position] for position, name in enumerate(["", "a b", "\u0416", "x" * 3000, "\U0001f40d", "_", "__name"])}
    want = canonical(namespace)
    saved = repo.save(namespace)
    assert_same(want, repo.load(saved))
    assert list(repo.load(saved)) == list(namespace)


def test_many_names(repo):
    namespace = {f"name {i}": [i] if i % 3 else i for i in range(3_000)}
    first = repo.save(namespace)
    want = canonical(namespace)
    for i in range(0, 3_000, 7):
        del namespace[f"name {i}"]
    namespace["name 1"] = "changed"
    second = repo.save(namespace)
    assert_same(want, repo.load(first))
    assert_same(canonical(namespace), repo.load(second))
    assert list(repo.load(second)) == list(namespace)


def test_empty_namespace(repo):
    assert repo.load(repo.save({})) == {}


def test_closed_repository(tmp_path):
    repo = chipmink.open(tmp_path / "repo", durable=False)
    saved = repo.save({"a": 1})
    repo.close()
    repo.close()
    for use in (lambda: repo.save({"a": 2}), lambda: repo.load(saved), lambda: list(repo.log())):
        with pytest.raises(chipmink.ClosedError):
            use()


def test_two_repository_objects_on_one_place(tmp_path):
    """The second writer gets a clean error or a new version on top; nothing is damaged."""
    folder = tmp_path / "repo"
    with chipmink.open(folder, durable=False) as one, chipmink.open(folder, durable=False) as other:
        versions = {int(one.save({"x": [1]})): [1]}
        try:
            versions[int(other.save({"x": [2]}))] = [2]
        except chipmink.RefMovedError:
            pass
        try:
            versions[int(one.save({"x": [3]}))] = [3]
        except chipmink.RefMovedError:
            pass
    with chipmink.open(folder, durable=False) as repo:
        for number, want in versions.items():
            assert repo.load(number) == {"x": want}


def test_report(repo):
    namespace = {"lists": [[i] * 50 for i in range(200)], "n": 1}
    report = repo.save(namespace, message="m").report
    assert report.objects >= 200 and report.pods_dirty > 0 and report.bytes_written > 0
    assert not report.skipped
    assert all(seconds >= 0 for seconds in report.seconds.values())
    repo.save(namespace)
    again = repo.save(namespace).report
    assert again.pods_dirty == 0 and again.pods_clean > 0
    assert abs((datetime.datetime.now(datetime.UTC) - repo.log(limit=1)[0].saved_at).total_seconds()) < 60
