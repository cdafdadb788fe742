"""Reducers for tensors of PyTorch, and the functions that make them again.

A tensor is saved as what it shows: an array of bytes over the part of its storage that it reaches, and where its elements
lie in it. So tensors over one storage, and arrays over the memory of a tensor, are so again after a load, and a slice does
not drag its storage along. Of storages only the memory counts: after a load one is as large as what was saved of it.
Storages on devices are saved as a whole (``chipmink._device``).

The names of the ``make_`` and ``_setstate`` functions are part of format version 1, as those of ``chipmink._rebuild`` are.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import warnings
import weakref
from typing import Any

from chipmink import _device, _shared
from chipmink._errors import DeviceWarning
from chipmink._markers import Context

__all__ = [
    "BY_NAME",
    "make_device_parameter",
    "make_device_tensor",
    "make_generator",
    "make_parameter",
    "make_shared_parameter",
    "make_shared_tensor",
    "make_storage",
    "make_tensor",
    "tensor_setstate",
]


def _library() -> Any:
    # `import_module` takes as long as all the rest of a small tensor.
    return sys.modules.get("torch") or importlib.import_module("torch")


def reduce_tensor(tensor: Any, ctx: Context) -> Any:
    """What it shows, where it lies, and its gradient; as with ``torch.save``, the computation that led to it is not kept."""
    torch = _library()
    kind = type(tensor)
    if kind not in (torch.Tensor, torch.nn.Parameter) or not _is_plain(tensor):
        return tensor.__reduce_ex__(5)
    if tensor._backward_hooks:
        warnings.warn(f"hooks of a tensor of shape {tuple(tensor.shape)} are not saved", stacklevel=2)
    flags = (1 if tensor.is_conj() else 0) | (2 if tensor.is_neg() else 0)
    maker: Any = make_parameter if kind is torch.nn.Parameter else make_tensor
    label = _device.label_of(tensor)
    storage = tensor.untyped_storage()
    is_shared = ctx.namespace is not None and label is None and storage.is_shared()
    segment = _shared.storage_segment(storage) if is_shared and storage.nbytes() else None
    shown: Any
    if label is not None:
        shown, first = _device.storage_memory(storage, label), tensor.storage_offset() * tensor.element_size()
        maker = make_device_parameter if kind is torch.nn.Parameter else make_device_tensor
    elif segment is not None:
        shown, first = segment, tensor.storage_offset() * tensor.element_size()
        maker = make_shared_parameter if kind is torch.nn.Parameter else make_shared_tensor
    else:
        # Only storages without a byte lie nowhere and are shared all the same.
        flags |= 4 if is_shared else 0
        # The first element is that of what is shown, since torch has no negative strides.
        shown, first = _shown(tensor), 0
    layout = (shown, str(tensor.dtype).removeprefix("torch."), first, tuple(tensor.shape), tensor.stride())
    arguments = (*layout, tensor.requires_grad, flags)
    state = {"grad": tensor.grad} if tensor.is_leaf and tensor.grad is not None else {}
    if tensor.__dict__:
        state["attributes"] = dict(tensor.__dict__)
    # PyTorch up to 2.14 has named dimensions.
    if getattr(tensor, "has_names", bool)():
        state["names"] = tensor.names
    return (maker, arguments, state, None, None, tensor_setstate) if state else (maker, arguments)


def _is_plain(tensor: Any) -> bool:
    torch = _library()
    return (
        tensor.device.type != "meta"
        and tensor.layout is torch.strided
        and not tensor.is_quantized
        and not tensor.is_nested
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )


def _shown(tensor: Any) -> Any:
    """The bytes that a tensor reaches, over its own memory."""
    import numpy

    storage = tensor.untyped_storage()
    if tensor.numel() == 0 or storage.nbytes() == 0:
        return numpy.empty(0, dtype="u1")
    memory = numpy.asarray(_shared.StorageMemory(storage))
    size = tensor.element_size()
    start = tensor.storage_offset() * size
    end = start + size + sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True)) * size
    return memory[start:end]


def make_tensor(
    shown: Any,
    dtype: str,
    first: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    requires_grad: bool,
    flags: int,
) -> Any:
    """Makes a tensor over the memory of an array of bytes; ``first`` counts bytes, ``strides`` count elements."""
    torch = _library()
    kind = getattr(torch, dtype)
    storage, start = _storage(shown)
    made = torch.empty(0, dtype=kind, device="cpu")
    size = made.element_size()
    if (start + first) % size:
        # The part of the storage that was saved begins between two elements.
        storage, start = _storage(shown.copy())
    made.set_(storage, (start + first) // size, shape, strides)
    if flags & 4:
        made.share_memory_()
    return _finished(made, requires_grad, flags)


def _finished(made: Any, requires_grad: bool, flags: int) -> Any:
    torch = _library()
    if flags & 1:
        made = torch._conj(made)
    if flags & 2:
        made = torch._neg_view(made)
    return made.requires_grad_(requires_grad)


def make_shared_tensor(
    segment: Any,
    dtype: str,
    first: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    requires_grad: bool,
    flags: int,
) -> Any:
    """Makes a tensor in shared memory; ``first`` counts bytes, ``strides`` count elements."""
    torch = _library()
    made = torch.empty(0, dtype=getattr(torch, dtype), device="cpu")
    made.set_(_shared.segment_storage(segment), first // made.element_size(), shape, strides)
    return _finished(made, requires_grad, flags)


def make_shared_parameter(segment: Any, dtype: str, first: int, *rest: Any) -> Any:
    """Makes a parameter in shared memory, of what such a tensor is made of."""
    shape, strides, requires_grad, flags = rest
    tensor = make_shared_tensor(segment, dtype, first, shape, strides, False, flags)
    return _library().nn.Parameter(tensor, requires_grad)


def make_device_tensor(
    memory: Any,
    dtype: str,
    first: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    requires_grad: bool,
    flags: int,
) -> Any:
    """Makes a tensor over memory of a device; ``first`` counts bytes, ``strides`` count elements."""
    torch = _library()
    storage = _device.storage_of(memory)
    made = torch.empty(0, dtype=getattr(torch, dtype), device=storage.device)
    made.set_(storage, first // made.element_size(), shape, strides)
    return _finished(made, requires_grad, flags)


def make_device_parameter(memory: Any, dtype: str, first: int, *rest: Any) -> Any:
    """Makes a parameter, of what such a tensor is made of."""
    shape, strides, requires_grad, flags = rest
    return _library().nn.Parameter(make_device_tensor(memory, dtype, first, shape, strides, False, flags), requires_grad)


def make_parameter(shown: Any, dtype: str, first: int, *rest: Any) -> Any:
    """Makes a parameter, of what a tensor is made of."""
    shape, strides, requires_grad, flags = rest
    return _library().nn.Parameter(make_tensor(shown, dtype, first, shape, strides, False, flags), requires_grad)


def _storage(shown: Any) -> tuple[Any, int]:
    """The one storage over the memory in which an array lies, and where the array begins in it."""
    import numpy

    torch = _library()
    root = shown
    while type(root.base) is numpy.ndarray:
        root = root.base
    address = root.__array_interface__["data"][0]
    start = 0 if root is shown else shown.__array_interface__["data"][0] - address
    known = _storages.get(address)
    if known is None or known.nbytes() != root.nbytes or not root.nbytes:
        # torch warns of memory that is not writable; what was saved was. (To turn warnings off takes as long as all the rest.)
        quiet = contextlib.nullcontext() if root.flags.writeable else warnings.catch_warnings(action="ignore")
        with quiet:
            known = torch.from_numpy(root.reshape(-1).view(numpy.uint8)).untyped_storage()
        _storages[address] = known
    return known, start


def reduce_storage(storage: Any, ctx: Context) -> Any:
    """Its memory, which tensors over it share; by itself it is saved as something that torch does not load."""
    import numpy

    if storage.device.type != "cpu":
        return storage.__reduce_ex__(5)
    if not storage.nbytes():
        return make_storage, (numpy.empty(0, dtype="u1"),)
    segment = _shared.storage_segment(storage) if ctx.namespace is not None and storage.is_shared() else None
    if segment is not None:
        return _shared.segment_storage, (segment,)
    return make_storage, (numpy.asarray(_shared.StorageMemory(storage)),)


def make_storage(memory: Any) -> Any:
    """Makes a storage over the memory of an array of bytes."""
    storage, start = _storage(memory)
    return storage if not start and storage.nbytes() == memory.nbytes else _storage(memory.copy())[0]


# By the address of their memory. Storages keep the arrays alive that have it, and torch keeps one object for each storage.
_storages: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def tensor_setstate(tensor: Any, state: dict[str, Any]) -> None:
    """Sets the names of dimensions, the gradient, and attributes that a program has added."""
    if "names" in state:
        with _library().no_grad():
            tensor.rename_(*state["names"])
    if "grad" in state:
        tensor.grad = state["grad"]
    tensor.__dict__.update(state.get("attributes", {}))


def reduce_generator(generator: Any, ctx: Context) -> Any:
    """Its device and state."""
    return make_generator, (str(generator.device), generator.get_state())


def make_generator(device: str, state: Any) -> Any:
    """Makes a generator of random numbers. Where there is no such device, it is one of the host that begins anew."""
    torch = _library()
    try:
        made = torch.Generator(device)
    except (RuntimeError, AssertionError) as error:
        warnings.warn(f"a generator of {device} is one of the host now, and begins anew: {error}", DeviceWarning, stacklevel=2)
        return torch.Generator()
    made.set_state(state)
    return made


# Classes found by their name among the bases of a type, so that nothing has to be imported for it.
BY_NAME: dict[tuple[str, str], Any] = {
    ("torch", "Tensor"): reduce_tensor,
    ("torch.nn.parameter", "Parameter"): reduce_tensor,
    ("torch.storage", "UntypedStorage"): reduce_storage,
    ("torch._C", "Generator"): reduce_generator,
}
