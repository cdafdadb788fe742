"""``dumps`` and its kin: one object to bytes and back, in the place of pickle's functions of these names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import IO, Any

from chipmink import _chipmink
from chipmink._remote import resolving

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
    """Makes the object of a stream again. Functions and classes that no import finds are new ones, with each load.

    Loading runs code that the stream names, as unpickling does. ``allow`` restricts it to the names (as
    ``"module.qualname"``) or to those that the predicate ``allow(module, qualname)`` accepts; anything else raises
    ``NotAllowedError`` before it is imported. Who allows classes or functions by value (``chipmink._rebuild.make_class``,
    ``make_function``) lets them call whatever the stream holds. ``buffers`` gives back what ``buffer_callback`` was given, in order.
    """
    if type(data) is not bytes:
        # The code that a stream names could write into any other buffer while it is being read.
        data = memoryview(data).tobytes()
    # It may be loaded twice.
    given = None if buffers is None else list(buffers)
    return resolving(lambda: _chipmink.loads(data, given, allow), allow=allow)


def load(file: IO[bytes], *, buffers: Iterable[Any] | None = None, allow: Allow | None = None) -> Any:
    """Loads the stream that stands next in a file, and reads no further. ``EOFError`` if there is none."""
    return loads(_read_stream(file), buffers=buffers, allow=allow)


# Magic, version and flags; then the length of the head as a varint of at most ten bytes.
_FIXED_LEN = 6
_MAGIC = b"\xc1chm"
# Bytes that are read at once, whatever a length says.
_PORTION = 64 << 20


def _read_stream(file: IO[bytes]) -> bytes:
    head = _read(file, _FIXED_LEN)
    if not head:
        raise EOFError("the file is at its end: no stream follows")
    if head[:4] != _MAGIC or len(head) < _FIXED_LEN:
        # Not ours: its beginning says what it is.
        return head
    head_len = shift = 0
    while shift < 70:
        byte = file.read(1)
        head += byte
        if not byte:
            return head
        head_len |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            break
    head += _read(file, head_len)
    return head + _read(file, _chipmink.stream_len(head) - len(head))


def _read(file: IO[bytes], byte_len: int) -> bytes:
    """So many bytes, or all that are left: a pipe or an unbuffered file gives as many at once as it likes."""
    parts: list[bytes] = []
    missing = byte_len
    # What a length says that is not true must not cost its memory, so more is asked for only once that much was there.
    portion = _PORTION
    while missing > 0 and (data := file.read(min(missing, portion))):
        parts.append(data)
        missing -= len(data)
        portion = max(portion, byte_len - missing)
    return parts[0] if len(parts) == 1 else b"".join(parts)
