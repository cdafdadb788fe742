"""``dumps`` and its kin: one object to bytes and back, in the place of pickle's functions of these names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import IO, Any

from chipmink import _chipmink

__all__ = ["dump", "dumps", "load", "loads"]

Allow = Iterable[str] | Callable[[str, str], bool]


def dumps(obj: object, *, buffer_callback: Callable[[Any], object] | None = None) -> bytes:
    """Encodes an object graph as a self-contained stream.

    As in pickle, ``buffer_callback`` is called with each out-of-band ``pickle.PickleBuffer``, and keeps its contents
    out of the stream unless it returns something true.
    """
    return _chipmink.dumps(obj, buffer_callback)


def dump(obj: object, file: IO[bytes], *, buffer_callback: Callable[[Any], object] | None = None) -> None:
    """Writes ``dumps(obj)`` to a file open for binary writing."""
    file.write(dumps(obj, buffer_callback=buffer_callback))


def loads(data: Any, /, *, buffers: Iterable[Any] | None = None, allow: Allow | None = None) -> Any:
    """Makes the object of a stream again.

    Loading runs code that the stream names, as unpickling does. ``allow`` restricts it to the names (as
    ``"module.qualname"``) or to those that the predicate ``allow(module, qualname)`` accepts; anything else raises
    ``NotAllowedError`` before it is imported. ``buffers`` gives back what ``buffer_callback`` was given, in order.
    """
    return _chipmink.loads(data, buffers, allow)


def load(file: IO[bytes], *, buffers: Iterable[Any] | None = None, allow: Allow | None = None) -> Any:
    """Loads the one stream that a file holds from its position to its end."""
    return loads(file.read(), buffers=buffers, allow=allow)
