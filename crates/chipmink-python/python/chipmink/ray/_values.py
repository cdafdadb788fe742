"""Values of what lives in a cluster: each is a variable of a version on a line of its own, ``remote/TOKEN``, where a load finds it.

1. The reference that stands in the program's version names line and variable.
2. A sweep takes lines away that no version names.

The names of the ``make_`` functions are part of format version 1.
"""

from __future__ import annotations

import itertools
import sys
import time
from typing import Any

from chipmink import _remote
from chipmink._errors import ChipminkError, NotFoundError, RemoteObjectLost
from chipmink._remote import LINE

__all__ = ["KEPT", "make_actor_value", "make_instance", "make_value", "release"]

KEPT = "from the repository, which has its value"


def make_instance(kind: type) -> Any:
    """Makes an instance that has no state yet."""
    make: Any = kind.__new__
    return make(kind)


# --- loading ---------------------------------------------------------------------------------------------------------


def _value(reference: _remote.RemoteReference, name: str) -> Any:
    """The value that stands on the line of a reference."""
    scope = _remote.current_load()
    line = (reference.token or b"").decode()
    if scope.repository is None:
        raise RemoteObjectLost("its value is in a repository: load the version from there")
    views = scope.facts.setdefault("ray.lines", {})
    try:
        if line not in views:
            views[line] = scope.repository.at(line, allow=scope.allow)
        return views[line][name]
    except NotFoundError as error:
        raise RemoteObjectLost(f"its value stood on the line {line!r}, which is not here: push or pull it, too ({error})") from None


def _made(make: Any, arguments: tuple[Any, ...], bring: Any) -> Any:
    from chipmink._lost import LostReference

    reference = _remote.reference_from(*arguments)
    try:
        return bring(reference)
    except RemoteObjectLost as error:
        reason = str(error)
    except ChipminkError:
        raise
    except Exception as error:
        # It needs a library that is not here, say.
        reason = f"its value cannot be made again: {type(error).__name__}: {error}; see to that, and load again"
    return LostReference(reference, reason, (make, arguments))


def make_value(*arguments: Any) -> Any:
    """The value of an object; with ``as_refs`` a reference to it, put into the cluster again."""

    def bring(reference: _remote.RemoteReference) -> Any:
        identity = reference.identity
        value = _value(reference, identity.hex() if isinstance(identity, bytes) else identity)
        return _connected_ray().put(value) if _remote.current_load().as_refs else value

    return _made(make_value, arguments, bring)


def make_actor_value(*arguments: Any) -> Any:
    """An instance of an actor's class with its state; with ``as_refs`` a new actor with that state."""

    def bring(reference: _remote.RemoteReference) -> Any:
        instance = _value(reference, "actor")
        if not _remote.current_load().as_refs:
            return instance
        ray = _connected_ray()
        kind = type(instance)
        revived = type(kind.__name__, (kind,), {"__init__": _take_state, "__module__": kind.__module__})
        return ray.remote(revived).remote([instance])

    return _made(make_actor_value, arguments, bring)


def _take_state(self: Any, given: list[Any]) -> None:
    (instance,) = given
    state = instance.__getstate__()
    if hasattr(self, "__setstate__"):
        self.__setstate__(state)
        return
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    for name, value in itertools.chain((attributes or {}).items(), (slots or {}).items()):
        setattr(self, name, value)


def _connected_ray() -> Any:
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        raise RemoteObjectLost("as_refs puts values into a cluster, and this process is connected to none: call ray.init(address=...) first")
    return ray


# --- sweeping --------------------------------------------------------------------------------------------------------


def release(repository: Any, grace: float) -> int:
    """Takes lines away that no version names, and that are older than ``grace`` seconds."""
    handle = repository._usable()
    lines = {name: number for name, number in handle.refs().items() if name.startswith(LINE)}
    if not lines:
        return 0
    versions = repository._versions(None)
    saved_at = {version.number: version.saved_at.timestamp() for version in versions}
    reached = [version.number for version in versions if not version.ref.startswith(LINE)]
    left = dict(lines)
    while reached and left:
        named = handle.mentioned(reached, [name.encode() for name in left])
        # Values may hold references themselves.
        reached = [left[name] for name, is_named in zip(list(left), named, strict=True) if is_named]
        left = {name: number for name, number in left.items() if number not in reached}
    old = [name for name, number in left.items() if saved_at.get(number, 0) <= time.time() - grace]
    for name in old:
        handle.delete_ref(name)
    return len(old)
