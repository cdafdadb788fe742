"""The repository objects of this process that are open: found by their place, given up in forked children, closed at the end.

They are held weakly.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chipmink._repository import Repository

__all__ = ["abandon", "find_open", "note"]

_open_repositories: weakref.WeakSet[Repository] = weakref.WeakSet()
_abandoned: list[Any] = []


def note(repository: Repository) -> None:
    """Remembers a repository object that was just opened."""
    _open_repositories.add(repository)


def find_open(url: str) -> Repository | None:
    """The repository object of this process that is open at a place, if there is one."""
    return next((found for found in list(_open_repositories) if found.url == url and not found.closed), None)


def abandon(handle: Any) -> None:
    """Keeps a native handle of the parent of this process for good: dropping it would touch threads that are not there."""
    _abandoned.append(handle)


def _after_fork_in_child() -> None:
    for repository in list(_open_repositories):
        repository._abandon()


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
