"""Where the memory of an array on a CUDA device lies, by DLPack.

The capsule that ``__dlpack__`` gives is read and never consumed: as long as it lives the memory stays allocated, and its own
destructor gives it back. Layouts are those of ``dlpack.h``, version 0.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

__all__ = ["LEGACY_STREAM", "Borrowed", "borrow"]

LEGACY_STREAM = 1
"""What DLPack calls the legacy default stream of CUDA, whose handle is 0."""

_CUDA, _CUDA_MANAGED = 2, 13
_NAME = b"dltensor"


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_kind", ctypes.c_int32),
        ("device_index", ctypes.c_int32),
        ("dimension_count", ctypes.c_int32),
        ("type_code", ctypes.c_uint8),
        ("type_bits", ctypes.c_uint8),
        ("type_lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


@dataclass(frozen=True)
class Borrowed:
    """Memory of an array that lies in one piece, in the order of its elements."""

    capsule: Any
    """Keeps it allocated."""
    index: int
    """The device."""
    address: int
    """Of the first element."""
    shape: tuple[int, ...]
    """Elements along each axis."""
    byte_len: int
    """Bytes of all elements."""


_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype, _pointer_of.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


def borrow(array: Any) -> Borrowed | None:
    """The memory of an array as it is when the legacy default stream comes to this point; ``None``: it is not on a CUDA device, or
    not in one piece.
    """
    try:
        kind, _ = array.__dlpack_device__()
        if kind not in (_CUDA, _CUDA_MANAGED):
            return None
        capsule = array.__dlpack__(stream=LEGACY_STREAM)
        tensor = _Tensor.from_address(_pointer_of(capsule, _NAME))
    except (AttributeError, TypeError, ValueError, RuntimeError, BufferError):
        # As each library says that an array is spread over devices, or of a type that DLPack does not know.
        return None
    bits = tensor.type_bits * tensor.type_lanes
    shape = tuple(tensor.shape[axis] for axis in range(tensor.dimension_count))
    count = 1
    for axis in reversed(range(len(shape))):
        if tensor.strides and shape[axis] > 1 and tensor.strides[axis] != count:
            return None
        count *= shape[axis]
    if bits % 8:
        return None
    return Borrowed(capsule, tensor.device_index, (tensor.data or 0) + tensor.byte_offset, shape, count * bits // 8)
