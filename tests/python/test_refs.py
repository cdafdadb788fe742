"""Branches and tags, and what a save does when somebody else has saved to its line."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import chipmink
import pytest


@pytest.fixture
def opened(tmp_path):
    made = []

    def open_it(**options):
        made.append(chipmink.open(tmp_path / "repo", durable=False, **options))
        return made[-1]

    yield open_it
    for repository in made:
        repository.close()


def test_tags_name_versions_for_good(opened):
    repo = opened()
    first = repo.save({"x": [1]})
    repo.tag("v1")
    second = repo.save({"x": [2]})
    repo.tag("v2", second)
    repo.tag("again", "v1")
    assert repo.tags == {"v1": first, "v2": second, "again": first} and repo.branches == {"main": second}
    other = opened()
    assert other.load("v1") == {"x": [1]} and other.load("v2", names=["x"]) == {"x": [2]}
    assert other.names("v1") == ["x"] and other.at("v1")["x"] == [1] and other.diff("v1", "v2").changed == ("x",)
    with pytest.raises(chipmink.RefMovedError, match="already, at version 1"):
        repo.tag("v1", second)
    # At once, and not only when there is something to save.
    with pytest.raises(chipmink.UnsupportedError, match="is a tag.*open a branch"):
        opened(ref="tag/v1")
    other.delete_tag("v1")
    assert sorted(repo.tags) == ["again", "v2"]
    with pytest.raises(chipmink.NotFoundError, match="no tag and no branch 'v1'"):
        repo.load("v1")
    assert repo.load(first) == {"x": [1]}
    assert repo.verify(full=True) == [] and [entry.number for entry in repo.log()] == [second, first]


def test_branches_go_their_own_ways(opened):
    repo = opened()
    first = repo.save({"x": [1]})
    repo.save({"x": [2]})
    repo.branch("try", first)
    trial = opened(ref="try")
    assert trial.load() == {"x": [1]}
    third = trial.save({"x": [3]})
    assert repo.load() == {"x": [2]} and repo.load("try") == {"x": [3]}
    assert repo.branches == {"main": 2, "try": third}
    log = {entry.number: entry for entry in repo.log()}
    assert log[third].parents == (log[first].commit,) and log[third].ref == "try"
    with pytest.raises(chipmink.RefMovedError, match="already"):
        repo.branch("try")
    repo.delete_branch("try")
    assert repo.branches == {"main": 2}
    # The session of the deleted branch is told, and nothing comes back by itself.
    with pytest.raises(chipmink.RefMovedError):
        trial.save({"x": [4]})
    assert repo.load(third) == {"x": [3]}


@pytest.mark.parametrize("name", ["", "a b", "a\n", "x" * 300, "\u00a0"])
def test_names_that_are_none(opened, name):
    repo = opened()
    version = repo.save({"x": 1})
    for make in (repo.branch, repo.tag):
        with pytest.raises(chipmink.UnsupportedError, match="cannot be the name"):
            make(name, version)
    with pytest.raises(chipmink.UnsupportedError, match="cannot be the name"):
        opened(ref=name)
    with pytest.raises(chipmink.UnsupportedError, match="names of tags"):
        repo.branch("tag/x")
    with pytest.raises(chipmink.UnsupportedError, match="not listed"):
        repo.branch("remote/main")
    with pytest.raises(chipmink.NotFoundError):
        repo.branch("y", 99)
    with pytest.raises(chipmink.NotFoundError):
        repo.delete_branch("never")
    assert repo.branches == {"main": version} and repo.tags == {}


def conflict(opened, **options):
    """Two repository objects of which the second does not know the newest version of the first."""
    first, second = opened(), opened(**options)
    namespace = {"x": [1], "y": list(range(1000))}
    first.save(namespace)
    second.checkout(None, namespace, force=True)
    newest = first.save({"x": [2]})
    namespace["x"].append("mine")
    return first, second, namespace, newest


def test_a_conflict_is_an_error(opened):
    first, second, namespace, newest = conflict(opened)
    with pytest.raises(chipmink.RefMovedError, match="has moved: expected version 1, found version 2"):
        second.save(namespace)
    assert first.load() == {"x": [2]} and first.branches == {"main": newest}
    second.checkout(newest, {}, force=True)
    assert second.load(second.save(namespace)) == namespace


def test_a_conflict_is_tried_again(opened):
    first, second, namespace, newest = conflict(opened, on_conflict="retry")
    saved = second.save(namespace)
    assert saved.ref == "main" and second.ref == "main"
    assert first.load() == namespace and first.load(newest) == {"x": [2]}
    log = {entry.number: entry for entry in first.log()}
    assert log[saved].parents == (log[newest].commit,)
    # It knows where it is.
    namespace["y"].append(1)
    assert second.save(namespace).report.pods_clean > 0
    assert second.load() == namespace and second.verify(full=True) == []


def test_a_conflict_begins_a_branch(opened):
    first, second, namespace, newest = conflict(opened, on_conflict="branch")
    first.branch("main-2")
    saved = second.save(namespace)
    assert saved.ref == "main-3" and second.ref == "main-3"
    assert first.load() == {"x": [2]} and first.branches == {"main": newest, "main-2": newest, "main-3": saved}
    log = {entry.number: entry for entry in first.log()}
    assert log[saved].parents == (log[1].commit,)
    namespace["y"].append(1)
    later = second.save(namespace)
    assert later.ref == "main-3" and later.report.pods_clean > 0 and second.load() == namespace
    assert second.load("main") == {"x": [2]} and second.verify(full=True) == []
    with pytest.raises(ValueError, match="conflicts"):
        opened(on_conflict="shrug")


@pytest.mark.parametrize("on_conflict", ["retry", "branch"])
def test_writers_that_meet_all_the_time(opened, on_conflict):
    opened().save({"start": [0]})
    saved: dict[int, dict] = {}

    def write(who: int) -> None:
        repo = opened(on_conflict=on_conflict)
        for step in range(15):
            namespace = {"who": [who], "step": [step]}
            saved[int(repo.save(namespace))] = namespace

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    repo = opened()
    assert len(saved) == 60 and repo.verify(full=True) == []
    assert all(repo.load(number) == namespace for number, namespace in saved.items())
    if on_conflict == "retry":
        # One line, in which each version follows the one before it.
        log = repo.log()
        assert list(repo.branches) == ["main"] and len(log) == 61
        assert all(later.parents == (earlier.commit,) for later, earlier in zip(log, log[1:]))
    else:
        assert sorted(repo.branches.values())[-1] == max(saved)
