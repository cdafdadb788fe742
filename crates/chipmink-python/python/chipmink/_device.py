"""Reducers for memory of devices, and the functions that make it again.

1. Memory of a device is saved as a whole, where it was allocated: tensors and arrays over one allocation are so again.
2. If the device can digest its memory (a driver, NVRTC, enough room), only what changed is copied to the host; else all of it is.
   ``unusable`` says why.
3. A load brings memory back to the device it came from, or where ``map_location`` says. What has no such device here stays on
   the host, with a ``DeviceWarning``; a load never fails for it.
4. Nothing is held of the memory between saves, only where it lies.
5. In which streams the program writes is asked in its own thread: libraries know a present stream for each thread.

The names of the ``make_`` and ``fill_`` functions are part of format version 1, as those of ``chipmink._rebuild`` are.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import importlib.util
import math
import os
import sys
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from chipmink import _chipmink, _dlpack
from chipmink._errors import DeviceWarning, UnsupportedError
from chipmink._markers import Context, DeviceBytes

__all__ = [
    "BY_NAME",
    "REDUCERS",
    "DeviceMemory",
    "allocate",
    "cache_folder",
    "compiler_libraries",
    "fill_device_memory",
    "fill_tensor",
    "host_content",
    "label_of",
    "make_device_array",
    "make_device_memory",
    "placing",
    "refuse_capture",
    "saving_from",
    "storage_memory",
    "storage_of",
    "storage_spans",
    "unusable",
]

_UPLOAD_LEN = 65536
"""Below it, a copy to a device does not pay a way of its own."""


# --- what the device tier asks for ------------------------------------------------------------------------------------


def compiler_libraries() -> list[str]:
    """Files of NVRTC that wheels have brought, newest first: it must know the device."""
    spec = importlib.util.find_spec("nvidia") if "nvidia" not in sys.modules else sys.modules["nvidia"].__spec__
    found: list[str] = []
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        found += (str(file) for file in Path(place).glob("*/lib/libnvrtc.so.*[0-9]"))

    def version(file: str) -> tuple[int, ...]:
        return tuple(int(part) for part in file.partition(".so.")[2].split(".") if part.isdigit())

    # The symbolic names and the alternative build for older devices of the same version stand behind.
    return sorted((file for file in found if "builtins" not in file), key=lambda file: (version(file), ".alt." not in file), reverse=True)


def cache_folder() -> str | None:
    """Where compiled kernels are kept: below ``CHIPMINK_CACHE``, else below the cache folder of the user."""
    named = os.environ.get("CHIPMINK_CACHE")
    if named:
        return named
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return str((Path(base) if base else Path.home() / ".cache") / "chipmink")
    except RuntimeError:
        return None


def allocate(index: int, byte_len: int) -> tuple[int, Any] | None:
    """Memory of a device from the pool of PyTorch, if the program uses it there: its address, and what keeps it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    try:
        memory = torch.empty(byte_len, dtype=torch.uint8, device=f"cuda:{index}")
    except torch.cuda.OutOfMemoryError as error:
        raise MemoryError(f"{byte_len} bytes on cuda:{index}") from error
    # What had the memory before may still be using it in this stream, of which alone the pool takes care.
    torch.cuda.current_stream(index).synchronize()
    return memory.data_ptr(), memory


_reasons: dict[int, str | None] = {}


def unusable(index: int) -> str | None:
    """Why a device cannot digest its memory; ``None``: it can."""
    if index not in _reasons:
        _reasons[index] = reason = _chipmink.device_unusable(index, compiler_libraries(), cache_folder())
        if reason is not None:
            warnings.warn(f"memory of cuda:{index} is copied to the host as a whole at each save: {reason}", DeviceWarning, stacklevel=2)
    return _reasons[index]


# --- saving -----------------------------------------------------------------------------------------------------------


class DeviceMemory:
    """Stands for an allocation on a device; it loads as what such memory is made of."""

    __slots__ = ("__weakref__", "address", "byte_len", "hold", "label", "owner", "read", "streams")

    def __init__(self, owner: Any, label: str, address: int, byte_len: int) -> None:
        # A weak reference to what has the memory.
        self.owner = weakref.ref(owner)
        self.label = label
        self.address = address
        self.byte_len = byte_len
        # How its library copies it to the host, and the streams in which it writes.
        self.read: Callable[[Any], Any] = bytearray
        self.streams: Callable[[int], list[int]] = _no_streams
        # What must live so that the memory stays as it is until it was read.
        self.hold: Callable[[Any], Any] = _itself


# By what has the memory: one object for each allocation over all walks, so that the walker's memo knows it again.
_memories: weakref.WeakKeyDictionary[Any, DeviceMemory] = weakref.WeakKeyDictionary()


def _no_streams(index: int) -> list[int]:
    return []


def _itself(owner: Any) -> Any:
    return owner


def _memory(owner: Any, label: str, address: int, byte_len: int) -> DeviceMemory:
    known = _memories.get(owner)
    if known is None or (known.label, known.address, known.byte_len) != (label, address, byte_len):
        known = _memories[owner] = DeviceMemory(owner, label, address, byte_len)
    return known


def label_of(tensor: Any) -> str | None:
    """The device of a tensor of PyTorch, as ``cuda:0``; ``None``: it is the host."""
    device = tensor.device
    if device.type == "cpu":
        return None
    return device.type if device.index is None else f"{device.type}:{device.index}"


def storage_memory(storage: Any, label: str) -> DeviceMemory:
    """The allocation of a torch storage."""
    memory = _memory(storage, label, storage.data_ptr(), storage.nbytes())
    memory.read, memory.streams = _read_storage, _torch_streams
    return memory


def _read_storage(storage: Any) -> bytearray:
    torch: Any = importlib.import_module("torch")
    shown = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage, 0, (storage.nbytes(),), (1,))
    return bytearray(memoryview(shown.cpu().numpy()))


def _torch_streams(index: int) -> list[int]:
    torch: Any = importlib.import_module("torch")
    return sorted({torch.cuda.current_stream(index).cuda_stream, torch.cuda.default_stream(index).cuda_stream})


def refuse_capture() -> None:
    """Raises if what the program enqueues is recorded into a CUDA graph: a copy to the host would spoil the graph."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
        raise UnsupportedError("not saved: the present stream is being captured into a CUDA graph; save outside of the capture")


def reduce_device_memory(memory: DeviceMemory, ctx: Context) -> tuple[Any, ...]:
    """Where it was, its length, and its bytes."""
    owner = memory.owner()
    if owner is None:
        raise ValueError("memory of a device was let go of while it was saved")
    kind, _, index = memory.label.partition(":")
    content: Any
    if ctx.namespace is not None and kind == "cuda" and memory.byte_len and unusable(int(index or 0)) is None:
        number = int(index or 0)
        streams, is_deferred = _streams_of(memory, number)
        content = DeviceBytes(memory.hold(owner), number, memory.address, memory.byte_len, streams, is_deferred)
    else:
        content = memory.read(owner)
    return make_device_memory, (memory.label, memory.byte_len), content, None, None, fill_device_memory


_Streams = dict[Callable[[int], list[int]], dict[int, list[int]]]
_thread: contextvars.ContextVar[tuple[_Streams, frozenset[tuple[int, int]]]] = contextvars.ContextVar("thread")


@contextlib.contextmanager
def saving_from(indices: Iterable[int], deferred: frozenset[tuple[int, int]] = frozenset()) -> Iterator[None]:
    """Saves within, in whichever thread, are of what the program has enqueued in the present streams of this one.

    ``deferred`` are devices and addresses of memory to which the program writes at one place alone, which has a fence.
    """
    refuse_capture()
    known: _Streams = {}
    for library, streams in (("torch", _torch_streams), ("cupy", _cupy_streams)):
        if library in sys.modules:
            known[streams] = {index: streams(index) for index in indices}
    token = _thread.set((known, deferred))
    try:
        yield
    finally:
        _thread.reset(token)


def _streams_of(memory: DeviceMemory, index: int) -> tuple[list[int], bool]:
    known, deferred = _thread.get(({}, frozenset()))
    streams = known.get(memory.streams, {}).get(index)
    return (memory.streams(index) if streams is None else streams), (index, memory.address) in deferred


def storage_spans(tensors: Iterable[Any]) -> list[tuple[int, int, int, list[int], bool]]:
    """Where tensors lie on devices that can digest it: device, address, length, streams, and whether it is deferred."""
    found = {}
    for tensor in tensors:
        kind, _, index = (label_of(tensor) or "").partition(":")
        storage = tensor.untyped_storage() if kind == "cuda" else None
        number = int(index or 0)
        if storage is not None and storage.nbytes() and unusable(number) is None:
            memory = storage_memory(storage, f"{kind}:{number}")
            found[number, memory.address] = (number, memory.address, memory.byte_len, *_streams_of(memory, number))
    return list(found.values())


# --- loading ----------------------------------------------------------------------------------------------------------


class _Loaded:
    """Memory of a device that is being loaded: its bytes on the host until somebody needs them elsewhere."""

    __slots__ = ("__weakref__", "byte_len", "content", "label", "made")

    def __init__(self, label: str, byte_len: int) -> None:
        self.label = label
        self.byte_len = byte_len
        self.content: Any = bytearray()
        # What a library has made of it, by the name of the library.
        self.made: dict[str, Any] = {}


def make_device_memory(label: str, byte_len: int) -> _Loaded:
    """Makes what stands for memory of a device; its content comes by ``fill_device_memory``."""
    return _Loaded(label, byte_len)


def fill_device_memory(loaded: _Loaded, content: Any) -> None:
    """Sets the content."""
    if memoryview(content).nbytes != loaded.byte_len:
        raise ValueError(f"memory of a device has {memoryview(content).nbytes} bytes instead of {loaded.byte_len}; the version is damaged")
    loaded.content = content


_map_location: contextvars.ContextVar[Any] = contextvars.ContextVar("map_location", default=None)


@contextlib.contextmanager
def placing(map_location: Any) -> Iterator[None]:
    """Says where memory of devices goes in the loads within: ``None``, a device, a dict of devices, or a function of the label."""
    token = _map_location.set(map_location)
    try:
        yield
    finally:
        _map_location.reset(token)


def _wanted(label: str) -> str:
    where = _map_location.get()
    if callable(where):
        where = where(label)
    elif isinstance(where, Mapping):
        where = next((value for key, value in where.items() if str(key) == label), None)
    return label if where is None else str(where)


def _on_host(label: str, reason: str) -> None:
    warnings.warn(f"what was on {label} was loaded to the host: {reason}", DeviceWarning, stacklevel=3)


def storage_of(loaded: _Loaded) -> Any:
    """The torch storage with the content, the same each time."""
    known = loaded.made.get("torch")
    if known is None:
        torch: Any = importlib.import_module("torch")
        host = torch.empty(0, dtype=torch.uint8, device="cpu")
        if loaded.byte_len:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of memory that is not writable; it is private
                host = torch.frombuffer(loaded.content, dtype=torch.uint8)
        wanted = _wanted(loaded.label)
        known = loaded.made["torch"] = _to_torch_device(torch, host, wanted).untyped_storage()
        loaded.content = bytearray()
    return known


def fill_tensor(target: Any, source: Any) -> bool:
    """Copies a tensor of the host to one of a device through pinned memory. ``False``: not this way; nothing was done."""
    kind, _, index = (label_of(target) or "").partition(":")
    number = int(index or 0)
    if kind != "cuda" or target.nbytes < _UPLOAD_LEN or label_of(source) is not None:
        return False
    if target.dtype != source.dtype or not (target.is_contiguous() and source.is_contiguous()) or source.is_conj() or source.is_neg():
        return False
    if target.is_conj() or target.is_neg() or target.shape != source.shape:
        return False
    try:
        _chipmink.device_upload(number, [(target.data_ptr(), source.data_ptr(), target.nbytes)], _torch_streams(number))
    except (OSError, MemoryError):
        # The library finds its own way, or says what is wrong: there may be no room for pinned memory, or no driver of NVIDIA's.
        return False
    return True


def _to_torch_device(torch: Any, host: Any, label: str) -> Any:
    if label == "cpu":
        return host
    try:
        made = torch.empty(host.shape, dtype=host.dtype, device=label)
        if not fill_tensor(made, host):
            made.copy_(host)
        return made
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # Whatever there is none of: the driver, the device, its backend in this build, or room on it.
        _on_host(label, str(error).splitlines()[0] if str(error) else type(error).__name__)
        return host


def host_content(loaded: _Loaded) -> Any:
    """An array of numpy over the content, the same each time."""
    known = loaded.made.get("numpy")
    if known is None:
        import numpy

        known = loaded.made["numpy"] = numpy.frombuffer(loaded.content, dtype=numpy.uint8)
    return known


# --- arrays with __cuda_array_interface__ -----------------------------------------------------------------------------


def reduce_cupy(array: Any, ctx: Context) -> Any:
    """The allocation of an array of CuPy, and where its elements lie in it."""
    cupy: Any = importlib.import_module("cupy")
    if type(array) is not cupy.ndarray:
        return array.__reduce_ex__(5)
    root = array
    while root.base is not None:
        root = root.base
    memory = _memory(root, f"cuda:{array.device.id}", root.data.ptr, root.nbytes)
    memory.read, memory.streams = _read_cupy, _cupy_streams
    first = array.data.ptr - root.data.ptr
    return make_device_array, ("cupy", memory, array.dtype, first, array.shape, array.strides)


def _read_cupy(root: Any) -> bytearray:
    # The same memory in the order in which it lies.
    flat = root.ravel(order="K")
    return bytearray(memoryview(flat.get()).cast("B"))


def _cupy_streams(index: int) -> list[int]:
    cupy: Any = importlib.import_module("cupy")
    return sorted({cupy.cuda.get_current_stream().ptr, cupy.cuda.Stream.null.ptr})


def reduce_contiguous(array: Any, ctx: Context) -> Any:
    """An array of Numba or JAX that lies on one CUDA device in one piece; others as their library has it."""
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is None:
        return _reduce_by_dlpack(array)
    if interface.get("strides") is not None or interface.get("mask") is not None:
        return array.__reduce_ex__(5)
    import numpy

    dtype = numpy.dtype(array.dtype)
    memory = _memory(array, f"cuda:{_index_of(array)}", interface["data"][0], int(array.nbytes))
    stream = interface.get("stream")
    memory.read = _read_contiguous
    memory.streams = lambda index: [0] if stream is None else sorted({0, stream})
    return _described(array, memory, dtype, tuple(interface["shape"]))


def _reduce_by_dlpack(array: Any) -> Any:
    """An array whose type the other interface does not know, such as one of bfloat16."""
    borrowed = _dlpack.borrow(array) if hasattr(array, "__dlpack_device__") else None
    if borrowed is None:
        return array.__reduce_ex__(5)
    import numpy

    dtype = numpy.dtype(array.dtype)
    memory = _memory(array, f"cuda:{borrowed.index}", borrowed.address, borrowed.byte_len)
    memory.read = _read_contiguous
    # What was enqueued before is ordered before the legacy stream by each capsule, which also keeps the memory from being
    # given away while it is read.
    memory.hold = lambda owner: (owner, _dlpack.borrow(owner))
    memory.streams = lambda index: [0]
    return _described(array, memory, dtype, borrowed.shape)


def _described(array: Any, memory: DeviceMemory, dtype: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    library = type(array).__module__.partition(".")[0].removesuffix("lib")
    strides = tuple(dtype.itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    return make_device_array, (library, memory, dtype, 0, shape, strides)


def _read_contiguous(array: Any) -> bytearray:
    import numpy

    host = numpy.ascontiguousarray(_to_host(array))
    # Through bytes, since a memoryview does not know every type of element.
    return bytearray(memoryview(host.reshape(-1).view(numpy.uint8)))


def _to_host(array: Any) -> Any:
    if hasattr(array, "copy_to_host"):
        return array.copy_to_host()
    import numpy

    return numpy.asarray(array)


def _index_of(array: Any) -> int:
    devices = getattr(array, "devices", None)
    if callable(devices):
        (device,) = devices()
        local = getattr(device, "local_hardware_id", None)
        return int(device.id if local is None else local)
    context = getattr(getattr(array, "gpu_data", None), "context", None)
    return int(getattr(getattr(context, "device", None), "id", 0))


def make_device_array(library: str, loaded: _Loaded, dtype: Any, first: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    """Makes an array of a library over loaded memory; an array of numpy, if the device or the library is not here."""
    import numpy

    wanted = _wanted(loaded.label)
    host = numpy.ndarray(shape, dtype, host_content(loaded), first, strides)
    if wanted == "cpu":
        return host
    try:
        return _MAKERS[library](loaded, int(wanted.partition(":")[2] or 0), host, first)
    except Exception as error:  # Each library has errors of its own for what is not there.
        _on_host(wanted, f"{type(error).__name__}: {error}")
        return host


def _make_cupy(loaded: _Loaded, index: int, host: Any, first: int) -> Any:
    cupy: Any = importlib.import_module("cupy")
    with cupy.cuda.Device(index):
        root = loaded.made.get("cupy")
        if root is None:
            root = loaded.made["cupy"] = cupy.asarray(host_content(loaded))
        return cupy.ndarray(host.shape, host.dtype, memptr=root.data + first, strides=host.strides)


def _make_numba(loaded: _Loaded, index: int, host: Any, first: int) -> Any:
    cuda: Any = importlib.import_module("numba.cuda")
    with cuda.gpus[index]:
        return cuda.to_device(host)


def _make_jax(loaded: _Loaded, index: int, host: Any, first: int) -> Any:
    jax: Any = importlib.import_module("jax")
    return jax.device_put(host, jax.devices("gpu")[index])


_MAKERS: dict[str, Callable[[_Loaded, int, Any, int], Any]] = {"cupy": _make_cupy, "numba": _make_numba, "jax": _make_jax}

REDUCERS: dict[type, Any] = {DeviceMemory: reduce_device_memory}

# Classes found by their name among the bases of a type, so that nothing has to be imported for it.
BY_NAME: dict[tuple[str, str], Any] = {
    ("cupy", "ndarray"): reduce_cupy,
    ("numba.cuda.cudadrv.devicearray", "DeviceNDArray"): reduce_contiguous,
    ("jaxlib._jax", "ArrayImpl"): reduce_contiguous,
    ("jaxlib.xla_extension", "ArrayImpl"): reduce_contiguous,
}
