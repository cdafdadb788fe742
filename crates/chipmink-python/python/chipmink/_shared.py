"""Reducers for memory that other processes share, and the functions that make it again.

1. What is shared is told by device and inode: all that is mapped here of one segment, by whomever, is over one segment again.
2. A load makes a new segment, under a name that nobody had, and never writes to one that exists. The name is given only
   once the content is complete, and only if the saved one had a name too.
3. The segment belongs to the process that loaded it. Its name is removed by ``unlink()``, else once nothing of the load
   refers to the segment any more, else when the process ends; if it is killed, by Python's resource tracker, which knows
   the name as that of a segment made with ``SharedMemory(create=True)``. Memory that is mapped stays as it is.
4. Nothing is held of the memory between saves, only where it lies.

The names of the ``make_`` and ``fill_`` functions are part of format version 1, as those of ``chipmink._rebuild`` are.
"""

from __future__ import annotations

import copyreg
import errno
import importlib
import mmap
import os
import secrets
import sys
import weakref
from typing import Any

from chipmink import _chipmink
from chipmink._errors import UnsupportedError
from chipmink._markers import Context, SharedBytes, Side, Stub, place_of

__all__ = [
    "BY_NAME",
    "REDUCERS",
    "StorageMemory",
    "fill_mapping",
    "fill_segment",
    "has_value",
    "is_mapping",
    "make_mapping",
    "make_private_mapping",
    "make_segment",
    "make_shared_memory",
    "make_view",
    "may_share_memory",
    "reduce_view",
    "segment_storage",
    "shared_owner",
    "storage_segment",
    "take_new",
]

_FOLDER = "/dev/shm"


# --- saving ----------------------------------------------------------------------------------------------------------


class Segment:
    """Stands for the shared memory that objects of the program have mapped; it loads as a mapping of new shared memory."""

    __slots__ = ("__weakref__", "address", "byte_len", "owner", "path")

    def __init__(self, byte_len: int) -> None:
        self.byte_len = byte_len
        self.address = 0
        # What has it mapped at the address: a weak reference.
        self.owner: Any = None
        self.path: str | None = None


# One object for each segment over all walks, so that the walker's memo knows it again: by device, inode, offset and length.
_segments: weakref.WeakValueDictionary[tuple[int, int, int, int], Segment] = weakref.WeakValueDictionary()
# By what has the segment mapped.
_holders: weakref.WeakKeyDictionary[Any, Segment] = weakref.WeakKeyDictionary()


def _segment(owner: Any, found: Any, byte_len: int) -> Segment | None:
    """The segment that lies where something was found, if what is mapped there is shared memory."""
    if found is None:
        return None
    address, _, kind, device, inode, byte_offset, path = found
    if kind != "shared":
        return None
    key = (device, inode, byte_offset, byte_len)
    segment = _segments.get(key)
    if segment is None:
        segment = _segments[key] = Segment(byte_len)
    segment.address, segment.path, segment.owner = address, path, weakref.ref(owner)
    _holders[owner] = segment
    return segment


def _mapped_segment(mapping: Any) -> Segment | None:
    found = _chipmink.mapping_of(mapping)
    return None if found is None else _segment(mapping, found, found[1])


def storage_segment(storage: Any) -> Segment | None:
    """The segment of a torch storage in shared memory."""
    return _segment(storage, _chipmink.mapping_of(storage.data_ptr()), storage.nbytes())


class StorageMemory:
    """What an array is made of over the memory of a storage of torch.

    Of ``Tensor.numpy`` a program would notice: its storage could not be resized from then on.
    """

    __slots__ = ("__array_interface__", "storage")

    def __init__(self, storage: Any) -> None:
        self.storage = storage
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (storage.nbytes(),),
            "data": (storage.data_ptr(), False),
        }


def may_share_memory(kind: type) -> bool:
    """Whether objects of a type that own the memory of arrays may share it with other processes."""
    return is_mapping(kind) or kind is StorageMemory or _is_tensor(kind)


def is_mapping(kind: type) -> bool:
    """Whether objects of a type are mapped memory."""
    return issubclass(kind, mmap.mmap)


def _is_tensor(kind: type) -> bool:
    return place_of(kind) == ("torch", "Tensor")


def shared_owner(base: Any) -> tuple[Any, tuple[int, int] | None]:
    """What an array over the memory of ``base`` is stored as a view of, with address and length.

    Without these: ``base`` itself, if at all; ``(None, None)``: it cannot be stored.
    """
    is_memory = type(base) is StorageMemory
    if is_memory or _is_tensor(type(base)):
        storage = base.storage if is_memory else base.untyped_storage()
        # Memory of torch's own can be resized.
        if storage.device.type != "cpu" or storage.resizable():
            return (base, None)
        if storage.is_shared():
            segment = storage_segment(storage)
        else:
            found = _chipmink.mapping_of(storage.data_ptr(), whole=True)
            segment = None if found is None else _segment(storage, found, found[1])
        return (base, None) if segment is None else (segment, (segment.address, segment.byte_len))
    found = _chipmink.mapping_of(base)
    if found is None or found[2] == "file":
        return (None, None)
    segment = _segment(base, found, found[1])
    if segment is None:
        # One of a subclass is not saved itself.
        return (base if type(base) is mmap.mmap else None, None)
    return (segment, (segment.address, segment.byte_len))


def reduce_segment(segment: Segment, ctx: Context) -> tuple[Any, ...]:
    """Its length, whether it has a name, and its bytes."""
    owner = segment.owner()
    if owner is None:
        raise ValueError("shared memory was let go of while it was saved")
    name = "" if segment.path is None else segment.path.removeprefix(_FOLDER + "/")
    arguments = (segment.byte_len, bool(name), Side(name))
    content = SharedBytes(owner, segment.address, segment.byte_len)
    return make_segment, arguments, content, None, None, fill_segment


def reduce_shared_memory(shm: Any, ctx: Context) -> Any:
    """The segment, and what has it mapped; in a stream the name alone, as pickle has it."""
    if ctx.namespace is None:
        return shm.__reduce_ex__(5)
    name = f"{type(shm).__module__}.{type(shm).__qualname__}"
    if shm._mmap is None or shm._buf is None:
        return Stub("shared-memory", name, f"it was closed, and its name was {shm.name!r}; save it before it is closed")
    segment = _mapped_segment(shm._mmap)
    if segment is None:
        return Stub("shared-memory", name, f"its name was {shm.name!r}; shared memory is saved on Linux only")
    more = {key: value for key, value in shm.__dict__.items() if key not in _ATTRIBUTES}
    arguments = (type(shm), segment, shm._mmap, shm._buf)
    return (make_shared_memory, arguments, more) if more else (make_shared_memory, arguments)


_HANDLE = "_chipmink_segment"
_ATTRIBUTES = frozenset(
    {"_buf", "_fd", "_flags", "_mmap", "_mode", "_name", "_prepend_leading_slash", "_size", "_track", _HANDLE}
)


def reduce_shareable_list(items: Any, ctx: Context) -> Any:
    """Its shared memory and how that is divided; in a stream the name alone, as pickle has it."""
    if ctx.namespace is None:
        return items.__reduce_ex__(5)
    return copyreg.__newobj__, (type(items),), dict(items.__dict__)  # type: ignore[attr-defined]


def reduce_mapping(mapping: mmap.mmap, ctx: Context) -> Any:
    """Memory by value: shared memory as such, private memory as such. A file is not opened again."""
    registered = copyreg.dispatch_table.get(type(mapping))
    if registered is not None:
        return registered(mapping)
    name = f"{type(mapping).__module__}.{type(mapping).__qualname__}"
    if type(mapping) is not mmap.mmap or ctx.namespace is None:
        return Stub("mapping", name, "it was mapped memory of the process that saved it")
    if mapping.closed:
        return Stub("mapping", name, "it was closed")
    found = _chipmink.mapping_of(mapping)
    segment = None if found is None else _segment(mapping, found, found[1])
    if segment is not None:
        return make_mapping, (segment, memoryview(mapping).readonly, mapping.tell())
    if found is None or found[2] != "private":
        return Stub("mapping", name, "it was a memory-mapped file; files are not opened again")
    content = SharedBytes(mapping, found[0], found[1])
    return make_private_mapping, (found[1], mapping.tell()), content, None, None, fill_mapping


def has_value(mapping: mmap.mmap) -> bool:
    """Whether a mapping is saved by value: it is not if it shows a file."""
    return type(mapping) is mmap.mmap and shared_owner(mapping)[0] is not None


def reduce_view(view: memoryview, base: mmap.mmap) -> tuple[Any, ...] | None:
    """A view of a part of mapped memory; ``None`` if it is in several pieces, or the memory has no value of its own."""
    if not view.c_contiguous or not view.nbytes:
        return None
    owner, span = shared_owner(base)
    found, part = _chipmink.mapping_of(base), _chipmink.mapping_of(view)
    if owner is None or found is None or part is None:
        return None
    start = part[0] - (found[0] if span is None else span[0])
    return make_view, (owner, start, part[1], view.format, view.shape, view.readonly)


# --- loading ---------------------------------------------------------------------------------------------------------


class _Handle:
    """Shared memory that a load has made: its descriptor, and its name once it has one."""

    __slots__ = ("__weakref__", "descriptor", "has_name", "is_new", "names", "storage")

    def __init__(self, descriptor: int, has_name: bool) -> None:
        self.descriptor = descriptor
        self.has_name = has_name
        self.is_new = True
        self.names: list[str] = []
        self.storage: Any = None
        weakref.finalize(self, _let_go, descriptor, self.names, os.getpid())

    def name(self) -> str:
        """Its name, which it is given now if it has none yet."""
        if self.names:
            return self.names[0]
        while True:
            name = f"psm_{secrets.token_hex(4)}"
            if not self.has_name:
                # What was saved had lost its name: it is called something, and nothing is found under that.
                if not os.path.lexists(f"{_FOLDER}/{name}"):
                    return name
                continue
            try:
                _give_name(self.descriptor, name)
            except FileExistsError:
                continue
            self.names.append(name)
            _tracker().register(f"/{name}", "shared_memory")
            return name


def _give_name(descriptor: int, name: str) -> None:
    folder = os.open(_FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # With a folder given, the link that stands for the descriptor is followed.
        os.link(f"/proc/self/fd/{descriptor}", name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def _let_go(descriptor: int, names: list[str], process: int) -> None:
    for name in names:
        path = f"{_FOLDER}/{name}"
        try:
            # A forked child has a copy of what is not its own; a name that was removed may be another segment's now.
            if os.getpid() == process and os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor)):
                os.unlink(path)
                _tracker().unregister(f"/{name}", "shared_memory")
        except FileNotFoundError:
            pass
    os.close(descriptor)


def _tracker() -> Any:
    from multiprocessing import resource_tracker

    return resource_tracker


# What mappings show that a load has made.
_handles: weakref.WeakKeyDictionary[mmap.mmap, _Handle] = weakref.WeakKeyDictionary()


def make_segment(byte_len: int, has_name: bool, label: str) -> mmap.mmap:
    """Makes shared memory with all its space reserved, and maps it; its content comes by ``fill_segment``.

    ``label`` is the name that it had when it was saved.
    """
    if sys.platform != "linux":
        raise UnsupportedError("shared memory was saved, which is made again on Linux only; load the other variables by name")
    try:
        if has_name:
            flags = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
            descriptor = os.open(_FOLDER, flags, 0o600)
        else:
            descriptor = os.memfd_create("chipmink")
        handle = _Handle(descriptor, has_name)
        # Without it, writing where there is no memory left would end the process.
        os.posix_fallocate(descriptor, 0, byte_len)
        mapping = mmap.mmap(descriptor, byte_len)
    except OSError as error:
        what = f"{byte_len} bytes of shared memory, as {label!r} had" if label else f"{byte_len} bytes of shared memory"
        hint = f"; make room in {_FOLDER}, or load the other variables by name" if error.errno == errno.ENOSPC else ""
        raise OSError(error.errno, f"{what}, cannot be made: {error.strerror}{hint}") from error
    _handles[mapping] = handle
    return mapping


def take_new(mapping: Any) -> bool:
    """Whether this is shared memory that was just made, and not filled; says so once."""
    handle = _handles.get(mapping) if type(mapping) is mmap.mmap else None
    if handle is None or not handle.is_new:
        return False
    handle.is_new = False
    return True


def fill_segment(mapping: mmap.mmap, content: Any) -> None:
    """Sets the content of new shared memory; ``None``: it is there already."""
    if content is not None:
        fill_mapping(mapping, content)


def fill_mapping(mapping: mmap.mmap, content: Any) -> None:
    """Sets the content of new mapped memory."""
    mapping[:] = content


def _handle(mapping: Any) -> _Handle:
    handle = _handles.get(mapping) if type(mapping) is mmap.mmap else None
    if handle is None:
        raise ValueError("what stands for shared memory is none that was just made; the version is damaged")
    return handle


def make_mapping(segment: mmap.mmap, is_read_only: bool, position: int) -> mmap.mmap:
    """Maps a segment once more."""
    handle = _handle(segment)
    made = mmap.mmap(handle.descriptor, len(segment), access=mmap.ACCESS_READ if is_read_only else mmap.ACCESS_WRITE)
    made.seek(position)
    _handles[made] = handle
    return made


def make_private_mapping(byte_len: int, position: int) -> mmap.mmap:
    """Maps memory of this process alone; its content comes by ``fill_mapping``."""
    made = mmap.mmap(-1, byte_len, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    made.seek(position)
    return made


def make_shared_memory(kind: type, segment: mmap.mmap, mapping: mmap.mmap, buf: memoryview) -> Any:
    """Makes a ``SharedMemory`` of a segment, a mapping of it and the view of that, as attaching to its name would."""
    handle = _handle(segment)
    name = handle.name()
    made: Any = object.__new__(kind)
    made._name = f"/{name}"
    made._fd = os.dup(handle.descriptor)
    made._mmap = mapping
    made._buf = buf
    made._size = len(mapping)
    made.__dict__[_HANDLE] = handle
    return made


def make_view(base: mmap.mmap, start: int, byte_len: int, format: str, shape: tuple[int, ...], is_read_only: bool) -> memoryview:
    """Makes a view of a part of a mapping."""
    view: Any = memoryview(base)[start : start + byte_len]
    if (view.format, view.shape) != (format, shape):
        view = view.cast(format) if len(shape) == 1 else view.cast(format, shape)
    return view.toreadonly() if is_read_only and not view.readonly else view  # type: ignore[no-any-return]


def segment_storage(segment: mmap.mmap) -> Any:
    """The torch storage over a segment, the same each time as long as it lives."""
    handle = _handle(segment)
    known = handle.storage and handle.storage()
    if known is None:
        torch: Any = importlib.import_module("torch")
        known = torch.UntypedStorage._new_shared_fd_cpu(handle.descriptor, len(segment))
        handle.storage = weakref.ref(known)
    return known


REDUCERS: dict[type, Any] = {Segment: reduce_segment}

# Classes found by their name among the bases of a type, so that nothing has to be imported for it.
BY_NAME: dict[tuple[str, str], Any] = {
    ("mmap", "mmap"): reduce_mapping,
    ("multiprocessing.shared_memory", "SharedMemory"): reduce_shared_memory,
    ("multiprocessing.shared_memory", "ShareableList"): reduce_shareable_list,
}
