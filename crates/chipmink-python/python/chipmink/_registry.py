"""The repository objects of this process that are open: found by their place, given up in forked children, closed at the end.
Lazy versions of them are given up in forked children, too.

They are held weakly.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chipmink._lazy import LazyVersion
    from chipmink._repository import Repository

__all__ = ["abandon", "find_open", "note", "note_lazy"]

_open_repositories: weakref.WeakSet[Repository] = weakref.WeakSet()
# By address: a mapping cannot be hashed.
_lazy_versions: weakref.WeakValueDictionary[int, LazyVersion] = weakref.WeakValueDictionary()
_abandoned: list[Any] = []


def note(repository: Repository) -> None:
    """Remembers a repository object that was just opened."""
    _open_repositories.add(repository)


def note_lazy(version: LazyVersion) -> None:
    """Remembers a lazy version that was just made."""
    _lazy_versions[id(version)] = version


def find_open(url: str) -> Repository | None:
    """The repository object of this process that is open at a place, if there is one."""
    return next((found for found in list(_open_repositories) if found.url == url and not found.closed), None)


def abandon(handle: Any) -> None:
    """Keeps a native handle of the parent of this process for good: dropping it would touch threads that are not there."""
    _abandoned.append(handle)


def _after_fork_in_child() -> None:
    for repository in list(_open_repositories):
        repository._abandon()
    for version in list(_lazy_versions.values()):
        version._abandon()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _finish_at_exit() -> None:
    # A program that ends without closing has the same right to find its versions on disk as one that saved without staging.
    for repository in list(_open_repositories):
        if repository._staged and not repository.closed:
            try:
                repository.close()
            except Exception as error:
                print(f"chipmink: {repository!r} was not closed: {error}", file=sys.stderr)


atexit.register(_finish_at_exit)
