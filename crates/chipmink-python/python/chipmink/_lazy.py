"""One version as a mapping, whose variables are loaded when they are asked for.

What variables share they share here, too: all that may share an object with one is loaded together with it, once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from chipmink import _chipmink, _rebuild, _registry
from chipmink._device import placing
from chipmink._errors import NotFoundError
from chipmink._live import live_namespace
from chipmink._remote import resolving
from chipmink._stream import Allow

if TYPE_CHECKING:
    from chipmink._loading import LoadingRepository

__all__ = ["LazyVersion", "closed_over_sharing"]


class LazyVersion(Mapping[str, Any]):
    """The variables of one version, each loaded at first use; see ``Repository.at``."""

    def __init__(self, repository: LoadingRepository, version: int, allow: Allow | None, map_location: Any = None) -> None:
        self._repository = repository
        self._allow = allow
        self._map_location = map_location
        self._names = dict.fromkeys(repository.names(version))
        self._lock = threading.RLock()
        # What functions of the version are bound to.
        self._loaded: dict[str, Any] = {}
        self.version = version
        _registry.note_lazy(self)

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise _no_variable(name, self.version)
        with self._lock:
            if name not in self._loaded:
                self._load(name)
            return self._loaded[name]

    def _load(self, name: str) -> None:
        handle = self._repository._usable()
        # Everything that could share an object with it, so that no object is ever made twice; what is loaded already
        # shares none with it.
        needed = closed_over_sharing(handle, self.version, [name], self._names)
        while True:
            read = [other for other in handle.reads(self.version, needed) if other not in self._loaded]
            grown = closed_over_sharing(handle, self.version, read, self._names)
            if len(grown) == len(needed):
                break
            needed = grown
        before = list(self._loaded)
        try:
            with placing(self._map_location):
                loaded = resolving(
                    lambda: handle.load_only(self.version, needed, self._loaded, self._allow, live_namespace(), False),
                    self._repository,
                    allow=self._allow,
                )
        except BaseException:
            # What was made of it shares nothing with what is made next time.
            for other in set(self._loaded).difference(before):
                del self._loaded[other]
            raise
        self._loaded.update(loaded or ())

    def _abandon(self) -> None:
        # After a fork: a thread that is not there may hold the lock, and have made half of what is loaded.
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._lock, self._loaded = threading.RLock(), {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __reduce__(self) -> tuple[Any, tuple[str, int]]:
        return _rebuild.lazy_version, (self._repository.url, self.version)

    def __repr__(self) -> str:
        return f"<version {self.version} of {self._repository.url!r}: {len(self._names)} variables>"


def closed_over_sharing(
    handle: _chipmink.Handle, number: int, names: list[str], order: Iterable[str]
) -> list[str]:
    """The names, and all that may share objects with them, in the given order."""
    found: set[str] = set()
    for name in names:
        if name not in found:
            found.update(handle.together(number, name))
    return [name for name in order if name in found]


def _no_variable(name: str, number: int) -> NotFoundError:
    return NotFoundError(f"version {number} has no variable {name!r}")
